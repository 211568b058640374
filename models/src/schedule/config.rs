//! `scheduler/scheduler_config.json`, and the betas that follow from it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::ScheduleError;
use crate::ModelError;
use crate::config::{Class, Rule, read_text};

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

impl TimestepSpacing {
    /// As configurations and the command line spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linspace => "linspace",
            Self::Leading => "leading",
            Self::Trailing => "trailing",
        }
    }
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

/// The keys of `scheduler/scheduler_config.json` that matter here.
///
/// A key that the file lacks is `None` where the default depends on the scheduler class; a switch that is `null` is
/// false there as in Python. As in Python's
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
    /// Added to every timestep of the leading spacing; 0 where the file lacks it.
    pub steps_offset: Option<usize>,
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
            steps_offset: None,
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

/// Far above any schedule: tables of this length cost nothing.
const MOST_TIMESTEPS: i64 = 100_000;

const WHOLE: Rule = Rule::Whole(0, MOST_TIMESTEPS);
const POSITIVE: Rule = Rule::Number(1e-6, 1e6);
const SWITCH: Rule = Rule::Switch(false);

/// What diffusers' schedulers know, each its part: one file serves all of them. The samplers check what they read.
const CLASS: Class = Class {
    name: "",
    tells: true,
    keys: &[
        ("num_train_timesteps", Rule::Whole(2, MOST_TIMESTEPS)),
        ("beta_start", Rule::Number(0.0, 1.0)),
        ("beta_end", Rule::Number(0.0, 1.0)),
        ("beta_schedule", Rule::Word(&["linear", "scaled_linear", "squaredcos_cap_v2"])),
        ("trained_betas", Rule::List(&Rule::Number(0.0, 1.0))),
        ("prediction_type", Rule::Word(&["epsilon", "v_prediction", "sample", "original_sample"])),
        ("rescale_betas_zero_snr", SWITCH),
        ("steps_offset", WHOLE),
        ("set_alpha_to_one", SWITCH),
        ("timestep_spacing", Rule::Word(&["leading", "trailing", "linspace"])),
        ("clip_sample", SWITCH),
        ("clip_sample_range", POSITIVE),
        ("thresholding", SWITCH),
        ("skip_prk_steps", SWITCH),
        ("use_karras_sigmas", SWITCH),
        ("use_exponential_sigmas", SWITCH),
        ("use_beta_sigmas", SWITCH),
        ("use_lu_lambdas", SWITCH),
        ("use_flow_sigmas", SWITCH),
        ("sigma_min", POSITIVE),
        ("sigma_max", POSITIVE),
        ("final_sigmas_type", Rule::Word(&["zero", "sigma_min"])),
        ("solver_order", WHOLE),
        ("solver_type", Rule::Text),
        ("algorithm_type", Rule::Text),
        ("lower_order_final", SWITCH),
        ("euler_at_final", SWITCH),
        ("lambda_min_clipped", Rule::Number(-1e6, 1e6)),
        ("predict_x0", SWITCH),
        ("disable_corrector", Rule::List(&WHOLE)),
        ("interpolation_type", Rule::Text),
        ("timestep_type", Rule::Text),
        // Of what no sampler here does, or of what is refused by a key above.
        ("corrector_order", Rule::Any),
        ("dynamic_thresholding_ratio", Rule::Any),
        ("flow_shift", Rule::Any),
        ("noise_sampler_seed", Rule::Any),
        ("original_inference_steps", Rule::Any),
        ("predictor_order", Rule::Any),
        ("rho", Rule::Any),
        ("sample_max_value", Rule::Any),
        ("shift_terminal", Rule::Any),
        ("sigma_data", Rule::Any),
        ("sigma_schedule", Rule::Any),
        ("solver_p", Rule::Any),
        ("tau_func", Rule::Any),
        ("time_shift_type", Rule::Any),
        ("timestep_scaling", Rule::Any),
        ("use_dynamic_shifting", Rule::Any),
        ("variance_type", Rule::Any),
    ],
};

/// Python writes an unset `lambda_min_clipped` as `-Infinity`, which is not JSON; here it is `null`.
fn without_infinity(text: &str) -> String {
    let parts = || {
        let (before, rest) = text.split_once("\"lambda_min_clipped\"")?;
        let value = rest.trim_start().strip_prefix(':')?.trim_start();
        Some((before, value.strip_prefix("-Infinity")?))
    };
    match parts() {
        Some((before, after)) => format!("{before}\"lambda_min_clipped\": null{after}"),
        None => text.to_owned(),
    }
}

/// Default betas of all scheduler classes but Heun's.
pub(crate) const COMMON_BETAS: (f64, f64) = (0.0001, 0.02);

impl ScheduleConfig {
    /// Reads a `scheduler_config.json`; also a warning about what no scheduler knows in it.
    pub(crate) fn read(path: &Path) -> Result<(Self, Option<String>), ModelError> {
        let mut read: (Self, _) = CLASS.parse(path, &without_infinity(&read_text(path)?))?;
        // `StableDiffusionPipeline` corrects both as it loads a base that states them otherwise.
        read.0.steps_offset = read.0.steps_offset.map(|_| 1);
        read.0.clip_sample = read.0.clip_sample.map(|_| false);
        match read.0.class_name.as_deref() {
            // Its noise levels follow from no betas, so those that the file lacks would be made up.
            Some(name) if name.contains("FlowMatch") => {
                let what =
                    format!("of the class {name}, but only schedulers with betas are supported");
                Err(ModelError::invalid(path, what))
            }
            _ => Ok(read),
        }
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
        let alpha_bar: Vec<f32> = Vec::try_from(&alpha_bar).expect("a vector of f32");
        let last = alpha_bar.len() - usize::from(zero_snr); // which alone may have no signal
        let beyond = |share: &f32| !(*share > 0.0 && *share < 1.0);
        match alpha_bar[..last].iter().position(beyond) {
            Some(t) => Err(ScheduleError::Betas {
                expected: "some signal and some noise at every timestep".into(),
                found: format!("{} of 1 as signal at timestep {t}", alpha_bar[t]),
            }),
            None => Ok(alpha_bar),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (ScheduleConfig, Option<String>) {
        CLASS.parse(Path::new("scheduler_config.json"), &without_infinity(text)).unwrap()
    }

    #[test]
    fn what_the_pipeline_corrects_is_corrected_where_a_base_states_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler_config.json");
        for (text, offset, clip) in [
            (r#"{"steps_offset": 0, "clip_sample": true}"#, Some(1), Some(false)),
            (r#"{"steps_offset": 5, "clip_sample": false}"#, Some(1), Some(false)),
            ("{}", None, None),
        ] {
            std::fs::write(&path, text).unwrap();
            let (config, _) = ScheduleConfig::read(&path).unwrap();
            assert_eq!((config.steps_offset, config.clip_sample), (offset, clip), "{text}");
        }
    }

    #[test]
    fn python_s_infinity_is_read_and_an_unknown_key_is_told_of() {
        for infinity in ["\"lambda_min_clipped\": -Infinity", "\"lambda_min_clipped\"\n:-Infinity"]
        {
            let text = format!(
                r#"{{"_class_name": "DPMSolverMultistepScheduler", {infinity}, "surprise": [1]}}"#
            );
            let (config, warning) = parse(&text);
            assert_eq!(config.lambda_min_clipped, None);
            assert_eq!(config.num_train_timesteps, 1000);
            assert!(warning.unwrap().ends_with("surprise"));
        }
    }

    #[test]
    fn a_switch_that_is_null_is_false_and_an_absent_one_is_the_sampler_s() {
        assert_eq!(parse(r#"{"set_alpha_to_one": null}"#).0.set_alpha_to_one, Some(false));
        assert_eq!(parse(r#"{"timestep_spacing": null}"#).0.set_alpha_to_one, None);
    }
}
