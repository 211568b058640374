//! The denoising network, on latents of the trained autoencoder and contexts of the trained text encoder.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use embeddings::{Conditioner, Overflow};
use models::folder::ModelFolder;
use models::params::Params;
use models::schedule::NoiseSchedule;
use models::unet::{Conditioning, UNet};
use models::weights;
use pipelines::trainer::{Losses, TrainStep};
use pipelines::{Error, picture};
use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::data::{self, Gallery};
use super::latents::{self, Latents};
use super::run::{self, Options, Report};
use crate::artist::Artist;

/// Share of samples whose caption is emptied, for guidance.
const EMPTY: f64 = 0.1;
/// Of the min-SNR weights.
const GAMMA: f64 = 5.0;

struct Denoise<'a> {
    unet: &'a UNet,
    conditioner: &'a Conditioner,
    schedule: NoiseSchedule,
    gallery: &'a Gallery,
    latents: Latents,
    batch_size: usize,
}

impl TrainStep for Denoise<'_> {
    fn losses(&mut self, index: u64, draw: &Generator) -> Result<Losses, Error> {
        let size = self.batch_size;
        let seen = index * size as u64;
        let among = latents::shown(self.gallery.len(), seen);
        let (places, mut captions) = self.gallery.pick(seen, size, among);
        let emptied: Vec<f32> = Vec::try_from(draw.rand(&[size as i64])).unwrap_or_default();
        for (caption, share) in captions.iter_mut().zip(emptied) {
            if f64::from(share) < EMPTY {
                caption.clear();
            }
        }
        let x_0 = self.latents.at(&places)?.to_device(self.unet.device()); // [B, C, h, w]
        let context = tch::no_grad(|| self.encode(&captions));
        let noise = draw.randn(&x_0.size()).to_device(x_0.device());
        let timesteps = self.schedule.spread_timesteps(size as i64, draw).to_device(x_0.device());
        let x_t = self.schedule.add_noise(&x_0, &noise, &timesteps);
        let prediction = self.unet.forward(&x_t, &timesteps, &context).to_kind(Kind::Float);
        let target = self.schedule.target(&x_0, &noise, &timesteps);
        let error =
            (prediction - target).square().mean_dim([1, 2, 3].as_slice(), false, Kind::Float);
        let plain = error.mean(Kind::Float).double_value(&[]);
        let total = (error * self.schedule.min_snr_weight(&timesteps, GAMMA)).mean(Kind::Float);
        Ok(Losses { total, terms: vec![("plain", plain)] })
    }
}

impl Denoise<'_> {
    fn encode(&self, captions: &[String]) -> Conditioning {
        let tokens: Vec<_> = captions
            .iter()
            .map(|caption| {
                let tokens = self.conditioner.tokenize(caption, &[], Overflow::Truncate);
                tokens.expect("captions hold no concept")
            })
            .collect();
        let context = self.conditioner.encode(&tokens.iter().collect::<Vec<_>>(), &[]);
        Conditioning::context(context.map(|c| c.to_kind(self.unet.kind())))
    }
}

/// Trains the U-Net; writes `unet/`.
pub(super) fn train(
    options: &Options,
    report: &mut dyn FnMut(Report<'_>) -> ControlFlow<()>,
) -> Result<PathBuf, Error> {
    let (device, kind) = super::place(options)?;
    let folder = ModelFolder::open(&options.base, None)?;
    let clip = folder.load_text_encoder(Kind::Float, device)?;
    let conditioner = Conditioner::new(folder.tokenizer()?, clip, 0);
    let vae = folder.load_vae(kind, device)?;
    let stem = "diffusion_pytorch_model";
    let source = run::source(options, "unet", stem, (device, kind), None)?;
    let unet = UNet::new(&Params::root(&source), &folder.unet);
    let leaves: Vec<Tensor> = source.parameters().into_iter().map(|(_, leaf)| leaf).collect();
    let schedule = NoiseSchedule::new(&folder.scheduler)?;

    let mut keep = |average: &[Tensor]| {
        let path = options.base.join("unet/diffusion_pytorch_model.safetensors");
        weights::write(&path, run::shipped(&source, average))?;
        Ok(path)
    };
    let shown = data::samples(options.world, options.seed ^ 0x5EED, 0, 16);
    let captions: Vec<String> = shown.iter().map(|sample| sample.caption.clone()).collect();
    let mut sheet = |average: &[Tensor], path: &Path| {
        let drawn = run::with_values(&leaves, average, || {
            let artist =
                Artist { unet: &unet, vae: &vae, conditioner: &conditioner, folder: &folder };
            artist.draw(&captions, 20, 1)
        })?;
        let cells: Vec<_> = drawn.into_iter().zip(captions.clone()).collect();
        let sheet = crate::contact_sheet(&cells, 4);
        picture::write(path, &sheet, None, picture::Existing::Replace)?;
        Ok(())
    };
    let gallery = Gallery::new(options.world, options.seed, options.pictures);
    let kept = options.work.join("unet");
    let latents = Latents::of(&gallery, options.base.clone(), kept, (device, kind))?;
    let mut step = Denoise {
        unet: &unet,
        conditioner: &conditioner,
        schedule,
        gallery: &gallery,
        latents,
        batch_size: options.batch_size,
    };
    run::fit("unet", options, &source, &mut step, &mut keep, Some(&mut sheet), report)
}
