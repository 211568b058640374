//! Layers whose weights never change, laid out once for the CPU's matrix kernels.
//!
//! Plain libtorch lays a weight out anew in each call, which for the deep layers of a U-Net costs more than the product.
//! Here that happens once: for the forward pass at the first call, for the backward pass at the first gradient. Gradients
//! reach `x` only; nothing is saved for a weight's gradient, not even `x`. On CUDA, in kinds other than f32 and bf16, and
//! for linear layers in f32, where packing gains nothing, the same layers call libtorch's plain operators.
//!
//! Memory: once packed, the layer lets go of the plain weight, so drop yours after building it and there is one copy. A
//! layer that is differentiated packs a second copy, if its weight is small beside the rows (pixels) that it meets: at most
//! 4096 numbers a row. A larger one stays one plain matrix, which serves both passes; a convolution is then its product
//! with the pixels under the kernel. That keeps a network to one copy and a little more, for the memory: a training step of
//! Stable Diffusion 1.5 takes as long in f32 and some 8 % longer in bf16 than with two packed copies (`BENCHMARKS.md`).
//! Which of these it is, the first call decides; other shapes work, and may be a little slower.

use std::ptr::NonNull;

use tch::Tensor;

use crate::TorchError;
use crate::ffi::{self, RawLayer};

/// What both layers are: a counted handle to the C++ side's layer.
#[derive(Debug)]
struct Layer(NonNull<RawLayer>);

// SAFETY: the C++ layer belongs to no thread; its weights are only read.
unsafe impl Send for Layer {}
// SAFETY: what changes late, how the weight is laid out, is read and changed under a lock; the rest is only read.
unsafe impl Sync for Layer {}

impl Drop for Layer {
    fn drop(&mut self) {
        // SAFETY: made by one of the constructors, freed only here; graphs hold counted handles of their own.
        unsafe { ffi::ext_frozen_free(self.0.as_ptr()) };
    }
}

impl Layer {
    fn made(
        call: &'static str,
        make: impl FnOnce(*mut *mut RawLayer) -> libc::c_int,
    ) -> Result<Self, TorchError> {
        crate::init();
        let mut raw = std::ptr::null_mut();
        ffi::checked(call, make(&raw mut raw))?;
        Ok(Self(NonNull::new(raw).expect("a successful call gives a layer")))
    }

    fn forward(&self, call: &'static str, x: &Tensor) -> Tensor {
        // SAFETY: the layer lives as long as self, the tensor during the call.
        let y = ffi::one_tensor(call, |out| unsafe {
            ffi::ext_frozen_forward(self.0.as_ptr(), x.as_ptr(), out)
        });
        y.unwrap_or_else(|e| panic!("{e}"))
    }
}

/// The handle of a tensor, or null.
fn handle(tensor: Option<&Tensor>) -> *const torch_sys::C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

/// `x W^T + b` with a frozen `W`.
#[derive(Debug)]
pub struct FrozenLinear(Layer);

impl FrozenLinear {
    /// Makes a layer of a weight `[out, in]` and a bias `[out]` of the same kind; refuses other sizes.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self, TorchError> {
        // SAFETY: both tensors live during the call, which takes counted handles of its own.
        Layer::made("a frozen linear layer", |out| unsafe {
            ffi::ext_frozen_linear(weight.as_ptr(), handle(bias), out)
        })
        .map(Self)
    }

    /// `[.., in]` to `[.., out]`, in the weight's kind. Panics, as tch does, on another width or kind.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.0.forward("a frozen linear layer", x)
    }
}

/// A convolution over images with a frozen weight: one group, no dilation.
#[derive(Debug)]
pub struct FrozenConv2d(Layer);

impl FrozenConv2d {
    /// Makes a layer of a weight `[out, in, height, width]` and a bias `[out]` of the same kind; refuses other sizes, a stride
    /// of 0 and a padding below 0.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: i64,
        padding: i64,
    ) -> Result<Self, TorchError> {
        // SAFETY: both tensors live during the call, which takes counted handles of its own.
        Layer::made("a frozen convolution", |out| unsafe {
            ffi::ext_frozen_conv2d(weight.as_ptr(), handle(bias), stride, padding, out)
        })
        .map(Self)
    }

    /// `[B, in, H, W]` to `[B, out, H', W']`, on the CPU channels last. Panics, as tch does, on another shape or kind.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.0.forward("a frozen convolution", x)
    }
}
