//! Prompts with concepts to pictures.

mod concepts;
mod draw;
mod request;

pub(crate) use concepts::words;
pub use draw::{Drawn, generate};
pub use request::{GenerateRequest, parse_spacing};

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use embeddings::{Concept, Conditioner, Overflow, PromptTokens, start_of, words_beyond};
use models::samplers::{self, Sampler, SamplerConfig, SamplerName};
use models::unet::UNet;
use tch::{Device, Kind};

use crate::denoise::{below_one, is_none};
use crate::differences::differences;
use crate::output::prepare_folder;
use crate::painter::Sampling;
use crate::picture::{self, Circumstances, PictureParameters, SamplingDetails, UsedConcept};
use crate::refine::{RefinePlan, Refined, Refiner};
use crate::{Base, Error, Precision};
use concepts::Concepts;

/// Warnings of one kind that are told one by one; of more, their number says enough.
const MOST_WARNINGS: usize = 10;

/// A checked request. Nothing changes it afterwards.
pub struct GeneratePlan {
    request: GenerateRequest,
    base: Base,
    concepts: Vec<Box<dyn Concept>>,
    used: Vec<UsedConcept>,
    prompts: Vec<PromptTokens>,
    /// What each prompt's pictures are called; `None` where the output is the name of the only one.
    names: Option<Vec<String>>,
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
    /// A prompt was encoded.
    Encoded,
    /// Copies of the concepts were tuned to a prompt.
    Refined(&'a Refined),
    /// A picture was written.
    Picture(&'a Path),
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
        request.check_size(width, height)?;
        base.check_clip_skip(request.clip_skip)?;
        let Concepts { concepts, classes, used, mut warnings } =
            Concepts::read(&request.concepts, request.clip_skip, &mut base)?;

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
        let sampler = samplers::build(kind, &base.folder.scheduler, &config, request.steps)?;
        warnings.extend(base.warnings().iter().cloned());
        warnings.extend(starts_without_noise(&*sampler, &base, request.steps));

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
        let names = (!request.names_picture()?).then(|| {
            let reserved: &[&str] = if request.grid { &["grid"] } else { &[] };
            picture::names(request.prompts.iter().map(String::as_str), reserved)
        });
        check_output(&request, names.is_none())?;
        let kind = request.precision.resolve(device);
        let missing = vec![seeds(&request).collect(); prompts.len()];
        let mut plan = Self {
            request,
            base,
            concepts,
            used,
            prompts,
            names,
            negative,
            refinement,
            sampling,
            device,
            kind,
            missing,
            warnings,
        };
        if !plan.request.no_metadata {
            let first = plan.parameters(0, plan.request.seed, None);
            picture::check_room(&plan.path(0, plan.request.seed), &first)?;
        }
        plan.warn_of_no_effect();
        plan.warn_of_cuts();
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

    /// The same plan without the pictures that are there already. A picture of another plan is refused, and so is a prompt
    /// that is there twice; an empty one is removed.
    pub(crate) fn reusing(mut self) -> Result<Self, Error> {
        let mut paths = HashSet::new();
        for (prompt, pictures) in self.pictures().into_iter().enumerate() {
            let mut missing = Vec::new();
            for (path, seed) in pictures {
                if !paths.insert(path.clone()) {
                    return Err(Error::Usage(format!(
                        "the prompt '{}' is there twice; take one of them out",
                        self.request.prompts[prompt]
                    )));
                }
                if picture::is_empty(&path) {
                    let text = format!("{} is empty and is drawn again", path.display());
                    fs::remove_file(&path).map_err(Error::io(&path, "removed"))?;
                    self.warnings.push(text);
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
        let planned = self.parameters(prompt, seed, None);
        let found = picture::read_parameters(path)?.completed_by(&planned);
        let found = differences(&found, &planned);
        if found.is_empty() {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{} is a picture of another plan: {} differ; remove it, or give another --output",
            path.display(),
            found.join(", ")
        )))
    }

    /// Says whether the U-Net is told the scale of guidance and predicts what guidance of it would give.
    fn embeds_guidance(&self) -> bool {
        self.base.folder.unet.time_cond_proj_dim.is_some()
    }

    fn warn_of_no_effect(&mut self) {
        let (scale, negative) = (self.request.guidance, &self.request.negative_prompt);
        let embedded = self.embeds_guidance();
        let guided = !embedded && !is_none(scale);
        if !embedded {
            self.warnings.extend(below_one("--guidance", scale));
        }
        if !guided && !negative.is_empty() {
            let why = if embedded {
                "since the base was distilled to one prediction for each guidance (time_cond_proj_dim)"
                    .to_owned()
            } else {
                format!("since --guidance {scale} does not guide; give more than 1, such as 7.5")
            };
            self.warnings.push(format!("the negative prompt has no effect, {why}"));
        }
        for (i, concept) in self.concepts.iter().enumerate() {
            let mut all = self.prompts.iter().chain(guided.then_some(&self.negative));
            if !all.any(|prompt| prompt.slots.iter().any(|slot| slot.concept == i)) {
                let word = concept.placeholder();
                self.warnings.push(format!("the concept {word} is in no prompt and has no effect"));
            }
        }
        let Some(refinement) = &self.refinement else { return };
        let prompts = self.request.prompts.iter().enumerate();
        let without = prompts.filter(|(i, _)| !refinement.concerns(*i)).map(|(_, prompt)| {
            format!("'{}' holds no concept, so --refine has no effect on it", start_of(prompt))
        });
        self.warnings.extend(few(without, "hold no concept, so --refine has no effect on them"));
    }

    fn warn_of_cuts(&mut self) {
        let negative = [(&self.request.negative_prompt, &self.negative)];
        let all = self.request.prompts.iter().zip(&self.prompts).chain(negative);
        let cut = all.filter(|(_, tokens)| !tokens.cut.is_empty()).map(|(prompt, tokens)| {
            format!(
                "the prompt '{}' is longer than the text encoder reads, and this was cut off: '{}'",
                start_of(prompt),
                words_beyond(&tokens.cut)
            )
        });
        self.warnings.extend(few(cut, "are longer than the text encoder reads, and were cut"));
    }

    fn parameters(
        &self,
        prompt: usize,
        seed: u64,
        circumstances: Option<Circumstances>,
    ) -> PictureParameters {
        let (request, sampling) = (&self.request, &self.sampling);
        let (spacing, karras) =
            sampling.config.in_force(sampling.kind, &self.base.folder.scheduler);
        PictureParameters {
            prompt: request.prompts[prompt].clone(),
            negative_prompt: request.negative_prompt.clone(),
            steps: sampling.steps as u32,
            sampler: sampling.kind.name().to_owned(),
            schedule: if karras { "karras" } else { "" }.to_owned(),
            // A base without an embedding of it draws below 1 what it draws at 1.
            guidance: if self.embeds_guidance() {
                sampling.guidance
            } else {
                sampling.guidance.max(1.0)
            },
            seed,
            refine: request.refine,
            width: sampling.width as u32,
            height: sampling.height as u32,
            base: self.base.record.name.clone(),
            precision: Precision::name(self.kind).to_owned(),
            concepts: self.used.clone(),
            details: Some(SamplingDetails {
                spacing,
                guidance_rescale: sampling.guidance_rescale,
                clip_skip: request.clip_skip,
            }),
            circumstances,
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
        }
    }

    fn path(&self, prompt: usize, seed: u64) -> PathBuf {
        let output = &self.request.output;
        match &self.names {
            Some(names) => output.join(format!("{}-{seed}.png", names[prompt])),
            None => output.clone(),
        }
    }
}

/// The first few of many warnings, then how many prompts more they are about.
fn few(mut warnings: impl Iterator<Item = String>, about: &str) -> Vec<String> {
    let mut told: Vec<String> = warnings.by_ref().take(MOST_WARNINGS).collect();
    match warnings.count() {
        0 => {}
        more => told.push(format!("{more} more prompts {about}")),
    }
    told
}

/// A warning where the only step is laid at a timestep of little noise: it leaves the noise as it is.
fn starts_without_noise(sampler: &dyn Sampler, base: &Base, steps: usize) -> Option<String> {
    let (first, all) = (sampler.timesteps()[0], base.folder.scheduler.num_train_timesteps);
    (steps == 1 && first < all as f64 / 2.0).then(|| {
        format!(
            "--steps 1 visits timestep {first:.0} of {all} alone, where hardly any noise is expected, and draws noise; \
             pass --spacing trailing"
        )
    })
}

/// The seeds of a prompt's pictures; 0 follows the largest.
fn seeds(request: &GenerateRequest) -> impl Iterator<Item = u64> + use<> {
    let first = request.seed;
    (0..u64::from(request.count)).map(move |i| first.wrapping_add(i))
}

/// The folder of the pictures exists afterwards and can be written.
fn check_output(request: &GenerateRequest, is_file: bool) -> Result<(), Error> {
    let output = &request.output;
    let folder = if is_file { output.parent().unwrap_or(Path::new("")) } else { output };
    prepare_folder(folder)
}
