//! The few layers that all networks here are made of. Every one can be built frozen from a checkpoint, or
//! trainable; a trainable one keeps f32 parameters and computes in the kind of its input.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use torch_ext::{FrozenConv2d, FrozenLinear, Weight};

use crate::params::Params;

/// `y = x Wᵀ + b` over the last axis.
pub struct Linear(LinearKind);

enum LinearKind {
    /// Laid out once for the CPU's kernels.
    Frozen(FrozenLinear),
    /// libtorch's plain operator.
    Plain { weight: Weight, bias: Option<Weight> },
    /// A layer with a product of two thin matrices beside it.
    LowRank { layer: Box<Linear>, down: Weight, up: Weight },
}

impl Linear {
    /// `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    pub fn new(params: &Params, inputs: i64, outputs: i64) -> Self {
        let weight = params.get("weight", &[outputs, inputs]);
        Self::of(weight, Some(params.get("bias", &[outputs])))
    }

    /// `weight` `[outputs, inputs]` alone, with what the source has beside it ([`crate::low_rank`]).
    pub fn without_bias(params: &Params, inputs: i64, outputs: i64) -> Self {
        let layer = Self::of(params.get("weight", &[outputs, inputs]), None);
        match params.low_rank("weight", &[outputs, inputs]) {
            Some([down, up]) => {
                let (down, up) = (down.into(), up.into());
                Self(LinearKind::LowRank { layer: Box::new(layer), down, up })
            }
            None => layer,
        }
    }

    fn of(weight: Tensor, bias: Option<Tensor>) -> Self {
        if packs(&weight) {
            let frozen = FrozenLinear::new(&weight, bias.as_ref());
            return Self(LinearKind::Frozen(frozen.expect("a weight of rank two")));
        }
        Self(LinearKind::Plain { weight: weight.into(), bias: bias.map(Weight::from) })
    }

    /// `[..., inputs]` to `[..., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let kind = x.kind();
        match &self.0 {
            LinearKind::Frozen(layer) => layer.forward(x),
            LinearKind::Plain { weight, bias } => {
                x.linear(&weight.to_kind(kind), bias.as_ref().map(|b| b.to_kind(kind)).as_ref())
            }
            LinearKind::LowRank { layer, down, up } => {
                let thin = x.linear(&down.to_kind(kind), None::<&Tensor>); // [..., rank]
                layer.forward(x) + thin.linear(&up.to_kind(kind), None::<&Tensor>)
            }
        }
    }
}

/// Whether a weight is laid out anew for oneDNN, once: a frozen one on the CPU. A trainable weight stays
/// the leaf that it is, and CUDA has no use for it.
fn packs(weight: &Tensor) -> bool {
    !weight.requires_grad()
        && weight.device() == Device::Cpu
        && matches!(weight.kind(), Kind::Float | Kind::BFloat16)
}

/// A two-dimensional convolution.
pub struct Conv2d(ConvKind);

enum ConvKind {
    /// Laid out once for the CPU's kernels.
    Frozen(FrozenConv2d),
    /// libtorch's plain operator.
    Plain { weight: Weight, bias: Weight, stride: i64, padding: i64 },
}

impl Conv2d {
    /// A square kernel with "same" padding and stride 1.
    pub fn new(params: &Params, inputs: i64, outputs: i64, kernel: i64) -> Self {
        Self::strided(params, inputs, outputs, kernel, 1, kernel / 2)
    }

    /// A square kernel; `weight` `[outputs, inputs, kernel, kernel]` and `bias` `[outputs]`.
    pub fn strided(
        params: &Params,
        inputs: i64,
        outputs: i64,
        kernel: i64,
        stride: i64,
        padding: i64,
    ) -> Self {
        let weight = params.get("weight", &[outputs, inputs, kernel, kernel]);
        let bias = params.get("bias", &[outputs]);
        if packs(&weight) {
            let frozen = FrozenConv2d::new(&weight, Some(&bias), stride, padding);
            return Self(ConvKind::Frozen(frozen.expect("a weight of rank four")));
        }
        // Channels-last kernels are several times faster here, and the layout spreads from the weights
        // through the whole network. A trainable weight stays the leaf that it is.
        let weight =
            if weight.requires_grad() { weight } else { torch_ext::channels_last(&weight) };
        let (weight, bias) = (weight.into(), bias.into());
        Self(ConvKind::Plain { weight, bias, stride, padding })
    }

    /// `[B, inputs, H, W]` to `[B, outputs, H / stride, W / stride]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match &self.0 {
            ConvKind::Frozen(layer) => layer.forward(x),
            ConvKind::Plain { weight, bias, stride, padding } => {
                let (weight, bias) = (weight.to_kind(x.kind()), bias.to_kind(x.kind()));
                x.conv2d(&weight, Some(&bias), [*stride; 2], [*padding; 2], [1, 1], 1)
            }
        }
    }
}

/// Group normalisation over channels.
pub(crate) struct GroupNorm {
    weight: Weight,
    bias: Weight,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    pub(crate) fn new(params: &Params, groups: i64, channels: i64, eps: f64) -> Self {
        let (weight, bias) = (params.get("weight", &[channels]), params.get("bias", &[channels]));
        Self { weight: weight.into(), bias: bias.into(), groups, eps }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (self.weight.to_kind(x.kind()), self.bias.to_kind(x.kind()));
        x.group_norm(self.groups, Some(&weight), Some(&bias), self.eps, true)
    }
}

/// Layer normalisation over the last axis.
pub struct LayerNorm {
    weight: Weight,
    bias: Weight,
    eps: f64,
}

impl LayerNorm {
    /// `weight` and `bias`, `[width]`.
    pub fn new(params: &Params, width: i64, eps: f64) -> Self {
        let (weight, bias) = (params.get("weight", &[width]), params.get("bias", &[width]));
        Self { weight: weight.into(), bias: bias.into(), eps }
    }

    /// Of the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let width = self.weight.size1().unwrap_or_default();
        let (weight, bias) = (self.weight.to_kind(x.kind()), self.bias.to_kind(x.kind()));
        x.layer_norm([width], Some(&weight), Some(&bias), self.eps, true)
    }
}

/// `hidden_act` of a CLIP configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · sigmoid(1.702 x)`, OpenAI's CLIP (SD 1.x).
    QuickGelu,
    /// The exact Gaussian error linear unit, `OpenCLIP` (SD 2.x).
    Gelu,
}

impl Activation {
    pub(crate) fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Self::QuickGelu => x * (x * 1.702).sigmoid(),
            Self::Gelu => x.gelu("none"),
        }
    }
}

/// `silu`, in place where no gradient will ask for `x`.
pub(crate) fn silu(mut x: Tensor) -> Tensor {
    if x.requires_grad() { x.silu() } else { x.silu_() }
}

/// `x + y` into the memory of `x`, the fresh result of a layer: no layer here reads its own result again in
/// the backward pass.
pub(crate) fn add(mut x: Tensor, y: &Tensor) -> Tensor {
    x.g_add_(y)
}

/// Multi-head attention of already projected `q` `[B, P, C]`, `k` and `v` `[B, S, C]`; `[B, P, C]`.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64, causal: bool) -> Tensor {
    let [q, k, v] = [q, k, v].map(|x| split_heads(x, heads)); // [B, heads, P or S, C / heads]
    let out =
        Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, causal, None, false);
    merge_heads(&out) // [B, P, C]
}

/// `[B, S, C]` to `[B, heads, S, C / heads]`.
pub(crate) fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let size = x.size();
    x.reshape([size[0], size[1], heads, size[2] / heads]).transpose(1, 2)
}

/// `[B, heads, S, d]` to `[B, S, heads · d]`.
pub(crate) fn merge_heads(x: &Tensor) -> Tensor {
    let size = x.size();
    x.transpose(1, 2).reshape([size[0], size[2], size[1] * size[3]])
}
