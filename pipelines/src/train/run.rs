//! The run itself: it reads from top to bottom like the paper's algorithm.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;

use embeddings::{Concept, Conditioner, Overflow};
use tch::Kind;
use torch_ext::Generator;

use super::batches::{PhotoBatches, Prompts};
use super::context::ContextPlan;
use super::files::RunFiles;
use super::objective::objective;
use super::plan::{Start, TrainPlan};
use super::sample::Samples;
use super::validation::Validation;
use super::watch::Watch;
use super::{Event, Observer, warm_start};
use crate::Error;
use crate::config::Timesteps;
use crate::error::guarded;
use crate::latents::LatentCache;
use crate::objective::{Reconstruction, SharedQueries};
use crate::trainer::{AdamW, LearningRate, Stop, Trainer, state};

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished(PathBuf),
    /// The observer stopped it. The concept and the state are saved; `None` where it stopped a run before it began, which
    /// then leaves the folder as it was.
    Interrupted(Option<PathBuf>),
}

/// Runs a plan. State and concept are written at intervals, at the end, on interruption and before a failure is reported,
/// each time whole or not at all.
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
    let clip = plan.base.folder.load_text_encoder(plan.text_kind(), device)?;
    let tokenizer = plan.base.folder.tokenizer()?;
    let mut conditioner = Conditioner::new(tokenizer, clip, config.clip_skip - 1);
    let draw = Generator::cpu(config.seed);
    let concept = plan.method.start(plan, &conditioner, &draw);
    let concept = &*concept;
    if let Some(file) = &plan.warm_start {
        warm_start::copy_into(concept, &config.warm_start, file)?;
    }
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
    let recorded = match plan.start {
        Start::Resume => state::load(&mut trainer, &config.output)?,
        _ => true,
    };
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
        stratified: config.timesteps == Timesteps::Stratified,
        context_prompts: plan.context.as_ref().map_or(0, |context| context.prompts.len()),
        seed: config.seed,
    };
    let reconstruction = |queries| Reconstruction {
        schedule: &schedule,
        conditioner: &conditioner,
        unet: &unet,
        concept,
        min_snr_gamma: config.min_snr_gamma,
        queries,
    };
    let watch = Watch {
        plan,
        validation: Validation::new(&batches, reconstruction(None)),
        samples: Samples { plan, conditioner: &conditioner, unet: &unet, concept },
    };
    let mut objective =
        objective(plan, batches, reconstruction(queries.as_ref()), context.as_ref());

    let parameters = concept.parameters().iter().map(|p| p.numel() as i64).sum();
    let learning_rate = config.effective_learning_rate();
    let (from, steps) = (trainer.step, config.steps);
    interrupted |= observer.on(&Event::Start { from, steps, learning_rate, parameters }).is_break();
    if interrupted {
        let there = from > 0 && plan.concept_path().is_file();
        return Ok(Outcome::Interrupted(there.then(|| plan.concept_path())));
    }

    let mut files = RunFiles::open(plan, concept, watch, from, recorded)?;
    let flow = files.begin(&trainer, observer)?;
    let ended = if flow.is_break() && from > 0 {
        Ok(flow)
    } else {
        trainer.fit(&mut objective, &mut |trainer, record| {
            concept.after_step();
            files.step(trainer, record, observer)
        })
    };
    finish(ended, plan, &trainer, &mut files, observer)
}

/// Saves what there is, however the loop ended.
fn finish(
    ended: Result<ControlFlow<()>, Stop>,
    plan: &TrainPlan,
    trainer: &Trainer,
    files: &mut RunFiles<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    match ended {
        Ok(ControlFlow::Continue(())) => Ok(Outcome::Finished(files.save(trainer, observer)?)),
        Ok(ControlFlow::Break(())) => {
            Ok(Outcome::Interrupted(Some(files.save(trainer, observer)?)))
        }
        // The parameters are again those of the last finite loss.
        Err(Stop::Diverged { step }) => {
            let saved = files.save_last_good(trainer.step, observer)?;
            Err(Error::diverged(step, saved, plan.kind))
        }
        // Where even a save fails, the first error tells why.
        Err(Stop::NoBatch(error)) => {
            let _ = files.save_last_good(trainer.step, observer);
            Err(error)
        }
        Err(Stop::Failed(error)) => {
            let _ = files.save(trainer, observer);
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
            end: config.lr_end,
            warmup: config.warmup_steps,
            steps: config.steps,
        },
        max_grad_norm: config.max_grad_norm,
        average: None,
        loss_scale: if plan.kind == Kind::Half { 1024.0 } else { 1.0 },
    }
}
