//! A picture of the concept as it is, while it is trained.

use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use embeddings::{Concept, Conditioner, Overflow};
use models::samplers::{SamplerConfig, SamplerKind};
use models::unet::UNet;

use super::plan::TrainPlan;
use crate::Error;
use crate::denoise::PromptContext;
use crate::painter::{Painter, Sampling};
use crate::picture::{self, Existing};

/// Draws one picture of a run in training; the VAE is read for it and leaves again. False where `on_step`
/// stopped it.
pub(crate) fn sample_picture(
    plan: &TrainPlan,
    conditioner: &Rc<Conditioner>,
    unet: &UNet,
    concept: &dyn Concept,
    prompt: &str,
    path: &Path,
    on_step: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<bool, Error> {
    let folder = &plan.base.folder;
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
    tch::no_grad(|| {
        let vae = folder.load_vae(plan.kind, plan.device)?;
        let painter = Painter { unet, vae: &vae, schedule: &folder.scheduler };
        let tokenize = |prompt: &str| conditioner.tokenize(prompt, &[concept], Overflow::Refuse);
        let (prompt, nothing) = (tokenize(prompt)?, tokenize("")?);
        let context = PromptContext::new(conditioner, &prompt, &[concept]);
        let negative = conditioner.encode(&[&nothing], &[concept]);
        let seeds = [plan.config.seed];
        let drawn = painter.draw(&sampling, &context, &negative, &seeds, &mut |_, _| on_step())?;
        let Some(pictures) = drawn else { return Ok(false) };
        for pixels in pictures {
            picture::write(path, &pixels, None, Existing::Replace)?;
        }
        Ok(true)
    })
}
