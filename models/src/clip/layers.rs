//! The pre-norm transformer block that both towers of CLIP share.

use tch::Tensor;

use crate::layers::{Activation, LayerNorm, Linear, add, attention};
use crate::params::Params;

/// The sizes of one block.
#[derive(Clone, Copy)]
pub(crate) struct BlockConfig {
    pub width: i64,
    pub heads: i64,
    pub mlp: i64,
    pub eps: f64,
    pub activation: Activation,
    pub causal: bool,
}

struct SelfAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
}

/// One block: attention and a two-layer perceptron, each behind a norm and added to its input.
pub(crate) struct Block {
    layer_norm1: LayerNorm,
    self_attn: SelfAttention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    config: BlockConfig,
}

impl Block {
    fn new(params: &Params, config: BlockConfig) -> Self {
        let (width, attn, mlp) = (config.width, params.pp("self_attn"), params.pp("mlp"));
        let self_attn = SelfAttention {
            q_proj: Linear::new(&attn.pp("q_proj"), width, width),
            k_proj: Linear::new(&attn.pp("k_proj"), width, width),
            v_proj: Linear::new(&attn.pp("v_proj"), width, width),
            out_proj: Linear::new(&attn.pp("out_proj"), width, width),
        };
        Self {
            layer_norm1: LayerNorm::new(&params.pp("layer_norm1"), width, config.eps),
            self_attn,
            layer_norm2: LayerNorm::new(&params.pp("layer_norm2"), width, config.eps),
            fc1: Linear::new(&mlp.pp("fc1"), width, config.mlp),
            fc2: Linear::new(&mlp.pp("fc2"), config.mlp, width),
            config,
        }
    }

    /// All blocks of a tower, from `params` = `….encoder.layers`.
    pub(crate) fn stack(params: &Params, count: i64, config: BlockConfig) -> Vec<Self> {
        (0..count).map(|i| Self::new(&params.pp(i), config)).collect()
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let (h, attn) = (self.layer_norm1.forward(x), &self.self_attn);
        let (q, k, v) = (attn.q_proj.forward(&h), attn.k_proj.forward(&h), attn.v_proj.forward(&h));
        let attended = attention(&q, &k, &v, self.config.heads, self.config.causal);
        let x = add(attn.out_proj.forward(&attended), x);
        let h = self.config.activation.forward(&self.fc1.forward(&self.layer_norm2.forward(&x)));
        add(self.fc2.forward(&h), &x)
    }
}
