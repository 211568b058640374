//! Heun's method: an Euler step, then the mean of the slopes at its two ends.

use super::{Sampler, Sampling, euler::Levels, f32_of, times};
use crate::schedule::{FinalSigmas, ScheduleError};
use tch::Tensor;

pub(super) struct Heun {
    levels: Levels,
    /// One for each evaluation: all but the first step's are doubled.
    timesteps: Vec<f64>,
    clip: Option<f64>,
    /// The evaluation that comes next; odd ones are second halves.
    index: usize,
    /// Where the step began and its slope there.
    first_half: Option<(Tensor, Tensor)>,
}

impl Heun {
    pub(super) fn new(s: &Sampling) -> Result<Self, ScheduleError> {
        let levels = Levels::new(s, FinalSigmas::Zero)?;
        let timesteps = levels.timesteps.iter().flat_map(|&t| [t, t]).skip(1).collect();
        let clip = s
            .config
            .clip_sample
            .unwrap_or(false)
            .then(|| s.config.clip_sample_range.unwrap_or(1.0));
        Ok(Self { levels, timesteps, clip, index: 0, first_half: None })
    }
}

impl Sampler for Heun {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_scale(&self) -> f64 {
        self.levels.initial_scale
    }

    fn model_input(&self, x_t: &Tensor) -> Tensor {
        Levels::model_input(x_t, self.levels.sigmas[self.index.div_ceil(2)])
    }

    fn step(
        &mut self,
        prediction: &Tensor,
        x_t: &Tensor,
        _noise: &mut dyn FnMut() -> Tensor,
    ) -> Tensor {
        let step = self.index / 2;
        let (from, to) = (self.levels.sigmas[step], self.levels.sigmas[step + 1]);
        let sigma = self.levels.sigmas[self.index.div_ceil(2)];
        self.index += 1;
        let (prediction, x) = (f32_of(prediction), f32_of(x_t));
        let x0 = self.levels.predicted_original(&prediction, &x, sigma);
        let x0 = match self.clip {
            Some(bound) => x0.clamp(-bound, bound),
            None => x0,
        };
        let slope = (&x - x0) / f64::from(sigma);
        let next = if let Some((start, first_slope)) = self.first_half.take() {
            start + times(&((first_slope + slope) / 2.0), to - from)
        } else {
            let next = &x + times(&slope, to - from);
            self.first_half = Some((x, slope));
            next
        };
        next.to_kind(x_t.kind())
    }
}
