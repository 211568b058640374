//! What both stages share: the trainer's settings, checkpoints, the log and resuming.

use std::ops::ControlFlow;
use std::path::PathBuf;

use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use super::limits::{not_negative, positive, within};
use crate::config::LrShape;
use crate::train::{Event, Observer, Outcome, Start, StepLog, write_config};
use crate::trainer::{
    AdamW, AdamWConfig, Average, LearningRate, StepRecord, Stop, TrainStep, Trainer, state,
};
use crate::{DeviceChoice, Error, Precision};

/// How a stage is trained.
#[derive(Debug, Clone)]
pub struct PoseRun {
    /// The folder for weights, state and log.
    pub output: PathBuf,
    /// What is written into the folder's `config.toml`; nothing where it is empty.
    pub config: String,
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
    /// Decay of the running average that is written in the parameters' stead; 0 writes the parameters.
    pub average_decay: f64,
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
        within(
            &(0.0..1.0),
            "a share below 1, such as 0.999, or 0 for no average",
            &[("average_decay", self.average_decay)],
        )?;
        positive("the learning rate", self.learning_rate, "1e-5")?;
        not_negative(&[
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
        ])?;
        self.start.check_folder(&self.output, &self.output.join(file), self.steps, identity)
    }

    /// Where it computes, and the kind of what is frozen.
    pub(super) fn place(&self) -> Result<(Device, Kind), Error> {
        let device = self.device.resolve()?;
        Ok((device, self.precision.resolve(device)))
    }

    /// What tells this run from another; its length may change.
    pub(super) fn identity(&self, stage: &str, besides: &str) -> String {
        let Self { batch_size, accumulation, learning_rate, seed, warmup_steps, .. } = self;
        let Self { weight_decay, max_grad_norm, average_decay, schedule, .. } = self;
        format!(
            "{stage} {batch_size} {accumulation} {learning_rate} {seed} {warmup_steps} {weight_decay} {max_grad_norm} {average_decay} {schedule:?} {besides}"
        )
    }
}

/// Puts weights of these names into their file, after so many steps.
pub(super) type Write<'a> = dyn Fn(u64, Vec<(String, Tensor)>) -> Result<PathBuf, Error> + 'a;

/// Trains `leaves` on `step`; `write` is given them, or their running average where one is kept.
pub(super) fn fit(
    run: &PoseRun,
    identity: &str,
    leaves: &[(String, Tensor)],
    step: &mut dyn TrainStep,
    write: &Write<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let parameters: Vec<Tensor> = leaves.iter().map(|(_, leaf)| leaf.shallow_clone()).collect();
    let numbers = parameters.iter().map(|p| p.numel() as i64).sum();
    let adam =
        AdamWConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: run.weight_decay };
    let mut trainer = Trainer {
        average: Average::new(&parameters, run.average_decay),
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
    if !run.config.is_empty() {
        write_config(&run.output, &run.config)?;
    }
    let (mut log, _) = StepLog::open(&run.output, trainer.step)?;
    let (from, steps, learning_rate) = (trainer.step, run.steps, run.learning_rate);
    let event = Event::Start { from, steps, learning_rate, parameters: numbers };
    if observer.on(&event).is_break() {
        return Ok(Outcome::Interrupted(None));
    }
    let write = |trainer: &Trainer| {
        let names = leaves.iter().map(|(name, _)| name.clone());
        write(trainer.step, names.zip(trainer.values().iter().map(Tensor::detach)).collect())
    };
    let save = |trainer: &Trainer, observer: &mut dyn Observer| {
        let path = write(trainer)?;
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
    // Where a loss or a batch failed, the values are those of the last loss that was a number. The state stays as it was
    // last saved.
    let last_good = || (trainer.step > 0).then(|| write(&trainer)).transpose();
    match ended {
        Ok(ControlFlow::Continue(())) => Ok(Outcome::Finished(save(&trainer, observer)?)),
        Ok(ControlFlow::Break(())) => Ok(Outcome::Interrupted(Some(save(&trainer, observer)?))),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::NoBatch(error)) => {
            last_good()?;
            Err(error)
        }
        Err(Stop::Diverged { step }) => Err(Error::diverged(step, last_good()?, run.place()?.1)),
    }
}
