//! The spatial transformer: self-attention, cross-attention and a gated perceptron.

use tch::{Kind, Tensor};

use super::conditioning::{AttnProbe, KeyValue, LayerId, LayerIds};
use super::config::UNetConfig;
use crate::layers::{
    Conv2d, GroupNorm, LayerNorm, Linear, add, attention, merge_heads, split_heads,
};
use crate::params::Params;

/// `Attention` of diffusers: projections around the product.
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: i64,
    upcast: bool,
}

impl Attention {
    fn new(params: &Params, channels: i64, context: i64, heads: i64, upcast: bool) -> Self {
        Self {
            to_q: Linear::without_bias(&params.pp("to_q"), channels, channels),
            to_k: Linear::without_bias(&params.pp("to_k"), context, channels),
            to_v: Linear::without_bias(&params.pp("to_v"), context, channels),
            to_out: Linear::new(&params.pp("to_out.0"), channels, channels),
            heads,
            upcast,
        }
    }

    /// `x` `[B, P, C]` attends to `kv`; `[B, P, C]`.
    fn forward(&self, x: &Tensor, kv: &KeyValue) -> Tensor {
        let (q, k, v) =
            (self.to_q.forward(x), self.to_k.forward(&kv.key), self.to_v.forward(&kv.value));
        self.to_out.forward(&self.attend(&q, &k, &v))
    }

    /// The same, shown to `probe`; the probabilities are written out only where it wants them.
    fn forward_probed(
        &self,
        x: &Tensor,
        kv: &KeyValue,
        layer: LayerId,
        probe: &mut (dyn AttnProbe + '_),
    ) -> Tensor {
        let q = self.to_q.forward(x);
        let frozen = q.detach();
        let probs_over = |context: &Tensor| self.probs(&frozen, &self.to_k.forward(context));
        probe.offer(layer, &probs_over);
        let (k, v) = (self.to_k.forward(&kv.key), self.to_v.forward(&kv.value));
        if !probe.wants_probs() {
            return self.to_out.forward(&self.attend(&q, &k, &v));
        }
        let probs = self.probs(&q, &k);
        probe.observe(layer, &probs);
        let v = split_heads(&v, self.heads);
        self.to_out.forward(&merge_heads(&probs.to_kind(v.kind()).matmul(&v)))
    }

    /// The fused product of queries, keys and values, `[B, P, C]`.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        // f16 overflows in the scores of SD 2.x; bf16 has the range of f32.
        if self.upcast && q.kind() == Kind::Half {
            let [wide_q, wide_k, wide_v] = [q, k, v].map(|t| t.to_kind(Kind::Float));
            return attention(&wide_q, &wide_k, &wide_v, self.heads, false).to_kind(q.kind());
        }
        attention(q, k, v, self.heads, false)
    }

    /// The probabilities `[B, heads, P, S]` of queries `[B, P, C]` over keys `[B, S, C]`; f32 or wider, since the mean
    /// attention of a token is about 1/77, too coarse for half types.
    fn probs(&self, q: &Tensor, k: &Tensor) -> Tensor {
        let kind = if q.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let [q, k] = [q, k].map(|t| split_heads(t, self.heads).to_kind(kind));
        let scale = (q.size()[3] as f64).powf(-0.5);
        (q * scale).matmul(&k.transpose(-1, -2)).softmax(-1, kind)
    }
}

/// `GEGLU` and the projection back.
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(params: &Params, channels: i64) -> Self {
        Self {
            proj: Linear::new(&params.pp("net.0.proj"), channels, 8 * channels),
            out: Linear::new(&params.pp("net.2"), 4 * channels, channels),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let halves = self.proj.forward(x).chunk(2, -1);
        let mut gate = halves[1].gelu("none");
        let gated = if gate.requires_grad() { &halves[0] * gate } else { gate.g_mul_(&halves[0]) };
        self.out.forward(&gated)
    }
}

/// `BasicTransformerBlock`.
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
    layer: LayerId,
}

impl BasicTransformerBlock {
    fn forward(
        &self,
        x: &Tensor,
        context: &KeyValue,
        probe: Option<&mut (dyn AttnProbe + '_)>,
    ) -> Tensor {
        let h = self.norm1.forward(x);
        let itself = KeyValue::same(h.shallow_clone());
        let x = add(self.attn1.forward(&h, &itself), x);
        let h = self.norm2.forward(&x);
        let attended = match probe {
            Some(probe) => self.attn2.forward_probed(&h, context, self.layer, probe),
            None => self.attn2.forward(&h, context),
        };
        let x = add(attended, &x);
        add(self.ff.forward(&self.norm3.forward(&x)), &x)
    }
}

/// The projections around the transformer: 1×1 convolutions in SD 1.x, linear in SD 2.x.
enum Projection {
    Conv(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(params: &Params, channels: i64, linear: bool) -> Self {
        if linear {
            Self::Linear(Linear::new(params, channels, channels))
        } else {
            Self::Conv(Conv2d::new(params, channels, channels, 1))
        }
    }
}

/// `Transformer2DModel`: a picture in, the same picture with the context worked in out.
pub(crate) struct Transformer2D {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Projection,
}

impl Transformer2D {
    pub(crate) fn new(
        params: &Params,
        config: &UNetConfig,
        level: usize,
        channels: i64,
        layers: &mut LayerIds,
    ) -> Self {
        let (heads, context) = (config.heads(level), config.cross_attention_dim);
        let (linear, upcast) = (config.use_linear_projection, config.upcast_attention);
        let transformer_blocks = (0..config.transformer_layers_per_block.at(level))
            .map(|i| {
                let params = params.pp("transformer_blocks").pp(i);
                BasicTransformerBlock {
                    norm1: LayerNorm::new(&params.pp("norm1"), channels, 1e-5),
                    attn1: Attention::new(&params.pp("attn1"), channels, channels, heads, upcast),
                    norm2: LayerNorm::new(&params.pp("norm2"), channels, 1e-5),
                    attn2: Attention::new(&params.pp("attn2"), channels, context, heads, upcast),
                    norm3: LayerNorm::new(&params.pp("norm3"), channels, 1e-5),
                    ff: FeedForward::new(&params.pp("ff"), channels),
                    layer: layers.next(level),
                }
            })
            .collect();
        Self {
            norm: GroupNorm::new(&params.pp("norm"), config.norm_num_groups, channels, 1e-6),
            proj_in: Projection::new(&params.pp("proj_in"), channels, linear),
            transformer_blocks,
            proj_out: Projection::new(&params.pp("proj_out"), channels, linear),
        }
    }

    /// The cross-attention layers in here, in order.
    pub(crate) fn layers(&self) -> impl Iterator<Item = LayerId> + '_ {
        self.transformer_blocks.iter().map(|block| block.layer)
    }

    /// `x` `[B, C, H, W]`, one context for each of [`Transformer2D::layers`]; `[B, C, H, W]`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        contexts: &[&KeyValue],
        mut probe: Option<&mut (dyn AttnProbe + '_)>,
    ) -> Tensor {
        let (height, width) = (x.size()[2], x.size()[3]);
        let h = self.norm.forward(x);
        let mut h = match &self.proj_in {
            Projection::Conv(conv) => to_tokens(&conv.forward(&h)),
            Projection::Linear(linear) => linear.forward(&to_tokens(&h)),
        }; // [B, H · W, C]
        for (block, context) in self.transformer_blocks.iter().zip(contexts) {
            h = match &mut probe {
                Some(probe) => block.forward(&h, context, Some(&mut **probe)),
                None => block.forward(&h, context, None),
            };
        }
        let h = match &self.proj_out {
            Projection::Conv(conv) => conv.forward(&to_picture(&h, height, width)),
            Projection::Linear(linear) => to_picture(&linear.forward(&h), height, width),
        }; // [B, C, H, W]
        add(h, x)
    }
}

/// `[B, C, H, W]` to `[B, H · W, C]`, a view where the picture is channels-last.
fn to_tokens(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).flatten(1, 2)
}

/// `[B, H · W, C]` to a channels-last `[B, C, H, W]`, a view.
fn to_picture(x: &Tensor, height: i64, width: i64) -> Tensor {
    x.unflatten(1, [height, width]).permute([0, 3, 1, 2])
}
