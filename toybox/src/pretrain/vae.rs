//! The autoencoder: absolute error of pixels and of their differences, and a little of the Gaussian's
//! divergence.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use models::folder::ModelFolder;
use models::fresh::Fresh;
use models::params::Params;
use models::vae::Vae;
use models::weights;
use pipelines::trainer::{Losses, TrainStep};
use pipelines::{Error, picture};
use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::data;
use super::run::{self, Options, Report};

/// Weight of the differences between neighbours, which keep edges sharp.
const EDGES: f64 = 1.0;
/// Weight of the divergence from a standard normal latent.
const DIVERGENCE: f64 = 1e-6;

struct Reconstruct<'a> {
    vae: &'a Vae,
    options: &'a Options,
}

impl TrainStep for Reconstruct<'_> {
    fn losses(&mut self, index: u64, draw: &Generator) -> Losses {
        let size = self.options.batch_size;
        let samples = data::samples(self.options.seed, index * size as u64, size);
        let pictures = data::pictures(&samples); // [B, 3, 128, 128]
        let latents = self.vae.encode(&pictures);
        let pictures = pictures.to_device(latents.mean.device());
        let noise = draw.randn(&latents.mean.size()).to_device(latents.mean.device());
        let decoded = self.vae.decode(&(latents.sample(&noise) * self.vae.scaling_factor()));
        let error = &decoded - &pictures;
        let pixels = error.abs().mean(Kind::Float);
        let edges = [2, 3].map(|axis| {
            error.diff(1, axis, None::<&Tensor>, None::<&Tensor>).abs().mean(Kind::Float)
        });
        let edges = &edges[0] + &edges[1];
        let divergence = (latents.mean.square() + latents.logvar.exp() - 1.0 - &latents.logvar)
            .mean(Kind::Float)
            * 0.5;
        let psnr = -10.0 * (error.square().mean(Kind::Float).double_value(&[]) / 4.0).log10();
        let total = &pixels + &edges * EDGES + &divergence * DIVERGENCE;
        Losses {
            terms: vec![
                ("psnr", psnr),
                ("pixels", pixels.double_value(&[])),
                ("divergence", divergence.double_value(&[])),
            ],
            total,
        }
    }
}

/// Trains the autoencoder; writes `vae/` with the scaling factor that brings its latents to deviation 1.
pub(super) fn train(
    options: &Options,
    report: &mut dyn FnMut(Report<'_>) -> ControlFlow<()>,
) -> Result<PathBuf, Error> {
    let (device, kind) = super::place(options)?;
    let mut config = ModelFolder::open(&options.base, None)?.vae;
    config.scaling_factor = 1.0;
    let source = Fresh::new(options.seed, kind, device);
    let vae = Vae::new(&Params::root(&source), &config);
    let (names, parameters): (Vec<String>, Vec<Tensor>) = source.parameters().into_iter().unzip();
    let leaves: Vec<Tensor> = parameters.iter().map(Tensor::shallow_clone).collect();

    let held_out = data::samples(options.seed ^ 0x5EED, 0, 64);
    let mut keep = |average: &[Tensor]| {
        let deviation = run::with_values(&leaves, average, || {
            vae.encode(&data::pictures(&held_out)).mean.std(true).double_value(&[])
        });
        write_scaling_factor(&options.base.join("vae/config.json"), 1.0 / deviation)?;
        let path = options.base.join("vae/diffusion_pytorch_model.safetensors");
        let halves = average.iter().map(|t| t.to_kind(Kind::Half));
        weights::write(&path, names.iter().cloned().zip(halves).collect())?;
        Ok(path)
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
                        )?);
                    }
                }
            }
            picture::write(path, &picture::grid(&cells, 8), None, picture::Existing::Replace)?;
            Ok(())
        })
    };
    run::fit(
        "vae",
        options,
        parameters,
        &mut Reconstruct { vae: &vae, options },
        &mut keep,
        Some(&mut sheet),
        report,
    )
}

fn write_scaling_factor(path: &Path, factor: f64) -> Result<(), Error> {
    let io = |verb| {
        let path = path.to_owned();
        move |source| Error::Io { path, verb, source }
    };
    let text = std::fs::read_to_string(path).map_err(io("read"))?;
    let mut config: serde_json::Value = serde_json::from_str(&text)
        .map_err(|e| Error::Usage(format!("{}: {e}", path.display())))?;
    config["scaling_factor"] = ((factor * 1e5).round() / 1e5).into();
    std::fs::write(path, format!("{config:#}\n")).map_err(io("written"))
}
