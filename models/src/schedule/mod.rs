//! The forward noising process and the training targets that follow from it.
//!
//! [`ScheduleConfig`] is what `scheduler/scheduler_config.json` says; [`NoiseSchedule`] is the stateless
//! mathematics of training. Sampling, which has state, is in [`crate::samplers`].

mod config;

use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

pub(crate) use config::COMMON_BETAS;
pub use config::{BetaSchedule, FinalSigmas, PredictionType, ScheduleConfig, TimestepSpacing};

/// Why a schedule or a sampler cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The betas make no schedule.
    #[error(
        "the noise schedule has {found}, expected {expected}; correct the scheduler configuration"
    )]
    Betas {
        /// What a schedule needs.
        expected: String,
        /// What the configuration gives.
        found: String,
    },
    /// No sampler has that name.
    #[error("there is no sampler `{name}`; {near}the samplers are {all}")]
    UnknownSampler {
        /// The name as given.
        name: String,
        /// "did you mean ...? ", or empty.
        near: String,
        /// Every name.
        all: String,
    },
    /// The number of steps cannot be taken.
    #[error("{sampler} cannot take {steps} steps, {expected}")]
    Steps {
        /// The sampler's name.
        sampler: &'static str,
        /// The number asked for.
        steps: usize,
        /// What it may be.
        expected: String,
    },
    /// A setting does not go with the sampler.
    #[error("{sampler} cannot work with {setting}: {hint}")]
    Setting {
        /// The sampler's name.
        sampler: &'static str,
        /// The setting and its value.
        setting: String,
        /// What to do.
        hint: String,
    },
}

/// The forward process and its targets: stateless, one timestep per sample.
///
/// Tensors are `[B, ...]` of any kind, timesteps i64 `[B]` in `0..num_train_timesteps` on the same device. The
/// mathematics is f32 and the result has the kind of the first tensor.
#[derive(Debug)]
pub struct NoiseSchedule {
    alpha_bar: Vec<f64>,
    alpha_bar_f32: Tensor, // [T], on the CPU
    prediction_type: PredictionType,
}

impl NoiseSchedule {
    /// The schedule of training, as Python's `DDPMScheduler.from_config` has it.
    pub fn new(config: &ScheduleConfig) -> Result<Self, ScheduleError> {
        let alpha_bar = config.alpha_bar(COMMON_BETAS, config.rescale_betas_zero_snr)?;
        Ok(Self {
            alpha_bar_f32: Tensor::from_slice(&alpha_bar),
            alpha_bar: alpha_bar.into_iter().map(f64::from).collect(),
            prediction_type: config.prediction_type,
        })
    }

    /// The share of signal (squared) at each timestep, `num_train_timesteps` long.
    pub fn alpha_bar(&self) -> &[f64] {
        &self.alpha_bar
    }

    /// What the network predicts.
    pub fn prediction_type(&self) -> PredictionType {
        self.prediction_type
    }

    /// A timestep in each of the ranges named by `ranges` `[B]`, out of `count` equal ones; `[B]`. Over all ranges the loss
    /// wanders less with the noise levels that happened to be drawn (Kingma et al. 2021, appendix I.1).
    pub fn timesteps_within(&self, ranges: &Tensor, count: u64, draw: &Generator) -> Tensor {
        let last = self.alpha_bar.len() as i64;
        let within = ranges.to_kind(Kind::Double) + draw.rand(&ranges.size()).to_kind(Kind::Double);
        (within * (last as f64 / count as f64)).to_kind(Kind::Int64).clamp_max(last - 1)
    }

    /// One in each of `count` equal ranges, `[count]`.
    pub fn spread_timesteps(&self, count: i64, draw: &Generator) -> Tensor {
        let ranges = Tensor::arange(count, (Kind::Int64, Device::Cpu));
        self.timesteps_within(&ranges, count as u64, draw)
    }

    /// Each by itself, `[count]`.
    pub fn uniform_timesteps(&self, count: i64, draw: &Generator) -> Tensor {
        draw.randint(0, self.alpha_bar.len() as i64, &[count])
    }

    /// `x_t`: the clean samples with as much noise as the timesteps say.
    pub fn add_noise(&self, x0: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Tensor {
        let (signal, sigma) = self.factors(x0, timesteps);
        (signal * f32_of(x0) + sigma * f32_of(noise)).to_kind(x0.kind())
    }

    /// What the network should have predicted.
    pub fn target(&self, x0: &Tensor, noise: &Tensor, timesteps: &Tensor) -> Tensor {
        match self.prediction_type {
            PredictionType::Epsilon => noise.to_kind(x0.kind()),
            PredictionType::Sample => x0.shallow_clone(),
            PredictionType::VPrediction => {
                let (signal, sigma) = self.factors(x0, timesteps);
                (signal * f32_of(noise) - sigma * f32_of(x0)).to_kind(x0.kind())
            }
        }
    }

    /// The `x_0` that a prediction stands for. A noise prediction says nothing at a timestep without signal:
    /// there the result is not finite.
    pub fn predicted_original(
        &self,
        prediction: &Tensor,
        x_t: &Tensor,
        timesteps: &Tensor,
    ) -> Tensor {
        let (signal, sigma) = self.factors(x_t, timesteps);
        let (prediction, x) = (f32_of(prediction), f32_of(x_t));
        match self.prediction_type {
            PredictionType::Epsilon => (x - sigma * prediction) / signal,
            PredictionType::VPrediction => signal * x - sigma * prediction,
            PredictionType::Sample => prediction,
        }
        .to_kind(x_t.kind())
    }

    /// `alpha_bar / (1 - alpha_bar)`, f32 `[B]`.
    pub fn signal_to_noise(&self, timesteps: &Tensor) -> Tensor {
        let alpha_bar = self.alpha_bar_at(timesteps);
        &alpha_bar / (1.0 - &alpha_bar)
    }

    /// The weight of each sample's squared error, f32 `[B]`.
    ///
    /// Paper: Hang et al. 2023, where `gamma` is 5: `min(SNR, gamma)` as a weight of the error in
    /// `x_0`, hence over SNR for noise and over SNR + 1 for velocity.
    pub fn min_snr_weight(&self, timesteps: &Tensor, gamma: f64) -> Tensor {
        let snr = self.signal_to_noise(timesteps);
        match self.prediction_type {
            // min(SNR, gamma) / SNR, without 0 / 0 at a timestep that has no signal
            PredictionType::Epsilon => (gamma * snr.reciprocal()).clamp_max(1.0),
            PredictionType::VPrediction => snr.clamp_max(gamma) / (snr + 1.0),
            PredictionType::Sample => snr.clamp_max(gamma),
        }
    }

    fn alpha_bar_at(&self, timesteps: &Tensor) -> Tensor {
        self.alpha_bar_f32.to_device(timesteps.device()).index_select(0, timesteps) // [B]
    }

    /// `sqrt(alpha_bar)` and `sqrt(1 - alpha_bar)`, shaped to multiply `x`.
    fn factors(&self, x: &Tensor, timesteps: &Tensor) -> (Tensor, Tensor) {
        let mut shape = vec![1; x.dim()];
        shape[0] = -1;
        let alpha_bar = self.alpha_bar_at(timesteps).to_device(x.device()).view(shape.as_slice()); // [B, 1, ...]
        (alpha_bar.sqrt(), (1f64 - alpha_bar).sqrt())
    }
}

fn f32_of(x: &Tensor) -> Tensor {
    x.to_kind(Kind::Float)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics says so
mod tests {
    use super::*;

    fn velocity() -> NoiseSchedule {
        let config = ScheduleConfig {
            prediction_type: PredictionType::VPrediction,
            ..ScheduleConfig::default()
        };
        NoiseSchedule::new(&config).unwrap()
    }

    #[test]
    fn the_target_given_back_as_prediction_yields_the_original() {
        let schedule = velocity();
        let t = Tensor::from_slice(&[3i64, 500]);
        let x0 = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 0.0]).view([2, 2]);
        let noise = Tensor::from_slice(&[1.0f32, 0.3, -0.7, 0.2]).view([2, 2]);
        let x_t = schedule.add_noise(&x0, &noise, &t);
        let back = schedule.predicted_original(&schedule.target(&x0, &noise, &t), &x_t, &t);
        assert!((back - x0).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn half_precision_goes_in_and_comes_out() {
        let x0 = Tensor::ones([1, 4], (Kind::BFloat16, Device::Cpu));
        let x_t = velocity().add_noise(&x0, &x0, &Tensor::from_slice(&[10i64]));
        assert_eq!(x_t.kind(), Kind::BFloat16);
    }

    #[test]
    fn min_snr_weighs_pure_noise_by_one_for_epsilon() {
        let config = ScheduleConfig { rescale_betas_zero_snr: true, ..ScheduleConfig::default() };
        let schedule = NoiseSchedule::new(&config).unwrap();
        assert_eq!(schedule.alpha_bar()[999].to_bits(), 0.0f64.to_bits());
        let weights = schedule.min_snr_weight(&Tensor::from_slice(&[0i64, 999]), 5.0);
        let snr = schedule.alpha_bar()[0] / (1.0 - schedule.alpha_bar()[0]);
        assert!((weights.double_value(&[0]) - 5.0 / snr).abs() < 1e-6);
        assert!((weights.double_value(&[1]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn betas_that_make_no_schedule_are_refused() {
        let short =
            ScheduleConfig { trained_betas: Some(vec![0.1; 3]), ..ScheduleConfig::default() };
        assert!(NoiseSchedule::new(&short).unwrap_err().to_string().contains("3 trained_betas"));
        let wide = ScheduleConfig { beta_end: Some(1.5), ..ScheduleConfig::default() };
        assert!(NoiseSchedule::new(&wide).unwrap_err().to_string().contains("below 1"));
        let nothing_left = ScheduleConfig { beta_end: Some(0.9), ..ScheduleConfig::default() };
        let error = NoiseSchedule::new(&nothing_left).unwrap_err().to_string();
        assert!(error.contains("0 of 1 as signal at timestep"), "{error}");
    }
}
