//! CLIP's picture tower or `DINOv2`, whichever a folder holds.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{ClipVision, ClipVisionConfig, Dinov2, Dinov2Config};
use crate::ModelError;
use crate::clip::{CLIP_MEAN, CLIP_STD};
use crate::config::{model_type, read_config};
use crate::params::Params;
use crate::weights::Checkpoint;

/// The mean and deviation of `ImageNet`'s channels, which `DINOv2` was trained with.
pub(super) const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
pub(super) const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// `config.json` of a vision encoder, told by its `model_type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type")]
pub enum VisionConfig {
    /// A `CLIPVisionModelWithProjection`.
    #[serde(rename = "clip_vision_model")]
    Clip(ClipVisionConfig),
    /// A `Dinov2Model`.
    #[serde(rename = "dinov2")]
    Dinov2(Dinov2Config),
}

/// A whole `CLIPModel`, of which the vision tower is wanted.
#[derive(Deserialize)]
struct WholeClip {
    projection_dim: i64,
    vision_config: ClipVisionConfig,
}

impl VisionConfig {
    /// Reads and checks `config.json` of a folder: a vision tower of CLIP, a whole `CLIPModel`, or `DINOv2`.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let config = match model_type(&path)?.as_str() {
            "clip" => {
                let whole: WholeClip = read_config(&path)?;
                // CLIPModel takes its own width for both projections, whatever the towers' parts say.
                let projection_dim = whole.projection_dim;
                Self::Clip(ClipVisionConfig { projection_dim, ..whole.vision_config })
            }
            "clip_vision_model" | "dinov2" => read_config(&path)?,
            other => {
                let what = format!(
                    "a model of type '{other}', but a vision encoder was expected; give a folder of CLIP (clip, clip_vision_model) or DINOv2 (dinov2)"
                );
                return Err(ModelError::invalid(&path, what));
            }
        };
        config.check().map_err(|what| ModelError::invalid(&path, what))?;
        Ok(config)
    }

    /// What makes no network, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        let (width, heads) = match self {
            Self::Clip(config) => (config.hidden_size, config.num_attention_heads),
            Self::Dinov2(config) => {
                config.check().map_err(|e| e.to_string())?;
                (config.hidden_size, config.num_attention_heads)
            }
        };
        if heads < 1 || width % heads != 0 {
            return Err(format!(
                "the tower is {width} wide, which its {heads} heads do not divide; use the file that came with the weights"
            ));
        }
        let (side, patch) = (self.image_size(), self.patch_size());
        if patch < 1 || patch > side {
            return Err(format!(
                "patches of {patch} pixels do not fit into pictures of {side}; use the file that came with the weights"
            ));
        }
        Ok(())
    }

    /// Blocks, one behind the other.
    pub fn blocks(&self) -> i64 {
        match self {
            Self::Clip(config) => config.num_hidden_layers,
            Self::Dinov2(config) => config.num_hidden_layers,
        }
    }

    /// The encoder that ends after the first so many blocks; nothing where it has fewer.
    pub fn ending_after(mut self, blocks: i64) -> Option<Self> {
        let all = match &mut self {
            Self::Clip(config) => &mut config.num_hidden_layers,
            Self::Dinov2(config) => &mut config.num_hidden_layers,
        };
        let has_them = (1..=*all).contains(&blocks);
        *all = blocks;
        has_them.then_some(self)
    }

    /// Side of the square picture that the encoder was trained on, in pixels.
    pub fn image_size(&self) -> i64 {
        match self {
            Self::Clip(config) => config.image_size,
            Self::Dinov2(config) => config.image_size,
        }
    }

    /// Side of a patch, in pixels.
    pub fn patch_size(&self) -> i64 {
        match self {
            Self::Clip(config) => config.patch_size,
            Self::Dinov2(config) => config.patch_size,
        }
    }

    /// Width of [`VisionFeatures::tokens`].
    pub fn token_width(&self) -> i64 {
        match self {
            Self::Clip(config) => config.hidden_size,
            Self::Dinov2(config) => config.hidden_size,
        }
    }

    /// Width of [`VisionFeatures::embedding`].
    pub fn embedding_width(&self) -> i64 {
        match self {
            Self::Clip(config) => config.projection_dim,
            Self::Dinov2(config) => config.hidden_size,
        }
    }
}

/// What an encoder sees in pictures. N patches each.
pub struct VisionFeatures {
    /// All tokens after the last norm, class token first, `[B, 1 + N, token_width]`.
    pub tokens: Tensor,
    /// One vector a picture, not normalised: CLIP's projection, `DINOv2`'s class token; `[B, embedding_width]`.
    pub embedding: Tensor,
}

enum Network {
    Clip(ClipVision),
    Dinov2(Dinov2),
}

/// The encoder, with the normalisation of pixels that it was trained with.
pub struct VisionEncoder {
    network: Network,
    mean: Tensor, // [3, 1, 1]
    std: Tensor,  // [3, 1, 1]
    image_size: i64,
    kind: Kind,
    device: Device,
}

impl VisionEncoder {
    /// Builds the encoder from the names of its checkpoint; the configuration must have passed
    /// [`VisionConfig::check`].
    pub fn new(params: &Params, config: &VisionConfig) -> Self {
        let (network, mean, std) = match config {
            VisionConfig::Clip(c) => {
                (Network::Clip(ClipVision::new(params, c)), CLIP_MEAN, CLIP_STD)
            }
            VisionConfig::Dinov2(c) => {
                (Network::Dinov2(Dinov2::new(params, c)), IMAGENET_MEAN, IMAGENET_STD)
            }
        };
        let channels = |values: [f64; 3]| {
            Tensor::from_slice(&values.map(|x| x as f32)).view([3, 1, 1]).to_device(params.device())
        };
        Self {
            network,
            mean: channels(mean),
            std: channels(std),
            image_size: config.image_size(),
            kind: params.kind(),
            device: params.device(),
        }
    }

    /// The encoder of a folder in the Hugging Face layout, frozen.
    pub fn load(
        folder: &Path,
        config: &VisionConfig,
        kind: Kind,
        device: Device,
    ) -> Result<Self, ModelError> {
        let weights = Checkpoint::open(folder, "model", None, kind, device)?;
        let encoder = Self::new(&Params::root(&weights), config);
        weights.report()?.require_complete()?;
        Ok(encoder)
    }

    /// Side of the square picture that the encoder was trained on, in pixels.
    pub fn image_size(&self) -> i64 {
        self.image_size
    }

    /// Pictures `[B, 3, H, W]` in [-1, 1], squashed to squares of `side` pixels, to features in f32.
    ///
    /// Squashed and not cut: a cut would take head and feet from a person's photo and not from a drawing of the pose.
    pub fn forward(&self, pictures: &Tensor, side: i64) -> VisionFeatures {
        let pixels = self.prepare(&pictures.to_device(self.device), side).to_kind(self.kind);
        let (tokens, embedding) = match &self.network {
            Network::Clip(clip) => {
                let output = clip.forward(&pixels);
                (clip.normed(&output.last_hidden_state), output.image_embeds)
            }
            Network::Dinov2(dinov2) => {
                let tokens = dinov2.forward(&pixels);
                let class = tokens.select(1, 0); // [B, width]
                (tokens, class)
            }
        };
        VisionFeatures {
            tokens: tokens.to_kind(Kind::Float),
            embedding: embedding.to_kind(Kind::Float),
        }
    }

    /// Resized bicubically, then normalised by channel; `[B, 3, side, side]`, f32.
    fn prepare(&self, pictures: &Tensor, side: i64) -> Tensor {
        let size = pictures.size();
        let pixels = pictures.to_kind(Kind::Float) * 0.5 + 0.5;
        let pixels = if size[2..] == [side, side] {
            pixels
        } else {
            // Widened where it shrinks, as Pillow's is; what overshoots stays black and white.
            pixels.internal_upsample_bicubic2d_aa([side, side], false, None, None).clamp(0.0, 1.0)
        };
        (pixels - &self.mean) / &self.std
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<VisionConfig, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), json).unwrap();
        VisionConfig::read(folder.path())
    }

    const DINO: &str = r#"{"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14, "hidden_act": "gelu""#;

    #[test]
    fn a_configuration_survives_being_written() {
        let config = read(&format!("{DINO}}}")).unwrap();
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(read(&written).unwrap(), config);
        assert_eq!((config.token_width(), config.embedding_width()), (8, 8));
    }

    #[test]
    fn what_the_network_does_not_have_is_refused_by_its_key() {
        for (extra, key) in [
            (r#", "use_swiglu_ffn": true"#, "use_swiglu_ffn"),
            (r#", "num_register_tokens": 4"#, "num_register_tokens"),
            (r#", "qkv_bias": false"#, "qkv_bias"),
        ] {
            let error = read(&format!("{DINO}{extra}}}")).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        let error = read(r#"{"model_type": "vit"}"#).unwrap_err().to_string();
        assert!(error.contains("'vit'") && error.contains("DINOv2"), "{error}");
        let odd = DINO.replace("\"num_attention_heads\": 2", "\"num_attention_heads\": 3");
        assert!(read(&format!("{odd}}}")).unwrap_err().to_string().contains("3 heads"));
    }

    #[test]
    fn pictures_are_squashed_and_normalised_by_channel() {
        let config = read(&format!("{DINO}}}")).unwrap();
        let source = crate::seeded::Seeded::new("dinov2", 1, Kind::Float, Device::Cpu);
        let encoder = VisionEncoder::new(&Params::root(&source), &config);
        let white = Tensor::ones([1, 3, 40, 20], (Kind::Float, Device::Cpu));
        let prepared = encoder.prepare(&white, 28);
        assert_eq!(prepared.size(), [1, 3, 28, 28]);
        for channel in 0..3 {
            let expected = (1.0 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel];
            let found = prepared.double_value(&[0, channel as i64, 13, 7]);
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
    }
}
