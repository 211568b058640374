//! The pre-norm transformer block of both towers of CLIP, of DINO and of `DINOv2`.

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
    pub keys: &'static BlockKeys,
}

/// What a checkpoint calls the parts of a block.
pub(crate) struct BlockKeys {
    norms: [&'static str; 2],
    /// Of queries, keys and values, and behind the attention.
    projections: [&'static str; 4],
    perceptron: [&'static str; 2],
    /// Factors of what each half adds, by channel (Touvron et al. 2021, section 2).
    layer_scales: Option<[&'static str; 2]>,
}

/// Those of CLIP.
pub(crate) const CLIP: BlockKeys = BlockKeys {
    norms: ["layer_norm1", "layer_norm2"],
    projections: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"],
    perceptron: ["mlp.fc1", "mlp.fc2"],
    layer_scales: None,
};

/// Of queries, keys and values, and behind the attention, in transformers' vision models but CLIP's.
const ATTENTION: [&str; 4] = [
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
];

/// Those of DINO.
pub(crate) const DINO: BlockKeys = BlockKeys {
    norms: ["layernorm_before", "layernorm_after"],
    projections: ATTENTION,
    perceptron: ["intermediate.dense", "output.dense"],
    layer_scales: None,
};

/// Those of `DINOv2`.
pub(crate) const DINOV2: BlockKeys = BlockKeys {
    norms: ["norm1", "norm2"],
    projections: ATTENTION,
    perceptron: ["mlp.fc1", "mlp.fc2"],
    layer_scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
};

/// One block: attention and a two-layer perceptron, each behind a norm and added to its input.
pub(crate) struct Block {
    norms: [LayerNorm; 2],
    projections: [Linear; 4],
    fc1: Linear,
    fc2: Linear,
    layer_scales: Option<[Tensor; 2]>,
    config: BlockConfig,
}

impl Block {
    fn new(params: &Params, config: BlockConfig) -> Self {
        let BlockConfig { width, keys, .. } = config;
        let [fc1, fc2] = keys.perceptron.map(|key| params.pp(key));
        Self {
            norms: keys.norms.map(|key| LayerNorm::new(&params.pp(key), width, config.eps)),
            projections: keys.projections.map(|key| Linear::new(&params.pp(key), width, width)),
            fc1: Linear::new(&fc1, width, config.mlp),
            fc2: Linear::new(&fc2, config.mlp, width),
            layer_scales: keys.layer_scales.map(|keys| keys.map(|key| params.get(key, &[width]))),
            config,
        }
    }

    /// All blocks of a tower, from the prefix that their numbers follow.
    pub(crate) fn stack(params: &Params, count: i64, config: BlockConfig) -> Vec<Self> {
        (0..count).map(|i| Self::new(&params.pp(i), config)).collect()
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.norms[0].forward(x);
        let [q, k, v, out] = &self.projections;
        let (q, k, v) = (q.forward(&h), k.forward(&h), v.forward(&h));
        let attended = attention(&q, &k, &v, self.config.heads, self.config.causal);
        let x = add(self.scaled(0, out.forward(&attended)), x);
        let h = self.config.activation.forward(&self.fc1.forward(&self.norms[1].forward(&x)));
        add(self.scaled(1, self.fc2.forward(&h)), &x)
    }

    /// What a half adds, by its factors where there are some.
    fn scaled(&self, half: usize, x: Tensor) -> Tensor {
        match &self.layer_scales {
            Some(scales) => &x * scales[half].to_kind(x.kind()),
            None => x,
        }
    }
}
