//! DDIM (Song et al. 2021, equations 12 and 16).

use super::{Sampler, Sampling, f32_of, predicted_original, spacing, times};
use crate::schedule::{PredictionType, ScheduleError};
use tch::Tensor;

pub(super) struct Ddim {
    timesteps: Vec<f64>,
    /// `alpha_bar` at each step and after it.
    signals: Vec<(f32, f32)>,
    prediction_type: PredictionType,
    clip: Option<f64>,
    eta: f32,
    index: usize,
}

impl Ddim {
    pub(super) fn new(s: &Sampling, eta: f64) -> Result<Self, ScheduleError> {
        if !(0.0..=1.0).contains(&eta) {
            return Err(s.refuse(
                format!("eta {eta}"),
                "give one from 0 (no noise) to 1 (as much as DDPM)",
            ));
        }
        let timesteps = whole_timesteps(s)?;
        let end = end_signal(s, true);
        let stride = (s.config.num_train_timesteps / s.steps) as i64;
        let signals: Vec<_> = timesteps
            .iter()
            .map(|&t| (signal_at(s, t, end), signal_at(s, t - stride, end)))
            .collect();
        if s.config.prediction_type == PredictionType::Epsilon
            && signals.iter().any(|(now, _)| *now == 0.0)
        {
            return Err(s.refuse(
                "a noise prediction at a timestep without signal",
                "rescale_betas_zero_snr goes with a v_prediction model, or with leading spacing",
            ));
        }
        Ok(Self {
            timesteps: timesteps.iter().map(|&t| t as f64).collect(),
            signals,
            prediction_type: s.config.prediction_type,
            clip: s
                .config
                .clip_sample
                .unwrap_or(true)
                .then(|| s.config.clip_sample_range.unwrap_or(1.0)),
            eta: eta as f32,
            index: 0,
        })
    }
}

impl Sampler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        prediction: &Tensor,
        x_t: &Tensor,
        noise: &mut dyn FnMut() -> Tensor,
    ) -> Tensor {
        let (now, next) = self.signals[self.index];
        self.index += 1;
        let (alpha, sigma) = (now.sqrt(), (1.0 - now).sqrt());
        let (prediction, x) = (f32_of(prediction), f32_of(x_t));
        let x0 = predicted_original(self.prediction_type, &prediction, &x, (alpha, sigma));
        let epsilon = match self.prediction_type {
            PredictionType::Epsilon => prediction,
            PredictionType::VPrediction => times(&prediction, alpha) + times(&x, sigma),
            PredictionType::Sample => (x - times(&x0, alpha)) / f64::from(sigma),
        };
        let x0 = match self.clip {
            Some(bound) => x0.clamp(-bound, bound),
            None => x0,
        };
        let variance = (1.0 - next) / (1.0 - now) * (1.0 - now / next);
        let deviation = self.eta * variance.sqrt();
        let direction = times(&epsilon, (1.0 - next - deviation * deviation).sqrt());
        let mut x = times(&x0, next.sqrt()) + direction;
        if self.eta > 0.0 {
            x += times(&noise(), deviation);
        }
        x.to_kind(x_t.kind())
    }
}

/// Whole timesteps, descending, each one of training.
pub(super) fn whole_timesteps(s: &Sampling) -> Result<Vec<i64>, ScheduleError> {
    let train = s.config.num_train_timesteps;
    let timesteps: Vec<i64> =
        spacing::timesteps(s, 0, train)?.into_iter().map(|t| t.round_ties_even() as i64).collect();
    if timesteps[0] >= train as i64 {
        return Err(ScheduleError::Steps {
            sampler: s.kind.name(),
            steps: s.steps,
            expected: format!(
                "steps_offset {} would put the first at timestep {}, past the last, {}",
                s.config.steps_offset.unwrap_or(0),
                timesteps[0],
                train - 1
            ),
        });
    }
    Ok(timesteps)
}

/// `alpha_bar` past timestep 0.
pub(super) fn end_signal(s: &Sampling, one_by_default: bool) -> f32 {
    if s.config.set_alpha_to_one.unwrap_or(one_by_default) { 1.0 } else { s.alpha_bar[0] }
}

/// `alpha_bar` at a timestep, `end` below 0.
pub(super) fn signal_at(s: &Sampling, timestep: i64, end: f32) -> f32 {
    usize::try_from(timestep).map_or(end, |t| s.alpha_bar[t])
}
