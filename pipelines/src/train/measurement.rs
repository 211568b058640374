//! How good the concept is at a step, and which step's was the best.

use serde::{Deserialize, Serialize};

use crate::config::KeepBest;

/// What was measured of the concept as it was after a step; a line of `log.jsonl`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Measurement {
    /// Optimiser steps done; 0 is the concept as it started.
    pub step: u64,
    /// The loss at fixed photos, noises and timesteps, so that steps can be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f64>,
    /// Mean cosine of the U-Net's features, sample pictures by photos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likeness: Option<f64>,
    /// Mean cosine of CLIP's encodings, each sample picture by its prompt with the class in the concept's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fidelity: Option<f64>,
}

impl Measurement {
    /// Nothing measured yet.
    pub(super) fn at(step: u64) -> Self {
        Self { step, ..Self::default() }
    }

    /// Whether it holds a number.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::at(self.step)
    }

    /// What `by` looks at, the larger the better.
    fn merit(&self, by: KeepBest) -> Option<f64> {
        match by {
            KeepBest::Off => None,
            KeepBest::Loss => self.validation_loss.map(|loss| -loss),
            KeepBest::Likeness => self.likeness,
            KeepBest::Fidelity => self.fidelity,
            KeepBest::Balance => Some(self.likeness? * self.fidelity?),
        }
    }
}

/// The best that was measured so far.
pub(super) struct Best {
    by: KeepBest,
    /// Its step, and how good it was.
    known: Option<(u64, f64)>,
}

impl Best {
    /// The best of what a resumed run measured before.
    pub(super) fn of(by: KeepBest, measured: &[Measurement]) -> Self {
        let mut best = Self { by, known: None };
        for measurement in measured {
            best.takes(measurement);
        }
        best
    }

    /// Whether a measurement is the best so far, which it then is. The start is no candidate: it is the class.
    pub(super) fn takes(&mut self, measurement: &Measurement) -> bool {
        let merit = measurement.merit(self.by).filter(|_| measurement.step > 0);
        let better = merit.filter(|merit| self.known.is_none_or(|(_, best)| *merit > best));
        if let Some(merit) = better {
            self.known = Some((measurement.step, merit));
        }
        better.is_some()
    }

    /// Whether the run's file holds a concept that was measured, and stays.
    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// Whether the run's file is to hold the concept as it is after `step`, the last one done.
    pub(super) fn is_at(&self, step: u64) -> bool {
        self.known.is_none_or(|(best, _)| best == step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(step: u64, loss: f64, likeness: f64, fidelity: f64) -> Measurement {
        Measurement {
            step,
            validation_loss: Some(loss),
            likeness: Some(likeness),
            fidelity: Some(fidelity),
        }
    }

    #[test]
    fn each_way_of_keeping_picks_its_own_step_and_never_the_start() {
        let run = [
            measured(0, 0.1, 0.9, 0.9),
            measured(1, 0.5, 0.2, 0.6),
            measured(2, 0.3, 0.5, 0.5),
            measured(3, 0.2, 0.6, 0.1),
        ];
        let picked = |by| {
            let mut best = Best::of(by, &[]);
            run.iter().filter(|m| best.takes(m)).map(|m| m.step).last()
        };
        assert_eq!(picked(KeepBest::Off), None);
        assert_eq!(picked(KeepBest::Loss), Some(3));
        assert_eq!(picked(KeepBest::Likeness), Some(3));
        assert_eq!(picked(KeepBest::Fidelity), Some(1));
        assert_eq!(picked(KeepBest::Balance), Some(2));
    }

    #[test]
    fn a_resumed_run_goes_on_from_the_best_before_and_a_tie_keeps_the_earlier() {
        let mut best = Best::of(KeepBest::Loss, &[measured(1, 0.3, 0.0, 0.0)]);
        assert!(best.is_known());
        assert!(!best.takes(&measured(2, 0.3, 0.0, 0.0)));
        assert!(!best.takes(&Measurement::at(3)));
        assert!(best.takes(&measured(4, 0.2, 0.0, 0.0)));
        assert!(best.is_at(4) && !best.is_at(5));
        assert!(Best::of(KeepBest::Off, &[measured(1, 0.3, 0.0, 0.0)]).is_at(5));
    }
}
