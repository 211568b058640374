//! Training a concept of any method: photos in, concept file out.

mod batches;
mod cones;
mod context;
mod files;
mod folder;
mod log;
mod measurement;
mod memory;
mod method;
mod objective;
mod plan;
mod preview;
mod run;
mod sample;
mod validation;
mod warm_start;
mod watch;

pub(crate) use files::write_config;
pub(crate) use log::StepLog;
pub use measurement::Measurement;
pub use plan::{Start, TrainPlan};
pub use preview::{PhotoPreview, Preview, PromptPreview};
pub use run::{Outcome, train};

use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;

use crate::trainer::StepRecord;

/// What a run tells its observer.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A phase begins ("encoding photos").
    Phase {
        /// What is being done.
        doing: &'a str,
    },
    /// The loop begins.
    Start {
        /// Optimiser steps already behind a resumed run.
        from: u64,
        /// Optimiser steps in all.
        steps: u64,
        /// The learning rate in force, after any scaling.
        learning_rate: f64,
        /// Trained numbers.
        parameters: i64,
    },
    /// An optimiser step is done.
    Step(&'a StepRecord),
    /// The concept was measured.
    Measured(&'a Measurement),
    /// Sample pictures were written.
    Sample {
        /// The picture.
        path: &'a Path,
    },
    /// The concept was written.
    Saved {
        /// The file.
        path: &'a Path,
        /// Optimiser steps behind it.
        step: u64,
    },
    /// Something the user should know.
    Warning {
        /// One sentence.
        text: &'a str,
    },
}

/// Listens to a run; `Break` after any event finishes the step, saves and stops.
pub trait Observer {
    /// Called for every event, in order.
    fn on(&mut self, event: &Event<'_>) -> ControlFlow<()>;

    /// Whether to go on with work that has no events, such as a sample picture.
    fn flow(&self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
