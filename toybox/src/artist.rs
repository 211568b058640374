//! Captions to pictures with the built-in base, several at once.

use std::ops::ControlFlow;

use embeddings::{Conditioner, Overflow};
use image::RgbImage;
use models::folder::ModelFolder;
use models::samplers::{SamplerConfig, SamplerKind};
use models::unet::{CrossAttnContext, UNet};
use models::vae::Vae;
use pipelines::{Error, Painter, PromptContext, Sampling};

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
    /// One picture a caption; the noise of picture `i` is that of `seed + i`.
    pub(crate) fn draw(
        &self,
        captions: &[String],
        steps: usize,
        seed: u64,
    ) -> Result<Vec<RgbImage>, Error> {
        let side = self.folder.unet.sample_size.unwrap_or(64) * self.vae.downscale();
        let sampling = Sampling {
            kind: SamplerKind::DpmPlusPlus2M,
            config: SamplerConfig::default(),
            steps,
            guidance: GUIDANCE,
            guidance_rescale: 0.0,
            width: side,
            height: side,
        };
        let painter = Painter { unet: self.unet, vae: self.vae, schedule: &self.folder.scheduler };
        let nothing = self.encode(&[String::new()])?;
        let mut pictures = Vec::with_capacity(captions.len());
        for captions in captions.chunks(BATCH) {
            let first = seed + pictures.len() as u64;
            let seeds: Vec<u64> = (first..).take(captions.len()).collect();
            let context = PromptContext::Constant(self.encode(captions)?);
            let mut go_on = |_, _| ControlFlow::Continue(());
            let drawn = painter.draw(&sampling, &context, &nothing, &seeds, &mut go_on)?;
            pictures.extend(drawn.expect("nothing stops it"));
        }
        Ok(pictures)
    }

    /// `[B, S, D]`.
    fn encode(&self, captions: &[String]) -> Result<CrossAttnContext, Error> {
        let tokens = captions
            .iter()
            .map(|caption| self.conditioner.tokenize(caption, &[], Overflow::Truncate))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.conditioner.encode(&tokens.iter().collect::<Vec<_>>(), &[]))
    }
}
