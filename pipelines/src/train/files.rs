//! What a run writes, in an order in which nothing is lost: what a step made comes before the state that has the step behind
//! it, and the concept after that.
//!
//! ```text
//! line of the step ► samples ► line of what was measured ► snapshot ► state ► concept
//! ```
//!
//! The state is the truth. A run that goes on from it drops what was written beyond it and makes that again; and where a
//! run was stopped between a step and what is due after it, the state says so.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use embeddings::Concept;
use embeddings::file::{ConceptFile, ConceptRecord, write_atomically};

use super::log::StepLog;
use super::measurement::Best;
use super::plan::{Start, TrainPlan};
use super::watch::Watch;
use super::{Event, Observer, folder};
use crate::Error;
use crate::trainer::{StepRecord, Trainer, state};

/// What a run writes.
pub(super) struct RunFiles<'a> {
    plan: &'a TrainPlan,
    concept: &'a dyn Concept,
    watch: Watch<'a>,
    log: StepLog,
    /// Which concept the file is to hold.
    best: Best,
    /// Whether what is due after the last step is done and in the log.
    recorded: bool,
    /// Whether the concept's file is this run's.
    written: bool,
}

impl<'a> RunFiles<'a> {
    /// Takes away what is another run's, or of steps beyond `step`, and opens the log.
    pub(super) fn open(
        plan: &'a TrainPlan,
        concept: &'a dyn Concept,
        watch: Watch<'a>,
        step: u64,
        recorded: bool,
    ) -> Result<Self, Error> {
        let (config, path) = (&plan.config, plan.concept_path());
        let resumed = plan.start == Start::Resume;
        if resumed {
            folder::forget(&config.output, step - u64::from(!recorded && step > 0))?;
        } else {
            folder::clear(&config.output, &path, plan.start == Start::Overwrite)?;
        }
        write_config(&config.output, &config.to_toml())?;
        let (log, measured) = StepLog::open(&config.output, step, recorded)?;
        let written = resumed && path.is_file();
        let mut best = Best::of(config.keep_best, &measured);
        if !written && !best.is_at(step) {
            best = Best::of(config.keep_best, &[]); // the concept that was the best is not there any more
        }
        Ok(Self { plan, concept, watch, log, best, recorded, written })
    }

    /// Measures the concept that a new run begins with, or does what a resumed run was stopped before.
    pub(super) fn begin(
        &mut self,
        trainer: &Trainer,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<()>, Error> {
        if trainer.step == 0 {
            let Some(measured) = self.watch.start() else { return Ok(ControlFlow::Continue(())) };
            self.log.write(&measured)?;
            return Ok(observer.on(&Event::Measured(&measured)));
        }
        if self.best.is_at(trainer.step) {
            // It may have been killed between the state and the concept.
            self.save_concept(trainer.step, observer)?;
        }
        if self.recorded {
            return Ok(ControlFlow::Continue(()));
        }
        self.watch.validation.lay_out();
        self.follow(trainer, observer)
    }

    /// Logs a step and does what is due after it.
    pub(super) fn step(
        &mut self,
        trainer: &Trainer,
        record: &StepRecord,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<()>, Error> {
        self.recorded = false;
        self.log.write(record)?;
        if observer.on(&Event::Step(record)).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.follow(trainer, observer)
    }

    fn follow(
        &mut self,
        trainer: &Trainer,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<()>, Error> {
        let (step, config) = (trainer.step, &self.plan.config);
        let ControlFlow::Continue(measured) = self.watch.after(step, observer)? else {
            return Ok(ControlFlow::Break(()));
        };
        let mut flow = ControlFlow::Continue(());
        if !measured.is_empty() {
            self.log.write(&measured)?;
            flow = observer.on(&Event::Measured(&measured));
        }
        let every = config.save_every;
        let due = every > 0 && step.is_multiple_of(every) && step < config.steps;
        if due {
            self.write(step, &folder::snapshot(config, step)?)?;
        }
        self.recorded = true;
        if self.best.takes(&measured) || due {
            self.save(trainer, observer)?;
        }
        Ok(flow)
    }

    /// Writes the state, and the concept unless a better one is kept; returns the concept's path.
    pub(super) fn save(
        &mut self,
        trainer: &Trainer,
        observer: &mut dyn Observer,
    ) -> Result<PathBuf, Error> {
        let plan = self.plan;
        self.log.sync()?;
        state::save(trainer, &plan.config.output, &plan.identity, self.recorded)?;
        if self.best.is_at(trainer.step) {
            self.save_concept(trainer.step, observer)?;
        }
        Ok(plan.concept_path())
    }

    /// Writes the concept as it is after its last good step, where the run learnt anything and no better one is kept. The
    /// state stays as it was last saved. Returns the path of the concept that is there now.
    pub(super) fn save_last_good(
        &mut self,
        step: u64,
        observer: &mut dyn Observer,
    ) -> Result<Option<PathBuf>, Error> {
        if !self.best.is_known() && (step > 0 || self.written) {
            self.save_concept(step, observer)?;
        }
        Ok(self.written.then(|| self.plan.concept_path()))
    }

    fn save_concept(&mut self, step: u64, observer: &mut dyn Observer) -> Result<(), Error> {
        let path = self.plan.concept_path();
        self.write(step, &path)?;
        self.written = true;
        let _ = observer.on(&Event::Saved { path: &path, step }); // the loop asks again after its next step
        Ok(())
    }

    fn write(&self, step: u64, path: &Path) -> Result<(), Error> {
        let (plan, config) = (self.plan, &self.plan.config);
        let seconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
        let record = ConceptRecord {
            method: config.method.clone(),
            token: config.concept.clone(),
            class: Some(config.class.clone()).filter(|class| !class.is_empty()),
            base: Some(plan.base.record.clone()),
            steps: step,
            learning_rate: config.effective_learning_rate(),
            seed: config.seed,
            photos: plan.photos_hash.clone(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            created: seconds,
            config: config.to_shared_toml(),
            settings: serde_json::Value::Null, // the concept's own, put in by the file
        };
        let record = if config.metadata { record } else { record.bare() };
        ConceptFile::new(self.concept, record).write(path)?;
        Ok(())
    }
}

/// Puts every key as it is in force, as TOML, into the folder of a run.
pub(crate) fn write_config(folder: &Path, toml: &str) -> Result<(), Error> {
    let path = folder.join("config.toml");
    write_atomically(&path, toml.as_bytes()).map_err(Error::io(&path, "written"))
}
