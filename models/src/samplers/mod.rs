//! Samplers: from noise to latents, one model evaluation at a time.
//!
//! Each walks the trajectory of the scheduler of the same name in Python's diffusers 0.42, made there by
//! `Scheduler.from_config(pipe.scheduler.config)`. `dpm2` and `lms` are those of the Rust crate `diffusers`. A
//! loop over one reads
//!
//! ```text
//! let mut x = noise * sampler.initial_noise_scale();
//! for t in sampler.timesteps().to_vec() {
//!     let prediction = unet(&sampler.model_input(&x), t);
//!     x = sampler.step(&prediction, &x, &mut draw);
//! }
//! ```

mod adapted;
mod ddim;
mod euler;
mod heun;
mod kind;
mod multistep;
mod pndm;
mod spacing;
mod unipc;

pub use kind::{SamplerKind, SamplerName};

use crate::schedule::{
    COMMON_BETAS, FinalSigmas, PredictionType, ScheduleConfig, ScheduleError, TimestepSpacing,
};
use tch::{Kind, Tensor};

/// What a user may say about sampling; `None` is as the scheduler's configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SamplerConfig {
    /// How steps spread over timesteps.
    pub spacing: Option<TimestepSpacing>,
    /// Whether noise levels follow Karras et al. 2022.
    pub karras: Option<bool>,
    /// How much noise DDIM adds at each step: 0 none, 1 as much as DDPM.
    pub eta: f64,
}

impl SamplerConfig {
    /// The spacing of a sampler's timesteps and whether its noise levels follow Karras: what is asked for here, else by the
    /// schedule's file, else what is the sampler's own.
    pub fn in_force(
        &self,
        kind: SamplerKind,
        schedule: &ScheduleConfig,
    ) -> (TimestepSpacing, bool) {
        use SamplerKind::{Ddim, EulerAncestral, Pndm};
        let own = match kind {
            Ddim | Pndm => TimestepSpacing::Leading,
            _ => TimestepSpacing::Linspace,
        };
        let has_karras = !matches!(kind, Ddim | Pndm | EulerAncestral);
        (
            self.spacing.or(schedule.timestep_spacing).unwrap_or(own),
            has_karras && self.karras.or(schedule.use_karras_sigmas).unwrap_or(false),
        )
    }
}

/// A walk from noise to latents. It holds its place, so one is built for each image or batch.
pub trait Sampler {
    /// The timestep of each model evaluation, in order. Heun and DPM2 evaluate twice a step, Euler may lie
    /// between two.
    fn timesteps(&self) -> &[f64];

    /// What standard normal noise is multiplied by to start.
    fn initial_noise_scale(&self) -> f64 {
        1.0
    }

    /// What the network reads at the current evaluation; the kind of `x_t`.
    fn model_input(&self, x_t: &Tensor) -> Tensor {
        x_t.shallow_clone()
    }

    /// Goes on by one evaluation; mathematics in f32, the result in the kind of `x_t`.
    ///
    /// `noise` draws standard normal f32 values of the shape of `x_t`; only ancestral samplers call it, once a
    /// step. Panics when called more often than there are timesteps.
    fn step(
        &mut self,
        prediction: &Tensor,
        x_t: &Tensor,
        noise: &mut dyn FnMut() -> Tensor,
    ) -> Tensor;
}

/// Builds a sampler for a number of steps.
pub fn build(
    kind: SamplerKind,
    schedule: &ScheduleConfig,
    sampler: &SamplerConfig,
    steps: usize,
) -> Result<Box<dyn Sampler>, ScheduleError> {
    let sampling = Sampling::new(kind, schedule, sampler, steps)?;
    Ok(match kind {
        SamplerKind::Ddim => Box::new(ddim::Ddim::new(&sampling, sampler.eta)?),
        SamplerKind::Pndm => Box::new(pndm::Pndm::new(&sampling)?),
        SamplerKind::Euler => Box::new(euler::Euler::new(&sampling, false)?),
        SamplerKind::EulerAncestral => Box::new(euler::Euler::new(&sampling, true)?),
        SamplerKind::Heun => Box::new(heun::Heun::new(&sampling)?),
        SamplerKind::DpmPlusPlus2M => Box::new(multistep::DpmPlusPlus2M::new(&sampling)?),
        SamplerKind::UniPc => Box::new(unipc::UniPc::new(&sampling)?),
        SamplerKind::Dpm2 | SamplerKind::Lms => Box::new(adapted::Adapted::new(&sampling)?),
    })
}

/// A checked request: the file's settings with the sampler's defaults and the user's wishes applied.
struct Sampling<'a> {
    kind: SamplerKind,
    config: &'a ScheduleConfig,
    steps: usize,
    spacing: TimestepSpacing,
    karras: bool,
    /// The first and the last, unless `trained_betas` name them all.
    betas: (f64, f64),
    alpha_bar: Vec<f32>,
}

impl<'a> Sampling<'a> {
    fn new(
        kind: SamplerKind,
        config: &'a ScheduleConfig,
        sampler: &SamplerConfig,
        steps: usize,
    ) -> Result<Self, ScheduleError> {
        use SamplerKind::{Ddim, Dpm2, Heun, Lms, Pndm};
        let train = config.num_train_timesteps;
        if steps == 0 || steps > train {
            let expected = format!("expected 1 to {train}, the number of timesteps of training");
            return Err(ScheduleError::Steps { sampler: kind.name(), steps, expected });
        }
        let (spacing, karras) = sampler.in_force(kind, config);
        let (start, end) =
            if matches!(kind, Heun | Dpm2) { (0.000_85, 0.012) } else { COMMON_BETAS };
        let betas = (config.beta_start.unwrap_or(start), config.beta_end.unwrap_or(end));
        // These know no such key in Python and go on without it.
        let zero_snr = config.rescale_betas_zero_snr && !matches!(kind, Pndm | Heun | Dpm2 | Lms);
        let mut alpha_bar = config.alpha_bar(betas, zero_snr)?;
        if zero_snr && kind != Ddim {
            // Close to zero, so that the first noise level is finite: 4096.
            alpha_bar[train - 1] = 2f32.powi(-24);
        }
        let sampling = Self { kind, config, steps, spacing, karras, betas, alpha_bar };
        if sampler.karras == Some(true) && !karras {
            return Err(sampling.refuse_karras());
        }
        if sampler.eta != 0.0 && kind != Ddim {
            return Err(sampling
                .refuse(format!("eta {}", sampler.eta), "only ddim has an eta; leave it out"));
        }
        sampling.check_file()?;
        Ok(sampling)
    }

    /// Settings of the file that would change the trajectory and that no sampler here follows.
    fn check_file(&self) -> Result<(), ScheduleError> {
        use SamplerKind::{
            Ddim, Dpm2, DpmPlusPlus2M, Euler, EulerAncestral, Heun, Lms, Pndm, UniPc,
        };
        let (file, kind) = (self.config, self.kind);
        let hint = "remove it from the scheduler's configuration or choose another sampler";
        let solver = matches!(kind, DpmPlusPlus2M | UniPc);
        let spread = solver || matches!(kind, Euler | Heun | Dpm2 | Lms);
        let refused = [
            ("thresholding", file.thresholding, solver || kind == Ddim),
            ("use_exponential_sigmas", file.use_exponential_sigmas, spread),
            ("use_beta_sigmas", file.use_beta_sigmas, spread),
            ("use_flow_sigmas", file.use_flow_sigmas, solver),
            ("use_lu_lambdas", file.use_lu_lambdas, kind == DpmPlusPlus2M),
        ];
        for (key, value, read) in refused {
            if read && value == Some(true) {
                return Err(self.refuse(format!("{key} true"), hint));
            }
        }
        let no_sample = matches!(kind, Pndm | EulerAncestral | Dpm2 | Lms);
        if file.prediction_type == PredictionType::Sample && no_sample {
            return Err(self.refuse("prediction_type sample", "choose another sampler"));
        }
        let expected = [
            ("interpolation_type", &file.interpolation_type, ["linear"].as_slice(), kind == Euler),
            ("timestep_type", &file.timestep_type, &["discrete"], kind == Euler),
            (
                "algorithm_type",
                &file.algorithm_type,
                &["dpmsolver++", "deis"],
                kind == DpmPlusPlus2M,
            ),
            (
                "solver_type",
                &file.solver_type,
                &["midpoint", "logrho", "bh1", "bh2"],
                kind == DpmPlusPlus2M,
            ),
        ];
        for (key, value, known, read) in expected {
            if let Some(value) = value.as_deref().filter(|value| read && !known.contains(value)) {
                return Err(self.refuse(format!("{key} {value}"), hint));
            }
        }
        Ok(())
    }

    fn refuse(&self, setting: impl Into<String>, hint: &str) -> ScheduleError {
        ScheduleError::Setting {
            sampler: self.kind.name(),
            setting: setting.into(),
            hint: hint.to_owned(),
        }
    }

    fn refuse_karras(&self) -> ScheduleError {
        self.refuse("Karras noise levels", "take euler, heun, dpm++2m or unipc, or leave them out")
    }

    fn final_sigmas(&self) -> FinalSigmas {
        self.config.final_sigmas_type.unwrap_or_default()
    }
}

/// The signal and noise factors of a noise level, in f32 as Python has them: they sum to 1 when squared.
fn signal_and_noise(sigma: f32) -> (f32, f32) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}

/// `x_0` from a prediction, where `x = alpha x_0 + sigma noise` with squares that sum to 1.
fn predicted_original(
    kind: PredictionType,
    prediction: &Tensor,
    x: &Tensor,
    (alpha, sigma): (f32, f32),
) -> Tensor {
    match kind {
        PredictionType::Epsilon => (x - times(prediction, sigma)) / f64::from(alpha),
        PredictionType::VPrediction => times(x, alpha) - times(prediction, sigma),
        PredictionType::Sample => prediction.shallow_clone(),
    }
}

fn f32_of(x: &Tensor) -> Tensor {
    x.to_kind(Kind::Float)
}

fn times(x: &Tensor, factor: f32) -> Tensor {
    x * f64::from(factor)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics says so
mod tests {
    use super::*;
    use crate::schedule::BetaSchedule;
    use tch::Device;

    fn refusal(
        kind: SamplerKind,
        schedule: &ScheduleConfig,
        sampler: SamplerConfig,
        steps: usize,
    ) -> String {
        match build(kind, schedule, &sampler, steps) {
            Ok(_) => panic!("{kind} is built"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn no_steps_and_more_than_training_had_are_refused() {
        for kind in SamplerKind::all() {
            for steps in [0, 1001] {
                let message =
                    refusal(kind, &ScheduleConfig::default(), SamplerConfig::default(), steps);
                assert!(
                    message.contains(&format!("cannot take {steps} steps, expected 1 to 1000")),
                    "{message}"
                );
            }
        }
    }

    #[test]
    fn steps_that_leave_the_training_timesteps_are_refused() {
        let offset = ScheduleConfig { steps_offset: Some(1), ..ScheduleConfig::default() };
        let message = refusal(SamplerKind::Ddim, &offset, SamplerConfig::default(), 1000);
        assert!(message.contains("timestep 1000, past the last, 999"), "{message}");
        let leading =
            SamplerConfig { spacing: Some(TimestepSpacing::Leading), ..SamplerConfig::default() };
        let message = refusal(SamplerKind::UniPc, &offset, leading, 1000);
        assert!(message.contains("at most 999"), "{message}");
        let message = refusal(SamplerKind::Pndm, &offset, SamplerConfig::default(), 3);
        assert!(message.contains("at least 4"), "{message}");
    }

    #[test]
    fn settings_that_a_sampler_has_not_are_refused() {
        let karras = SamplerConfig { karras: Some(true), ..SamplerConfig::default() };
        let message = refusal(SamplerKind::Ddim, &ScheduleConfig::default(), karras, 10);
        assert!(message.starts_with("ddim cannot work with Karras noise levels"), "{message}");
        let eta = SamplerConfig { eta: 0.5, ..SamplerConfig::default() };
        let message = refusal(SamplerKind::Heun, &ScheduleConfig::default(), eta, 10);
        assert!(message.contains("eta 0.5"), "{message}");
        let flow = ScheduleConfig { use_flow_sigmas: Some(true), ..ScheduleConfig::default() };
        let message = refusal(SamplerKind::UniPc, &flow, SamplerConfig::default(), 10);
        assert!(message.contains("use_flow_sigmas true"), "{message}");
    }

    #[test]
    fn the_crate_s_samplers_refuse_where_python_s_go_another_way() {
        let file = ScheduleConfig::default;
        let said = SamplerConfig::default;
        for kind in [SamplerKind::Dpm2, SamplerKind::Lms] {
            for (schedule, sampler, steps, words) in [
                (file(), said(), 1, "expected at least 2"),
                (
                    file(),
                    SamplerConfig { spacing: Some(TimestepSpacing::Trailing), ..said() },
                    10,
                    "take --spacing linspace",
                ),
                (
                    ScheduleConfig { timestep_spacing: Some(TimestepSpacing::Leading), ..file() },
                    said(),
                    10,
                    "take --spacing linspace",
                ),
                (file(), SamplerConfig { karras: Some(true), ..said() }, 10, "Karras noise levels"),
                (
                    ScheduleConfig { use_karras_sigmas: Some(true), ..file() },
                    said(),
                    10,
                    "Karras noise levels",
                ),
                (
                    ScheduleConfig { trained_betas: Some(vec![0.01; 1000]), ..file() },
                    said(),
                    10,
                    "trained_betas",
                ),
                (
                    ScheduleConfig { beta_schedule: BetaSchedule::SquaredcosCapV2, ..file() },
                    said(),
                    10,
                    "squaredcos_cap_v2",
                ),
                (
                    ScheduleConfig { prediction_type: PredictionType::Sample, ..file() },
                    said(),
                    10,
                    "prediction_type sample",
                ),
            ] {
                let message = refusal(kind, &schedule, sampler, steps);
                assert!(message.contains(words), "{message}");
            }
        }
    }

    #[test]
    fn a_noise_prediction_without_signal_is_refused() {
        let schedule = ScheduleConfig {
            rescale_betas_zero_snr: true,
            timestep_spacing: Some(TimestepSpacing::Trailing),
            ..ScheduleConfig::default()
        };
        let message = refusal(SamplerKind::Ddim, &schedule, SamplerConfig::default(), 10);
        assert!(message.contains("v_prediction"), "{message}");
    }

    #[test]
    fn trailing_takes_as_many_steps_as_asked() {
        let trailing =
            SamplerConfig { spacing: Some(TimestepSpacing::Trailing), ..SamplerConfig::default() };
        for steps in 1..=1000 {
            let sampler =
                build(SamplerKind::Ddim, &ScheduleConfig::default(), &trailing, steps).unwrap();
            assert_eq!(sampler.timesteps().len(), steps);
        }
    }

    #[test]
    fn half_precision_goes_in_and_comes_out() {
        let schedule = ScheduleConfig { skip_prk_steps: Some(true), ..ScheduleConfig::default() };
        let noise = || Tensor::ones([1, 4], (Kind::Float, Device::Cpu));
        for kind in SamplerKind::all() {
            let mut sampler = build(kind, &schedule, &SamplerConfig::default(), 3).unwrap();
            let mut x = noise().to_kind(Kind::BFloat16);
            for _ in 0..sampler.timesteps().len() {
                let prediction = sampler.model_input(&x);
                assert_eq!(prediction.kind(), Kind::BFloat16, "{kind}");
                x = sampler.step(&prediction, &x, &mut || noise());
            }
            assert_eq!(x.kind(), Kind::BFloat16, "{kind}");
        }
    }
}
