//! Prompts with concepts to pictures.

mod concepts;
mod request;

pub(crate) use concepts::words;
pub use request::{GenerateRequest, parse_spacing};

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use embeddings::{Concept, Conditioner, Overflow, PromptTokens};
use image::RgbImage;
use models::samplers::{self, SamplerConfig, SamplerName};
use models::unet::{CrossAttnContext, UNet};
use tch::{Device, Kind};

use crate::denoise::PromptContext;
use crate::differences::differences;
use crate::error::guarded;
use crate::output::prepare_folder;
use crate::painter::{Painter, Sampling};
use crate::picture::{self, Existing, PictureParameters, UsedConcept};
use crate::refine::{Copies, RefinePlan, Refined, Refiner, with_copies};
use crate::{Base, Error, Precision};
use concepts::Concepts;
use request::is_png;

/// A checked request. Nothing changes it afterwards.
pub struct GeneratePlan {
    request: GenerateRequest,
    base: Base,
    concepts: Vec<Box<dyn Concept>>,
    used: Vec<UsedConcept>,
    prompts: Vec<PromptTokens>,
    negative: PromptTokens,
    refinement: Option<RefinePlan>,
    sampling: Sampling,
    device: Device,
    kind: Kind,
    /// The seeds of each prompt whose pictures are to be drawn.
    missing: Vec<Vec<u64>>,
    warnings: Vec<String>,
}

/// What drawing reports.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A phase begins.
    Phase(&'a str),
    /// A model evaluation of the current batch is done.
    Step {
        /// Evaluations done, over all pictures.
        done: usize,
        /// Evaluations in all.
        total: usize,
    },
    /// Copies of the concepts were tuned to a prompt.
    Refined(&'a Refined),
    /// A picture was written.
    Picture(&'a Path),
}

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

impl GeneratePlan {
    /// Checks a request against the base, the concepts and the disk; reads no weight of the base.
    pub fn new(request: GenerateRequest) -> Result<Self, Error> {
        request.check()?;
        let device = request.device.resolve()?;
        let mut base = Base::open(&request.base, request.variant.as_deref())?;
        let (width, height) = (
            request.width.unwrap_or(base.resolution()),
            request.height.unwrap_or(base.resolution()),
        );
        base.check_size(&[("width", width), ("height", height)])?;
        base.check_clip_skip(request.clip_skip)?;
        let Concepts { concepts, classes, used, warnings } =
            Concepts::read(&request.concepts, &mut base)?;

        let SamplerName { kind, karras } = request.sampler.parse()?;
        let config = SamplerConfig {
            spacing: request.spacing,
            karras: karras.or(request.karras.then_some(true)),
            ..SamplerConfig::default()
        };
        let sampling = Sampling {
            kind,
            config,
            steps: request.steps,
            guidance: request.guidance,
            guidance_rescale: request.guidance_rescale,
            width,
            height,
        };
        samplers::build(kind, &base.folder.scheduler, &config, request.steps)?;

        let tokenizer = base.folder.tokenizer()?;
        let overflow = if request.truncate { Overflow::Truncate } else { Overflow::Refuse };
        let references: Vec<&dyn Concept> = concepts.iter().map(|c| &**c).collect();
        let tokens = |prompt: &str| PromptTokens::new(prompt, &references, &tokenizer, overflow);
        let prompts = request.prompts.iter().map(|p| tokens(p)).collect::<Result<Vec<_>, _>>()?;
        let negative = tokens(&request.negative_prompt)?;
        let refinement = match request.refine {
            0 => None,
            steps => {
                let prompts: Vec<_> =
                    request.prompts.iter().map(String::as_str).zip(&prompts).collect();
                Some(RefinePlan::new(steps, &prompts, &references, &classes, &tokenizer)?)
            }
        };
        check_output(&request)?;
        let kind = request.precision.resolve(device);
        let missing = vec![seeds(&request).collect(); prompts.len()];
        let mut plan = Self {
            request,
            base,
            concepts,
            used,
            prompts,
            negative,
            refinement,
            sampling,
            device,
            kind,
            missing,
            warnings,
        };
        plan.warn_of_no_effect();
        Ok(plan)
    }

    /// What the base is called.
    pub fn base_name(&self) -> &str {
        &self.base.record.name
    }

    /// What the user should know before the drawing.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What was asked for.
    pub(crate) fn request(&self) -> &GenerateRequest {
        &self.request
    }

    /// The base of the pictures.
    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    /// The concepts of the pictures, as they are drawn.
    pub(crate) fn concepts(&self) -> &[Box<dyn Concept>] {
        &self.concepts
    }

    /// What records say of them.
    pub(crate) fn used(&self) -> &[UsedConcept] {
        &self.used
    }

    /// Where the pictures are computed, and in what kind of number.
    pub(crate) fn place(&self) -> (Device, Kind) {
        (self.device, self.kind)
    }

    /// The path and seed of each picture, prompt by prompt.
    pub(crate) fn pictures(&self) -> Vec<Vec<(PathBuf, u64)>> {
        let of =
            |prompt| seeds(&self.request).map(|seed| (self.path(prompt, seed), seed)).collect();
        (0..self.prompts.len()).map(of).collect()
    }

    /// The same plan without the pictures that are there already. A picture of another plan is refused, and so are
    /// prompts whose pictures would have one name.
    pub(crate) fn reusing(mut self) -> Result<Self, Error> {
        let mut paths = HashSet::new();
        for (prompt, pictures) in self.pictures().into_iter().enumerate() {
            let mut missing = Vec::new();
            for (path, seed) in pictures {
                if !paths.insert(path.clone()) {
                    return Err(Error::Usage(format!(
                        "the prompt '{}' is there twice, or so like another that both would write {}; change its words",
                        self.request.prompts[prompt],
                        path.display()
                    )));
                }
                if path.exists() {
                    self.check_picture(&path, prompt, seed)?;
                } else {
                    missing.push(seed);
                }
            }
            self.missing[prompt] = missing;
        }
        Ok(self)
    }

    fn check_picture(&self, path: &Path, prompt: usize, seed: u64) -> Result<(), Error> {
        let found = differences(&picture::read_parameters(path)?, &self.parameters(prompt, seed));
        if found.is_empty() {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{} is a picture of another plan: {} differ; remove it, or give another --output",
            path.display(),
            found.join(", ")
        )))
    }

    fn warn_of_no_effect(&mut self) {
        for (i, concept) in self.concepts.iter().enumerate() {
            let mut all = self.prompts.iter().chain([&self.negative]);
            if !all.any(|prompt| prompt.slots.iter().any(|slot| slot.concept == i)) {
                let word = concept.placeholder();
                self.warnings.push(format!("the concept {word} is in no prompt and has no effect"));
            }
        }
        let Some(refinement) = &self.refinement else { return };
        for (i, prompt) in self.request.prompts.iter().enumerate() {
            if !refinement.concerns(i) {
                self.warnings
                    .push(format!("'{prompt}' holds no concept, so --refine has no effect on it"));
            }
        }
    }

    fn parameters(&self, prompt: usize, seed: u64) -> PictureParameters {
        let (request, sampling) = (&self.request, &self.sampling);
        PictureParameters {
            prompt: request.prompts[prompt].clone(),
            negative_prompt: request.negative_prompt.clone(),
            steps: sampling.steps as u32,
            sampler: sampling.kind.name().to_owned(),
            schedule: if sampling.config.karras == Some(true) { "karras" } else { "" }.to_owned(),
            guidance: sampling.guidance,
            seed,
            refine: request.refine,
            width: sampling.width as u32,
            height: sampling.height as u32,
            base: self.base.record.name.clone(),
            precision: Precision::name(self.kind).to_owned(),
            concepts: self.used.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn refiner<'a>(
        &self,
        plan: &'a RefinePlan,
        conditioner: &'a Conditioner,
        unet: &'a UNet,
    ) -> Refiner<'a> {
        let (folder, f) = (&self.base.folder, self.base.folder.vae.downscale());
        let Sampling { width, height, .. } = self.sampling;
        Refiner {
            plan,
            conditioner,
            unet,
            timesteps: folder.scheduler.num_train_timesteps as i64,
            shape: [1, folder.unet.in_channels, height / f, width / f],
            seed: self.request.seed,
        }
    }

    fn path(&self, prompt: usize, seed: u64) -> PathBuf {
        let output = &self.request.output;
        if is_png(output) {
            return output.clone();
        }
        output.join(format!("{}.png", picture::slug(&self.request.prompts[prompt], seed)))
    }
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
    let unet = refines.then(|| folder.load_unet(plan.kind, plan.device)).transpose()?;
    let negative = negative(&conditioner, &plan.negative, &concepts);
    let conditioner = Rc::new(conditioner);
    let mut contexts: Vec<PromptContext<'_>> = Vec::new();
    for (i, prompt) in plan.prompts.iter().enumerate() {
        contexts.push(match (&plan.refinement, &unet) {
            (Some(refinement), Some(unet))
                if refinement.concerns(i) && !plan.missing[i].is_empty() =>
            {
                let refiner = plan.refiner(refinement, &conditioner, unet);
                let Some((copies, report)) = refine(&refiner, plan, i, &concepts, observer)? else {
                    return Ok(drawn);
                };
                drawn.refined.push(report);
                // Token vectors do not vary, so the copies need not live on.
                let tuned = with_copies(&concepts, &copies);
                PromptContext::Constant(conditioner.encode(&[prompt], &tuned))
            }
            _ => PromptContext::new(&conditioner, prompt, &concepts),
        });
    }
    drop(conditioner); // a context that varies with time keeps it
    let unet = match unet {
        Some(unet) => unet,
        None => folder.load_unet(plan.kind, plan.device)?,
    };
    let vae = folder.load_vae(plan.kind, plan.device)?;
    let painter = Painter { unet: &unet, vae: &vae, schedule: &folder.scheduler };

    let existing = if request.force { Existing::Replace } else { Existing::Keep };
    let mut all: Vec<RgbImage> = Vec::new();
    for (prompt, (context, seeds)) in contexts.iter().zip(&plan.missing).enumerate() {
        for seeds in seeds.chunks(request.batch_size as usize) {
            let before = all.len();
            let mut on_step = |done: usize, of: usize| {
                let done = before * of + done * seeds.len();
                observer(Progress::Step { done, total: pictures * of })
            };
            let Some(batch) =
                painter.draw(&plan.sampling, context, &negative, seeds, &mut on_step)?
            else {
                return Ok(drawn);
            };
            for (pixels, &seed) in batch.into_iter().zip(seeds) {
                let parameters = (!request.no_metadata).then(|| plan.parameters(prompt, seed));
                let path = plan.path(prompt, seed);
                let path = picture::write(&path, &pixels, parameters.as_ref(), existing)?;
                let flow = observer(Progress::Picture(&path));
                drawn.paths.push(path);
                all.push(pixels);
                if flow.is_break() && all.len() < pictures {
                    return Ok(drawn);
                }
            }
        }
    }
    if request.grid {
        // A row a prompt where both vary, else as square as can be.
        let columns = match (contexts.len(), request.count) {
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

/// The seeds of a prompt's pictures.
fn seeds(request: &GenerateRequest) -> impl Iterator<Item = u64> + use<> {
    let first = request.seed;
    (0..u64::from(request.count)).map(move |i| first.wrapping_add(i))
}

/// The folder of the pictures exists afterwards and can be written.
fn check_output(request: &GenerateRequest) -> Result<(), Error> {
    let output = &request.output;
    let folder = if is_png(output) { output.parent().unwrap_or(Path::new("")) } else { output };
    prepare_folder(folder)
}
