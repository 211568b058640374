//! DPM-Solver++, second order, multistep, midpoint (Lu et al. 2022, algorithm 2).

use super::{
    Sampler, SamplerKind, Sampling, f32_of, predicted_original, signal_and_noise, spacing, times,
};
use crate::schedule::{BetaSchedule, FinalSigmas, PredictionType, ScheduleError};
use tch::Tensor;

/// A noise level as the exponential integrators DPM-Solver++ and `UniPC` read it; f32 as in Python.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub(super) alpha: f32,
    pub(super) sigma: f32,
    /// Half the log of the signal-to-noise ratio; infinite without noise.
    pub(super) lambda: f32,
}

/// The timesteps and noise levels of such a solver; one level more than timesteps.
pub(super) fn levels(s: &Sampling) -> Result<(Vec<f64>, Vec<Level>), ScheduleError> {
    let dpm = s.kind == SamplerKind::DpmPlusPlus2M;
    let training = spacing::training_sigmas(&s.alpha_bar);
    let (highest, lowest) = (training[training.len() - 1], training[0]);
    let sigmas;
    let mut timesteps;
    if s.karras {
        let spread;
        (spread, timesteps) = spacing::karras(s, &training, f64::from(highest), f64::from(lowest));
        sigmas = spacing::closed(&spread, &training, s.final_sigmas());
        // DPM-Solver++ cuts the timesteps of the cosine schedule off where it rounds those of others.
        let cut = dpm && s.config.beta_schedule == BetaSchedule::SquaredcosCapV2;
        for t in &mut timesteps {
            *t = if cut { t.trunc() } else { t.round_ties_even() };
        }
    } else {
        let visited = training.len() - if dpm { clipped_timesteps(s)? } else { 0 };
        timesteps = spacing::timesteps(s, 1, visited)?;
        for t in &mut timesteps {
            *t = t.round_ties_even();
        }
        let spread: Vec<f64> = timesteps.iter().map(|t| spacing::sigma_at(&training, *t)).collect();
        sigmas = spacing::closed(&spread, &training, s.final_sigmas());
    }
    let levels = sigmas
        .into_iter()
        .map(|sigma| {
            let (alpha, sigma) = signal_and_noise(sigma);
            Level { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
        })
        .collect();
    Ok((timesteps, levels))
}

/// How many timesteps, counted from the last, have too little signal for `lambda_min_clipped`.
fn clipped_timesteps(s: &Sampling) -> Result<usize, ScheduleError> {
    let Some(least) = s.config.lambda_min_clipped else {
        return Ok(0);
    };
    let lambda = |a: &f32| a.sqrt().ln() - (1.0 - a).sqrt().ln();
    let clipped = s.alpha_bar.iter().filter(|a| lambda(a) < least as f32).count();
    if clipped + 2 > s.alpha_bar.len() {
        return Err(s.refuse(
            format!("lambda_min_clipped {least}"),
            "it leaves no timestep; give a lower one",
        ));
    }
    Ok(clipped)
}

pub(super) struct DpmPlusPlus2M {
    timesteps: Vec<f64>,
    levels: Vec<Level>,
    prediction_type: PredictionType,
    /// Whether the last step is of first order.
    plain_end: bool,
    index: usize,
    /// The `x_0` predicted one step before.
    previous: Option<Tensor>,
}

impl DpmPlusPlus2M {
    pub(super) fn new(s: &Sampling) -> Result<Self, ScheduleError> {
        if let Some(order) = s.config.solver_order.filter(|order| *order != 2) {
            return Err(s.refuse(
                format!("solver_order {order}"),
                "it is of order 2; choose another sampler",
            ));
        }
        let (timesteps, levels) = levels(s)?;
        let few = s.config.lower_order_final.unwrap_or(true) && timesteps.len() < 15;
        let plain_end = few
            || s.config.euler_at_final.unwrap_or(false)
            || s.final_sigmas() == FinalSigmas::Zero;
        let prediction_type = s.config.prediction_type;
        Ok(Self { timesteps, levels, prediction_type, plain_end, index: 0, previous: None })
    }
}

impl Sampler for DpmPlusPlus2M {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        prediction: &Tensor,
        x_t: &Tensor,
        _noise: &mut dyn FnMut() -> Tensor,
    ) -> Tensor {
        let i = self.index;
        self.index += 1;
        let (now, next) = (self.levels[i], self.levels[i + 1]);
        let (prediction, x) = (f32_of(prediction), f32_of(x_t));
        let x0 = predicted_original(self.prediction_type, &prediction, &x, (now.alpha, now.sigma));
        let h = next.lambda - now.lambda;
        let growth = next.alpha * ((-h).exp() - 1.0);
        let mut x = times(&x, next.sigma / now.sigma) - times(&x0, growth);
        let last = i + 1 == self.timesteps.len();
        if let Some(previous) = self.previous.as_ref().filter(|_| !(last && self.plain_end)) {
            let r = (now.lambda - self.levels[i - 1].lambda) / h;
            let curve = times(&(&x0 - previous), 1.0 / r);
            x -= times(&curve, 0.5 * growth);
        }
        self.previous = Some(x0);
        x.to_kind(x_t.kind())
    }
}
