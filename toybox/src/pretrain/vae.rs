//! The autoencoder: an encoder that is computed ([`super::patch_code`]), and a decoder that learns to draw from
//! it by the absolute error of pixels and of their differences.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use models::folder::ModelFolder;
use models::fresh::Fresh;
use models::params::Params;
use models::vae::Vae;
use models::weights;
use pipelines::trainer::{Losses, TrainStep};
use pipelines::{Error, picture};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use super::data::{self, Gallery};
use super::patch_code::PatchCode;
use super::run::{self, Options, Report};

/// Weight of the differences between neighbours, which keep edges sharp.
const EDGES: f64 = 1.0;

struct Reconstruct<'a> {
    vae: &'a Vae,
    options: &'a Options,
}

impl TrainStep for Reconstruct<'_> {
    fn losses(&mut self, index: u64, draw: &Generator) -> Result<Losses, Error> {
        let size = self.options.batch_size;
        let samples =
            data::samples(self.options.world, self.options.seed, index * size as u64, size);
        let pictures = data::pictures(&samples); // [B, 3, 128, 128]
        let latents = tch::no_grad(|| self.vae.encode(&pictures));
        let pictures = pictures.to_device(latents.mean.device());
        let noise = draw.randn(&latents.mean.size()).to_device(latents.mean.device());
        let decoded = self.vae.decode(&(latents.sample(&noise) * self.vae.scaling_factor()));
        let error = &decoded - &pictures;
        let pixels = error.abs().mean(Kind::Float);
        let edges = [2, 3].map(|axis| {
            error.diff(1, axis, None::<&Tensor>, None::<&Tensor>).abs().mean(Kind::Float)
        });
        let edges = &edges[0] + &edges[1];
        let psnr = -10.0 * (error.square().mean(Kind::Float).double_value(&[]) / 4.0).log10();
        let total = &pixels + &edges * EDGES;
        Ok(Losses { terms: vec![("psnr", psnr), ("pixels", pixels.double_value(&[]))], total })
    }
}

/// Makes the encoder and trains the decoder; writes `vae/`.
pub(super) fn train(
    options: &Options,
    report: &mut dyn FnMut(Report<'_>) -> ControlFlow<()>,
) -> Result<PathBuf, Error> {
    let place = super::place(options)?;
    let config = ModelFolder::open(&options.base, None)?.vae;
    let path = options.base.join("vae/diffusion_pytorch_model.safetensors");
    if !(options.resume || options.warm_start) {
        let code = PatchCode::of(
            &Gallery::new(options.world, options.seed, options.pictures.min(2000)),
            &config,
        )?;
        let fresh = Fresh::new(options.seed, Kind::Float, Device::Cpu);
        Vae::new(&Params::root(&fresh), &config);
        let made = fresh.parameters().into_iter().map(|(name, new)| {
            let tensor = code.parameter(&name, &new).unwrap_or(new);
            (name, tensor.detach().to_kind(Kind::Half))
        });
        weights::write(&path, made.collect())?;
    }
    let only: fn(&str) -> bool = |name| name.starts_with("decoder") || name.starts_with("post");
    let source = run::source(options, "vae", "diffusion_pytorch_model", place, Some(only))?;
    let vae = Vae::new(&Params::root(&source), &config);
    let leaves: Vec<Tensor> = source.parameters().into_iter().map(|(_, leaf)| leaf).collect();

    let held_out = data::samples(options.world, options.seed ^ 0x5EED, 0, 64);
    let mut keep = |average: &[Tensor]| {
        weights::write(&path, run::shipped(&source, average))?;
        Ok(path.clone())
    };
    let mut sheet = |average: &[Tensor], path: &Path| {
        run::with_values(&leaves, average, || {
            let pictures = data::pictures(&held_out[..16]);
            let decoded = vae.decode(&vae.encode(&pictures).mean).clamp(-1.0, 1.0);
            let mut cells = Vec::new();
            for row in 0..2 {
                for source in [&pictures, &decoded] {
                    for i in row * 8..row * 8 + 8 {
                        cells.push(picture::to_rgb(
                            &source.select(0, i).to_device(tch::Device::Cpu),
                            tch::Kind::Float,
                        )?);
                    }
                }
            }
            picture::write(path, &picture::grid(&cells, 8), None, picture::Existing::Replace)?;
            Ok(())
        })
    };
    let mut step = Reconstruct { vae: &vae, options };
    run::fit("vae", options, &source, &mut step, &mut keep, Some(&mut sheet), report)
}
