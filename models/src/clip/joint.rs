//! Both towers of CLIP with their projections: which text goes with which picture.
//!
//! Source: Radford et al. 2021, figure 3.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig};
use crate::ModelError;
use crate::config::{model_type, read_config};
use crate::params::Params;
use crate::tokenizer::Tokenizer;
use crate::weights::Checkpoint;

/// `config.json` of a `CLIPModel`.
#[derive(Debug, Clone, Deserialize)]
pub struct ClipConfig {
    /// Width of the space that texts and pictures share.
    pub projection_dim: i64,
    /// Of the text tower.
    pub text_config: ClipTextConfig,
    /// Of the vision tower.
    pub vision_config: ClipVisionConfig,
}

impl ClipConfig {
    /// Reads and checks `config.json` of a folder.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let found = model_type(&path)?;
        if found != "clip" {
            let what = format!(
                "a model of type '{found}', but a whole CLIP was expected (clip); give the folder of a CLIPModel such as clip-vit-base-patch32"
            );
            return Err(ModelError::invalid(&path, what));
        }
        let mut config: Self = read_config(&path)?;
        // CLIPModel takes its own width for both projections, whatever the towers' parts say.
        config.vision_config.projection_dim = config.projection_dim;
        let (text, vision) = (&config.text_config, &config.vision_config);
        let heads = [
            (text.hidden_size, text.num_attention_heads),
            (vision.hidden_size, vision.num_attention_heads),
        ];
        if let Some((width, heads)) = heads.iter().find(|(width, heads)| width % heads != 0) {
            let what = format!("a tower is {width} wide, which its {heads} heads do not divide");
            return Err(ModelError::invalid(
                &path,
                what + "; use the file that came with the weights",
            ));
        }
        if vision.patch_size > vision.image_size {
            let what = format!(
                "patches of {} pixels do not fit into pictures of {}; use the file that came with the weights",
                vision.patch_size, vision.image_size
            );
            return Err(ModelError::invalid(&path, what));
        }
        Ok(config)
    }
}

/// Both towers, and what turns their outputs into comparable vectors.
pub struct Clip {
    text: ClipText,
    vision: ClipVision,
    text_projection: Tensor,
    logit_scale: Tensor,
    tokenizer: Tokenizer,
    device: Device,
}

impl Clip {
    /// Builds both from `text_model.…`, `vision_model.…`, the projections and `logit_scale`.
    pub fn new(params: &Params, config: &ClipConfig, tokenizer: Tokenizer) -> Self {
        let width = config.text_config.hidden_size;
        Self {
            text: ClipText::new(params, &config.text_config),
            vision: ClipVision::new(params, &config.vision_config),
            text_projection: params
                .pp("text_projection")
                .get("weight", &[config.projection_dim, width]),
            logit_scale: params.get("logit_scale", &[]),
            tokenizer,
            device: params.device(),
        }
    }

    /// The `CLIPModel` of a folder in the Hugging Face layout, in f32. Its tokenizer lies in the folder itself or, as
    /// in a Stable Diffusion model, in the folder `tokenizer` beside it.
    pub fn load(folder: &Path, device: Device) -> Result<Self, ModelError> {
        let config = ClipConfig::read(folder)?;
        let tokenizer = Tokenizer::open(&tokenizer_folder(folder))?;
        let (rows, ids) = (config.text_config.vocab_size, tokenizer.ids());
        if rows < ids {
            let what = format!(
                "the tokenizer has {ids} tokens, but the text tower knows {rows}; use files of one model"
            );
            return Err(ModelError::invalid(folder, what));
        }
        let weights = Checkpoint::open(folder, "model", None, Kind::Float, device)?;
        let clip = Self::new(&Params::root(&weights), &config, tokenizer);
        weights.report()?.require_complete()?;
        Ok(clip)
    }

    /// The logarithm of what cosines are multiplied by.
    pub fn logit_scale(&self) -> &Tensor {
        &self.logit_scale
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Texts to unit vectors, `[B, projection_dim]`; what exceeds the tower's length is cut. The tower is causal, so
    /// tokens past the longest text's end have no part in any vector and are left out.
    pub fn embed_texts(&self, texts: &[String]) -> Tensor {
        let mut rows: Vec<Vec<i64>> = texts
            .iter()
            .map(|text| {
                let mut words = vec![self.tokenizer.start()];
                words.extend(self.tokenizer.encode(text));
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
        let rows = Tensor::arange(texts.len() as i64, (Kind::Int64, self.device));
        let ends = Tensor::from_slice(&ends).to_device(self.device);
        let pooled = hidden.index(&[Some(rows), Some(ends)]); // [B, D]
        unit(&pooled.linear(&self.text_projection, None::<&Tensor>))
    }

    /// Prepared pictures `[B, 3, image_size, image_size]` to unit vectors, `[B, projection_dim]`.
    pub fn embed_pictures(&self, pictures: &Tensor) -> Tensor {
        unit(&self.vision.forward(&pictures.to_device(self.device)).image_embeds)
    }

    /// Scaled cosines, `[B pictures, B texts]`.
    pub fn logits(&self, pictures: &Tensor, texts: &[String]) -> Tensor {
        let scale = self.logit_scale.clamp_max(100f64.ln()).exp();
        self.embed_pictures(pictures).matmul(&self.embed_texts(texts).transpose(0, 1)) * scale
    }
}

/// Where the tokenizer of a CLIP folder lies: in it, or beside it.
pub fn tokenizer_folder(folder: &Path) -> PathBuf {
    let beside = folder.parent().unwrap_or(Path::new("")).join("tokenizer");
    let own = ["vocab.json", "tokenizer.json"].iter().any(|name| folder.join(name).is_file());
    if !own && beside.is_dir() { beside } else { folder.to_owned() }
}

fn unit(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2, [-1], true)
}
