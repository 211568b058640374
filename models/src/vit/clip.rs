//! CLIP's vision encoder with its projection into the space that pictures share with texts.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::Vit;
use crate::layers::{Activation, LayerNorm, Linear};
use crate::params::Params;
use crate::transformer::{self, Block, BlockConfig};

/// `config.json` of a `CLIPVisionModelWithProjection`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClipVisionConfig {
    /// Width of the tower.
    pub hidden_size: i64,
    /// Width of the perceptron in a block.
    pub intermediate_size: i64,
    /// Blocks.
    pub num_hidden_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Width of the shared space.
    #[serde(default = "projection_dim")]
    pub projection_dim: i64,
    /// Side of the square picture, in pixels.
    pub image_size: i64,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// The perceptron's non-linearity.
    pub hidden_act: Activation,
    /// Of the layer norms.
    #[serde(default = "eps")]
    pub layer_norm_eps: f64,
}

fn eps() -> f64 {
    1e-5
}
fn projection_dim() -> i64 {
    512 // transformers' own
}

/// What the tower gives. N = (`image_size` / `patch_size`)² patches of a picture of its own size.
pub struct ClipVisionOutput {
    /// After the last block, class token first, `[B, 1 + N, width]`.
    pub last_hidden_state: Tensor,
    /// The class token after the last norm, `[B, width]`.
    pub pooled: Tensor,
    /// Its projection, not normalised, `[B, projection_dim]`.
    pub image_embeds: Tensor,
}

/// The vision encoder.
pub struct ClipVision {
    vision_model: Vit,
    visual_projection: Linear,
}

impl ClipVision {
    /// Builds the encoder from `vision_model.…` and `visual_projection.weight`.
    pub fn new(params: &Params, config: &ClipVisionConfig) -> Self {
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let patches = (config.image_size / config.patch_size).pow(2);
        let model = params.pp("vision_model");
        let embeddings = model.pp("embeddings");
        let block = BlockConfig {
            width,
            heads: config.num_attention_heads,
            mlp: config.intermediate_size,
            eps,
            activation: config.hidden_act,
            causal: false,
            keys: &transformer::CLIP,
        };
        let vision_model = Vit {
            class_token: embeddings.get("class_embedding", &[width]),
            patch_weight: embeddings
                .pp("patch_embedding")
                .get("weight", &[width, 3, config.patch_size, config.patch_size]),
            patch_bias: None,
            position_embedding: embeddings
                .pp("position_embedding")
                .get("weight", &[patches + 1, width]),
            // The misspelling is the checkpoint's.
            norm_before: Some(LayerNorm::new(&model.pp("pre_layrnorm"), width, eps)),
            layers: Block::stack(&model.pp("encoder.layers"), config.num_hidden_layers, block),
            norm_after: LayerNorm::new(&model.pp("post_layernorm"), width, eps),
            patch_size: config.patch_size,
        };
        let projection = params.pp("visual_projection");
        Self {
            vision_model,
            visual_projection: Linear::without_bias(&projection, width, config.projection_dim),
        }
    }

    /// Normalised pixels `[B, 3, H, W]` to features; positions are resampled where a side is not `image_size`.
    pub fn forward(&self, pixels: &Tensor) -> ClipVisionOutput {
        let last_hidden_state = self.vision_model.forward(pixels);
        let pooled = self.vision_model.norm_after.forward(&last_hidden_state.select(1, 0)); // [B, width]
        let image_embeds = self.visual_projection.forward(&pooled);
        ClipVisionOutput { last_hidden_state, pooled, image_embeds }
    }

    /// Every token behind the last norm, which CLIP itself applies to the class token only; `[B, 1 + N, width]`.
    pub(super) fn normed(&self, last_hidden_state: &Tensor) -> Tensor {
        self.vision_model.norm_after.forward(last_hidden_state)
    }
}
