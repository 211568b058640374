//! A training run, checked whole before any weight is read.

use std::path::{Path, PathBuf};

use embeddings::file::{ConceptFile, hex};
use embeddings::{Concept, Overflow, PromptTokens, check_placeholder, placeholders_in};
use image::RgbImage;
use models::samplers::{self, SamplerConfig, SamplerKind};
use models::schedule::NoiseSchedule;
use models::tokenizer::Tokenizer;
use sha2::{Digest as _, Sha256};
use tch::{Device, Kind};
use torch_ext::Generator;

use super::context::ContextPlan;
use super::method::Method;
use super::warm_start;
use crate::config::{KeepBest, TrainConfig, word};
use crate::denoise::below_one;
use crate::evaluate::clip_folder;
use crate::output::FolderLock;
use crate::photos::{Augmentation, Notice, Photo, PhotoSet};
use crate::templates::Templates;
use crate::trainer::{LearningRate, state};
use crate::{Base, DeviceChoice, Error, Precision};

/// How a run stands to what lies in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// An earlier run there is refused.
    New,
    /// It is overwritten.
    Overwrite,
    /// It goes on.
    Resume,
    /// Nothing is trained or written, so it does not matter.
    DryRun,
}

impl Start {
    /// Locks the folder of a run, which can be written and holds no other run; `file` is what a run leaves there. To go on,
    /// its state must be of `identity` and of at most `steps` steps. A dry run needs no folder.
    pub(crate) fn take_folder(
        self,
        folder: &Path,
        file: &Path,
        steps: u64,
        identity: &str,
    ) -> Result<Option<FolderLock>, Error> {
        let exists = folder.is_dir();
        let lock = match self {
            Self::DryRun => return Ok(None),
            Self::Resume if !exists => None, // nothing is made there
            _ => Some(FolderLock::take(folder)?),
        };
        let (state, made) = (folder.join(state::FILE), file.exists());
        if let Some(path) = [&*state, file].into_iter().find(|path| path.is_dir()) {
            return Err(Error::Usage(format!(
                "{} is a folder, but the run writes a file of this name; move it away, or give another --output",
                path.display()
            )));
        }
        match (self, state.exists()) {
            (Self::New, true) => Err(Error::Usage(format!(
                "{} holds an earlier run; go on with it with --resume, overwrite it with --force, or give another --output",
                folder.display()
            ))),
            (Self::New, false) if made => Err(Error::Usage(format!(
                "{} is there already, without the {} that its run could go on from; overwrite it with --force, or give another \
                 --output",
                file.display(),
                state::FILE
            ))),
            (Self::Resume, false) if made => Err(Error::Usage(format!(
                "{}: no state to resume from; start again with --force, which overwrites {}, or give another --output",
                state.display(),
                file.display()
            ))),
            (Self::Resume, _) => state::check(folder, steps, identity).map(|()| lock),
            _ => Ok(lock),
        }
    }
}

/// A checked run. Nothing changes it afterwards.
#[derive(Debug)]
pub struct TrainPlan {
    pub(crate) config: TrainConfig,
    pub(crate) method: Method,
    pub(crate) base: Base,
    pub(crate) photos: PhotoSet,
    pub(crate) photos_hash: String,
    pub(crate) captions: bool,
    /// Of methods that regularise.
    pub(crate) context: Option<ContextPlan>,
    /// One prompt a template, or one a photo where captions are used.
    pub(crate) prompts: Vec<String>,
    pub(crate) sample_prompts: Vec<String>,
    /// Of the CLIP that judges samples, where there is one.
    pub(crate) clip: Option<PathBuf>,
    /// The phrase that the vectors start from; nothing for random ones.
    pub(crate) initializer: Option<String>,
    /// The concept that the run begins with, where it goes on with another's.
    pub(crate) warm_start: Option<ConceptFile>,
    pub(crate) device: Device,
    pub(crate) kind: Kind,
    pub(crate) start: Start,
    pub(crate) identity: String,
    warnings: Vec<String>,
    /// Held until the run and its report are done.
    _lock: Option<FolderLock>,
}

impl TrainPlan {
    /// Checks `config` against the photos, the base and the disk.
    pub fn new(mut config: TrainConfig, start: Start) -> Result<Self, Error> {
        config.check()?;
        check_placeholder(&config.concept)?;
        check_file_name(&config)?;
        let device = config.device.parse::<DeviceChoice>()?.resolve()?;
        let variant = Some(config.variant.as_str()).filter(|v| !v.is_empty());
        let mut base = Base::open(&config.base, variant)?;
        base.check_clip_skip(config.clip_skip)?;
        let context = ContextPlan::new(&config)?;
        let initializer = initializer(&config)?;
        let tokenizer = base.folder.tokenizer()?;
        config.vectors = vectors(&config, initializer.as_deref(), &tokenizer)?;
        let method = Method::new(&config, &base)?;
        let begins = !config.warm_start.as_os_str().is_empty() && start != Start::Resume;
        let warm_start = begins.then(|| warm_start::read(&config, &base)).transpose()?;
        let resolution = match i64::from(config.resolution) {
            0 => base.resolution(),
            pixels => pixels,
        };
        base.check_size(&[("resolution", resolution)])?;
        base.check_weights()?;

        let side = resolution as u32;
        let photos = PhotoSet::read(&config.photos, (side, side), config.crop)?;
        let captions = config.templates == "captions" && !method.is_whole_prompt();
        let templates = match config.templates.as_str() {
            "object" => Templates::object(),
            "style" => Templates::style(),
            "photo" => Templates::photo(),
            "captions" => Templates::from_captions(&photos, &config.concept)?,
            file => Templates::from_file(Path::new(file))?,
        };
        let prompts = if method.is_whole_prompt() {
            vec![config.concept.clone()]
        } else {
            (0..templates.count()).map(|i| templates.fill(i, &config.concept)).collect()
        };
        let sample_prompts: Vec<String> =
            config.sample_prompts.iter().map(|p| p.replace("{}", &config.concept)).collect();

        let clip = judging_clip(&config, &base)?;

        let mut warnings = base.warnings().to_vec();
        if base.folder.unet.time_cond_proj_dim.is_some() {
            warnings.push(format!(
                "{} was distilled to draw in few steps (time_cond_proj_dim) and learns poorly; train on the model that it was distilled from, and draw the concept on both",
                base.record.name
            ));
        }
        warnings.extend(photos.report.iter().map(Notice::to_string));
        if config.vectors > 8 {
            warnings.push(format!(
                "{} vectors take as many of a prompt's 75 tokens, and learn the photos by heart",
                config.vectors
            ));
        }
        if !config.concept.starts_with('<') {
            let word = &config.concept;
            warnings.push(format!(
                "every '{word}' of a prompt will be the concept; brackets keep the word apart: --concept '<{word}>'"
            ));
        }
        if !sample_prompts.is_empty() {
            warnings.extend(below_one("sample_guidance", config.sample_guidance));
        }
        warnings.extend(LearningRate::warning(config.warmup_steps, config.steps));
        let photos_hash = photos.hash();
        if let Some(context) = &context {
            warnings.extend(context.warnings(&config, &tokenizer)?);
        }
        let plan = Self {
            identity: identity(&config, &photos_hash, &base.record.sketch, context.as_ref()),
            kind: config.precision.resolve(device),
            config,
            method,
            base,
            photos,
            photos_hash,
            captions,
            context,
            prompts,
            sample_prompts,
            clip,
            initializer,
            warm_start,
            device,
            start,
            warnings,
            _lock: None,
        };
        plan.check_prompts(&tokenizer)?;
        let (folder, file) = (&plan.config.output, plan.concept_path());
        let lock = plan.start.take_folder(folder, &file, plan.config.steps, &plan.identity)?;
        Ok(Self { _lock: lock, ..plan })
    }

    /// What the user should know before the run.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The plan in a few lines, for people.
    pub fn summary(&self) -> Vec<String> {
        let config = &self.config;
        let scheduler = &self.base.record.prediction_type;
        let photo = &self.photos.photos[0].pixels;
        let learnt = match &config.slots {
            Some(slots) => format!("slots {slots}"),
            None => format!("{} vector(s)", config.vectors),
        };
        let mut lines = vec![
            format!(
                "{}: {}, {learnt} of {} from {} photos at {}x{}",
                config.concept,
                config.method,
                self.initializer
                    .as_deref()
                    .map_or("random numbers".to_owned(), |i| format!("'{i}'")),
                self.photos.photos.len(),
                photo.width(),
                photo.height()
            ),
            format!(
                "base {} ({}, {scheduler}), {} on {:?}",
                self.base.record.name,
                crate::BaseRecord::family(self.base.record.width),
                Precision::name(self.kind),
                self.device
            ),
            format!(
                "{} steps of {} x {}, learning rate {} in force",
                config.steps,
                config.gradient_accumulation,
                config.batch_size,
                config.effective_learning_rate()
            ),
        ];
        if let Some(ContextPlan { config, class, set, prompts }) = &self.context {
            lines.push(format!(
                "beside '{class}' at {} prompts ({set}), weights {} of the encodings and {} of the attention",
                prompts.len(),
                config.lambda_emb,
                config.lambda_attn
            ));
            lines.push(format!(
                "attention by {}, norm {}, augmentation {}",
                word(&config.attn_mode).unwrap_or_default(),
                word(&config.norm).unwrap_or_default(),
                word(&config.augmentation).unwrap_or_default()
            ));
        }
        lines
    }

    /// The pictures that stand for each photo.
    pub(crate) fn views(&self) -> Vec<Vec<RgbImage>> {
        let (augmentation, count) = match &self.context {
            Some(context) => (context.config.augmentation, context.config.views as usize),
            None => (Augmentation::None, 1),
        };
        // Apart from the run's own sequence, which a resumed run takes up in its middle.
        let draw = Generator::cpu(!self.config.seed);
        let views =
            |photo: &Photo| augmentation.views(&photo.pixels, self.config.flip, count, &draw);
        self.photos.photos.iter().map(views).collect()
    }

    /// What the text encoder is read as. It carries the gradient to the concept, so f32 whatever the base's kind, except
    /// where a step encodes its prompts for each layer: there it is a good part of the work. CoRe compares encodings that
    /// hardly differ at first, so with it f32 again.
    pub(crate) fn text_kind(&self) -> Kind {
        if self.method.layers().is_some() && self.context.is_none() {
            self.kind
        } else {
            Kind::Float
        }
    }

    /// The concept's file, in the folder of the run.
    pub fn concept_path(&self) -> PathBuf {
        self.config.output.join(self.config.concept_file(""))
    }

    /// Every prompt must fit; the concept's length is known before its vectors are.
    fn check_prompts(&self, tokenizer: &Tokenizer) -> Result<(), Error> {
        let room = tokenizer.length() - 2;
        if self.config.vectors as usize >= room {
            return Err(Error::Usage(format!(
                "vectors is {}, but a prompt has room for {room} tokens in all; give 1 to 8",
                self.config.vectors
            )));
        }
        self.check_initializer(tokenizer)?;
        let stand_in = self.stand_in(tokenizer);
        let fits = |prompt: &String| {
            PromptTokens::new(prompt, &[&*stand_in], tokenizer, Overflow::Refuse).map(|_| ())
        };
        self.prompts.iter().chain(&self.sample_prompts).try_for_each(fits)?;
        if !self.sample_prompts.is_empty() {
            self.check_sampling()?;
        }
        self.context.as_ref().map_or(Ok(()), |context| context.check(&*stand_in, tokenizer))
    }

    /// Sample pictures fail now rather than in the middle of the run.
    fn check_sampling(&self) -> Result<(), Error> {
        let (kind, config) = (SamplerKind::DpmPlusPlus2M, SamplerConfig::default());
        samplers::build(kind, &self.base.folder.scheduler, &config, self.config.sample_steps)?;
        Ok(())
    }

    fn check_initializer(&self, tokenizer: &Tokenizer) -> Result<(), Error> {
        let class = self.context.as_ref().map(|context| &context.class);
        for phrase in self.initializer.iter().chain(class) {
            check_phrase(phrase, tokenizer)?;
        }
        match &self.initializer {
            Some(phrase) => self.method.check_initializer(phrase, tokenizer),
            None => self.method.check_random_start(),
        }
    }

    /// A concept of the right length and no meaning.
    pub(crate) fn stand_in(&self, tokenizer: &Tokenizer) -> Box<dyn Concept> {
        self.method.stand_in(&self.config, self.initializer.as_deref(), tokenizer)
    }

    pub(crate) fn noise_schedule(&self) -> Result<NoiseSchedule, Error> {
        Ok(NoiseSchedule::new(&self.base.folder.scheduler)?)
    }
}

/// The CLIP that judges samples: the one that is given, or the base's own where it has one. Refuses to keep the best by
/// what will not be measured.
fn judging_clip(config: &TrainConfig, base: &Base) -> Result<Option<PathBuf>, Error> {
    let given = Some(config.clip.clone()).filter(|clip| !clip.as_os_str().is_empty());
    let known = given.is_some() || base.folder.path().join("clip/config.json").is_file();
    let clip = known.then(|| clip_folder(given, base.folder.path())).transpose()?;
    let samples = config.sample_every > 0 && !config.sample_prompts.is_empty();
    let lacking = match config.keep_best {
        KeepBest::Loss if config.validate_every == 0 => {
            "the validation loss; give --validate-every 100"
        }
        KeepBest::Likeness | KeepBest::Fidelity | KeepBest::Balance if !samples => {
            "sample pictures; give --sample-prompt 'a {} on the beach' and --sample-every 100"
        }
        KeepBest::Fidelity | KeepBest::Balance if clip.is_none() => {
            "a CLIP with a vision tower; give --clip DIR, a folder such as that of clip-vit-base-patch32"
        }
        _ => return Ok(clip),
    };
    Err(Error::Usage(format!("keeping the best concept needs {lacking}")))
}

fn initializer(config: &TrainConfig) -> Result<Option<String>, Error> {
    let phrase = [&config.initializer, &config.class].into_iter().find(|p| !p.trim().is_empty());
    match (config.initializer_random, phrase) {
        (true, _) => Ok(None),
        (false, Some(phrase)) => Ok(Some(phrase.trim().to_owned())),
        (false, None) => Err(Error::Usage(
            "neither a class nor an initializer is given; pass --class cat, --init 'grey cat' or --init-random".into(),
        )),
    }
}

/// Words that the tokenizer knows something of, and no concept.
fn check_phrase(phrase: &str, tokenizer: &Tokenizer) -> Result<(), Error> {
    if let Some(word) = placeholders_in(phrase).next() {
        let text = format!("the initializer '{phrase}' holds {word}; use ordinary words");
        return Err(Error::Usage(text));
    }
    if tokenizer.encode(phrase).is_empty() {
        let text = format!("the initializer '{phrase}' has no tokens; use a word such as cat");
        return Err(Error::Usage(text));
    }
    Ok(())
}

/// As many vectors as asked for, or for 0 as many as the class, else the initializer, has tokens.
fn vectors(
    config: &TrainConfig,
    initializer: Option<&str>,
    tokenizer: &Tokenizer,
) -> Result<u32, Error> {
    let class = Some(config.class.trim()).filter(|class| !class.is_empty());
    match (config.vectors, class.or(initializer)) {
        (0, Some(phrase)) => Ok(tokenizer.encode(phrase).len().max(1) as u32),
        (0, None) => Err(Error::Usage(
            "vectors is 0, which means as many as the class has tokens, but there is no class; pass --vectors 1 or --class cat".into(),
        )),
        (vectors, _) => Ok(vectors),
    }
}

/// Refuses a concept whose file would be the state of its own run, also where a file system does not tell cases apart.
fn check_file_name(config: &TrainConfig) -> Result<(), Error> {
    if !config.concept_file("").eq_ignore_ascii_case(state::FILE) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "the concept {} would be kept in {}, where a run keeps the state that --resume goes on from; give it another word, \
         such as --concept '<my-state>'",
        config.concept,
        state::FILE
    )))
}

/// What must be equal for a resumed run to be the same run: everything but its length, its place on disk, what it shows
/// and keeps, and what changes no number but by rounding.
fn identity(
    config: &TrainConfig,
    photos: &str,
    vocabulary: &[f32],
    context: Option<&ContextPlan>,
) -> String {
    let same = TrainConfig {
        steps: 0,
        output: PathBuf::new(),
        photos: PathBuf::new(),
        warm_start: PathBuf::new(),
        base: PathBuf::new(),
        device: String::new(),
        gradient_checkpointing: false,
        metadata: true,
        save_every: 0,
        sample_prompts: Vec::new(),
        sample_every: 0,
        sample_steps: 0,
        sample_guidance: 0.0,
        validate_every: 0,
        clip: PathBuf::new(),
        keep_best: KeepBest::Off,
        ..config.clone()
    };
    let mut identity = serde_json::to_value(&same).expect("what is TOML is JSON");
    let short = |content: &str| hex(&Sha256::digest(content))[..12].to_owned();
    identity["photos"] = photos[..12.min(photos.len())].into();
    identity["base"] = short(&format!("{vocabulary:?}")).into();
    // These may lie in a file, which may have changed.
    if let Some(context) = context {
        identity["core"]["prompts"] = short(&context.prompts.join("\n")).into();
    }
    identity.to_string()
}
