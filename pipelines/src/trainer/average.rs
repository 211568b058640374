//! The running average of parameters, which draws better than the parameters themselves do at any one step.

use tch::Tensor;

/// Exponential moving average of parameters. In the first steps, when they still go far, it follows closely: its decay is
/// `(1 + step) / (10 + step)` where that is less (as TensorFlow's `ExponentialMovingAverage` with `num_updates`).
pub struct Average {
    decay: f64,
    /// Means, in the order of the parameters.
    pub tensors: Vec<Tensor>,
}

impl Average {
    /// Starts at the parameters as they are. `decay` is the weight of what was before, after one step, from above 0 to
    /// below 1; there is no average at 0.
    pub fn new(parameters: &[Tensor], decay: f64) -> Option<Self> {
        let copies = || parameters.iter().map(|p| p.detach().copy()).collect();
        (decay > 0.0).then(|| Self { decay, tensors: copies() })
    }

    /// Takes in the parameters as they are after `step` steps. What the tensors were before stays as it is.
    pub(super) fn follow(&mut self, parameters: &[Tensor], step: u64) {
        let decay = ((1.0 + step as f64) / (10.0 + step as f64)).min(self.decay);
        tch::no_grad(|| {
            for (average, parameter) in self.tensors.iter_mut().zip(parameters) {
                *average = average.lerp(&parameter.detach(), 1.0 - decay);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_closely_at_first_and_by_its_decay_later() {
        let at = |value: f32| [Tensor::from_slice(&[value])];
        assert!(Average::new(&at(0.0), 0.0).is_none());
        let mut average = Average::new(&at(0.0), 0.9).unwrap();
        average.follow(&at(1.0), 0); // decay 1/10
        assert!((average.tensors[0].double_value(&[0]) - 0.9).abs() < 1e-6);
        average.follow(&at(0.0), 1_000_000);
        assert!((average.tensors[0].double_value(&[0]) - 0.81).abs() < 1e-6);
    }
}
