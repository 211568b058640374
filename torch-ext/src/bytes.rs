//! Tensors out of plain little-endian bytes and back.

use tch::{Device, Kind, Tensor};

use crate::TorchError;
use crate::ffi;

/// The elements of a tensor in row order, as plain bytes; the tensor may lie anywhere and have any strides.
pub fn to_bytes(tensor: &Tensor) -> Vec<u8> {
    crate::init();
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if length == 0 {
        return Vec::new(); // an empty tensor's data pointer is null
    }
    // SAFETY: a contiguous CPU tensor with elements owns `length` bytes from its data pointer; it lives until the copy
    // is made, and nothing writes to it meanwhile.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }.to_vec()
}

/// A CPU tensor of `kind` and `shape`, copied from plain bytes at any alignment.
pub fn from_bytes(bytes: &[u8], kind: Kind, shape: &[i64]) -> Result<Tensor, TorchError> {
    converted(bytes, kind, shape, kind, Device::Cpu)
}

/// A tensor of `target` kind on `device`, made in one copy from bytes of `source` kind.
pub(crate) fn converted(
    bytes: &[u8],
    source: Kind,
    shape: &[i64],
    target: Kind,
    device: Device,
) -> Result<Tensor, TorchError> {
    crate::init();
    let source_number = ffi::kind_number(source)?;
    let target_number = ffi::kind_number(target)?;
    let place = ffi::device_number(device)?;
    let expected = shape.iter().try_fold(source.elt_size_in_bytes(), |bytes, &n| {
        usize::try_from(n).ok().and_then(|n| bytes.checked_mul(n))
    });
    if expected != Some(bytes.len()) {
        return Err(TorchError::ByteCount {
            shape: shape.to_vec(),
            kind: source,
            found: bytes.len(),
        });
    }
    // SAFETY: `bytes` holds exactly the elements of `shape` (checked above) and outlives the call, which only reads it.
    ffi::one_tensor("a tensor from bytes", |out| unsafe {
        ffi::ext_tensor_from_bytes(
            bytes.as_ptr(),
            source_number,
            shape.as_ptr(),
            shape.len(),
            target_number,
            place,
            out,
        )
    })
}
