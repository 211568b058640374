//! Tensors out of plain little-endian bytes and back.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use tch::{Device, Kind, Tensor};

use crate::TorchError;
use crate::ffi;

/// Copies the elements of a tensor in row order, as plain bytes; the tensor may lie anywhere and have any strides.
///
/// Panics, as tch does, if the tensor is sparse or undefined, or of a kind that [`from_bytes`] does not read.
pub fn to_bytes(tensor: &Tensor) -> Vec<u8> {
    in_rows(tensor).unwrap_or_else(|e| panic!("{e}"))
}

fn in_rows(tensor: &Tensor) -> Result<Vec<u8>, TorchError> {
    crate::init();
    // SAFETY: the tensor is borrowed during the call.
    let rows = ffi::one_tensor("the bytes of a tensor", |out| unsafe {
        ffi::ext_tensor_in_rows(tensor.as_ptr(), out)
    })?;
    ffi::kind_number(rows.kind())?;
    let length = rows.numel() * rows.kind().elt_size_in_bytes();
    if length == 0 {
        return Ok(Vec::new()); // an empty tensor's data pointer is null
    }
    // SAFETY: the C++ side has checked that `length` bytes lie behind the data pointer; they live until the copy is made,
    // and nothing writes to them meanwhile.
    Ok(unsafe { std::slice::from_raw_parts(rows.data_ptr().cast::<u8>(), length) }.to_vec())
}

/// Makes a CPU tensor of `kind` and `shape`, copied from plain bytes at any alignment.
pub fn from_bytes(bytes: &[u8], kind: Kind, shape: &[i64]) -> Result<Tensor, TorchError> {
    let mut left = bytes;
    let mut copy = |to: &mut [MaybeUninit<u8>]| {
        let (next, rest) = left.split_at(to.len());
        // SAFETY: as many bytes are read as written, and a borrowed slice and libtorch's fresh memory are apart.
        unsafe { std::ptr::copy_nonoverlapping(next.as_ptr(), to.as_mut_ptr().cast(), next.len()) };
        left = rest;
        Ok(())
    };
    filled(&mut copy, bytes.len(), kind, shape, kind, Device::Cpu)
}

/// Where the bytes of a new tensor come from: a function that fills the whole of a place with the next of them.
type Source<'a> = dyn FnMut(&mut [MaybeUninit<u8>]) -> Result<(), TorchError> + 'a;

/// Makes a tensor of `target` kind on `device` of the `length` bytes of a source, which are of `kind`.
pub(crate) fn filled(
    source: &mut Source,
    length: usize,
    kind: Kind,
    shape: &[i64],
    target: Kind,
    device: Device,
) -> Result<Tensor, TorchError> {
    crate::init();
    let kind_number = ffi::kind_number(kind)?;
    let target_number = ffi::kind_number(target)?;
    let place = ffi::device_number(device)?;
    let expected = shape.iter().try_fold(kind.elt_size_in_bytes(), |bytes, &n| {
        usize::try_from(n).ok().and_then(|n| bytes.checked_mul(n))
    });
    if expected != Some(length) {
        return Err(TorchError::ByteCount { shape: shape.to_vec(), kind, found: length });
    }
    let mut filling = Filling { source, failure: None };
    // SAFETY: `filling` and `shape` outlive the call, which uses neither afterwards; `fill` is the function for a `Filling`.
    let tensor = ffi::one_tensor("a tensor from bytes", |out| unsafe {
        ffi::ext_tensor_filled(
            (&raw mut filling).cast(),
            fill,
            kind_number,
            shape.as_ptr(),
            shape.len(),
            target_number,
            place,
            out,
        )
    });
    filling.failure.map_or(tensor, Err)
}

/// A source and what became of it.
struct Filling<'a, 'b> {
    source: &'a mut Source<'b>,
    failure: Option<TorchError>,
}

/// Fills a piece of a tensor: 0, or 1 where the source failed.
extern "C" fn fill(filling: *mut c_void, to: *mut u8, count: usize) -> c_int {
    // SAFETY: the `Filling` that `filled` passed, which nobody else uses during its call.
    let filling = unsafe { &mut *filling.cast::<Filling<'_, '_>>() };
    // SAFETY: the C++ side passes `count` bytes of a tensor that only it knows so far.
    let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<MaybeUninit<u8>>(), count) };
    filling.failure = (filling.source)(to).err();
    filling.failure.is_some().into()
}
