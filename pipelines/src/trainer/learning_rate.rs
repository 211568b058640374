//! The learning rate at each step.

use crate::config::LrShape;

/// A linear warm-up, then a shape down the rest of the run.
#[derive(Debug, Clone, Copy)]
pub struct LearningRate {
    /// After the warm-up.
    pub peak: f64,
    /// How it falls from there.
    pub shape: LrShape,
    /// The share of the peak that it falls to.
    pub end: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the run.
    pub steps: u64,
}

impl LearningRate {
    /// Says that a warm-up takes the whole run, where it does.
    pub(crate) fn warning(warmup: u64, steps: u64) -> Option<String> {
        (warmup > 0 && warmup >= steps).then(|| {
            format!(
                "the learning rate rises for {warmup} steps (warmup_steps), but the run has {steps}, so it never gets to its peak; \
                 give more --steps or a shorter warm-up, such as --set warmup_steps={}",
                steps / 10
            )
        })
    }

    /// For optimiser step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let rest = self.steps.saturating_sub(self.warmup).max(1);
        let done = (step - self.warmup) as f64 / rest as f64;
        let left = match self.shape {
            LrShape::Constant => 1.0,
            LrShape::Linear => (1.0 - done).max(0.0),
            LrShape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
        };
        self.peak * (self.end + (1.0 - self.end) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_rises_to_the_peak_and_shapes_fall_from_it() {
        let rate = |shape, end| LearningRate { peak: 2.0, shape, end, warmup: 4, steps: 12 };
        let at = |shape, step| rate(shape, 0.0).at(step);
        let close = |shape, step, expected: f64| (at(shape, step) - expected).abs() < 1e-12;
        for (step, expected) in [(0, 0.0), (1, 0.5), (3, 1.5), (4, 2.0), (11, 2.0)] {
            assert!(close(LrShape::Constant, step, expected), "step {step}");
        }
        for (step, linear, cosine) in [(4, 2.0, 2.0), (8, 1.0, 1.0), (12, 0.0, 0.0)] {
            assert!(close(LrShape::Linear, step, linear), "step {step}");
            assert!(close(LrShape::Cosine, step, cosine), "step {step}");
        }
        for (step, linear) in [(4, 2.0), (8, 1.2), (12, 0.4)] {
            assert!((rate(LrShape::Linear, 0.2).at(step) - linear).abs() < 1e-12, "step {step}");
        }
    }
}
