//! Text and vision encoders, trained to tell which caption goes with which picture.
//!
//! Source: Radford et al. 2021, figure 3; identical captions in a batch count as positives.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use models::clip::{Clip, ClipConfig};
use models::params::Params;
use models::tokenizer::Tokenizer;
use models::weights;
use pipelines::Error;
use pipelines::trainer::{Losses, TrainStep};
use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::data::{self, Gallery};
use super::run::{self, Options, Report};

struct Contrast<'a> {
    clip: &'a Clip,
    gallery: &'a Gallery,
    /// Of the gallery, `[N, 3, 128, 128]`, bytes.
    pictures: Tensor,
    batch_size: usize,
}

impl TrainStep for Contrast<'_> {
    fn losses(&mut self, index: u64, _draw: &Generator) -> Result<Losses, Error> {
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
        let group = Tensor::from_slice(&group).to_device(self.clip.device());
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
        let rows = Tensor::arange(size as i64, (Kind::Int64, self.clip.device()));
        let top1 = same.index(&[Some(rows), Some(right)]).mean(Kind::Float).double_value(&[]);
        Ok(Losses { total, terms: vec![("top-1", top1)] })
    }
}

/// Trains both encoders; writes `text_encoder/` (what the U-Net reads) and `clip/` (both, for judging). A warm start
/// leaves the text encoder as it is, so that a U-Net that was trained on it stays what it was.
pub(super) fn train(
    options: &Options,
    report: &mut dyn FnMut(Report<'_>) -> ControlFlow<()>,
) -> Result<PathBuf, Error> {
    let (device, _) = super::place(options)?;
    let config = ClipConfig::read(&options.base.join("clip"))?;
    let tokenizer = Tokenizer::open(&options.base.join("tokenizer"))?;
    // f32: the towers are small, and a contrastive loss wants its digits.
    let only: fn(&str) -> bool = |name| !name.starts_with("text_model.");
    let only = options.warm_start.then_some(only);
    let source = run::source(options, "clip", "model", (device, Kind::Float), only)?;
    let clip = Clip::new(&Params::root(&source), &config, tokenizer);
    if !options.warm_start {
        let _ = tch::no_grad(|| clip.logit_scale().shallow_clone().fill_((1.0f64 / 0.07).ln()));
    }

    let mut keep = |average: &[Tensor]| {
        let all = run::shipped(&source, average);
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
    run::fit("clip", options, &source, &mut step, &mut keep, None, report)
}
