//! A context and seeds to pictures: noise, the sampling loop, the decoder.

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
pub(crate) struct Sampling {
    pub kind: SamplerKind,
    pub config: SamplerConfig,
    pub steps: usize,
    pub guidance: f64,
    pub guidance_rescale: f64,
    pub width: i64,
    pub height: i64,
}

/// The networks that turn a context and seeds into pictures.
pub(crate) struct Painter<'a> {
    pub unet: &'a UNet,
    pub vae: &'a Vae,
    pub schedule: &'a ScheduleConfig,
}

impl Painter<'_> {
    /// One picture a seed, in one batch; nothing where `on_step` stopped it.
    ///
    /// The noise of a seed is that of `torch.Generator("cpu").manual_seed(seed)`, so that a picture can be
    /// compared with Python's.
    pub(crate) fn draw(
        &self,
        sampling: &Sampling,
        context: &PromptContext<'_>,
        negative: &CrossAttnContext,
        seeds: &[u64],
        on_step: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<RgbImage>>, Error> {
        let device = self.unet.device();
        let batch = seeds.len() as i64;
        let each = |context: &CrossAttnContext| {
            context.map(|c| c.to_kind(self.unet.kind()).repeat([batch, 1, 1]))
        };
        let (scale, rescale) = (sampling.guidance, sampling.guidance_rescale);
        let negative = each(negative);
        let guidance = match context {
            PromptContext::Constant(context) => {
                Guidance::classifier_free(&each(context), &negative, scale, rescale)
            }
            PromptContext::AtTimestep(context) => {
                Guidance::classifier_free_at(|t| each(&context(t)), negative, scale, rescale)
            }
        };
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
            denoise(self.unet, &mut *sampler, &guidance, &initial, &mut noise, on_step)
        else {
            return Ok(None);
        };
        let pictures = (0..batch).map(|i| {
            let decoded = self.vae.decode(&latents.narrow(0, i, 1)).squeeze_dim(0); // [3, H, W]
            Ok(picture::to_rgb(&decoded.to_device(Device::Cpu))?)
        });
        pictures.collect::<Result<Vec<_>, Error>>().map(Some)
    }
}
