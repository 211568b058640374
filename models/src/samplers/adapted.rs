//! Samplers of the `diffusers` crate: those of its schedulers that walk the trajectories of Python's.
//!
//! They know the linspace spacing, the linear and the scaled linear betas, predictions of noise and of
//! velocity, and no Karras noise levels. Where Python's scheduler would go another way they refuse. The crate's
//! schedulers that add noise draw it from libtorch's one generator, out of reach of a picture's seed, so none
//! of them is here.

use super::{Sampler, SamplerKind, Sampling, f32_of};
use crate::schedule::{BetaSchedule, PredictionType, ScheduleError, TimestepSpacing};
use diffusers::schedulers::k_dpm_2_discrete::{
    KDPM2DiscreteScheduler, KDPM2DiscreteSchedulerConfig,
};
use diffusers::schedulers::lms_discrete::{LMSDiscreteScheduler, LMSDiscreteSchedulerConfig};
use diffusers::schedulers::{BetaSchedule as TheirBetas, PredictionType as TheirPrediction};
use tch::Tensor;

enum Scheduler {
    Dpm2(KDPM2DiscreteScheduler),
    Lms(LMSDiscreteScheduler),
}

pub(super) struct Adapted {
    scheduler: Scheduler,
    index: usize,
}

impl Adapted {
    pub(super) fn new(s: &Sampling) -> Result<Self, ScheduleError> {
        if s.karras {
            return Err(s.refuse_karras());
        }
        if s.spacing != TimestepSpacing::Linspace {
            let setting = format!("the {} spacing of timesteps", s.spacing.name());
            return Err(s.refuse(setting, "take --spacing linspace or another --sampler"));
        }
        if s.config.trained_betas.is_some() {
            return Err(s.refuse("trained_betas", "choose another sampler"));
        }
        // Of one step Python takes the lowest timestep, the crate the highest.
        if s.steps < 2 {
            return Err(ScheduleError::Steps {
                sampler: s.kind.name(),
                steps: s.steps,
                expected: "expected at least 2: take more --steps or another --sampler".into(),
            });
        }
        let beta_schedule = match s.config.beta_schedule {
            BetaSchedule::Linear => TheirBetas::Linear,
            BetaSchedule::ScaledLinear => TheirBetas::ScaledLinear,
            BetaSchedule::SquaredcosCapV2 => {
                return Err(s.refuse("beta_schedule squaredcos_cap_v2", "choose another sampler"));
            }
        };
        let prediction_type = match s.config.prediction_type {
            PredictionType::Epsilon => TheirPrediction::Epsilon,
            PredictionType::VPrediction => TheirPrediction::VPrediction,
            PredictionType::Sample => TheirPrediction::Sample,
        };
        let (beta_start, beta_end) = s.betas;
        let train_timesteps = s.config.num_train_timesteps;
        let scheduler = if s.kind == SamplerKind::Lms {
            let config = LMSDiscreteSchedulerConfig {
                beta_start,
                beta_end,
                beta_schedule,
                train_timesteps,
                order: 4,
                prediction_type,
            };
            Scheduler::Lms(LMSDiscreteScheduler::new(s.steps, config))
        } else {
            let config = KDPM2DiscreteSchedulerConfig {
                beta_start,
                beta_end,
                beta_schedule,
                train_timesteps,
                prediction_type,
            };
            Scheduler::Dpm2(KDPM2DiscreteScheduler::new(s.steps, config))
        };
        Ok(Self { scheduler, index: 0 })
    }
}

impl Sampler for Adapted {
    fn timesteps(&self) -> &[f64] {
        match &self.scheduler {
            Scheduler::Dpm2(scheduler) => scheduler.timesteps(),
            Scheduler::Lms(scheduler) => scheduler.timesteps(),
        }
    }

    fn initial_noise_scale(&self) -> f64 {
        match &self.scheduler {
            Scheduler::Dpm2(scheduler) => scheduler.init_noise_sigma(),
            Scheduler::Lms(scheduler) => scheduler.init_noise_sigma(),
        }
    }

    fn model_input(&self, x_t: &Tensor) -> Tensor {
        let (x, timestep) = (x_t.shallow_clone(), self.timesteps()[self.index]);
        match &self.scheduler {
            Scheduler::Dpm2(scheduler) => scheduler.scale_model_input(x, timestep),
            Scheduler::Lms(scheduler) => scheduler.scale_model_input(x, timestep),
        }
    }

    fn step(
        &mut self,
        prediction: &Tensor,
        x_t: &Tensor,
        _noise: &mut dyn FnMut() -> Tensor,
    ) -> Tensor {
        let timestep = self.timesteps()[self.index];
        self.index += 1;
        let (prediction, x) = (f32_of(prediction), f32_of(x_t));
        let x = match &mut self.scheduler {
            Scheduler::Dpm2(scheduler) => scheduler.step(&prediction, timestep, &x),
            Scheduler::Lms(scheduler) => scheduler.step(&prediction, timestep, &x),
        };
        x.to_kind(x_t.kind())
    }
}

#[cfg(test)]
mod tests {
    use crate::samplers::{SamplerConfig, SamplerKind, build};
    use crate::schedule::ScheduleConfig;

    /// The crate looks its place up by the timestep.
    #[test]
    fn no_timestep_comes_twice() {
        for kind in [SamplerKind::Dpm2, SamplerKind::Lms] {
            for steps in [2, 3, 61, 250, 999, 1000] {
                let schedule = ScheduleConfig::default();
                let sampler = build(kind, &schedule, &SamplerConfig::default(), steps)
                    .expect("the common schedule");
                assert!(sampler.timesteps().windows(2).all(|t| t[0] > t[1]), "{kind} {steps}");
            }
        }
    }
}
