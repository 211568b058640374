//! `DINOv2` without registers: features of pictures that were learnt from pictures alone.
//!
//! Paper: Oquab et al. 2024.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::Vit;
use crate::ModelError;
use crate::layers::Activation;
use crate::params::Params;
use crate::transformer::{self, BlockConfig};

/// `config.json` of a `Dinov2Model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dinov2Config {
    /// Width of the tower.
    pub hidden_size: i64,
    /// Width of the perceptron in a block, in widths of the tower.
    #[serde(default = "four")]
    pub mlp_ratio: i64,
    /// Blocks.
    pub num_hidden_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Side of the square picture that the table of positions is for, in pixels.
    pub image_size: i64,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// The perceptron's non-linearity.
    pub hidden_act: Activation,
    /// Of the layer norms.
    #[serde(default = "eps")]
    pub layer_norm_eps: f64,

    // What this network does not have, read so that it can be refused.
    #[serde(default, skip_serializing)]
    use_swiglu_ffn: bool,
    #[serde(default = "yes", skip_serializing)]
    qkv_bias: bool,
    #[serde(default, skip_serializing)]
    num_register_tokens: i64,
}

fn four() -> i64 {
    4
}
fn eps() -> f64 {
    1e-6
}
fn yes() -> bool {
    true
}

impl Dinov2Config {
    /// Refuses the giant model's perceptron and register tokens, naming the key.
    pub fn check(&self) -> Result<(), ModelError> {
        let refuse = |key, found, expected| {
            Err(ModelError::Unsupported { part: "dinov2", key, found, expected })
        };
        if self.use_swiglu_ffn {
            return refuse(
                "use_swiglu_ffn",
                "true".into(),
                "false (the sizes small, base and large)",
            );
        }
        if !self.qkv_bias {
            return refuse("qkv_bias", "false".into(), "true");
        }
        if self.num_register_tokens != 0 {
            return refuse("num_register_tokens", self.num_register_tokens.to_string(), "0");
        }
        Ok(())
    }
}

/// The encoder. N patches of a picture.
pub struct Dinov2 {
    vit: Vit,
}

impl Dinov2 {
    /// Builds the encoder from `embeddings.…`, `encoder.layer.…` and `layernorm.…`; the configuration must have
    /// passed [`Dinov2Config::check`].
    pub fn new(params: &Params, config: &Dinov2Config) -> Self {
        let width = config.hidden_size;
        let block = BlockConfig {
            width,
            heads: config.num_attention_heads,
            mlp: config.mlp_ratio * width,
            eps: config.layer_norm_eps,
            activation: config.hidden_act,
            causal: false,
            keys: &transformer::DINOV2,
        };
        let sides = (config.image_size, config.patch_size);
        Self { vit: Vit::new(params, block, config.num_hidden_layers, sides) }
    }

    /// Normalised pixels `[B, 3, H, W]` to all tokens after the last norm, class token first, `[B, 1 + N, width]`;
    /// positions are resampled where a side is not `image_size`.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        self.vit.norm_after.forward(&self.vit.forward(pixels))
    }
}
