//! A loss that steps can be compared by: always of the same photos, noises and timesteps. The training loss itself
//! wanders with the timesteps that a step happens to draw.

use torch_ext::Generator;

use super::batches::PhotoBatches;
use crate::objective::{Reconstruction, StepInputs};

/// Samples in the bank, if they make whole batches.
const SAMPLES: usize = 16;

/// The bank and the loss on it.
pub(super) struct Validation<'a> {
    bank: Vec<StepInputs>,
    reconstruction: Reconstruction<'a>,
}

impl<'a> Validation<'a> {
    /// A bank over the photos of a run, drawn apart from the run's own sequence.
    pub(super) fn new(batches: &PhotoBatches<'_>, reconstruction: Reconstruction<'a>) -> Self {
        let draw = Generator::cpu(batches.seed ^ 0x0076_616c);
        let samples = SAMPLES.next_multiple_of(batches.batch_size);
        Self { bank: batches.bank(samples, &draw), reconstruction }
    }

    /// The mean loss of the concept as it is, without what is random in training.
    ///
    /// With a graph, although nobody walks it, and in batches of the run's size: the first pass decides how the frozen
    /// layers are laid out, and the first of a resumed run is a training step.
    pub(super) fn loss(&self) -> f64 {
        let losses = (0..self.bank.len()).map(|batch| self.loss_of(batch));
        losses.sum::<f64>() / self.bank.len() as f64
    }

    /// Lays out the frozen layers as a training step does, where something else would be the first pass.
    pub(super) fn lay_out(&self) {
        self.loss_of(0);
    }

    fn loss_of(&self, batch: usize) -> f64 {
        self.reconstruction.at(&self.bank[batch], None).double_value(&[])
    }
}
