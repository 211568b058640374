//! Euler's method, plain and ancestral.

use super::{Sampler, Sampling, f32_of, spacing, times};
use crate::schedule::{FinalSigmas, PredictionType, ScheduleError, TimestepSpacing};
use tch::Tensor;

/// A walk over noise levels, where the latents are `x = x_0 + sigma noise`: shared with Heun.
pub(super) struct Levels {
    /// f32 values, as Python has them.
    pub(super) timesteps: Vec<f64>,
    /// One more than there are timesteps.
    pub(super) sigmas: Vec<f32>,
    pub(super) initial_scale: f64,
    pub(super) prediction_type: PredictionType,
}

impl Levels {
    pub(super) fn new(s: &Sampling, end: FinalSigmas) -> Result<Self, ScheduleError> {
        let training = spacing::training_sigmas(&s.alpha_bar);
        let rounded = |timesteps: Vec<f64>| {
            timesteps.into_iter().map(|t| f64::from(t as f32)).collect::<Vec<_>>()
        };
        let mut timesteps = rounded(spacing::timesteps(s, 0, s.alpha_bar.len())?);
        let mut levels: Vec<f64> =
            timesteps.iter().map(|t| spacing::sigma_at(&training, *t)).collect();
        if s.karras {
            (levels, timesteps) =
                spacing::karras(s, &training, levels[0], levels[levels.len() - 1]);
            timesteps = rounded(timesteps);
        }
        let sigmas = spacing::closed(&levels, &training, end);
        let highest = sigmas[0];
        let initial_scale = match s.spacing {
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => highest,
            TimestepSpacing::Leading => (highest * highest + 1.0).sqrt(),
        };
        let initial_scale = f64::from(initial_scale);
        Ok(Self { timesteps, sigmas, initial_scale, prediction_type: s.config.prediction_type })
    }

    pub(super) fn model_input(x_t: &Tensor, sigma: f32) -> Tensor {
        x_t / f64::from((sigma * sigma + 1.0).sqrt())
    }

    /// `x_0` from a prediction at a noise level.
    pub(super) fn predicted_original(&self, prediction: &Tensor, x: &Tensor, sigma: f32) -> Tensor {
        let square = sigma * sigma + 1.0;
        match self.prediction_type {
            PredictionType::Epsilon => x - times(prediction, sigma),
            PredictionType::VPrediction => {
                times(prediction, -sigma / square.sqrt()) + x / f64::from(square)
            }
            PredictionType::Sample => prediction.shallow_clone(),
        }
    }
}

pub(super) struct Euler {
    levels: Levels,
    ancestral: bool,
    index: usize,
}

impl Euler {
    pub(super) fn new(s: &Sampling, ancestral: bool) -> Result<Self, ScheduleError> {
        let end = if ancestral { FinalSigmas::Zero } else { s.final_sigmas() };
        Ok(Self { levels: Levels::new(s, end)?, ancestral, index: 0 })
    }
}

impl Sampler for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.levels.timesteps
    }

    fn initial_noise_scale(&self) -> f64 {
        self.levels.initial_scale
    }

    fn model_input(&self, x_t: &Tensor) -> Tensor {
        Levels::model_input(x_t, self.levels.sigmas[self.index])
    }

    fn step(
        &mut self,
        prediction: &Tensor,
        x_t: &Tensor,
        noise: &mut dyn FnMut() -> Tensor,
    ) -> Tensor {
        let (sigma, next) = (self.levels.sigmas[self.index], self.levels.sigmas[self.index + 1]);
        self.index += 1;
        let (prediction, x) = (f32_of(prediction), f32_of(x_t));
        let x0 = self.levels.predicted_original(&prediction, &x, sigma);
        let derivative = (&x - x0) / f64::from(sigma);
        let (up, down) = if self.ancestral { up_and_down(sigma, next) } else { (0.0, next) };
        let mut x = x + times(&derivative, down - sigma);
        if self.ancestral {
            // Drawn at the last step too, where `up` is 0, so that the random stream moves on as Python's does.
            x += times(&noise(), up);
        }
        x.to_kind(x_t.kind())
    }
}

/// The noise to add, and the level to walk down to before, so that the sum has the level `next`.
fn up_and_down(sigma: f32, next: f32) -> (f32, f32) {
    let (from, to) = (sigma * sigma, next * next);
    let up = (to * (from - to) / from).sqrt();
    (up, (to - up * up).sqrt())
}
