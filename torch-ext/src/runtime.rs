//! Process-wide settings of libtorch, its memory, and the memory format of images.

use std::ffi::CStr;

use tch::{Device, Tensor};

use crate::ffi;

/// Lets CUDA multiply f32 matrices in TF32 (10 bits of mantissa, several times faster) or not.
pub fn set_tf32(on: bool) {
    crate::init();
    // SAFETY: sets flags of libtorch's global context.
    let status = unsafe { ffi::ext_set_tf32(on) };
    ffi::checked("the TF32 setting", status).unwrap_or_else(|e| panic!("{e}"));
}

/// Prefers kernels whose result does not change from run to run.
///
/// The few CUDA kernels that have no such form (the backward pass of nearest-neighbour enlarging) warn and run. cuBLAS
/// asks for `CUBLAS_WORKSPACE_CONFIG=:4096:8` in the environment besides. The CPU is deterministic for a fixed number of
/// threads in either case.
pub fn set_deterministic(on: bool) {
    crate::init();
    // SAFETY: sets flags of libtorch's global context.
    let status = unsafe { ffi::ext_set_deterministic(on) };
    ffi::checked("the determinism setting", status).unwrap_or_else(|e| panic!("{e}"));
}

/// Lets cuDNN time its kernels for each new shape and keep the fastest: good for few shapes, bad for a run to repeat.
pub fn set_cudnn_benchmark(on: bool) {
    crate::init();
    // SAFETY: sets a flag of libtorch's global context.
    let status = unsafe { ffi::ext_set_cudnn_benchmark(on) };
    ffi::checked("the cuDNN benchmark setting", status).unwrap_or_else(|e| panic!("{e}"));
}

/// A CUDA device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStats {
    /// Held by tensors of this process now.
    pub allocated: u64,
    /// The most held by tensors of this process since the start or [`reset_peak_memory`].
    pub peak: u64,
    /// Free on the device, whoever uses the rest.
    pub free: u64,
    /// All of the device.
    pub total: u64,
}

/// The memory of a CUDA device; `None` for the CPU and where there is no such device.
pub fn memory_stats(device: Device) -> Option<MemoryStats> {
    let index = served(device)?;
    let mut out = [0_u64; 4];
    // SAFETY: `out` has room for the four numbers that are written.
    let status = unsafe { ffi::ext_memory_stats(index, out.as_mut_ptr()) };
    ffi::checked("memory statistics", status).ok()?;
    let [allocated, peak, free, total] = out;
    Some(MemoryStats { allocated, peak, free, total })
}

/// Starts [`MemoryStats::peak`] anew; nothing for the CPU.
pub fn reset_peak_memory(device: Device) {
    if let Some(index) = served(device) {
        // SAFETY: resets counters of a device that exists. A failure leaves the counters as they were.
        unsafe { ffi::ext_reset_peak_memory(index) };
    }
}

/// Gives memory that is kept for later back: the CUDA devices' and, on Linux with glibc, the C allocator's.
///
/// The latter keeps blocks below 32 MiB, most weights among them, after they are freed. Worth a call once the weights are
/// loaded; not in a loop, as fresh memory costs time.
pub fn empty_cache() {
    if crate::init().is_available() {
        // SAFETY: frees only what no tensor uses.
        unsafe { ffi::ext_empty_cache() };
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: hands free pages of the heap to the system; allocated blocks stay as they are.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The number of a CUDA device that is there.
fn served(device: Device) -> Option<libc::c_int> {
    match (device, crate::init()) {
        (Device::Cuda(index), crate::Cuda::Available { devices }) if index < *devices => {
            ffi::device_number(device).ok()
        }
        _ => None,
    }
}

/// The libtorch that this program was built against, such as `2.11.0`.
pub fn libtorch_version() -> String {
    // SAFETY: a NUL-terminated string constant of the C++ side.
    unsafe { CStr::from_ptr(ffi::ext_version()) }.to_string_lossy().into_owned()
}

/// How many threads one operator may use on the CPU.
pub fn threads() -> usize {
    crate::init();
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Sets how many threads one operator may use on the CPU (at least one).
pub fn set_threads(threads: usize) {
    crate::init();
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

/// The same images with a pixel's channels side by side in memory, the layout in which convolutions are fastest.
///
/// Shapes: `[B, C, H, W]` in and out. Free if they lie so already; differentiable. Panics, as tch does, on other ranks.
pub fn channels_last(images: &Tensor) -> Tensor {
    crate::init();
    // SAFETY: the tensor is borrowed during the call.
    let result = ffi::one_tensor("channels_last", |out| unsafe {
        ffi::ext_channels_last(images.as_ptr(), out)
    });
    result.unwrap_or_else(|e| panic!("{e}"))
}

/// Whether a pixel's channels lie side by side in memory; false for tensors that are not `[B, C, H, W]`.
pub fn is_channels_last(images: &Tensor) -> bool {
    crate::init();
    let mut out = false;
    // SAFETY: the tensor is borrowed during the call, which writes one bool.
    let status = unsafe { ffi::ext_is_channels_last(images.as_ptr(), &raw mut out) };
    ffi::checked("is_channels_last", status).is_ok() && out
}
