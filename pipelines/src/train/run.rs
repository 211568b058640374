//! The run itself: it reads from top to bottom like the paper's algorithm.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use embeddings::file::{ConceptFile, ConceptRecord, write_atomically};
use embeddings::{Concept, Conditioner, Overflow};
use models::unet::UNet;
use tch::Kind;
use torch_ext::Generator;

use super::batches::{PhotoBatches, Prompts};
use super::context::ContextPlan;
use super::objective::objective;
use super::plan::{Start, TrainPlan};
use super::sample::sample_picture;
use super::{Event, Observer};
use crate::Error;
use crate::error::guarded;
use crate::latents::LatentCache;
use crate::objective::{Reconstruction, SharedQueries};
use crate::trainer::{AdamW, LearningRate, StepRecord, Stop, Trainer, state};

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished(PathBuf),
    /// The observer stopped it; the concept and the state are saved, or before the first step nothing.
    Interrupted(Option<PathBuf>),
}

/// Runs a plan. The concept is written at intervals, at the end, on interruption and before a failure is
/// reported, each time whole or not at all.
pub fn train(plan: &TrainPlan, observer: &mut dyn Observer) -> Result<Outcome, Error> {
    guarded("training", || run(plan, observer))
}

fn run(plan: &TrainPlan, observer: &mut dyn Observer) -> Result<Outcome, Error> {
    let (config, device) = (&plan.config, plan.device);
    let mut interrupted = observer.on(&Event::Phase { doing: "encoding the photos" }).is_break();
    let vae = plan.base.folder.load_vae(plan.kind, device)?;
    let latents = LatentCache::encode(&plan.views(), &vae, device);
    drop(vae);

    interrupted |= observer.on(&Event::Phase { doing: "reading the base" }).is_break();
    // The text encoder carries the gradient to the concept and costs little: f32 whatever the base's kind.
    let clip = plan.base.folder.load_text_encoder(Kind::Float, device)?;
    let tokenizer = plan.base.folder.tokenizer()?;
    let mut conditioner = Conditioner::new(tokenizer, clip, config.clip_skip - 1);
    let draw = Generator::cpu(config.seed);
    let concept = plan.method.start(plan, &conditioner, &draw);
    let concept = &*concept;
    let tokenize = |prompt: &str| conditioner.tokenize(prompt, &[concept], Overflow::Refuse);
    let prompts = plan.prompts.iter().map(|p| tokenize(p)).collect::<Result<Vec<_>, _>>()?;
    if !concept.words().is_empty() {
        // It enters after the text encoder, so what comes out of that stays the same: once is enough.
        let shown = plan.sample_prompts.iter().map(String::as_str).chain([""]);
        let shown = shown.map(tokenize).collect::<Result<Vec<_>, _>>()?;
        conditioner.release_encoder(&prompts.iter().chain(&shown).collect::<Vec<_>>());
    }
    let conditioner = Rc::new(conditioner);
    let unet = plan.base.folder.load_unet(plan.kind, device)?;
    let unet = unet.with_gradient_checkpointing(config.gradient_checkpointing);

    let mut trainer = trainer(plan, concept, draw);
    if plan.start == Start::Resume {
        state::load(&mut trainer, &config.output)?;
    }
    write_config(plan)?;
    let schedule = plan.noise_schedule()?;
    let context = plan.context.as_ref().map(|c| c.prompts(&conditioner, concept)).transpose()?;
    let shares = plan.context.as_ref().is_some_and(ContextPlan::shares_queries);
    let queries = context.as_ref().filter(|_| shares).map(|c| SharedQueries::new(c, &unet));
    let batches = PhotoBatches {
        latents,
        prompts: if plan.captions {
            Prompts::Captions(prompts)
        } else {
            Prompts::Templates(prompts)
        },
        schedule: &schedule,
        batch_size: config.batch_size as usize,
        accumulation: config.gradient_accumulation.into(),
        context_prompts: plan.context.as_ref().map_or(0, |context| context.prompts.len()),
        seed: config.seed,
    };
    let reconstruction = Reconstruction {
        schedule: &schedule,
        conditioner: &conditioner,
        unet: &unet,
        concept,
        min_snr_gamma: config.min_snr_gamma,
        queries: queries.as_ref(),
    };
    let mut objective = objective(plan, batches, reconstruction, context.as_ref());

    let mut log = StepLog::open(&config.output, trainer.step)?;
    let parameters = concept.parameters().iter().map(|p| p.numel() as i64).sum();
    let learning_rate = config.effective_learning_rate();
    let (from, steps) = (trainer.step, config.steps);
    interrupted |= observer.on(&Event::Start { from, steps, learning_rate, parameters }).is_break();
    if interrupted {
        return Ok(Outcome::Interrupted((from > 0).then(|| plan.concept_path())));
    }

    let mut after_step = |trainer: &Trainer, record: &StepRecord| {
        concept.after_step();
        log.write(record)?;
        let mut flow = observer.on(&Event::Step(record));
        let due = |every: u64| every > 0 && record.step.is_multiple_of(every);
        if due(config.save_every) && record.step < config.steps {
            save(plan, concept, trainer, observer)?;
        }
        if due(config.sample_every) && flow.is_continue() {
            flow = draw_samples(plan, &conditioner, &unet, concept, record.step, observer)?;
        }
        Ok(flow)
    };
    let ended = trainer.fit(&mut objective, &mut after_step);
    match ended {
        Ok(ControlFlow::Continue(())) => {
            Ok(Outcome::Finished(save(plan, concept, &trainer, observer)?))
        }
        Ok(ControlFlow::Break(())) => {
            Ok(Outcome::Interrupted(Some(save(plan, concept, &trainer, observer)?)))
        }
        Err(Stop::Diverged { step }) => {
            // The parameters are again those of the last finite loss. The state stays as it was last saved.
            let learnt = trainer.step > 0;
            let saved =
                learnt.then(|| save_concept(plan, concept, &trainer, observer)).transpose()?;
            Err(Error::Diverged { step, saved })
        }
        Err(Stop::Failed(error)) => {
            // The parameters are those of the last whole step; where even this save fails, the first error tells why.
            let _ = save(plan, concept, &trainer, observer);
            Err(error)
        }
    }
}

fn trainer(plan: &TrainPlan, concept: &dyn Concept, draw: Generator) -> Trainer {
    let config = &plan.config;
    Trainer {
        optimizer: AdamW::new(concept.parameters(), config.adam()),
        draw,
        step: 0,
        steps: config.steps,
        accumulation: config.gradient_accumulation.into(),
        learning_rate: LearningRate {
            peak: config.effective_learning_rate(),
            shape: config.lr_schedule,
            warmup: config.warmup_steps,
            steps: config.steps,
        },
        max_grad_norm: config.max_grad_norm,
        loss_scale: if plan.kind == Kind::Half { 1024.0 } else { 1.0 },
    }
}

/// Writes the concept and the state; returns the concept's path.
fn save(
    plan: &TrainPlan,
    concept: &dyn Concept,
    trainer: &Trainer,
    observer: &mut dyn Observer,
) -> Result<PathBuf, Error> {
    let path = save_concept(plan, concept, trainer, observer)?;
    state::save(trainer, &plan.config.output, &plan.identity)?;
    Ok(path)
}

fn save_concept(
    plan: &TrainPlan,
    concept: &dyn Concept,
    trainer: &Trainer,
    observer: &mut dyn Observer,
) -> Result<PathBuf, Error> {
    let (config, path) = (&plan.config, plan.concept_path());
    let seconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
    let record = ConceptRecord {
        method: config.method.clone(),
        token: config.concept.clone(),
        class: Some(config.class.clone()).filter(|class| !class.is_empty()),
        base: Some(plan.base.record.clone()),
        steps: trainer.step,
        learning_rate: config.effective_learning_rate(),
        seed: config.seed,
        photos: plan.photos_hash.clone(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        created: seconds,
        config: config.to_toml(),
        settings: serde_json::Value::Null, // the concept's own, put in by the file
    };
    ConceptFile::new(concept, record).write(&path)?;
    let _ = observer.on(&Event::Saved { path: &path, step: trainer.step }); // the loop asks again after its next step
    Ok(path)
}

fn write_config(plan: &TrainPlan) -> Result<(), Error> {
    let path = plan.config.output.join("config.toml");
    write_atomically(&path, plan.config.to_toml().as_bytes()).map_err(Error::io(&path, "written"))
}

/// Draws every sample prompt with the concept as it is now.
fn draw_samples(
    plan: &TrainPlan,
    conditioner: &Rc<Conditioner>,
    unet: &UNet,
    concept: &dyn Concept,
    step: u64,
    observer: &mut dyn Observer,
) -> Result<ControlFlow<()>, Error> {
    let folder = plan.config.output.join("samples");
    let mut flow = ControlFlow::Continue(());
    for (i, prompt) in plan.sample_prompts.iter().enumerate() {
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder, "created"))?;
        let path = folder.join(format!("{step:06}-{i}.png"));
        let mut on_step = || observer.flow();
        match sample_picture(plan, conditioner, unet, concept, prompt, &path, &mut on_step) {
            Ok(true) => {}
            Ok(false) => return Ok(ControlFlow::Break(())),
            // A concept that draws no picture yet may still learn to.
            Err(Error::Picture(error)) => {
                flow = observer.on(&Event::Warning { text: &error.to_string() });
                continue;
            }
            Err(error) => return Err(error),
        }
        flow = observer.on(&Event::Sample { path: &path });
        if flow.is_break() {
            break;
        }
    }
    Ok(flow)
}

/// `log.jsonl`: a line of JSON for each step.
struct StepLog {
    path: PathBuf,
    file: File,
}

impl StepLog {
    /// Opens the log; lines of steps beyond `step`, which a resumed run makes again, are dropped.
    fn open(folder: &Path, step: u64) -> Result<Self, Error> {
        let path = folder.join("log.jsonl");
        let mut kept = String::new();
        if step > 0 && path.is_file() {
            let file = File::open(&path).map_err(Error::io(&path, "read"))?;
            for line in BufReader::new(file).lines() {
                let line = line.map_err(Error::io(&path, "read"))?;
                let record = serde_json::from_str::<serde_json::Value>(&line).unwrap_or_default();
                if record["step"].as_u64().is_some_and(|s| s <= step) {
                    kept.push_str(&line);
                    kept.push('\n');
                }
            }
        }
        write_atomically(&path, kept.as_bytes()).map_err(Error::io(&path, "written"))?;
        let file = OpenOptions::new().append(true).open(&path);
        Ok(Self { file: file.map_err(Error::io(&path, "written"))?, path })
    }

    fn write(&mut self, record: &StepRecord) -> Result<(), Error> {
        let line = serde_json::to_string(record).expect("numbers are JSON");
        writeln!(self.file, "{line}").map_err(Error::io(&self.path, "written"))
    }
}
