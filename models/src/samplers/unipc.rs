//! `UniPC` (Zhao et al. 2023): each evaluation first corrects the step before it, then predicts the next.

use super::{
    Sampler, Sampling, f32_of,
    multistep::{Level, levels},
    predicted_original, times,
};
use crate::schedule::{FinalSigmas, PredictionType, ScheduleError};
use std::collections::VecDeque;
use tch::Tensor;

pub(super) struct UniPc {
    timesteps: Vec<f64>,
    levels: Vec<Level>,
    prediction_type: PredictionType,
    order: usize,
    /// B(h) is h rather than e^h - 1.
    first_variant: bool,
    lower_order_final: bool,
    uncorrected: Vec<usize>,
    index: usize,
    /// Predicted `x_0`, newest first, `order` at most.
    history: VecDeque<Tensor>,
    /// Where the last step began and its order.
    last: Option<(Tensor, usize)>,
}

impl UniPc {
    pub(super) fn new(s: &Sampling) -> Result<Self, ScheduleError> {
        let order = s.config.solver_order.unwrap_or(2);
        if !(1..=3).contains(&order) {
            return Err(s.refuse(format!("solver_order {order}"), "give one from 1 to 3"));
        }
        if s.config.predict_x0 == Some(false) {
            return Err(
                s.refuse("predict_x0 false", "remove it from the scheduler's configuration")
            );
        }
        let first_variant = match s.config.solver_type.as_deref() {
            Some("bh1") => true,
            None | Some("bh2" | "midpoint" | "heun" | "logrho") => false,
            Some(other) => return Err(s.refuse(format!("solver_type {other}"), "give bh1 or bh2")),
        };
        let (timesteps, mut levels) = levels(s)?;
        if s.karras && s.final_sigmas() == FinalSigmas::SigmaMin {
            // It ends at the lowest level of the spread, which need not be that of timestep 0.
            let lowest = levels[levels.len() - 2];
            levels.pop();
            levels.push(lowest);
        }
        Ok(Self {
            timesteps,
            levels,
            prediction_type: s.config.prediction_type,
            order,
            first_variant,
            lower_order_final: s.config.lower_order_final.unwrap_or(true),
            uncorrected: s.config.disable_corrector.clone().unwrap_or_default(),
            index: 0,
            history: VecDeque::new(),
            last: None,
        })
    }

    /// The step from the level `from` to the next; `evaluated` is `x_0` predicted there, for the corrector.
    fn transfer(
        &self,
        x: &Tensor,
        from: usize,
        order: usize,
        evaluated: Option<&Tensor>,
    ) -> Tensor {
        let (now, next) = (self.levels[from], self.levels[from + 1]);
        let h = next.lambda - now.lambda;
        let growth = (-h).exp_m1();
        let scale = if self.first_variant { -h } else { growth };
        let newest = &self.history[0];
        let plain = times(x, next.sigma / now.sigma) - times(newest, next.alpha * growth);

        let mut ratios: Vec<f32> =
            (1..order).map(|i| (self.levels[from - i].lambda - now.lambda) / h).collect();
        let slopes =
            ratios.iter().enumerate().map(|(i, r)| (&self.history[i + 1] - newest) / f64::from(*r));
        let mut slopes: Vec<Tensor> = slopes.collect();
        if let Some(evaluated) = evaluated {
            ratios.push(1.0);
            slopes.push(evaluated - newest);
        }
        // As the authors' code: one half for a single slope, near what the system would give.
        let weights = if slopes.len() == 1 {
            vec![0.5]
        } else {
            solve(&ratios, moments(h, scale, ratios.len()))
        };
        let curve = slopes
            .iter()
            .zip(weights)
            .map(|(slope, weight)| times(slope, weight))
            .reduce(|a, b| a + b);
        match curve {
            Some(curve) => plain - times(&curve, next.alpha * scale),
            None => plain,
        }
    }
}

impl Sampler for UniPc {
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
        let now = self.levels[i];
        let (prediction, mut x) = (f32_of(prediction), f32_of(x_t));
        let x0 = predicted_original(self.prediction_type, &prediction, &x, (now.alpha, now.sigma));
        if let Some((start, order)) = self.last.take()
            && !self.uncorrected.contains(&(i - 1))
        {
            x = self.transfer(&start, i - 1, order, Some(&x0));
        }
        self.history.truncate(self.order - 1);
        self.history.push_front(x0);
        let left = if self.lower_order_final { self.timesteps.len() - i } else { self.order };
        let order = self.history.len().min(left);
        let next = self.transfer(&x, i, order, None);
        self.last = Some((x, order));
        self.index += 1;
        next.to_kind(x_t.kind())
    }
}

/// The right-hand side of the system for the weights: factorials times phi functions of `-h`, over B(h).
fn moments(h: f32, scale: f32, count: usize) -> Vec<f32> {
    let hh = -h;
    let mut phi = hh.exp_m1() / hh - 1.0;
    let mut factorial = 1.0;
    let mut moments = Vec::with_capacity(count);
    for i in 1..=count {
        moments.push(phi * factorial / scale);
        factorial *= (i + 1) as f32;
        phi = phi / hh - 1.0 / factorial;
    }
    moments
}

/// Solves `sum_j ratios[j]^i weights[j] = b[i]` by elimination with pivots; three unknowns at most.
fn solve(ratios: &[f32], mut b: Vec<f32>) -> Vec<f32> {
    let n = ratios.len();
    let mut rows: Vec<Vec<f32>> =
        (0..n).map(|i| ratios.iter().map(|r| r.powi(i as i32)).collect()).collect();
    for k in 0..n {
        let pivot =
            (k..n).max_by(|&i, &j| rows[i][k].abs().total_cmp(&rows[j][k].abs())).unwrap_or(k);
        rows.swap(k, pivot);
        b.swap(k, pivot);
        for i in k + 1..n {
            let factor = rows[i][k] / rows[k][k];
            let (above, below) = rows.split_at_mut(i);
            for (low, high) in below[0][k..].iter_mut().zip(&above[k][k..]) {
                *low -= factor * high;
            }
            b[i] -= factor * b[k];
        }
    }
    for k in (0..n).rev() {
        let known: f32 = (k + 1..n).map(|j| rows[k][j] * b[j]).sum();
        b[k] = (b[k] - known) / rows[k][k];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_solved() {
        let ratios = [-0.5f32, 2.0, 1.0];
        let weights = solve(&ratios, vec![1.0, 2.0, 3.0]);
        for (i, b) in [1.0f32, 2.0, 3.0].into_iter().enumerate() {
            let left: f32 = ratios.iter().zip(&weights).map(|(r, w)| r.powi(i as i32) * w).sum();
            assert!((left - b).abs() < 1e-5);
        }
    }
}
