//! Random numbers from a generator of one's own, the same as Python's `torch.Generator("cpu")` draws.

use std::ptr::NonNull;

use tch::Tensor;

use crate::ffi::{self, RawGenerator};
use crate::{TorchError, from_bytes, to_bytes};

/// A CPU generator: for a seed it draws what `torch.Generator("cpu").manual_seed(seed)` draws.
///
/// It shares nothing with libtorch's global generator, nor with any other of these.
#[derive(Debug)]
pub struct Generator {
    raw: NonNull<RawGenerator>,
}

// SAFETY: the object behind the pointer is plain memory that belongs to no thread; it is not Sync, so that only one
// thread at a time draws from it.
unsafe impl Send for Generator {}

impl Drop for Generator {
    fn drop(&mut self) {
        // SAFETY: made by ext_generator_new, freed only here.
        unsafe { ffi::ext_generator_free(self.raw.as_ptr()) };
    }
}

impl Generator {
    /// A generator at the start of `seed`'s sequence.
    pub fn cpu(seed: u64) -> Self {
        crate::init();
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is written before the call returns success.
        let status = unsafe { ffi::ext_generator_new(seed, &raw mut raw) };
        ffi::checked("a new generator", status)
            .expect("a CPU generator needs only a little memory");
        Self { raw: NonNull::new(raw).expect("a successful call gives a generator") }
    }

    /// Standard normal numbers, f32, equal to `torch.randn(size, generator=g)`.
    ///
    /// Panics, as tch does, if a size is negative.
    pub fn randn(&self, size: &[i64]) -> Tensor {
        // SAFETY: the generator lives as long as self; the sizes are only read during the call.
        let drawn = ffi::one_tensor("randn", |out| unsafe {
            ffi::ext_generator_randn(self.raw.as_ptr(), size.as_ptr(), size.len(), out)
        });
        drawn.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Uniform numbers of `[0, 1)`, f32, equal to `torch.rand(size, generator=g)`.
    ///
    /// Panics, as tch does, if a size is negative.
    pub fn rand(&self, size: &[i64]) -> Tensor {
        // SAFETY: as in `randn`.
        let drawn = ffi::one_tensor("rand", |out| unsafe {
            ffi::ext_generator_rand(self.raw.as_ptr(), size.as_ptr(), size.len(), out)
        });
        drawn.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Integers of `[low, high)`, i64, equal to `torch.randint(low, high, size, generator=g)`.
    ///
    /// Panics, as tch does, if the interval is empty or a size is negative.
    pub fn randint(&self, low: i64, high: i64, size: &[i64]) -> Tensor {
        // SAFETY: as in `randn`.
        let drawn = ffi::one_tensor("randint", |out| unsafe {
            ffi::ext_generator_randint(self.raw.as_ptr(), low, high, size.as_ptr(), size.len(), out)
        });
        drawn.unwrap_or_else(|e| panic!("{e}"))
    }

    /// `0..n` in random order, i64, equal to `torch.randperm(n, generator=g)`.
    ///
    /// Panics, as tch does, if `n` is negative.
    pub fn randperm(&self, n: i64) -> Tensor {
        // SAFETY: as in `randn`.
        let drawn = ffi::one_tensor("randperm", |out| unsafe {
            ffi::ext_generator_randperm(self.raw.as_ptr(), n, out)
        });
        drawn.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Where the sequence stands, in libtorch's own format (5056 bytes); [`Generator::set_state`] goes on from there.
    pub fn state(&self) -> Vec<u8> {
        // SAFETY: the generator lives as long as self.
        let state = ffi::one_tensor("a generator's state", |out| unsafe {
            ffi::ext_generator_state(self.raw.as_ptr(), out)
        });
        to_bytes(&state.unwrap_or_else(|e| panic!("{e}")))
    }

    /// Another generator at the same place of the same sequence; what either draws does not move the other.
    #[must_use]
    pub fn twin(&self) -> Self {
        let twin = Self::cpu(0);
        twin.set_state(&self.state()).expect("a generator's own state");
        twin
    }

    /// Goes on from a state that [`Generator::state`] gave. Fails, and changes nothing, if it is no such state.
    pub fn set_state(&self, state: &[u8]) -> Result<(), TorchError> {
        let state = from_bytes(state, tch::Kind::Uint8, &[state.len() as i64])?;
        // SAFETY: both live during the call, which copies the state.
        let status = unsafe { ffi::ext_generator_set_state(self.raw.as_ptr(), state.as_ptr()) };
        ffi::checked("a generator's state", status)
    }
}
