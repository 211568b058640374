//! Which timesteps a sampler visits and how much noise each has.
//!
//! Noise levels (`sigma`) are noise over signal, `sqrt((1 - alpha_bar) / alpha_bar)`. They are rounded to f32
//! where Python rounds them.

use super::{Sampling, TimestepSpacing};
use crate::schedule::{FinalSigmas, ScheduleError};

/// The timesteps of `steps` steps, descending and not rounded in the linspace spacing.
///
/// `extra` is 1 for the solvers that lay one step more and leave the lowest out; `last` is the number of
/// timesteps that may be visited.
pub(super) fn timesteps(
    s: &Sampling,
    extra: usize,
    last: usize,
) -> Result<Vec<f64>, ScheduleError> {
    let points = s.steps + extra;
    Ok(match s.spacing {
        TimestepSpacing::Linspace => {
            linspace(0.0, (last - 1) as f64, points).into_iter().rev().take(s.steps).collect()
        }
        TimestepSpacing::Leading => {
            let ratio = last / points;
            if ratio == 0 {
                return Err(ScheduleError::Steps {
                    sampler: s.kind.name(),
                    steps: s.steps,
                    expected: format!("at most {} with leading spacing", last - extra),
                });
            }
            (0..points)
                .rev()
                .take(s.steps)
                .map(|i| (i * ratio + s.config.steps_offset.unwrap_or(0)) as f64)
                .collect()
        }
        TimestepSpacing::Trailing => {
            // As numpy's arange counts: by the difference of its first two values. Where rounding makes it
            // one longer than asked (61 steps, say) it ends at timestep -1, which is left out here.
            let ratio = s.config.num_train_timesteps as f64 / s.steps as f64;
            let last = last as f64;
            let delta = (last - ratio) - last;
            let timestep = |i: usize| (last + i as f64 * delta).round_ties_even() - 1.0;
            (0..s.steps).map(timestep).take_while(|t| *t >= 0.0).collect()
        }
    })
}

/// `count` values from `from` to `to`, both included; one value is `from`.
fn linspace(from: f64, to: f64, count: usize) -> Vec<f64> {
    let step = (to - from) / (count.max(2) - 1) as f64;
    let mut values: Vec<f64> = (0..count).map(|i| i as f64 * step + from).collect();
    if let [_, .., end] = values.as_mut_slice() {
        *end = to;
    }
    values
}

/// The noise level at each training timestep.
pub(super) fn training_sigmas(alpha_bar: &[f32]) -> Vec<f32> {
    alpha_bar.iter().map(|a| ((1.0 - a) / a).sqrt()).collect()
}

/// The noise level at a timestep that may lie between two of training.
pub(super) fn sigma_at(sigmas: &[f32], timestep: f64) -> f64 {
    let last = sigmas.len() - 1;
    if timestep >= last as f64 {
        return f64::from(sigmas[last]);
    }
    let low = timestep.floor() as usize;
    let (from, to) = (f64::from(sigmas[low]), f64::from(sigmas[low + 1]));
    (to - from) * (timestep - low as f64) + from
}

/// The inverse of [`sigma_at`], linear in the logarithm.
fn timestep_at(sigmas: &[f32], sigma: f64) -> f64 {
    let log = |i: usize| f64::from(sigmas[i].ln());
    let log_sigma = sigma.max(1e-10).ln();
    let low = sigmas
        .partition_point(|s| f64::from(s.ln()) <= log_sigma)
        .saturating_sub(1)
        .min(sigmas.len() - 2);
    let w = ((log(low) - log_sigma) / (log(low) - log(low + 1))).clamp(0.0, 1.0);
    (1.0 - w) * low as f64 + w * (low + 1) as f64
}

/// Noise levels between two, and their timesteps.
///
/// Paper: Karras et al. 2022, equation 5, rho 7.
pub(super) fn karras(
    s: &Sampling,
    sigmas: &[f32],
    highest: f64,
    lowest: f64,
) -> (Vec<f64>, Vec<f64>) {
    const RHO: f64 = 7.0;
    let top = s.config.sigma_max.unwrap_or(highest).powf(1.0 / RHO);
    let bottom = s.config.sigma_min.unwrap_or(lowest).powf(1.0 / RHO);
    let levels: Vec<f64> = linspace(0.0, 1.0, s.steps)
        .into_iter()
        .map(|ramp| (top + ramp * (bottom - top)).powf(RHO))
        .collect();
    let timesteps = levels.iter().map(|sigma| timestep_at(sigmas, *sigma)).collect();
    (levels, timesteps)
}

/// Closes a descending list of noise levels with the one after the last step.
pub(super) fn closed(levels: &[f64], sigmas: &[f32], end: FinalSigmas) -> Vec<f32> {
    let end = match end {
        FinalSigmas::Zero => 0.0,
        FinalSigmas::SigmaMin => sigmas[0],
    };
    levels.iter().map(|sigma| *sigma as f32).chain([end]).collect()
}
