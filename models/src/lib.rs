//! Networks and numbers of Stable Diffusion: CLIP, the denoising U-Net, the VAE, the noise schedule,
//! the samplers, weight files and the tokenizer. Nothing here knows of prompts' templates, concepts,
//! data sets or runs.

pub mod samplers;
pub mod schedule;
