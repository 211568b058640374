//! The running average of parameters, which draws better than the parameters themselves do at any one step.

use std::path::Path;

use tch::Tensor;

use super::state;
use crate::Error;

/// The average's name in the folder of a run.
pub const FILE: &str = "average.safetensors";

/// Exponential moving average of parameters. In the first steps, when they still go far, it follows closely: its decay is
/// `(1 + step) / (10 + step)` where that is less (as TensorFlow's `ExponentialMovingAverage` with `num_updates`).
pub struct Average {
    decay: f64,
    /// Means, in the order of the parameters.
    pub tensors: Vec<Tensor>,
}

impl Average {
    /// Starts at the parameters as they are. `decay` is the weight of what was before, after one step; 0 follows at once.
    pub fn new(parameters: &[Tensor], decay: f64) -> Self {
        Self { decay, tensors: parameters.iter().map(|p| p.detach().copy()).collect() }
    }

    /// Takes in the parameters as they are after `step` steps.
    pub fn follow(&mut self, parameters: &[Tensor], step: u64) {
        let decay = ((1.0 + step as f64) / (10.0 + step as f64)).min(self.decay);
        tch::no_grad(|| {
            for (average, parameter) in self.tensors.iter_mut().zip(parameters) {
                *average = average.lerp(&parameter.detach(), 1.0 - decay);
            }
        });
    }

    /// Writes it into the folder of a run.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let named = self.tensors.iter().enumerate();
        let named = named.map(|(i, t)| (format!("{i:04}"), t.shallow_clone())).collect();
        Ok(models::weights::write(&folder.join(FILE), named)?)
    }

    /// Reads what [`Average::save`] wrote.
    pub fn load(&mut self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(FILE);
        let read = Tensor::read_safetensors(&path).map_err(models::ModelError::from)?;
        let mut missing = self.tensors.len();
        for (name, tensor) in read {
            let place = name.parse::<usize>().ok().and_then(|i| self.tensors.get_mut(i));
            if let Some(place) = place.filter(|place| place.size() == tensor.size()) {
                *place = tensor.to_device(place.device());
                missing -= 1;
            }
        }
        if missing > 0 {
            return Err(state::damaged(&path, "without some averages"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_closely_at_first_and_by_its_decay_later() {
        let one = Tensor::from_slice(&[1.0f32]);
        let mut average = Average::new(&[Tensor::from_slice(&[0.0f32])], 0.9);
        average.follow(&[one.shallow_clone()], 0); // decay 1/10
        assert!((average.tensors[0].double_value(&[0]) - 0.9).abs() < 1e-6);
        average.follow(&[Tensor::from_slice(&[0.0f32])], 1_000_000);
        assert!((average.tensors[0].double_value(&[0]) - 0.81).abs() < 1e-6);
    }

    #[test]
    fn what_was_saved_is_loaded_and_another_s_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let saved = Average::new(&[Tensor::from_slice(&[1.5f32, 2.0])], 0.9);
        saved.save(folder.path()).unwrap();
        let mut loaded = Average::new(&[Tensor::from_slice(&[0.0f32, 0.0])], 0.9);
        loaded.load(folder.path()).unwrap();
        assert_eq!(loaded.tensors[0], saved.tensors[0]);
        let mut other = Average::new(&[Tensor::from_slice(&[0.0f32])], 0.9);
        assert!(other.load(folder.path()).unwrap_err().to_string().contains("--force"));
    }
}
