//! Networks and numbers of Stable Diffusion: CLIP, `DINOv2`, the denoising U-Net, the VAE, the noise schedule,
//! the samplers, weight files and the tokenizer. Nothing here knows of prompt templates, concepts,
//! data sets or runs.
//!
//! A network is always `XConfig` (from `config.json`) → `X::new(params, config)` → `forward`; the name of
//! a layer's field is its key in the checkpoint.

pub mod clip;
mod config;
mod error;
pub mod folder;
pub mod fresh;
pub mod inception;
pub mod layers;
pub mod low_rank;
pub mod lpips;
pub mod params;
mod resnet;
pub mod samplers;
pub mod schedule;
pub mod seeded;
pub mod tokenizer;
mod transformer;
pub mod unet;
pub mod vae;
pub mod vit;
pub mod weights;

pub use error::{ModelError, advice};
