//! CLIP's vision encoder with its projection into the space that pictures share with texts.

use serde::Deserialize;
use tch::Tensor;

use super::layers::{Block, BlockConfig};
use crate::layers::{Activation, LayerNorm, Linear};
use crate::params::Params;

/// `config.json` of a `CLIPVisionModelWithProjection`.
#[derive(Debug, Clone, Deserialize)]
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

/// What the tower gives. N = (`image_size` / `patch_size`)² patches.
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
    class_embedding: Tensor,
    patch_embedding: Tensor,
    position_embedding: Tensor,
    pre_layrnorm: LayerNorm,
    layers: Vec<Block>,
    post_layernorm: LayerNorm,
    visual_projection: Linear,
    patch_size: i64,
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
        };
        let projection = params.pp("visual_projection");
        Self {
            class_embedding: embeddings.get("class_embedding", &[width]),
            patch_embedding: embeddings
                .pp("patch_embedding")
                .get("weight", &[width, 3, config.patch_size, config.patch_size]),
            position_embedding: embeddings
                .pp("position_embedding")
                .get("weight", &[patches + 1, width]),
            // The misspelling is the checkpoint's.
            pre_layrnorm: LayerNorm::new(&model.pp("pre_layrnorm"), width, eps),
            layers: Block::stack(&model.pp("encoder.layers"), config.num_hidden_layers, block),
            post_layernorm: LayerNorm::new(&model.pp("post_layernorm"), width, eps),
            visual_projection: Linear::without_bias(&projection, width, config.projection_dim),
            patch_size: config.patch_size,
        }
    }

    /// Normalised pixels `[B, 3, image_size, image_size]` to features.
    pub fn forward(&self, pixels: &Tensor) -> ClipVisionOutput {
        let (batch, stride) = (pixels.size()[0], [self.patch_size; 2]);
        let patches =
            pixels.conv2d(&self.patch_embedding, None::<&Tensor>, stride, [0, 0], [1, 1], 1); // [B, width, side, side]
        let patches = patches.flatten(2, 3).transpose(1, 2); // [B, N, width]
        let class = self.class_embedding.expand([batch, 1, -1], false); // [B, 1, width]
        let tokens = Tensor::cat(&[class, patches], 1) + &self.position_embedding; // [B, 1 + N, width]
        let mut hidden = self.pre_layrnorm.forward(&tokens);
        for layer in &self.layers {
            hidden = layer.forward(&hidden);
        }
        let pooled = self.post_layernorm.forward(&hidden.select(1, 0)); // [B, width]
        let image_embeds = self.visual_projection.forward(&pooled);
        ClipVisionOutput { last_hidden_state: hidden, pooled, image_embeds }
    }
}
