//! A tensor inside a module that several threads read.

use std::ops::Deref;

use tch::Tensor;

/// A tensor as a module's field: the module can be shared between threads, as [`crate::checkpoint`] asks for.
#[derive(Debug)]
pub struct Weight(Tensor);

// SAFETY: tch's `Tensor` is `Send`, and its clone on another thread reaches the same C++ tensor; a reference reaches no more
// than such a clone does. libtorch counts its handles atomically and lets many threads read a tensor at once.
unsafe impl Sync for Weight {}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Self(tensor)
    }
}

impl Deref for Weight {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}
