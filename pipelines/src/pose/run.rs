//! What both stages share: the trainer's settings, checkpoints, the log and resuming.

use std::ops::ControlFlow;
use std::path::PathBuf;

use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use crate::config::LrShape;
use crate::output::prepare_folder;
use crate::train::{Event, Observer, Outcome, Start, StepLog};
use crate::trainer::{
    AdamW, AdamWConfig, LearningRate, Losses, StepRecord, Stop, TrainStep, Trainer, state,
};
use crate::{DeviceChoice, Error, Precision};

/// How a stage is trained.
#[derive(Debug, Clone)]
pub struct PoseRun {
    /// The folder for weights, state and log.
    pub output: PathBuf,
    /// Optimiser steps.
    pub steps: u64,
    /// Pairs in a micro-batch.
    pub batch_size: usize,
    /// Micro-batches in a step.
    pub accumulation: u64,
    /// Peak of the learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub schedule: LrShape,
    /// Steps until the peak.
    pub warmup_steps: u64,
    /// Share of a parameter that goes at each step, times the learning rate.
    pub weight_decay: f64,
    /// Largest norm of a gradient; 0 is no limit.
    pub max_grad_norm: f64,
    /// Of parameters, pairs and noise.
    pub seed: u64,
    /// Steps between checkpoints; 0 writes at the end only.
    pub save_every: u64,
    /// How it stands to what lies in the folder.
    pub start: Start,
    /// Where it computes.
    pub device: DeviceChoice,
    /// What the frozen networks compute in; what is trained is f32.
    pub precision: Precision,
}

impl PoseRun {
    /// FPDM's first stage: AdamW at 1e-5, constant, decay 1e-4, batches of 48; five epochs of its 101,966 pairs.
    pub fn fusion(output: PathBuf) -> Self {
        Self {
            output,
            steps: 10_600,
            batch_size: 48,
            accumulation: 1,
            learning_rate: 1e-5,
            schedule: LrShape::Constant,
            warmup_steps: 0,
            weight_decay: 1e-4,
            max_grad_norm: 0.0,
            seed: 7,
            save_every: 1_000,
            start: Start::New,
            device: DeviceChoice::Auto,
            precision: Precision::Auto,
        }
    }

    /// FPDM's second stage: AdamW at 1e-4 after a warm-up of five epochs, no decay, 3 micro-batches of 42. Its rate is a
    /// tenth from epoch 55 of 100 on; here it is constant.
    pub fn generator(output: PathBuf) -> Self {
        Self {
            steps: 81_000,
            batch_size: 42,
            accumulation: 3,
            learning_rate: 1e-4,
            warmup_steps: 4_000,
            weight_decay: 0.0,
            ..Self::fusion(output)
        }
    }

    /// Refuses numbers that make no run, and a folder that cannot be used.
    pub(super) fn check(&self, file: &str, identity: &str) -> Result<(), Error> {
        for (what, number) in [
            ("steps", self.steps),
            ("batch size", self.batch_size as u64),
            ("gradient accumulation", self.accumulation),
        ] {
            if number == 0 {
                return Err(Error::Usage(format!("{what} is 0, but at least 1 is needed")));
            }
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            let text = format!(
                "the learning rate is {}; give one above 0, such as 1e-5",
                self.learning_rate
            );
            return Err(Error::Usage(text));
        }
        let (weights, state_file) = (self.output.join(file), self.output.join(state::FILE));
        match self.start {
            Start::DryRun => return Ok(()),
            Start::Resume => return state::check(&self.output, self.steps, identity),
            Start::New if weights.exists() || state_file.exists() => {
                return Err(Error::Usage(format!(
                    "{} holds an earlier run; go on with it with --resume, overwrite it with --force, or give another --output",
                    self.output.display()
                )));
            }
            Start::New | Start::Overwrite => {}
        }
        prepare_folder(&self.output)
    }

    /// Where it computes, and the kind of what is frozen.
    pub(super) fn place(&self) -> Result<(Device, Kind), Error> {
        let device = self.device.resolve()?;
        Ok((device, self.precision.resolve(device)))
    }

    /// What tells this run from another; its length may change.
    pub(super) fn identity(&self, stage: &str, besides: &str) -> String {
        let Self { batch_size, accumulation, learning_rate, seed, warmup_steps, .. } = self;
        let Self { weight_decay, max_grad_norm, schedule, .. } = self;
        format!(
            "{stage} {batch_size} {accumulation} {learning_rate} {seed} {warmup_steps} {weight_decay} {max_grad_norm} {schedule:?} {besides}"
        )
    }
}

/// A step that may fail to get its pictures, which the loop cannot carry out itself.
pub(super) trait PoseStep: TrainStep {
    /// Why the last loss is none, once.
    fn failure(&mut self) -> Option<Error>;
}

/// The loss of a batch that there is not: no number, so that the loop ends before anything is moved, but one whose graph
/// reaches every parameter.
pub(super) fn no_batch(leaves: &[(String, Tensor)]) -> Losses {
    let sum = leaves.iter().map(|(_, leaf)| leaf.sum(Kind::Float)).reduce(|a, b| a + b);
    Losses { total: sum.expect("something is trained") * f64::NAN, terms: Vec::new() }
}

/// Trains `leaves` on `step`. `write` puts the weights as they are into their file, after so many steps.
pub(super) fn fit(
    run: &PoseRun,
    identity: &str,
    leaves: &[(String, Tensor)],
    step: &mut dyn PoseStep,
    write: &dyn Fn(u64) -> Result<PathBuf, Error>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let parameters: Vec<Tensor> = leaves.iter().map(|(_, leaf)| leaf.shallow_clone()).collect();
    let numbers = parameters.iter().map(|p| p.numel() as i64).sum();
    let adam =
        AdamWConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: run.weight_decay };
    let mut trainer = Trainer {
        optimizer: AdamW::new(parameters, adam),
        draw: Generator::cpu(run.seed),
        step: 0,
        steps: run.steps,
        accumulation: run.accumulation,
        learning_rate: LearningRate {
            peak: run.learning_rate,
            shape: run.schedule,
            end: 0.0,
            warmup: run.warmup_steps,
            steps: run.steps,
        },
        max_grad_norm: run.max_grad_norm,
        loss_scale: if run.place()?.1 == Kind::Half { 1024.0 } else { 1.0 },
    };
    if run.start == Start::Resume {
        state::load(&mut trainer, &run.output)?;
    }
    let (mut log, _) = StepLog::open(&run.output, trainer.step)?;
    let (from, steps, learning_rate) = (trainer.step, run.steps, run.learning_rate);
    let event = Event::Start { from, steps, learning_rate, parameters: numbers };
    if observer.on(&event).is_break() {
        return Ok(Outcome::Interrupted(None));
    }
    let save = |trainer: &Trainer, observer: &mut dyn Observer| {
        let path = write(trainer.step)?;
        state::save(trainer, &run.output, identity)?;
        let _ = observer.on(&Event::Saved { path: &path, step: trainer.step }); // asked again after the next step
        Ok::<_, Error>(path)
    };
    let ended = {
        let mut after = |trainer: &Trainer, record: &StepRecord| {
            log.write(record)?;
            let flow = observer.on(&Event::Step(record));
            let due = run.save_every > 0 && record.step.is_multiple_of(run.save_every);
            if due && record.step < run.steps && flow.is_continue() {
                save(trainer, observer)?;
            }
            Ok(flow)
        };
        trainer.fit(step, &mut after)
    };
    match ended {
        Ok(ControlFlow::Continue(())) => Ok(Outcome::Finished(save(&trainer, observer)?)),
        Ok(ControlFlow::Break(())) => Ok(Outcome::Interrupted(Some(save(&trainer, observer)?))),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Diverged { step: at }) => {
            // The parameters are those of the last loss that was a number. The state stays as it was last saved.
            let learnt = trainer.step > 0;
            let saved = learnt.then(|| write(trainer.step)).transpose()?;
            Err(step.failure().unwrap_or(Error::Diverged { step: at, saved }))
        }
    }
}
