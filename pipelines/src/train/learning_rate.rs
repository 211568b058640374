//! The learning rate at each step.

use crate::config::LrShape;

/// A linear warm-up, then a shape down the rest of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LearningRate {
    pub peak: f64,
    pub shape: LrShape,
    pub warmup: u64,
    pub steps: u64,
}

impl LearningRate {
    /// For optimiser step `step`, counted from 0.
    pub(crate) fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let rest = self.steps.saturating_sub(self.warmup).max(1);
        let done = (step - self.warmup) as f64 / rest as f64;
        self.peak
            * match self.shape {
                LrShape::Constant => 1.0,
                LrShape::Linear => (1.0 - done).max(0.0),
                LrShape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_rises_to_the_peak_and_shapes_fall_from_it() {
        let at = |shape, step| LearningRate { peak: 2.0, shape, warmup: 4, steps: 12 }.at(step);
        assert_eq!([0, 1, 3, 4].map(|s| at(LrShape::Constant, s)), [0.0, 0.5, 1.5, 2.0]);
        assert_eq!([4, 8, 12].map(|s| at(LrShape::Linear, s)), [2.0, 1.0, 0.0]);
        assert!((at(LrShape::Cosine, 8) - 1.0).abs() < 1e-12 && at(LrShape::Cosine, 12) < 1e-12);
    }
}
