//! Text and vision encoders, trained to tell which caption goes with which picture.
//!
//! Source: Radford et al. 2021, figure 3; identical captions in a batch count as positives.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::PathBuf;

use models::clip::{ClipText, ClipTextConfig, ClipVision, ClipVisionConfig};
use models::fresh::Fresh;
use models::params::Params;
use models::tokenizer::Tokenizer;
use models::weights;
use pipelines::Error;
use pipelines::trainer::{Losses, TrainStep};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use super::data::{self, Gallery};
use super::run::{self, Options, Report};

/// `clip/config.json`.
#[derive(Deserialize)]
struct Config {
    projection_dim: i64,
    text_config: ClipTextConfig,
    vision_config: ClipVisionConfig,
}

struct Clip {
    text: ClipText,
    vision: ClipVision,
    text_projection: Tensor,
    logit_scale: Tensor,
    tokenizer: Tokenizer,
    device: Device,
}

impl Clip {
    fn new(source: &Fresh, config: &Config, tokenizer: Tokenizer, device: Device) -> Self {
        let root = Params::root(source);
        let width = config.text_config.hidden_size;
        let text_projection =
            root.pp("text_projection").get("weight", &[config.projection_dim, width]);
        let logit_scale = root.get("logit_scale", &[]);
        tch::no_grad(|| {
            let _ = logit_scale.shallow_clone().fill_((1.0f64 / 0.07).ln());
        });
        Self {
            text: ClipText::new(&root, &config.text_config),
            vision: ClipVision::new(&root, &config.vision_config),
            text_projection,
            logit_scale,
            tokenizer,
            device,
        }
    }

    /// Captions to unit vectors, `[B, projection]`. The encoder is causal, so tokens past the longest
    /// caption's end have no part in any vector and are left out.
    fn embed_captions(&self, captions: &[String]) -> Tensor {
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
    fn embed_pictures(&self, pictures: &Tensor) -> Tensor {
        unit(&self.vision.forward(&pictures.to_device(self.device)).image_embeds)
    }

    /// Scaled cosines, `[B pictures, B captions]`.
    fn logits(&self, pictures: &Tensor, captions: &[String]) -> Tensor {
        let scale = self.logit_scale.clamp_max(100f64.ln()).exp();
        let pictures = self.embed_pictures(pictures);
        pictures.matmul(&self.embed_captions(captions).transpose(0, 1)) * scale
    }
}

fn unit(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2, [-1], true)
}

struct Contrast<'a> {
    clip: &'a Clip,
    gallery: &'a Gallery,
    /// Of the gallery, `[N, 3, 128, 128]`, bytes.
    pictures: Tensor,
    batch_size: usize,
}

impl TrainStep for Contrast<'_> {
    fn losses(&mut self, index: u64, _draw: &Generator) -> Losses {
        let size = self.batch_size;
        let (places, captions) = self.gallery.pick(index * size as u64, size);
        let pictures = data::from_bytes(&self.pictures.index_select(0, &places));
        let mut groups = HashMap::new();
        let group: Vec<i64> = captions
            .iter()
            .map(|caption| {
                let next = groups.len() as i64;
                *groups.entry(caption.as_str()).or_insert(next)
            })
            .collect();
        let group = Tensor::from_slice(&group).to_device(self.clip.device);
        let same = group.unsqueeze(0).eq_tensor(&group.unsqueeze(1)).to_kind(Kind::Float); // [B, B]
        let target = &same / same.sum_dim_intlist(-1, true, Kind::Float);
        let logits = self.clip.logits(&pictures, &captions);
        let cross = |logits: &Tensor| {
            -(&target * logits.log_softmax(-1, Kind::Float))
                .sum_dim_intlist(-1, false, Kind::Float)
                .mean(Kind::Float)
        };
        let total = (cross(&logits) + cross(&logits.transpose(0, 1))) * 0.5;
        let right = logits.argmax(-1, false);
        let rows = Tensor::arange(size as i64, (Kind::Int64, self.clip.device));
        let top1 = same.index(&[Some(rows), Some(right)]).mean(Kind::Float).double_value(&[]);
        Losses { total, terms: vec![("top-1", top1)] }
    }
}

/// Trains both encoders; writes `text_encoder/` (what the U-Net reads) and `clip/` (both, for judging).
pub(super) fn train(
    options: &Options,
    report: &mut dyn FnMut(Report<'_>) -> ControlFlow<()>,
) -> Result<PathBuf, Error> {
    let (device, _) = super::place(options)?;
    let path = options.base.join("clip/config.json");
    let file = File::open(&path).map_err(|source| Error::Io {
        path: path.clone(),
        verb: "read",
        source,
    })?;
    let config: Config = serde_json::from_reader(BufReader::new(file))
        .map_err(|e| Error::Usage(format!("{}: {e}", path.display())))?;
    let tokenizer = Tokenizer::open(&options.base.join("tokenizer"))?;
    // f32: the towers are small, and a contrastive loss wants its digits.
    let source = Fresh::new(options.seed, Kind::Float, device);
    let clip = Clip::new(&source, &config, tokenizer, device);
    let (names, parameters): (Vec<String>, Vec<Tensor>) = source.parameters().into_iter().unzip();

    let mut keep = |average: &[Tensor]| {
        let all: Vec<(String, Tensor)> =
            names.iter().cloned().zip(average.iter().map(|t| t.to_kind(Kind::Half))).collect();
        let text = all.iter().filter(|(name, _)| name.starts_with("text_model."));
        let text = text.map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
        weights::write(&options.base.join("text_encoder/model.safetensors"), text)?;
        let path = options.base.join("clip/model.safetensors");
        weights::write(&path, all)?;
        Ok(path)
    };
    let gallery = Gallery::new(options.seed, options.pictures);
    let pictures = gallery.map(data::to_bytes);
    let batch_size = options.batch_size;
    let mut step = Contrast { clip: &clip, gallery: &gallery, pictures, batch_size };
    run::fit("clip", options, parameters, &mut step, &mut keep, None, report)
}
