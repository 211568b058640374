//! Training of the built-in base on the picture world, with the project's own networks and trainer.
//!
//! A part reads its `config.json` (and the parts before it) from the folder of the base and writes its weights
//! there: `tokenizer`, then `clip`, then `vae`, then `unet`. The recipe and what it gave are in
//! `docs/toybox.md`.

mod clip;
mod data;
mod latents;
mod patch_code;
mod run;
mod tokenizer;
mod unet;
mod vae;
mod widen;

use std::path::PathBuf;

use pipelines::{DeviceChoice, Error, Precision};

pub use run::{Options, Report};
pub use widen::widen;

/// What can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The vocabulary, from captions.
    Tokenizer,
    /// Text and vision encoders, contrastively.
    Clip,
    /// The autoencoder.
    Vae,
    /// The denoising network.
    Unet,
}

/// Trains one part; `report` is told of every step and may stop the run, which then can be resumed.
pub fn pretrain(
    part: Part,
    options: &Options,
    report: &mut dyn FnMut(Report<'_>) -> std::ops::ControlFlow<()>,
) -> Result<PathBuf, Error> {
    match part {
        Part::Tokenizer => tokenizer::learn(options),
        Part::Clip => clip::train(options, report),
        Part::Vae => vae::train(options, report),
        Part::Unet => unet::train(options, report),
    }
}

/// The device and the kind of number that a run computes in.
pub(crate) fn place(options: &Options) -> Result<(tch::Device, tch::Kind), Error> {
    let device = options.device.parse::<DeviceChoice>()?.resolve()?;
    Ok((device, options.precision.parse::<Precision>()?.resolve(device)))
}
