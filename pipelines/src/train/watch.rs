//! Looking at the concept from time to time: its loss at fixed samples, and its sample pictures.

use std::ops::ControlFlow;

use super::plan::TrainPlan;
use super::sample::Samples;
use super::validation::Validation;
use super::{Event, Measurement, Observer};
use crate::Error;

/// What looks at a run's concept.
pub(super) struct Watch<'a> {
    pub plan: &'a TrainPlan,
    pub validation: Validation<'a>,
    pub samples: Samples<'a>,
}

impl Watch<'_> {
    /// The concept as it starts; pictures of it would be those of the class.
    pub(super) fn start(&self, observer: &mut dyn Observer) -> Option<Measurement> {
        let loss = (self.plan.config.validate_every > 0).then(|| self.validation.loss())?;
        let measured = Measurement { validation_loss: Some(loss), ..Measurement::at(0) };
        let _ = observer.on(&Event::Measured(&measured)); // asked again after the first step
        Some(measured)
    }

    /// What is due after a step, at the intervals and after the last one.
    pub(super) fn after(
        &self,
        step: u64,
        observer: &mut dyn Observer,
    ) -> Result<(Measurement, ControlFlow<()>), Error> {
        let config = &self.plan.config;
        let due = |every: u64| every > 0 && (step == config.steps || step.is_multiple_of(every));
        let (mut measured, mut flow) = (Measurement::at(step), ControlFlow::Continue(()));
        if due(config.validate_every) {
            measured.validation_loss = Some(self.validation.loss());
        }
        if due(config.sample_every) {
            flow = self.samples.draw(&mut measured, observer)?;
        }
        if !measured.is_empty() && observer.on(&Event::Measured(&measured)).is_break() {
            flow = ControlFlow::Break(());
        }
        Ok((measured, flow))
    }
}
