//! Contexts and seeds to pictures: noise, the sampling loop, the decoder.

use std::ops::ControlFlow;

use image::RgbImage;
use models::samplers::{self, SamplerConfig, SamplerKind};
use models::schedule::ScheduleConfig;
use models::unet::{CrossAttnContext, UNet};
use models::vae::Vae;
use tch::{Device, Tensor};
use torch_ext::Generator;

use crate::denoise::PromptContext;
use crate::{Error, Guidance, denoise, picture};

/// How one picture is sampled.
#[derive(Clone)]
pub struct Sampling {
    /// Which sampler.
    pub kind: SamplerKind,
    /// Its settings.
    pub config: SamplerConfig,
    /// Denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance; 1 is none.
    pub guidance: f64,
    /// Pull of the guided prediction's deviation back to the conditional one's, 0 to 1.
    pub guidance_rescale: f64,
    /// In pixels.
    pub width: i64,
    /// In pixels.
    pub height: i64,
}

/// The networks that turn contexts and seeds into pictures.
pub struct Painter<'a> {
    /// Removes the noise.
    pub unet: &'a UNet,
    /// Decodes.
    pub vae: &'a Vae,
    /// Noise levels of the base.
    pub schedule: &'a ScheduleConfig,
}

impl Painter<'_> {
    /// One picture a seed, in one batch; nothing where `on_step` stopped it. A context is one for all pictures,
    /// `[1, S, D]`, or one for each, `[B, S, D]`.
    ///
    /// The noise of a seed is that of `torch.Generator("cpu").manual_seed(seed)`, so that a picture can be
    /// compared with Python's.
    pub fn draw(
        &self,
        sampling: &Sampling,
        context: &PromptContext<'_>,
        negative: &CrossAttnContext,
        seeds: &[u64],
        on_step: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<RgbImage>>, Error> {
        let batch = seeds.len() as i64;
        let each = |context: &CrossAttnContext| {
            context.map(|c| c.to_kind(self.unet.kind()).repeat([batch / c.size()[0], 1, 1]))
        };
        let (scale, rescale) = (sampling.guidance, sampling.guidance_rescale);
        let negative = each(negative);
        let embedded = self.unet.config().time_cond_proj_dim.is_some();
        let guidance = match context {
            PromptContext::Constant(context) if embedded => {
                let context = each(context);
                Guidance::embedded(move |_| context.map(Tensor::shallow_clone), scale)
            }
            PromptContext::AtTimestep(context) if embedded => {
                Guidance::embedded(|t| each(&context(t)), scale)
            }
            PromptContext::Constant(context) => {
                Guidance::classifier_free(&each(context), &negative, scale, rescale)
            }
            PromptContext::AtTimestep(context) => {
                Guidance::classifier_free_at(|t| each(&context(t)), negative, scale, rescale)
            }
        };
        self.draw_guided(sampling, &guidance, seeds, on_step)
    }

    /// The same with guidance of any kind, in place of that of `sampling`; its conditioning is for as many pictures as
    /// there are seeds.
    pub fn draw_guided(
        &self,
        sampling: &Sampling,
        guidance: &Guidance<'_>,
        seeds: &[u64],
        on_step: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<RgbImage>>, Error> {
        let (device, batch) = (self.unet.device(), seeds.len() as i64);
        let generators: Vec<Generator> = seeds.iter().map(|&seed| Generator::cpu(seed)).collect();
        let (f, channels) = (self.vae.downscale(), self.unet.config().in_channels);
        let shape = [1, channels, sampling.height / f, sampling.width / f];
        let mut noise = || {
            let each: Vec<Tensor> = generators.iter().map(|g| g.randn(&shape)).collect();
            Tensor::cat(&each, 0).to_device(device) // [B, 4, h, w]
        };
        let initial = noise();
        let mut sampler =
            samplers::build(sampling.kind, self.schedule, &sampling.config, sampling.steps)?;
        let Some(latents) =
            denoise(self.unet, &mut *sampler, guidance, &initial, &mut noise, on_step)
        else {
            return Ok(None);
        };
        let pictures = (0..batch).map(|i| {
            let decoded = self.vae.decode(&latents.narrow(0, i, 1)).squeeze_dim(0); // [3, H, W]
            Ok(picture::to_rgb(&decoded.to_device(Device::Cpu), self.unet.kind())?)
        });
        pictures.collect::<Result<Vec<_>, Error>>().map(Some)
    }
}
