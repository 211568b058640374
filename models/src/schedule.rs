//! The forward noising process and the training targets that follow from it.
//!
//! [`ScheduleConfig`] is what `scheduler/scheduler_config.json` says; [`NoiseSchedule`] is the stateless
//! mathematics of training. Sampling, which has state, is in [`crate::samplers`].

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

/// What the network predicts, with `x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    #[default]
    Epsilon,
    /// `sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0` (Salimans and Ho 2022, appendix D).
    VPrediction,
    /// `x_0` itself.
    #[serde(alias = "original_sample")]
    Sample,
}

impl PredictionType {
    /// As configurations and files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::VPrediction => "v_prediction",
            Self::Sample => "sample",
        }
    }
}

/// How beta grows with the timestep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Evenly from `beta_start` to `beta_end`.
    #[default]
    Linear,
    /// The square root of beta grows evenly; what Stable Diffusion was trained with.
    ScaledLinear,
    /// The cosine schedule (Nichol and Dhariwal 2021, equation 17), beta at most 0.999.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
}

/// How the steps of a sampler spread over the training timesteps (Lin et al. 2023, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// From the first to the last timestep, ends included.
    Linspace,
    /// Multiples of a whole ratio counted from zero, plus `steps_offset`.
    Leading,
    /// Counted down from the last timestep.
    Trailing,
}

/// The noise level after the last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmas {
    /// No noise is left.
    #[default]
    Zero,
    /// The noise of the first training timestep is left.
    SigmaMin,
}

/// The keys of `scheduler/scheduler_config.json` that matter here; others are ignored.
///
/// A key that the file lacks is `None` where the default depends on the scheduler class. As in Python's
/// `Other.from_config(pipe.scheduler.config)`, it then takes the default of the class that *runs*, never that
/// of the class that the file names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleConfig {
    /// The scheduler class that the file was written for.
    #[serde(rename = "_class_name")]
    pub class_name: Option<String>,
    /// The number of timesteps of training.
    pub num_train_timesteps: usize,
    /// The first beta.
    pub beta_start: Option<f64>,
    /// The last beta.
    pub beta_end: Option<f64>,
    /// How beta grows between the two.
    pub beta_schedule: BetaSchedule,
    /// Every beta, in place of a formula.
    pub trained_betas: Option<Vec<f64>>,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Whether the last timestep is pure noise (Lin et al. 2023, algorithm 1).
    pub rescale_betas_zero_snr: bool,
    /// Added to every timestep of the leading spacing.
    pub steps_offset: usize,
    /// Whether the step past timestep 0 has no noise at all (DDIM, PNDM).
    pub set_alpha_to_one: Option<bool>,
    /// How steps spread over timesteps.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Whether predicted `x_0` is clamped to `clip_sample_range` (DDIM, Heun).
    pub clip_sample: Option<bool>,
    /// The bound of `clip_sample`.
    pub clip_sample_range: Option<f64>,
    /// Dynamic thresholding, which is for pixels; samplers refuse it.
    pub thresholding: Option<bool>,
    /// Whether PNDM starts with plain multistep in place of Runge-Kutta.
    pub skip_prk_steps: Option<bool>,
    /// Whether noise levels follow Karras et al. 2022, equation 5.
    pub use_karras_sigmas: Option<bool>,
    /// Another spread of noise levels; samplers refuse it.
    pub use_exponential_sigmas: Option<bool>,
    /// Another spread of noise levels; samplers refuse it.
    pub use_beta_sigmas: Option<bool>,
    /// Another spread of noise levels; samplers refuse it.
    pub use_lu_lambdas: Option<bool>,
    /// Noise levels of flow matching; samplers refuse it.
    pub use_flow_sigmas: Option<bool>,
    /// The lowest noise level of the Karras spread.
    pub sigma_min: Option<f64>,
    /// The highest noise level of the Karras spread.
    pub sigma_max: Option<f64>,
    /// The noise level after the last step.
    pub final_sigmas_type: Option<FinalSigmas>,
    /// The order of DPM-Solver++ and `UniPC`.
    pub solver_order: Option<usize>,
    /// The variant within a solver's family.
    pub solver_type: Option<String>,
    /// The variant of DPM-Solver.
    pub algorithm_type: Option<String>,
    /// Whether the last steps of few fall back to a lower order.
    pub lower_order_final: Option<bool>,
    /// Whether the last step is always of first order.
    pub euler_at_final: Option<bool>,
    /// Timesteps whose log signal-to-noise ratio lies below are not visited (DPM-Solver++).
    pub lambda_min_clipped: Option<f64>,
    /// Whether `UniPC` predicts `x_0`.
    pub predict_x0: Option<bool>,
    /// Steps after which `UniPC` does not correct.
    pub disable_corrector: Option<Vec<usize>>,
    /// How Euler interpolates noise levels.
    pub interpolation_type: Option<String>,
    /// Whether Euler's timesteps are timesteps.
    pub timestep_type: Option<String>,
}

impl Default for ScheduleConfig {
    /// The defaults that every scheduler class of Python shares.
    fn default() -> Self {
        Self {
            class_name: None,
            num_train_timesteps: 1000,
            beta_start: None,
            beta_end: None,
            beta_schedule: BetaSchedule::default(),
            trained_betas: None,
            prediction_type: PredictionType::default(),
            rescale_betas_zero_snr: false,
            steps_offset: 0,
            set_alpha_to_one: None,
            timestep_spacing: None,
            clip_sample: None,
            clip_sample_range: None,
            thresholding: None,
            skip_prk_steps: None,
            use_karras_sigmas: None,
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            use_lu_lambdas: None,
            use_flow_sigmas: None,
            sigma_min: None,
            sigma_max: None,
            final_sigmas_type: None,
            solver_order: None,
            solver_type: None,
            algorithm_type: None,
            lower_order_final: None,
            euler_at_final: None,
            lambda_min_clipped: None,
            predict_x0: None,
            disable_corrector: None,
            interpolation_type: None,
            timestep_type: None,
        }
    }
}

/// Why a schedule or a sampler cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The text of a configuration file is not what it should be.
    #[error(
        "the scheduler configuration cannot be read: {0}; it should be the JSON of scheduler/scheduler_config.json"
    )]
    Json(#[from] serde_json::Error),
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
    #[error("{sampler} cannot take {steps} steps, {expected}; give another number of steps")]
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

/// Default betas of all scheduler classes but Heun's.
pub(crate) const COMMON_BETAS: (f64, f64) = (0.0001, 0.02);

impl ScheduleConfig {
    /// Reads the text of a `scheduler_config.json`.
    ///
    /// Python writes an unset `lambda_min_clipped` as `-Infinity`, which is not JSON; it is read as absent.
    pub fn from_json(text: &str) -> Result<Self, ScheduleError> {
        Ok(serde_json::from_str(
            &text.replace("\"lambda_min_clipped\": -Infinity", "\"lambda_min_clipped\": null"),
        )?)
    }

    /// The share of signal left at each timestep; f32 as Python computes it, so that trajectories agree.
    pub(crate) fn alpha_bar(
        &self,
        default_betas: (f64, f64),
        zero_snr: bool,
    ) -> Result<Vec<f32>, ScheduleError> {
        let betas = self.betas(default_betas)?;
        let alpha_bar = (1f64 - betas).cumprod(0, Kind::Float);
        let alpha_bar = if zero_snr { rescale_to_zero_snr(&alpha_bar) } else { alpha_bar };
        Ok(Vec::try_from(&alpha_bar).expect("a vector of f32"))
    }

    fn betas(&self, default_betas: (f64, f64)) -> Result<Tensor, ScheduleError> {
        let n = self.num_train_timesteps;
        if n < 2 {
            return Err(ScheduleError::Betas {
                expected: "at least 2".into(),
                found: format!("num_train_timesteps {n}"),
            });
        }
        let (start, end) =
            (self.beta_start.unwrap_or(default_betas.0), self.beta_end.unwrap_or(default_betas.1));
        let evenly =
            |from: f64, to: f64| Tensor::linspace(from, to, n as i64, (Kind::Float, Device::Cpu));
        let betas = match (&self.trained_betas, self.beta_schedule) {
            (Some(betas), _) if betas.len() != n => {
                return Err(ScheduleError::Betas {
                    expected: format!("{n} as num_train_timesteps says"),
                    found: format!("{} trained_betas", betas.len()),
                });
            }
            (Some(betas), _) => Tensor::from_slice(betas).to_kind(Kind::Float),
            (None, BetaSchedule::Linear) => evenly(start, end),
            (None, BetaSchedule::ScaledLinear) => evenly(start.sqrt(), end.sqrt()).square(),
            (None, BetaSchedule::SquaredcosCapV2) => {
                let signal = |i: usize| {
                    let t = i as f64 / n as f64;
                    ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
                };
                let betas: Vec<f64> =
                    (0..n).map(|i| (1.0 - signal(i + 1) / signal(i)).min(0.999)).collect();
                Tensor::from_slice(&betas).to_kind(Kind::Float)
            }
        };
        let values = Vec::<f32>::try_from(&betas).expect("a vector of f32");
        if let Some(i) =
            values.iter().position(|beta| beta.is_nan() || *beta <= 0.0 || *beta >= 1.0)
        {
            return Err(ScheduleError::Betas {
                expected: "betas above 0 and below 1".into(),
                found: format!("beta {} at timestep {i}", values[i]),
            });
        }
        Ok(betas)
    }
}

/// Shifts and scales `sqrt(alpha_bar)` so that its last value is zero and its first stays (Lin et al. 2023,
/// algorithm 1). The products are taken anew from the betas, as in Python, to round as it does.
fn rescale_to_zero_snr(alpha_bar: &Tensor) -> Tensor {
    let root = alpha_bar.sqrt();
    let (first, last) = (root.get(0), root.get(-1));
    let root = (root - &last) * (&first / (&first - &last));
    let alpha_bar = root.square();
    let n = alpha_bar.size1().expect("one dimension");
    let ratios = alpha_bar.narrow(0, 1, n - 1) / alpha_bar.narrow(0, 0, n - 1);
    let betas: Tensor = 1f64 - Tensor::cat(&[alpha_bar.narrow(0, 0, 1), ratios], 0);
    // Not `1 - betas`, which tch takes as `-(betas - 1)`: the last value would be a negative zero.
    (-betas + 1.0).cumprod(0, Kind::Float)
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
    fn python_s_infinity_and_unknown_keys_are_read() {
        let text = r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "surprise": [1]}"#;
        let config = ScheduleConfig::from_json(text).unwrap();
        assert_eq!(config.lambda_min_clipped, None);
        assert_eq!(config.num_train_timesteps, 1000);
    }

    #[test]
    fn betas_that_make_no_schedule_are_refused() {
        let short =
            ScheduleConfig { trained_betas: Some(vec![0.1; 3]), ..ScheduleConfig::default() };
        assert!(NoiseSchedule::new(&short).unwrap_err().to_string().contains("3 trained_betas"));
        let wide = ScheduleConfig { beta_end: Some(1.5), ..ScheduleConfig::default() };
        assert!(NoiseSchedule::new(&wide).unwrap_err().to_string().contains("below 1"));
    }
}
