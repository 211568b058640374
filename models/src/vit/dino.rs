//! DINO: features of pictures by which likeness of subjects is usually measured.
//!
//! Paper: Caron et al. 2021; as a metric: Ruiz et al. 2023 (`DreamBooth`), section 4.1.

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::Vit;
use super::encoder::{IMAGENET_MEAN, IMAGENET_STD};
use crate::ModelError;
use crate::clip::PicturePreparation;
use crate::config::{model_type, read_config};
use crate::layers::Activation;
use crate::params::Params;
use crate::transformer::{self, BlockConfig};
use crate::weights::Checkpoint;

/// `config.json` of a `ViTModel`, such as that of `dino-vits16`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DinoConfig {
    /// Width of the tower.
    pub hidden_size: i64,
    /// Width of the perceptron in a block.
    pub intermediate_size: i64,
    /// Blocks.
    pub num_hidden_layers: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Side of the square picture, in pixels.
    pub image_size: i64,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// The perceptron's non-linearity.
    pub hidden_act: Activation,
    /// Of the layer norms.
    #[serde(default = "eps")]
    pub layer_norm_eps: f64,
    /// Whether queries, keys and values have a bias.
    #[serde(default = "yes")]
    qkv_bias: bool,
}

fn eps() -> f64 {
    1e-12
}
fn yes() -> bool {
    true
}

impl DinoConfig {
    /// Reads and checks `config.json` of a folder.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let refuse = |what: String| Err(ModelError::invalid(&path, what));
        let found = model_type(&path)?;
        if found != "vit" {
            return refuse(format!(
                "a model of type '{found}', but DINO was expected (vit); give the folder of a ViTModel such as dino-vits16"
            ));
        }
        let config: Self = read_config(&path)?;
        if !config.qkv_bias {
            return refuse(
                "qkv_bias is false, but DINO has these; give the folder of a ViTModel such as dino-vits16"
                    .into(),
            );
        }
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        if heads < 1 || width % heads != 0 {
            return refuse(format!(
                "the tower is {width} wide, which its {heads} heads do not divide; use the file that came with the weights"
            ));
        }
        if config.patch_size < 1 || config.patch_size > config.image_size {
            return refuse(format!(
                "patches of {} pixels do not fit into pictures of {}; use the file that came with the weights",
                config.patch_size, config.image_size
            ));
        }
        Ok(config)
    }

    /// How pictures are prepared where DINO is a metric: the shorter side to 256 of 224 pixels, bicubically, and the
    /// middle of it, normalised as for `ImageNet`.
    ///
    /// Source: the evaluation in Caron et al.'s release (`eval_knn.py`), which the metric's users took over.
    pub fn preparation(&self) -> PicturePreparation {
        let shortest_edge = self.image_size * 256 / 224;
        PicturePreparation::new(shortest_edge, self.image_size, IMAGENET_MEAN, IMAGENET_STD)
    }
}

/// The encoder.
pub struct Dino {
    vit: Vit,
    device: Device,
}

impl Dino {
    /// Builds the encoder from the names of a `ViTModel`'s checkpoint.
    pub fn new(params: &Params, config: &DinoConfig) -> Self {
        let block = BlockConfig {
            width: config.hidden_size,
            heads: config.num_attention_heads,
            mlp: config.intermediate_size,
            eps: config.layer_norm_eps,
            activation: config.hidden_act,
            causal: false,
            keys: &transformer::DINO,
        };
        let sides = (config.image_size, config.patch_size);
        let vit = Vit::new(params, block, config.num_hidden_layers, sides);
        Self { vit, device: params.device() }
    }

    /// The encoder of a folder in the Hugging Face layout, frozen, in f32.
    pub fn load(folder: &Path, config: &DinoConfig, device: Device) -> Result<Self, ModelError> {
        let weights = Checkpoint::open(folder, "model", None, Kind::Float, device)?;
        let dino = Self::new(&Params::root(&weights), config);
        weights.report()?.require_complete()?;
        Ok(dino)
    }

    /// Normalised pixels `[B, 3, H, W]` to all tokens after the last norm, class token first, `[B, 1 + N, width]`.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        self.vit.norm_after.forward(&self.vit.forward(pixels))
    }

    /// Prepared pictures `[B, 3, H, W]` to the class token as a unit vector, `[B, width]`.
    pub fn embed_pictures(&self, pixels: &Tensor) -> Tensor {
        let class = self.forward(&pixels.to_device(self.device)).select(1, 0); // [B, width]
        &class / class.norm_scalaropt_dim(2, [-1], true)
    }
}
