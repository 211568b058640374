//! Captions to pictures with the built-in base, several at once.

use std::ops::ControlFlow;

use embeddings::{Conditioner, Overflow};
use image::RgbImage;
use models::folder::ModelFolder;
use models::samplers::{self, SamplerConfig, SamplerKind};
use models::unet::{CrossAttnContext, UNet};
use models::vae::Vae;
use pipelines::{Error, Guidance, denoise, picture};
use tch::{Device, Tensor};
use torch_ext::Generator;

/// Scale of the guidance.
const GUIDANCE: f64 = 4.0;
/// Pictures drawn at once.
const BATCH: usize = 8;

/// The networks that draw.
pub(crate) struct Artist<'a> {
    pub unet: &'a UNet,
    pub vae: &'a Vae,
    pub conditioner: &'a Conditioner,
    pub folder: &'a ModelFolder,
}

impl Artist<'_> {
    /// One picture a caption; the first noise of picture `i` is that of `seed + i`.
    pub(crate) fn draw(
        &self,
        captions: &[String],
        steps: usize,
        seed: u64,
    ) -> Result<Vec<RgbImage>, Error> {
        let mut pictures = Vec::with_capacity(captions.len());
        for captions in captions.chunks(BATCH) {
            let first = seed + pictures.len() as u64;
            let empty = vec![String::new(); captions.len()];
            let guidance = Guidance::classifier_free(
                &self.encode(captions)?,
                &self.encode(&empty)?,
                GUIDANCE,
                0.0,
            );
            let latents = self.latents(&guidance, first, captions.len(), steps)?;
            let decoded = self.vae.decode(&latents).to_device(Device::Cpu);
            for i in 0..captions.len() {
                pictures.push(picture::to_rgb(&decoded.select(0, i as i64))?);
            }
        }
        Ok(pictures)
    }

    fn encode(&self, captions: &[String]) -> Result<CrossAttnContext, Error> {
        let tokens = captions
            .iter()
            .map(|caption| self.conditioner.tokenize(caption, &[], Overflow::Truncate))
            .collect::<Result<Vec<_>, _>>()?;
        let context = self.conditioner.encode(&tokens.iter().collect::<Vec<_>>(), &[]);
        Ok(context.map(|c| c.to_kind(self.unet.kind())))
    }

    fn latents(
        &self,
        guidance: &Guidance,
        first: u64,
        count: usize,
        steps: usize,
    ) -> Result<Tensor, Error> {
        let side = self.folder.unet.sample_size.unwrap_or(64);
        let shape = [1, self.folder.unet.in_channels, side, side];
        let draws: Vec<Generator> = (first..first + count as u64).map(Generator::cpu).collect();
        let mut noise = || {
            let each: Vec<Tensor> = draws.iter().map(|draw| draw.randn(&shape)).collect();
            Tensor::cat(&each, 0).to_device(self.unet.device()) // [B, C, h, w]
        };
        let initial = noise();
        let config = SamplerConfig::default();
        let kind = SamplerKind::DpmPlusPlus2M;
        let mut sampler = samplers::build(kind, &self.folder.scheduler, &config, steps)?;
        let mut go_on = |_, _| ControlFlow::Continue(());
        let done = denoise(self.unet, &mut *sampler, guidance, &initial, &mut noise, &mut go_on);
        Ok(done.expect("nothing stops it"))
    }
}
