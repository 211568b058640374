//! PNDM (Liu et al. 2022): linear multistep of order 4, begun by a repeated step or by Runge-Kutta.

use super::{
    Sampler, Sampling,
    ddim::{end_signal, signal_at, whole_timesteps},
    f32_of, times,
};
use crate::schedule::{PredictionType, ScheduleError};
use std::collections::VecDeque;
use tch::Tensor;

/// What one evaluation does with its prediction.
enum Move {
    /// One of the four of a Runge-Kutta step.
    RungeKutta(usize),
    /// Order as high as the history allows.
    Multistep,
    /// Takes the first step again with the mean of the slopes at its two ends.
    Repeat,
}

pub(super) struct Pndm {
    timesteps: Vec<f64>,
    /// For each evaluation: what it does, and `alpha_bar` where its step begins and ends.
    moves: Vec<(Move, f32, f32)>,
    prediction_type: PredictionType,
    index: usize,
    /// Newest first, four at most.
    history: VecDeque<Tensor>,
    /// Where a step of several evaluations began.
    start: Option<Tensor>,
    /// The weighted sum of Runge-Kutta so far.
    sum: Option<Tensor>,
}

impl Pndm {
    pub(super) fn new(s: &Sampling) -> Result<Self, ScheduleError> {
        let train = s.config.num_train_timesteps;
        let stride = (train / s.steps) as i64;
        let descending = whole_timesteps(s)?;
        let end = end_signal(s, false);
        let signal = |t: i64| signal_at(s, t, end);
        let mut timesteps = Vec::new();
        let mut moves = Vec::new();
        let mut multistep = descending.as_slice();
        if s.config.skip_prk_steps.unwrap_or(false) {
            // The second timestep is visited twice: to look ahead, and from there on.
            if let [_, second, ..] = *descending {
                timesteps.extend([descending[0], second]);
                moves.push((
                    Move::Multistep,
                    signal(descending[0]),
                    signal(descending[0] - stride),
                ));
                moves.push((Move::Repeat, signal(second + stride), signal(second)));
                multistep = &descending[1..];
            }
        } else {
            let half = stride / 2;
            let [first, second, third, fourth, ..] = *descending else {
                return Err(ScheduleError::Steps {
                    sampler: s.kind.name(),
                    steps: s.steps,
                    expected:
                        "expected at least 4, since it begins with Runge-Kutta: take more --steps \
                               or another --sampler"
                            .into(),
                });
            };
            for (from, to) in [(first, second), (second, third), (third, fourth)] {
                // Python lays the half steps above the lower end.
                for (stage, t) in [from, to + half, to + half, to].into_iter().enumerate() {
                    let prev = if stage % 2 == 0 { t - half } else { t };
                    timesteps.push(t);
                    moves.push((Move::RungeKutta(stage), signal(from), signal(prev)));
                }
            }
            multistep = &descending[3..];
        }
        for &t in multistep {
            timesteps.push(t);
            moves.push((Move::Multistep, signal(t), signal(t - stride)));
        }
        Ok(Self {
            timesteps: timesteps.into_iter().map(|t| t as f64).collect(),
            moves,
            prediction_type: s.config.prediction_type,
            index: 0,
            history: VecDeque::new(),
            start: None,
            sum: None,
        })
    }

    /// A step from one share of signal to another (equation 9).
    fn transfer(&self, x: &Tensor, slope: Tensor, now: f32, next: f32) -> Tensor {
        let slope = match self.prediction_type {
            PredictionType::VPrediction => times(&slope, now.sqrt()) + times(x, (1.0 - now).sqrt()),
            _ => slope,
        };
        let denominator = now * (1.0 - next).sqrt() + (now * (1.0 - now) * next).sqrt();
        times(x, (next / now).sqrt()) - times(&slope, next - now) / f64::from(denominator)
    }

    fn remember(&mut self, slope: &Tensor) {
        self.history.truncate(3);
        self.history.push_front(slope.shallow_clone());
    }
}

impl Sampler for Pndm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        prediction: &Tensor,
        x_t: &Tensor,
        _noise: &mut dyn FnMut() -> Tensor,
    ) -> Tensor {
        let (slope, x) = (f32_of(prediction), f32_of(x_t));
        let (ref this, now, next) = self.moves[self.index];
        let (start, slope) = match *this {
            Move::RungeKutta(stage) => {
                let weight = if matches!(stage, 0 | 3) { 1.0 / 6.0 } else { 1.0 / 3.0 };
                if stage == 0 {
                    self.remember(&slope);
                    self.start = Some(x.shallow_clone());
                }
                let weighted = &slope * weight;
                let sum = match self.sum.take() {
                    Some(sum) => sum + weighted,
                    None => weighted,
                };
                let start = self.start.as_ref().map_or(x, Tensor::shallow_clone);
                if stage == 3 {
                    (start, sum)
                } else {
                    self.sum = Some(sum);
                    (start, slope)
                }
            }
            Move::Repeat => {
                let start = self.start.take().unwrap_or(x);
                (start, (slope + &self.history[0]) / 2.0)
            }
            Move::Multistep => {
                if self.index == 0 {
                    self.start = Some(x.shallow_clone());
                }
                self.remember(&slope);
                let h = &self.history;
                let slope = match h.len() {
                    1 => slope,
                    2 => (&h[0] * 3.0 - &h[1]) / 2.0,
                    3 => (&h[0] * 23.0 - &h[1] * 16.0 + &h[2] * 5.0) / 12.0,
                    _ => (&h[0] * 55.0 - &h[1] * 59.0 + &h[2] * 37.0 - &h[3] * 9.0) * (1.0 / 24.0),
                };
                (x, slope)
            }
        };
        self.index += 1;
        self.transfer(&start, slope, now, next).to_kind(x_t.kind())
    }
}
