//! The only optimisation loop: AdamW over the gradients of a [`TrainStep`], resumable to the bit.

mod adamw;
mod average;
mod learning_rate;
pub mod state;

use std::ops::ControlFlow;
use std::time::Instant;

use serde::Serialize;
use tch::{Kind, Tensor};
use torch_ext::Generator;

use crate::Error;
use adamw::{clip, joint_norm};

pub use adamw::{AdamW, AdamWConfig};
pub use average::Average;
pub use learning_rate::LearningRate;

/// The loss of a micro-batch, still attached to the graph, and the terms it is made of.
pub struct Losses {
    /// What is minimised.
    pub total: Tensor,
    /// What it is made of, for the log.
    pub terms: Vec<(&'static str, f64)>,
}

/// What is minimised: one micro-batch at a time, drawn from the trainer's generator.
pub trait TrainStep {
    /// Micro-batch number `index` since the start of the run. An error ends the run.
    fn losses(&mut self, index: u64, draw: &Generator) -> Result<Losses, Error>;

    /// The next part of the same micro-batch's loss, until there is none. Parts add up; each is computed when
    /// the graph of the one before has been walked and freed, so that only one of them is in memory.
    fn more_losses(&mut self) -> Option<Losses> {
        None
    }

    /// Called after the update of optimiser step `step`, counted from 1; `before` are the parameters as they
    /// were. What it changes in place is what the step leaves behind.
    fn after_update(&mut self, _step: u64, _before: &[Tensor], _parameters: &mut [Tensor]) {}

    /// What else the log should hold of the parameters as they are after the step.
    fn measures(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// What an optimiser step did; one line of `log.jsonl`.
#[derive(Debug, Clone, Serialize)]
pub struct StepRecord {
    /// Optimiser steps done.
    pub step: u64,
    /// The mean loss over the micro-batches.
    pub loss: f64,
    /// Its terms, means likewise.
    pub terms: Vec<(&'static str, f64)>,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The gradient's norm before clipping.
    pub gradient_norm: f64,
    /// The norm of each part's gradient alone, means over the micro-batches; by the name of its first term.
    pub gradient_norms: Vec<(&'static str, f64)>,
    /// The same as shares of their sum, where there are several: how much each part has to say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gradient_shares: Vec<(&'static str, f64)>,
    /// The mean norm of the trained rows.
    pub norm: f64,
    /// What the method measures besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<(&'static str, f64)>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Why a loop ended before its last step.
pub enum Stop {
    /// The loss, a gradient or an update was no number; the parameters are those of the last finite loss.
    Diverged {
        /// The optimiser step.
        step: u64,
    },
    /// A micro-batch could not be had; the parameters are those of the last finite loss.
    NoBatch(Error),
    /// What followed a step failed.
    Failed(Error),
}

/// What follows a step: it sees the step's record and may stop the loop.
pub type AfterStep<'a> = dyn FnMut(&Trainer, &StepRecord) -> Result<ControlFlow<()>, Error> + 'a;

/// What was before the last update, when the loss was a number.
struct LastGood {
    step: u64,
    parameters: Vec<Tensor>,
    average: Option<Vec<Tensor>>,
}

/// An optimiser, its place in the run and its source of randomness: all that a resumed run needs.
pub struct Trainer {
    /// The parameters and their moments.
    pub optimizer: AdamW,
    /// Their running average, where one is kept.
    pub average: Option<Average>,
    /// Where everything random comes from.
    pub draw: Generator,
    /// Optimiser steps done.
    pub step: u64,
    /// Optimiser steps in all.
    pub steps: u64,
    /// Micro-batches in a step.
    pub accumulation: u64,
    /// The learning rate at each step.
    pub learning_rate: LearningRate,
    /// Largest norm of a gradient; 0 is no limit.
    pub max_grad_norm: f64,
    /// f16 gradients of a mean over a picture underflow; the loss is multiplied by this and the gradient
    /// divided. Halved, and the step skipped, when a gradient overflows; 1 for the wider kinds.
    pub loss_scale: f64,
}

impl Trainer {
    /// Runs to the last step, or until `after_step` stops it.
    pub fn fit(
        &mut self,
        objective: &mut dyn TrainStep,
        after_step: &mut AfterStep<'_>,
    ) -> Result<ControlFlow<()>, Stop> {
        let mut last_good = None;
        while self.step < self.steps {
            let record = match self.one_step(objective, &mut last_good) {
                Ok(Some(record)) => record,
                Ok(None) => {
                    let step = self.step + 1;
                    self.go_back(last_good);
                    return Err(Stop::Diverged { step });
                }
                Err(error) => {
                    self.go_back(last_good);
                    return Err(Stop::NoBatch(error));
                }
            };
            if after_step(self, &record).map_err(Stop::Failed)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// What a run leaves behind: the average where one is kept, else the parameters.
    pub fn values(&self) -> &[Tensor] {
        self.average.as_ref().map_or(&self.optimizer.parameters, |average| &average.tensors)
    }

    /// Puts the parameters back to where the loss was last a number: before the update that no loss has judged, or that
    /// ruined them.
    fn go_back(&mut self, last_good: Option<LastGood>) {
        let Some(good) = last_good else { return };
        for (parameter, good) in self.optimizer.parameters.iter_mut().zip(&good.parameters) {
            tch::no_grad(|| parameter.copy_(good));
        }
        if let (Some(average), Some(good)) = (&mut self.average, good.average) {
            average.tensors = good;
        }
        self.step = good.step;
    }

    /// One step; nothing where the loss, a gradient or the update is no number.
    fn one_step(
        &mut self,
        objective: &mut dyn TrainStep,
        last_good: &mut Option<LastGood>,
    ) -> Result<Option<StepRecord>, Error> {
        let started = Instant::now();
        let Sums { mut gradients, loss, terms, gradient_norms } = loop {
            let sums = self.gradients(objective)?;
            if !sums.loss.is_finite() {
                return Ok(None);
            }
            if all_finite(&sums.gradients) {
                break sums;
            }
            self.loss_scale /= 2.0;
            if self.loss_scale < 1.0 {
                return Ok(None);
            }
        };
        let gradient_norm = clip(&mut gradients, self.max_grad_norm);
        let learning_rate = self.learning_rate.at(self.step);
        let LastGood { parameters: before, .. } = &*last_good.insert(LastGood {
            step: self.step,
            parameters: self.optimizer.parameters.iter().map(|p| p.detach().copy()).collect(),
            average: self
                .average
                .as_ref()
                .map(|average| average.tensors.iter().map(Tensor::shallow_clone).collect()),
        });
        self.optimizer.step(&gradients, learning_rate);
        if !all_finite(&self.optimizer.parameters) {
            return Ok(None);
        }
        self.step += 1;
        objective.after_update(self.step, before, &mut self.optimizer.parameters);
        if let Some(average) = &mut self.average {
            average.follow(&self.optimizer.parameters, self.step);
        }
        Ok(Some(StepRecord {
            step: self.step,
            loss,
            terms,
            learning_rate,
            gradient_norm,
            gradient_shares: shares(&gradient_norms),
            gradient_norms,
            norm: mean_norm(&self.optimizer.parameters),
            measures: objective.measures(),
            seconds: started.elapsed().as_secs_f64(),
        }))
    }

    /// Mean gradient, loss and terms over the micro-batches of one step.
    fn gradients(&self, objective: &mut dyn TrainStep) -> Result<Sums, Error> {
        let parameters = &self.optimizer.parameters;
        let share = 1.0 / self.accumulation as f64;
        let mut sums = Sums {
            gradients: parameters.iter().map(Tensor::zeros_like).collect(),
            loss: 0.0,
            terms: Vec::new(),
            gradient_norms: Vec::new(),
        };
        for micro in 0..self.accumulation {
            let index = self.step * self.accumulation + micro;
            let mut part = Some(objective.losses(index, &self.draw)?);
            while let Some(Losses { total, terms }) = part {
                let scaled = &total * (self.loss_scale * share);
                let mut gradients = Tensor::run_backward(&[scaled], parameters, false, false);
                for (sum, gradient) in sums.gradients.iter_mut().zip(&mut gradients) {
                    *gradient = gradient.to_kind(Kind::Float) / self.loss_scale;
                    *sum += &*gradient;
                }
                if let Some(&(name, _)) = terms.first() {
                    add(&mut sums.gradient_norms, name, joint_norm(&gradients));
                }
                sums.loss += share * total.double_value(&[]);
                for (name, value) in terms {
                    add(&mut sums.terms, name, share * value);
                }
                drop(total); // the graph of this part, before the next one is made
                part = objective.more_losses();
            }
        }
        Ok(sums)
    }
}

/// What the micro-batches of a step add up to, as means.
struct Sums {
    gradients: Vec<Tensor>,
    loss: f64,
    terms: Vec<(&'static str, f64)>,
    gradient_norms: Vec<(&'static str, f64)>,
}

/// Adds to the sum of this name.
pub(crate) fn add(sums: &mut Vec<(&'static str, f64)>, name: &'static str, value: f64) {
    match sums.iter_mut().find(|(known, _)| *known == name) {
        Some((_, sum)) => *sum += value,
        None => sums.push((name, value)),
    }
}

/// Each as a share of the sum; nothing of one alone.
fn shares(norms: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
    let sum: f64 = norms.iter().map(|(_, norm)| norm).sum();
    if norms.len() < 2 || sum <= 0.0 {
        return Vec::new();
    }
    norms.iter().map(|(name, norm)| (*name, norm / sum)).collect()
}

/// Whether all numbers of all tensors are finite; asked of the device once, not for each of them.
fn all_finite(tensors: &[Tensor]) -> bool {
    let each: Vec<Tensor> = tensors.iter().map(|tensor| tensor.isfinite().all()).collect();
    Tensor::stack(&each, 0).all().int64_value(&[]) != 0
}

fn mean_norm(parameters: &[Tensor]) -> f64 {
    let norm = |p: &Tensor| p.norm_scalaropt_dim(2, [-1], false).mean(Kind::Double);
    let norms: Vec<Tensor> = parameters.iter().map(norm).collect();
    Tensor::stack(&norms, 0).mean(Kind::Double).double_value(&[])
}
