//! Text and vision encoders, trained to tell which caption goes with which picture.
//!
//! Source: Radford et al. 2021, figure 3; identical captions in a batch count as positives. Beside the batch's captions
//! pictures have to choose among captions that are wrong in one attribute (Yuksekgonul et al. 2023, section 4), which
//! seldom meet by chance.

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

/// Captions that are wrong in one attribute, for each picture whose caption names everything.
const NEAR: usize = 3;

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
        let first = index * size as u64;
        let (places, mut captions, near) = self.gallery.pick_with_near(first, size, NEAR);
        captions.extend(near);
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
        let own = group.narrow(0, 0, size as i64);
        let same = own.unsqueeze(1).eq_tensor(&group.unsqueeze(0)).to_kind(Kind::Float);
        let logits = self.clip.logits(&pictures, &captions); // [B, C], the first B of the C captions the pictures' own
        let cross = |logits: &Tensor, same: &Tensor| {
            let target = same / same.sum_dim_intlist(-1, true, Kind::Float);
            -(target * logits.log_softmax(-1, Kind::Float))
                .sum_dim_intlist(-1, false, Kind::Float)
                .mean(Kind::Float)
        };
        let square = |wide: &Tensor| wide.narrow(1, 0, size as i64);
        let total =
            (cross(&logits, &same) + cross(&square(&logits).transpose(0, 1), &square(&same))) * 0.5;
        let right = logits.argmax(-1, false);
        let rows = Tensor::arange(size as i64, (Kind::Int64, self.clip.device()));
        let top1 = same.index(&[Some(rows), Some(right)]).mean(Kind::Float).double_value(&[]);
        Ok(Losses { total, terms: vec![("top-1", top1)] })
    }
}

/// Trains both encoders; writes `clip/` (both, for judging) and `text_encoder/` (what the U-Net reads). A warm start trains
/// the judge alone: the U-Net goes on reading the text encoder that it was trained on.
pub(super) fn train(
    options: &Options,
    report: &mut dyn FnMut(Report<'_>) -> ControlFlow<()>,
) -> Result<PathBuf, Error> {
    let (device, _) = super::place(options)?;
    let config = ClipConfig::read(&options.base.join("clip"))?;
    let tokenizer = Tokenizer::open(&options.base.join("tokenizer"))?;
    // f32: the towers are small, and a contrastive loss wants its digits.
    let source = run::source(options, "clip", "model", (device, Kind::Float), None)?;
    let clip = Clip::new(&Params::root(&source), &config, tokenizer);
    if !options.warm_start {
        let _ = tch::no_grad(|| clip.logit_scale().shallow_clone().fill_((1.0f64 / 0.07).ln()));
    }

    let mut keep = |average: &[Tensor]| {
        let all = run::shipped(&source, average);
        if !options.warm_start {
            let text = all.iter().filter(|(name, _)| name.starts_with("text_model."));
            let text = text.map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
            weights::write(&options.base.join("text_encoder/model.safetensors"), text)?;
        }
        let path = options.base.join("clip/model.safetensors");
        weights::write(&path, all)?;
        Ok(path)
    };
    let gallery = Gallery::new(options.world, options.seed, options.pictures);
    let pictures = gallery.map(data::to_bytes);
    let batch_size = options.batch_size;
    let mut step = Contrast { clip: &clip, gallery: &gallery, pictures, batch_size };
    run::fit("clip", options, &source, &mut step, &mut keep, None, report)
}
