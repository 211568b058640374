//! Looking at the concept from time to time: its loss at fixed samples, and its sample pictures.

use std::ops::ControlFlow;

use super::plan::TrainPlan;
use super::sample::Samples;
use super::validation::Validation;
use super::{Measurement, Observer};
use crate::Error;

/// What looks at a run's concept.
pub(super) struct Watch<'a> {
    pub plan: &'a TrainPlan,
    pub validation: Validation<'a>,
    pub samples: Samples<'a>,
}

impl Watch<'_> {
    /// Measures the concept as it starts; pictures of it would be those of the class.
    pub(super) fn start(&self) -> Option<Measurement> {
        let loss = (self.plan.config.validate_every > 0).then(|| self.validation.loss())?;
        Some(Measurement { validation_loss: Some(loss), ..Measurement::at(0) })
    }

    /// Measures what is due after a step, at the intervals and after the last one. Breaks where the observer stops it
    /// before it is done: then nothing is known.
    pub(super) fn after(
        &self,
        step: u64,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<(), Measurement>, Error> {
        let config = &self.plan.config;
        let due = |every: u64| every > 0 && (step == config.steps || step.is_multiple_of(every));
        let mut measured = Measurement::at(step);
        if due(config.validate_every) {
            measured.validation_loss = Some(self.validation.loss());
        }
        if due(config.sample_every) && self.samples.draw(&mut measured, observer)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(measured))
    }
}
