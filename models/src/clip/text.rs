//! CLIP's text encoder, in the stages where a concept can enter: token vectors, blocks, final norm.

use serde::Deserialize;
use tch::{Kind, Tensor};

use crate::ModelError;
use crate::config::{Class, DEEPEST, MOST_TOKENS, Rule, WIDEST};
use crate::layers::{Activation, LayerNorm};
use crate::params::Params;
use crate::transformer::{self, Block, BlockConfig};

/// `text_encoder/config.json`; what is absent has transformers' default.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// D, the width of token vectors and of the context.
    pub hidden_size: i64,
    /// Width of the perceptron in a block.
    pub intermediate_size: i64,
    /// Blocks: 12 in SD 1.x, 23 in SD 2.x.
    pub num_hidden_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// The perceptron's non-linearity.
    pub hidden_act: Activation,
    /// S, the length of every prompt.
    pub max_position_embeddings: i64,
    /// Rows of the token table where the checkpoint does not say otherwise.
    pub vocab_size: i64,
    /// Of the layer norms.
    pub layer_norm_eps: f64,
}

impl Default for ClipTextConfig {
    /// Those of transformers' class.
    fn default() -> Self {
        Self {
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            hidden_act: Activation::QuickGelu,
            max_position_embeddings: 77,
            vocab_size: 49_408,
            layer_norm_eps: 1e-5,
        }
    }
}

/// What transformers' class knows; it keeps any other key in silence.
pub(crate) const CLASS: Class = Class {
    name: "",
    tells: false,
    keys: &[
        ("model_type", Rule::Word(&["clip_text_model", "clip"])),
        ("hidden_size", Rule::Whole(1, WIDEST)),
        ("intermediate_size", Rule::Whole(1, WIDEST)),
        ("num_hidden_layers", Rule::Whole(1, DEEPEST)),
        ("num_attention_heads", Rule::Whole(1, WIDEST)),
        ("hidden_act", Rule::Word(&["quick_gelu", "gelu"])),
        ("max_position_embeddings", Rule::Whole(1, WIDEST)),
        ("vocab_size", Rule::Whole(1, MOST_TOKENS)),
        ("layer_norm_eps", Rule::Number(0.0, 1.0)),
        // `StableDiffusionPipeline` would hide the padding from the text encoder.
        ("use_attention_mask", Rule::Unset),
    ],
};

impl ClipTextConfig {
    /// Refuses parts that do not fit together, naming the key; each key alone was checked when the file was read.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.hidden_size % self.num_attention_heads == 0 {
            return Ok(());
        }
        Err(ModelError::Unsupported {
            part: "text_encoder",
            key: "num_attention_heads",
            found: self.num_attention_heads.to_string(),
            expected: "a number that divides hidden_size",
        })
    }
}

/// The text encoder. Shapes: B prompts, S = 77 tokens, D width.
pub struct ClipText {
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<Block>,
    final_layer_norm: LayerNorm,
}

impl ClipText {
    /// Builds the encoder; keys may carry the prefix `text_model.` or not.
    pub fn new(params: &Params, config: &ClipTextConfig) -> Self {
        let token_key = "embeddings.token_embedding.weight";
        // transformers 5 dropped the prefix that the published files have.
        let params = if params.shape(token_key).is_some() {
            params.clone()
        } else {
            params.pp("text_model")
        };
        let width = config.hidden_size;
        // Pipelines saved after textual inversion have more rows than their configuration says.
        let rows = params.shape(token_key).map_or(config.vocab_size, |shape| shape[0]);
        let embeddings = params.pp("embeddings");
        let block = BlockConfig {
            width,
            heads: config.num_attention_heads,
            mlp: config.intermediate_size,
            eps: config.layer_norm_eps,
            activation: config.hidden_act,
            causal: true,
            keys: &transformer::CLIP,
        };
        Self {
            token_embedding: embeddings.pp("token_embedding").get("weight", &[rows, width]),
            position_embedding: embeddings
                .pp("position_embedding")
                .get("weight", &[config.max_position_embeddings, width]),
            layers: Block::stack(&params.pp("encoder.layers"), config.num_hidden_layers, block),
            final_layer_norm: LayerNorm::new(
                &params.pp("final_layer_norm"),
                width,
                config.layer_norm_eps,
            ),
        }
    }

    /// The frozen table of token vectors, `[rows, D]`.
    pub fn token_table(&self) -> &Tensor {
        &self.token_embedding
    }

    /// Token ids `[B, S]` to token vectors `[B, S, D]`, positions not yet added.
    pub fn embed_tokens(&self, ids: &Tensor) -> Tensor {
        let size = ids.size();
        let rows = self.token_embedding.index_select(0, &ids.reshape([-1])); // [B · S, D]
        rows.reshape([size[0], size[1], -1]) // [B, S, D]
    }

    /// Token vectors `[B, S, D]` to the output of the last block, before the final norm; `[B, S, D]`.
    ///
    /// `skip_last` leaves out that many blocks at the end ("clip skip" 2 is `skip_last` 1).
    pub fn blocks(&self, embeddings: &Tensor, skip_last: usize) -> Tensor {
        let embeddings = embeddings.to_kind(self.kind());
        let length = embeddings.size()[1];
        let mut hidden = embeddings + self.position_embedding.narrow(0, 0, length);
        for layer in &self.layers[..self.layers.len().saturating_sub(skip_last)] {
            hidden = layer.forward(&hidden);
        }
        hidden
    }

    /// The final layer norm: what the U-Net reads, `[B, S, D]`.
    pub fn final_norm(&self, hidden: &Tensor) -> Tensor {
        self.final_layer_norm.forward(hidden)
    }

    /// Token ids `[B, S]` to the context of the U-Net `[B, S, D]`.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        self.final_norm(&self.blocks(&self.embed_tokens(ids), 0))
    }

    /// D.
    pub fn width(&self) -> i64 {
        self.token_embedding.size()[1]
    }

    /// The kind of the parameters.
    pub fn kind(&self) -> Kind {
        self.token_embedding.kind()
    }

    /// The device of the parameters.
    pub fn device(&self) -> tch::Device {
        self.token_embedding.device()
    }
}
