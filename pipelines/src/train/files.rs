//! The concept and the state in a run's folder, each written whole or not at all.

use std::path::{Path, PathBuf};

use embeddings::Concept;
use embeddings::file::{ConceptFile, ConceptRecord, write_atomically};

use super::measurement::Best;
use super::plan::TrainPlan;
use super::{Event, Observer};
use crate::Error;
use crate::trainer::{Trainer, state};

/// What a run writes besides its log and samples.
pub(super) struct RunFiles<'a> {
    pub plan: &'a TrainPlan,
    pub concept: &'a dyn Concept,
    /// Which concept the file is to hold.
    pub best: Best,
}

impl RunFiles<'_> {
    /// Writes the state, and the concept unless a better one is kept; returns the concept's path.
    pub(super) fn save(
        &self,
        trainer: &Trainer,
        observer: &mut dyn Observer,
    ) -> Result<PathBuf, Error> {
        if !self.best.is_known() {
            self.save_concept(trainer.step, observer)?;
        }
        state::save(trainer, &self.plan.config.output, &self.plan.identity)?;
        Ok(self.plan.concept_path())
    }

    /// Writes the concept as it is.
    pub(super) fn save_concept(&self, step: u64, observer: &mut dyn Observer) -> Result<(), Error> {
        let path = self.plan.concept_path();
        self.write(step, &path)?;
        let _ = observer.on(&Event::Saved { path: &path, step }); // the loop asks again after its next step
        Ok(())
    }

    /// Keeps the concept as it is, whatever is learnt later.
    pub(super) fn save_snapshot(&self, step: u64) -> Result<(), Error> {
        let folder = self.plan.config.output.join("snapshots");
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder, "created"))?;
        self.write(step, &folder.join(self.plan.config.concept_file(&format!("-{step:06}"))))
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
            config: config.to_toml(),
            settings: serde_json::Value::Null, // the concept's own, put in by the file
        };
        ConceptFile::new(self.concept, record).write(path)?;
        Ok(())
    }
}

/// Puts every key as it is in force, as TOML, into the folder of a run.
pub(crate) fn write_config(folder: &Path, toml: &str) -> Result<(), Error> {
    let path = folder.join("config.toml");
    write_atomically(&path, toml.as_bytes()).map_err(Error::io(&path, "written"))
}
