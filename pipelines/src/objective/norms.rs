//! Holding the norm of what is learnt, since an embedding that outgrows its vocabulary drowns the other words.
//!
//! Source: Wu et al. 2024 (CoRe), equation 6: after an update the vectors are scaled to the norm before it.

use tch::{Kind, Tensor};

/// At which steps the norm is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPolicy {
    /// At none.
    Free,
    /// At the steps `after + 1 ..= until`, counted from 1: the norm stays what it was after step `after`. Nothing is
    /// remembered from step to step, so that a resumed run goes on exactly.
    Hold {
        /// The last step whose norm is free.
        after: u64,
        /// The last step at which it is held.
        until: u64,
    },
}

impl NormPolicy {
    /// Scales `parameters` in place after the update of optimiser step `step`, which found them as `before`.
    pub fn after_update(self, step: u64, before: &[Tensor], parameters: &mut [Tensor]) {
        let Self::Hold { after, until } = self else { return };
        if step > after && step <= until {
            hold(before, parameters);
        }
    }
}

/// Scales all vectors together to the joint norm of `before`, as the authors' code does for several.
fn hold(before: &[Tensor], parameters: &mut [Tensor]) {
    tch::no_grad(|| {
        for (parameter, before) in parameters.iter_mut().zip(before) {
            let (was, is) = (norm(before), norm(parameter));
            if was > 0.0 && is > 0.0 {
                let _ = parameter.g_mul_scalar_(was / is);
            }
        }
    });
}

/// The Euclidean norm over all numbers.
pub(crate) fn norm(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Double).norm().double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_held_within_the_window_and_free_outside() {
        let policy = NormPolicy::Hold { after: 3, until: 6 };
        let mut parameters = [Tensor::from_slice(&[3f32, 4.0])];
        let mut norms = Vec::new();
        for step in 1..=8 {
            let before = [parameters[0].copy()];
            parameters[0] += 1.0;
            policy.after_update(step, &before, &mut parameters);
            norms.push(norm(&parameters[0]));
        }
        let free = |i: usize| (norms[i] - norms[i - 1]).abs() > 0.1;
        let held = |i: usize| (norms[i] - norms[2]).abs() < 1e-5;
        assert!(free(1) && free(2), "{norms:?}");
        assert!((3..6).all(held), "{norms:?}");
        assert!(free(6) && free(7), "{norms:?}");
    }
}
