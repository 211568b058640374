//! The C++ side's functions and the few conversions that every call needs.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::TorchError;

/// libtorch's `at::Generator`, seen only by pointer.
#[repr(C)]
pub(crate) struct RawGenerator {
    _opaque: [u8; 0],
}

/// A frozen layer, seen only by pointer.
#[repr(C)]
pub(crate) struct RawLayer {
    _opaque: [u8; 0],
}

pub(crate) type Run =
    extern "C" fn(*mut c_void, *const *const C_tensor, usize, *mut *mut C_tensor) -> c_int;
pub(crate) type Drop = extern "C" fn(*mut c_void);
pub(crate) type Fill = extern "C" fn(*mut c_void, *mut u8, usize) -> c_int;

unsafe extern "C" {
    pub(crate) fn ext_set_error(message: *const c_char);
    fn ext_error() -> *const c_char;
    pub(crate) fn ext_version() -> *const c_char;

    pub(crate) fn ext_set_tf32(on: bool) -> c_int;
    pub(crate) fn ext_set_deterministic(on: bool) -> c_int;
    pub(crate) fn ext_set_cudnn_benchmark(on: bool) -> c_int;

    pub(crate) fn ext_memory_stats(device: c_int, out: *mut u64) -> c_int;
    pub(crate) fn ext_reset_peak_memory(device: c_int) -> c_int;
    pub(crate) fn ext_empty_cache() -> c_int;

    pub(crate) fn ext_channels_last(tensor: *const C_tensor, out: *mut *mut C_tensor) -> c_int;
    pub(crate) fn ext_is_channels_last(tensor: *const C_tensor, out: *mut bool) -> c_int;

    pub(crate) fn ext_generator_new(seed: u64, out: *mut *mut RawGenerator) -> c_int;
    pub(crate) fn ext_generator_free(generator: *mut RawGenerator);
    pub(crate) fn ext_generator_randn(
        generator: *mut RawGenerator,
        size: *const i64,
        dims: usize,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub(crate) fn ext_generator_rand(
        generator: *mut RawGenerator,
        size: *const i64,
        dims: usize,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub(crate) fn ext_generator_randint(
        generator: *mut RawGenerator,
        low: i64,
        high: i64,
        size: *const i64,
        dims: usize,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub(crate) fn ext_generator_randperm(
        generator: *mut RawGenerator,
        n: i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub(crate) fn ext_generator_state(
        generator: *mut RawGenerator,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub(crate) fn ext_generator_set_state(
        generator: *mut RawGenerator,
        state: *const C_tensor,
    ) -> c_int;

    pub(crate) fn ext_tensor_in_rows(tensor: *const C_tensor, out: *mut *mut C_tensor) -> c_int;
    pub(crate) fn ext_tensor_filled(
        source: *mut c_void,
        fill: Fill,
        kind: c_int,
        shape: *const i64,
        dims: usize,
        target: c_int,
        device: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;

    pub(crate) fn ext_frozen_linear(
        weight: *const C_tensor,
        bias: *const C_tensor,
        out: *mut *mut RawLayer,
    ) -> c_int;
    pub(crate) fn ext_frozen_conv2d(
        weight: *const C_tensor,
        bias: *const C_tensor,
        stride: i64,
        padding: i64,
        out: *mut *mut RawLayer,
    ) -> c_int;
    pub(crate) fn ext_frozen_free(layer: *mut RawLayer);
    pub(crate) fn ext_frozen_forward(
        layer: *mut RawLayer,
        x: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> c_int;

    pub(crate) fn ext_grad_enabled() -> bool;
    pub(crate) fn ext_checkpoint(
        segment: *mut c_void,
        run: Run,
        drop: Drop,
        inputs: *const *const C_tensor,
        count: usize,
        output: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub(crate) fn ext_grad(
        outputs: *const *const C_tensor,
        output_count: usize,
        inputs: *const *const C_tensor,
        input_count: usize,
        output_gradients: *const *const C_tensor,
        retain_graph: bool,
        results: *mut *mut C_tensor,
    ) -> c_int;
}

/// Turns the C++ side's 0 or 1 into a result with the message of this thread's latest failure.
pub(crate) fn checked(call: &'static str, status: c_int) -> Result<(), TorchError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: ext_error gives a NUL-terminated string of this thread, valid until this thread's next failure; it is
    // copied here.
    let message = unsafe { CStr::from_ptr(ext_error()) }.to_string_lossy().into_owned();
    Err(TorchError::Libtorch { call, message })
}

/// Leaves `message` where [`checked`], or the C++ side, finds it on this thread.
pub(crate) fn leave_error(message: &str) {
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    // SAFETY: a NUL-terminated string that outlives the call, which copies it.
    unsafe { ext_set_error(message.as_ptr()) };
}

/// Runs a C++ function that writes one new tensor's handle and takes that tensor.
pub(crate) fn one_tensor(
    call: &'static str,
    run: impl FnOnce(*mut *mut C_tensor) -> c_int,
) -> Result<Tensor, TorchError> {
    let mut out = std::ptr::null_mut();
    checked(call, run(&raw mut out))?;
    assert!(!out.is_null(), "{call} reported success without a tensor");
    // SAFETY: on success the C++ side has written a handle made with `new at::Tensor`, which nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// The handles of some tensors, borrowed for as long as the tensors are.
pub(crate) fn handles<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<*const C_tensor> {
    tensors.into_iter().map(Tensor::as_ptr).collect()
}

/// libtorch's number of a kind whose elements are plain bytes.
pub(crate) fn kind_number(kind: Kind) -> Result<c_int, TorchError> {
    Ok(match kind {
        Kind::Uint8 => 0,
        Kind::Int8 => 1,
        Kind::Int16 => 2,
        Kind::Int => 3,
        Kind::Int64 => 4,
        Kind::Half => 5,
        Kind::Float => 6,
        Kind::Double => 7,
        Kind::Bool => 11,
        Kind::BFloat16 => 15,
        Kind::Float8e5m2 => 23,
        Kind::Float8e4m3fn => 24,
        _ => return Err(TorchError::Kind(kind)),
    })
}

/// Gives the C++ side's number of a device: -1 for the CPU, else that of a CUDA device, which libtorch keeps in 8 bits.
pub(crate) fn device_number(device: Device) -> Result<c_int, TorchError> {
    match device {
        Device::Cpu => Ok(-1),
        Device::Cuda(index) => {
            i8::try_from(index).map(c_int::from).map_err(|_| TorchError::Device(device))
        }
        Device::Mps | Device::Vulkan => Err(TorchError::Device(device)),
    }
}
