//! Pictures of the concept as it is, while it is trained, and how good they are.

use std::ops::ControlFlow;
use std::rc::Rc;

use embeddings::{Concept, Conditioner, Overflow, replace_word};
use image::RgbImage;
use models::samplers::{SamplerConfig, SamplerKind};
use models::unet::UNet;
use models::vae::Vae;
use tch::{Kind, Tensor};

use super::plan::TrainPlan;
use super::{Event, Measurement, Observer, folder};
use crate::Error;
use crate::denoise::PromptContext;
use crate::judges::{ClipJudge, UNetJudge, encode_pictures};
use crate::painter::{Painter, Sampling};
use crate::picture::{self, Existing};

/// What draws a run's sample prompts. The VAE and CLIP are read each time and leave again.
pub(super) struct Samples<'a> {
    pub plan: &'a TrainPlan,
    pub conditioner: &'a Rc<Conditioner>,
    pub unet: &'a UNet,
    pub concept: &'a dyn Concept,
}

impl Samples<'_> {
    /// Draws every sample prompt and puts into `measured` how good the pictures are.
    pub(super) fn draw(
        &self,
        measured: &mut Measurement,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<()>, Error> {
        if self.plan.sample_prompts.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        tch::no_grad(|| {
            let vae = self.plan.base.folder.load_vae(self.plan.kind, self.plan.device)?;
            let (mut drawn, mut prompts) = (Vec::new(), Vec::new());
            let folder = folder::samples(&self.plan.config.output)?;
            for (i, prompt) in self.plan.sample_prompts.iter().enumerate() {
                let pixels = match self.picture(prompt, &vae, &mut || observer.flow()) {
                    Ok(Some(pixels)) => pixels,
                    Ok(None) => return Ok(ControlFlow::Break(())),
                    // A concept that draws no picture yet may still learn to.
                    Err(Error::Picture(error)) => {
                        if observer.on(&Event::Warning { text: &error.to_string() }).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let path = folder.join(folder::sample(measured.step, i));
                picture::write(&path, &pixels, None, Existing::Replace)?;
                if observer.on(&Event::Sample { path: &path }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                drawn.push(pixels);
                prompts.push(prompt.as_str());
            }
            if !drawn.is_empty() {
                measured.likeness = Some(self.likeness(&drawn, &vae)?);
                measured.fidelity = self.fidelity(&drawn, &prompts)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// One picture; nothing where `on_step` stopped it.
    fn picture(
        &self,
        prompt: &str,
        vae: &Vae,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<RgbImage>, Error> {
        let (plan, folder) = (self.plan, &self.plan.base.folder);
        let side = i64::from(plan.photos.photos[0].pixels.width());
        let sampling = Sampling {
            kind: SamplerKind::DpmPlusPlus2M,
            config: SamplerConfig::default(),
            steps: plan.config.sample_steps,
            guidance: plan.config.sample_guidance,
            guidance_rescale: 0.0,
            width: side,
            height: side,
        };
        let painter = Painter { unet: self.unet, vae, schedule: &folder.scheduler };
        let (conditioner, concepts) = (self.conditioner, [self.concept]);
        let tokenize = |prompt: &str| conditioner.tokenize(prompt, &concepts, Overflow::Refuse);
        let (prompt, nothing) = (tokenize(prompt)?, tokenize("")?);
        let context = PromptContext::new(conditioner, &prompt, &concepts);
        let negative = conditioner.encode(&[&nothing], &concepts);
        let seeds = [plan.config.seed];
        let drawn = painter.draw(&sampling, &context, &negative, &seeds, &mut |_, _| on_step())?;
        Ok(drawn.and_then(|mut pictures| pictures.pop()))
    }

    /// The mean over all pairs of a picture and a photo.
    fn likeness(&self, drawn: &[RgbImage], vae: &Vae) -> Result<f64, Error> {
        let (plan, concepts) = (self.plan, [self.concept]);
        let nothing = self.conditioner.tokenize("", &concepts, Overflow::Refuse)?;
        let empty = self.conditioner.encode(&[&nothing], &concepts);
        let (schedule, protocol) = (plan.noise_schedule()?, UNetJudge::protocol(&plan.base));
        let judge = UNetJudge::new((self.unet, vae), schedule, &empty, &protocol);
        let photos: Vec<&RgbImage> = plan.photos.photos.iter().map(|p| &p.pixels).collect();
        let (drawn, photos) = (encode_pictures(&judge, drawn), encode_pictures(&judge, &photos));
        Ok(drawn.matmul(&photos.transpose(0, 1)).mean(Kind::Double).double_value(&[]))
    }

    /// The mean over pictures and their prompts, with the class in the concept's place; nothing without a CLIP.
    fn fidelity(&self, drawn: &[RgbImage], prompts: &[&str]) -> Result<Option<f64>, Error> {
        let Some(folder) = &self.plan.clip else { return Ok(None) };
        let judge = ClipJudge::load(folder, self.plan.device)?;
        let config = &self.plan.config;
        let texts =
            prompts.iter().map(|prompt| replace_word(prompt, &config.concept, &config.class));
        let texts: Tensor = judge.texts(&texts.collect::<Vec<_>>()); // [N, W]
        let cosines = (encode_pictures(&judge, drawn) * texts).sum_dim_intlist(-1, false, None);
        Ok(Some(cosines.mean(Kind::Double).double_value(&[])))
    }
}
