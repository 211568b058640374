//! CLIP of the built-in base: which caption goes with which picture.
//!
//! Source: Radford et al. 2021, figure 3.

use std::path::Path;

use models::clip::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig};
use models::params::Params;
use models::tokenizer::Tokenizer;
use models::weights::Checkpoint;
use pipelines::Error;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// `clip/config.json`.
#[derive(Deserialize)]
pub(crate) struct Config {
    projection_dim: i64,
    text_config: ClipTextConfig,
    vision_config: ClipVisionConfig,
}

/// Both encoders of the base, and what turns their outputs into comparable vectors.
pub(crate) struct Clip {
    text: ClipText,
    vision: ClipVision,
    text_projection: Tensor,
    /// The logarithm of what cosines are multiplied by.
    pub(crate) logit_scale: Tensor,
    tokenizer: Tokenizer,
    pub(crate) device: Device,
}

impl Config {
    /// Reads `clip/config.json` of a base.
    pub(crate) fn read(base: &Path) -> Result<Self, Error> {
        let path = base.join("clip/config.json");
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io {
            path: path.clone(),
            verb: "read",
            source,
        })?;
        serde_json::from_str(&text).map_err(|e| Error::Usage(format!("{}: {e}", path.display())))
    }
}

impl Clip {
    /// From `clip/`.
    pub(crate) fn new(root: &Params, config: &Config, tokenizer: Tokenizer) -> Self {
        let device = root.device();
        let width = config.text_config.hidden_size;
        let text_projection =
            root.pp("text_projection").get("weight", &[config.projection_dim, width]);
        let logit_scale = root.get("logit_scale", &[]);
        Self {
            text: ClipText::new(root, &config.text_config),
            vision: ClipVision::new(root, &config.vision_config),
            text_projection,
            logit_scale,
            tokenizer,
            device,
        }
    }

    /// The trained encoders of a base, in f32.
    pub(crate) fn load(base: &Path, device: Device) -> Result<Self, Error> {
        let config = Config::read(base)?;
        let weights = Checkpoint::open(&base.join("clip"), "model", None, Kind::Float, device)?;
        let clip =
            Self::new(&Params::root(&weights), &config, Tokenizer::open(&base.join("tokenizer"))?);
        weights.report()?.require_complete()?;
        Ok(clip)
    }

    /// Captions to unit vectors, `[B, projection]`. The encoder is causal, so tokens past the longest
    /// caption's end have no part in any vector and are left out.
    pub(crate) fn embed_captions(&self, captions: &[String]) -> Tensor {
        let mut rows: Vec<Vec<i64>> = captions
            .iter()
            .map(|caption| {
                let mut words = vec![self.tokenizer.start()];
                words.extend(self.tokenizer.encode(caption));
                words.truncate(self.tokenizer.length() - 1);
                words
            })
            .collect();
        let ends: Vec<i64> = rows.iter().map(|words| words.len() as i64).collect();
        let length = ends.iter().max().map_or(1, |&last| last as usize + 1);
        for words in &mut rows {
            words.resize(length, self.tokenizer.end());
        }
        let ids: Vec<Tensor> = rows.iter().map(|words| Tensor::from_slice(words)).collect();
        let hidden = self.text.forward(&Tensor::stack(&ids, 0).to_device(self.device)); // [B, S, D]
        let rows = Tensor::arange(captions.len() as i64, (Kind::Int64, self.device));
        let ends = Tensor::from_slice(&ends).to_device(self.device);
        let pooled = hidden.index(&[Some(rows), Some(ends)]); // [B, D]
        unit(&pooled.linear(&self.text_projection, None::<&Tensor>))
    }

    /// Pictures to unit vectors, `[B, projection]`.
    pub(crate) fn embed_pictures(&self, pictures: &Tensor) -> Tensor {
        unit(&self.vision.forward(&pictures.to_device(self.device)).image_embeds)
    }

    /// Scaled cosines, `[B pictures, B captions]`.
    pub(crate) fn logits(&self, pictures: &Tensor, captions: &[String]) -> Tensor {
        let scale = self.logit_scale.clamp_max(100f64.ln()).exp();
        let pictures = self.embed_pictures(pictures);
        pictures.matmul(&self.embed_captions(captions).transpose(0, 1)) * scale
    }
}

fn unit(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2, [-1], true)
}
