//! Trading time for memory: a segment whose activations are computed again in the backward pass.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tch::Tensor;
use torch_sys::C_tensor;

use crate::ffi;

/// What a checkpointed segment computes: a plain function of a module and the inputs, in their order.
pub type SegmentFn<M> = fn(&M, &[Tensor]) -> Tensor;

/// Computes `f(module, inputs)` keeping only the inputs; the backward pass computes it again, now with its graph.
///
/// The result and every gradient are bit-equal to those of calling `f`, as long as `f` is a function of its arguments
/// alone: it must not draw random numbers from the global generator (no dropout), for their state is not replayed. When
/// gradients are off or no input requires one, `f` is simply called. Anything that learns had best come in as an input;
/// weights inside `module` that learn receive their `.grad` in the backward pass, but [`crate::grad`] cannot return
/// theirs. A second derivative is refused. A panic of `f` in the backward pass becomes an error of that pass.
///
/// On CUDA the backward pass runs on a thread of libtorch's, so `module` is read there too and must be `Sync`; a module's
/// own tensors are so as [`crate::Weight`]. What is changed by reading cannot be in it:
///
/// ```compile_fail,E0277
/// # use std::{cell::Cell, sync::Arc};
/// # use tch::{Kind, Tensor};
/// let counter = Arc::new(Cell::new(0));
/// let x = Tensor::ones([4], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
/// torch_ext::checkpoint(&counter, &[x], |counter, x| {
///     counter.set(counter.get() + 1); // two threads at once
///     &x[0] * 2.0
/// });
/// ```
///
/// Nobody may change a module's tensors in place while a backward pass runs; tch's own backward asks the same.
pub fn checkpoint<M>(module: &Arc<M>, inputs: &[Tensor], f: SegmentFn<M>) -> Tensor
where
    M: Send + Sync + 'static,
{
    crate::init();
    // SAFETY: reads one thread-local flag.
    let recording = unsafe { ffi::ext_grad_enabled() };
    if !recording || !inputs.iter().any(Tensor::requires_grad) {
        return f(module, inputs);
    }
    let output = {
        let _no_grad = tch::no_grad_guard();
        f(module, inputs)
    };
    let segment = Box::into_raw(Box::new(Segment { module: Arc::clone(module), f }));
    let handles = ffi::handles(inputs);
    // SAFETY: the handles belong to borrowed tensors. The node takes the segment in every case: it gives it back to
    // `drop_segment` once, when the graph is freed or if building the node fails, and to `run_segment` only before. Both
    // are instances for this very `M`.
    let result = ffi::one_tensor("checkpoint", |out| unsafe {
        ffi::ext_checkpoint(
            segment.cast(),
            run_segment::<M>,
            drop_segment::<M>,
            handles.as_ptr(),
            handles.len(),
            output.as_ptr(),
            out,
        )
    });
    result.unwrap_or_else(|e| panic!("{e}"))
}

/// What the graph's node owns.
struct Segment<M> {
    module: Arc<M>,
    f: SegmentFn<M>,
}

/// Recomputes a segment inside the backward pass: 0 and an owned output, or 1 and a message left behind.
extern "C" fn run_segment<M>(
    segment: *mut c_void,
    inputs: *const *const C_tensor,
    count: usize,
    output: *mut *mut C_tensor,
) -> c_int {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the node that calls owns the segment that `checkpoint::<M>` made, and keeps it during the call.
        let segment = unsafe { &*segment.cast::<Segment<M>>() };
        // SAFETY: `count` handles of tensors that live during the call; each is cloned, so that ours are owned.
        let inputs: Vec<Tensor> = (0..count)
            .map(|i| unsafe { Tensor::clone_from_ptr((*inputs.add(i)).cast_mut()) })
            .collect();
        (segment.f)(&segment.module, &inputs)
    }));
    match attempt {
        Ok(tensor) => {
            // SAFETY: a new handle to the same tensor, which the caller takes; `output` is writable.
            unsafe { *output = torch_sys::at_shallow_clone(tensor.as_ptr().cast_mut()) };
            0
        }
        Err(panic) => {
            ffi::leave_error(&format!(
                "a checkpointed segment panicked in the backward pass: {}",
                said(&*panic)
            ));
            1
        }
    }
}

extern "C" fn drop_segment<M>(segment: *mut c_void) {
    // A destructor that panics must not unwind into C++, and there is nobody left to tell.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: made by Box::into_raw in `checkpoint::<M>`; the node calls this once, last.
        drop(unsafe { Box::from_raw(segment.cast::<Segment<M>>()) });
    }));
}

/// The words of a panic.
fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}
