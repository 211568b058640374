//! What both stages share: the trainer's settings, checkpoints, the log and resuming.

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use crate::config::LrShape;
use crate::limits::{not_negative, positive, within};
use crate::train::{Event, Observer, Outcome, Start, StepLog, write_config};
use crate::trainer::{AdamW, AdamWConfig, Average, LearningRate, Stop, TrainStep, Trainer, state};
use crate::{DeviceChoice, Error, FolderLock, Precision};

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
    /// Refuses numbers that make no run, and a folder that cannot be used; locks the folder.
    pub(super) fn check(&self, file: &str, identity: &str) -> Result<Option<FolderLock>, Error> {
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
        self.start.take_folder(&self.output, &self.output.join(file), self.steps, identity)
    }

    /// Where it computes, and the kind of what is frozen.
    pub(super) fn place(&self) -> Result<(Device, Kind), Error> {
        let device = self.device.resolve()?;
        Ok((device, self.precision.resolve(device)))
    }

    /// What tells this run of `stage` from another, with what is set `besides`; its length may change.
    pub(super) fn identity(&self, stage: &str, besides: Value) -> String {
        let mut identity = json!({
            "stage": stage,
            "batch_size": self.batch_size,
            "gradient_accumulation": self.accumulation,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "warmup_steps": self.warmup_steps,
            "weight_decay": self.weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "average_decay": self.average_decay,
            "lr_schedule": self.schedule,
        });
        if let (Value::Object(all), Value::Object(besides)) = (&mut identity, besides) {
            all.extend(besides);
        }
        identity.to_string()
    }
}

/// Puts weights of these names into their file, after so many steps.
pub(super) type Write<'a> = dyn Fn(u64, Vec<(String, Tensor)>) -> Result<(), Error> + 'a;

/// What a stage trains, and where it goes.
pub(super) struct Stage<'a> {
    pub run: &'a PoseRun,
    /// What tells this run from another.
    pub identity: &'a str,
    /// What is trained, by name.
    pub leaves: &'a [(String, Tensor)],
    /// The name of the weights' file.
    pub file: &'a str,
    /// Writes that file; is given the leaves, or their running average where one is kept.
    pub write: &'a Write<'a>,
}

impl Stage<'_> {
    fn path(&self) -> PathBuf {
        self.run.output.join(self.file)
    }

    fn write(&self, trainer: &Trainer) -> Result<PathBuf, Error> {
        let names = self.leaves.iter().map(|(name, _)| name.clone());
        let values = trainer.values().iter().map(Tensor::detach);
        (self.write)(trainer.step, names.zip(values).collect())?;
        Ok(self.path())
    }

    /// Brings the log to the disk, then the state, then the weights, so that the state never has a step behind it that is
    /// lost, and there are no weights without a state.
    fn save(
        &self,
        trainer: &Trainer,
        log: &mut StepLog,
        observer: &mut dyn Observer,
    ) -> Result<PathBuf, Error> {
        log.sync()?;
        state::save(trainer, &self.run.output, self.identity, true)?;
        let path = self.write(trainer)?;
        let _ = observer.on(&Event::Saved { path: &path, step: trainer.step }); // asked again after the next step
        Ok(path)
    }
}

/// Trains a stage on `step`.
pub(super) fn fit(
    stage: &Stage<'_>,
    step: &mut dyn TrainStep,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let run = stage.run;
    let mut trainer = trainer(stage)?;
    if run.start == Start::Resume {
        state::load(&mut trainer, &run.output)?;
    }
    let parameters = trainer.optimizer.parameters.iter().map(|p| p.numel() as i64).sum();
    let (from, steps, learning_rate) = (trainer.step, run.steps, run.learning_rate);
    let mut flow = ControlFlow::Continue(());
    if let Some(text) = LearningRate::warning(run.warmup_steps, steps) {
        flow = observer.on(&Event::Warning { text: &text });
    }
    if flow.is_break()
        || observer.on(&Event::Start { from, steps, learning_rate, parameters }).is_break()
    {
        let there = from > 0 && stage.path().is_file();
        return Ok(Outcome::Interrupted(there.then(|| stage.path())));
    }
    if run.start == Start::Overwrite {
        // Else the state of the run before would be taken for this one's until this one is saved.
        state::remove(&run.output)?;
    }
    if !run.config.is_empty() {
        write_config(&run.output, &run.config)?;
    }
    let (mut log, _) = StepLog::open(&run.output, from, true)?;
    let ended = trainer.fit(step, &mut |trainer, record| {
        log.write(record)?;
        let flow = observer.on(&Event::Step(record));
        let due = run.save_every > 0 && record.step.is_multiple_of(run.save_every);
        if due && record.step < steps && flow.is_continue() {
            stage.save(trainer, &mut log, observer)?;
        }
        Ok(flow)
    });
    // Where a loss or a batch failed, the values are those of the last loss that was a number. The state stays as it was
    // last saved.
    let written = from > 0 || state::is_there(&run.output);
    let last_good = || (trainer.step > 0 || written).then(|| stage.write(&trainer)).transpose();
    match ended {
        Ok(ControlFlow::Continue(())) => {
            Ok(Outcome::Finished(stage.save(&trainer, &mut log, observer)?))
        }
        Ok(ControlFlow::Break(())) => {
            Ok(Outcome::Interrupted(Some(stage.save(&trainer, &mut log, observer)?)))
        }
        Err(Stop::Failed(error)) => {
            let _ = stage.save(&trainer, &mut log, observer); // the first error tells why
            Err(error)
        }
        Err(Stop::NoBatch(error)) => {
            last_good()?;
            Err(error)
        }
        Err(Stop::Diverged { step }) => Err(Error::diverged(step, last_good()?, run.place()?.1)),
    }
}

fn trainer(stage: &Stage<'_>) -> Result<Trainer, Error> {
    let run = stage.run;
    let parameters: Vec<Tensor> =
        stage.leaves.iter().map(|(_, leaf)| leaf.shallow_clone()).collect();
    let adam =
        AdamWConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: run.weight_decay };
    Ok(Trainer {
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
    })
}
