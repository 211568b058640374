//! A plan's pictures: prompts encoded some at a time, then drawn.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;

use embeddings::{Concept, Conditioner, PromptTokens};
use image::RgbImage;
use models::unet::{CrossAttnContext, UNet};
use tch::{Device, Kind};

use super::{GeneratePlan, Progress};
use crate::Error;
use crate::denoise::PromptContext;
use crate::error::guarded;
use crate::painter::Painter;
use crate::picture::{self, Circumstances, Existing};
use crate::refine::{Copies, Refined, Refiner, with_copies};

/// Prompts that are encoded before the first of them is drawn. Where there are no more, the text encoder is dropped before
/// the U-Net is read; where there are, it stays, and neither memory nor the wait grows with their number.
const ENCODED_AT_ONCE: usize = 64;

/// Pictures that were written.
#[derive(Debug)]
pub struct Drawn {
    /// One path a picture, in the order of prompts and seeds; the grid, if any, last.
    pub paths: Vec<PathBuf>,
    /// What refining did, a report for each prompt with concepts.
    pub refined: Vec<Refined>,
    /// Whether the observer stopped it before the last picture.
    pub interrupted: bool,
}

/// Draws every picture of a plan; each is written as soon as it is done.
pub fn generate(
    plan: &GeneratePlan,
    observer: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Drawn, Error> {
    guarded("drawing", || tch::no_grad(|| run(plan, observer)))
}

fn run(
    plan: &GeneratePlan,
    observer: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Drawn, Error> {
    let (request, folder) = (&plan.request, &plan.base.folder);
    let mut drawn = Drawn { paths: Vec::new(), refined: Vec::new(), interrupted: true };
    let pictures: usize = plan.missing.iter().map(Vec::len).sum();
    if pictures == 0 {
        return Ok(Drawn { interrupted: false, ..drawn });
    }
    if observer(Progress::Phase("reading the base")).is_break() {
        return Ok(drawn);
    }
    // The gradient of a refinement passes through the text encoder: f32, as in training.
    let refines = plan.refinement.is_some();
    let clip =
        folder.load_text_encoder(if refines { Kind::Float } else { plan.kind }, plan.device)?;
    let conditioner = Conditioner::new(folder.tokenizer()?, clip, request.clip_skip - 1);
    let concepts: Vec<&dyn Concept> = plan.concepts.iter().map(|c| &**c).collect();
    let mut unet = refines.then(|| folder.load_unet(plan.kind, plan.device)).transpose()?;
    let mut vae = None;
    let negative = negative(&conditioner, &plan.negative, &concepts);

    let existing = if request.force { Existing::Replace } else { Existing::Keep };
    let mut all: Vec<RgbImage> = Vec::new(); // of the grid
    let wanted = (0..plan.prompts.len()).filter(|&i| !plan.missing[i].is_empty());
    let wanted: Vec<usize> = wanted.collect();
    let mut conditioner = Some(Rc::new(conditioner));
    let mut chunks = wanted.chunks(ENCODED_AT_ONCE).peekable();
    while let Some(prompts) = chunks.next() {
        let encoder = conditioner.take().expect("kept until the last chunk");
        let Some(contexts) = encode(
            plan,
            prompts,
            &encoder,
            unet.as_ref(),
            &concepts,
            &mut drawn.refined,
            observer,
        )?
        else {
            return Ok(drawn);
        };
        conditioner = chunks.peek().is_some().then_some(encoder); // a context that varies with time keeps it
        let unet = match &mut unet {
            Some(unet) => &*unet,
            none => &*none.insert(folder.load_unet(plan.kind, plan.device)?),
        };
        let vae = match &mut vae {
            Some(vae) => &*vae,
            none => &*none.insert(folder.load_vae(plan.kind, plan.device)?),
        };
        let painter = Painter { unet, vae, schedule: &folder.scheduler };
        for (&prompt, context) in prompts.iter().zip(&contexts) {
            for seeds in plan.missing[prompt].chunks(request.batch_size as usize) {
                let before = drawn.paths.len();
                let mut on_step = |done: usize, of: usize| {
                    let done = before * of + done * seeds.len();
                    observer(Progress::Step { done, total: pictures * of })
                };
                let Some(batch) =
                    painter.draw(&plan.sampling, context, &negative, seeds, &mut on_step)?
                else {
                    return Ok(drawn);
                };
                for (position, (pixels, &seed)) in batch.into_iter().zip(seeds).enumerate() {
                    let circumstances = Circumstances {
                        device: device_name(plan.device).to_owned(),
                        batch_size: seeds.len(),
                        batch_position: position,
                    };
                    let parameters = (!request.no_metadata)
                        .then(|| plan.parameters(prompt, seed, Some(circumstances)));
                    let path = plan.path(prompt, seed);
                    let path = picture::write(&path, &pixels, parameters.as_ref(), existing)?;
                    let flow = observer(Progress::Picture(&path));
                    drawn.paths.push(path);
                    if request.grid {
                        all.push(pixels);
                    }
                    if flow.is_break() && drawn.paths.len() < pictures {
                        return Ok(drawn);
                    }
                }
            }
        }
    }
    if request.grid {
        // A row a prompt where both vary, else as square as can be.
        let columns = match (plan.prompts.len(), request.count) {
            (2.., 2..) => request.count,
            _ => (pictures as f64).sqrt().ceil() as u32,
        };
        let path = request.output.join(format!("grid-{}.png", request.seed));
        let path = picture::write(&path, &picture::grid(&all, columns), None, existing)?;
        let _ = observer(Progress::Picture(&path)); // nothing is left to stop
        drawn.paths.push(path);
    }
    drawn.interrupted = false;
    Ok(drawn)
}

/// Encodes prompts, with copies of their concepts where these are to be tuned to them; `None` where the observer stopped it.
fn encode<'a>(
    plan: &'a GeneratePlan,
    prompts: &[usize],
    encoder: &Rc<Conditioner>,
    unet: Option<&UNet>,
    concepts: &[&'a dyn Concept],
    refined: &mut Vec<Refined>,
    observer: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Option<Vec<PromptContext<'a>>>, Error> {
    let mut contexts = Vec::new();
    for &i in prompts {
        let refinement = plan.refinement.as_ref().filter(|refinement| refinement.concerns(i));
        contexts.push(match refinement.zip(unet) {
            Some((refinement, unet)) => {
                let refiner = plan.refiner(refinement, encoder, unet);
                let tuned = refine(&refiner, plan, i, concepts, observer)?;
                let Some((copies, report)) = tuned else { return Ok(None) };
                refined.push(report);
                // Token vectors do not vary, so the copies need not live on.
                let tuned = with_copies(concepts, &copies);
                PromptContext::Constant(encoder.encode(&[&plan.prompts[i]], &tuned))
            }
            None => PromptContext::new(encoder, &plan.prompts[i], concepts),
        });
        if observer(Progress::Encoded).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(contexts))
}

fn device_name(device: Device) -> &'static str {
    if device.is_cuda() { "cuda" } else { "cpu" }
}

/// What the pictures should not be. A concept that learnt more than a word stands for its class there, as in
/// NeTI's release: what makes it special was learnt for the other branch.
fn negative(
    conditioner: &Conditioner,
    prompt: &PromptTokens,
    concepts: &[&dyn Concept],
) -> CrossAttnContext {
    let classes: Vec<_> = concepts.iter().map(|concept| concept.class_only()).collect();
    let concepts: Vec<&dyn Concept> = concepts
        .iter()
        .zip(&classes)
        .map(|(own, class)| class.as_deref().unwrap_or(*own))
        .collect();
    conditioner.encode(&[prompt], &concepts)
}

/// Tunes copies of the concepts to prompt `i` and reports it; nothing where the observer stopped it.
fn refine(
    refiner: &Refiner<'_>,
    plan: &GeneratePlan,
    i: usize,
    concepts: &[&dyn Concept],
    observer: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Option<(Copies, Refined)>, Error> {
    let prompt = &plan.request.prompts[i];
    let phase = format!("refining for '{prompt}'");
    if observer(Progress::Phase(&phase)).is_break() {
        return Ok(None);
    }
    let (mut done, total) = (0, plan.request.refine as usize);
    let mut flow = || {
        done += 1;
        observer(Progress::Step { done, total })
    };
    let refined = refiner.refine(i, prompt, concepts, &mut flow)?;
    if let Some((_, report)) = &refined
        && observer(Progress::Refined(report)).is_break()
    {
        return Ok(None);
    }
    Ok(refined)
}
