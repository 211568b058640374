//! What can go wrong between Rust and libtorch.

use tch::{Device, Kind};

/// A call that libtorch or this crate refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TorchError {
    /// libtorch threw.
    #[error("libtorch refused {call}: {message}")]
    Libtorch {
        /// What was asked for.
        call: &'static str,
        /// libtorch's own words.
        message: String,
    },
    /// Bytes and shape do not belong together.
    #[error(
        "a tensor of shape {shape:?} and kind {kind:?} cannot be made of {found} bytes; give as many bytes as it has"
    )]
    ByteCount {
        /// The shape asked for.
        shape: Vec<i64>,
        /// The kind of the bytes.
        kind: Kind,
        /// How many bytes there were.
        found: usize,
    },
    /// A byte range that leaves its file.
    #[error(
        "{path} has {length} bytes, but bytes {start}..{end} were asked for; the file is cut short or its header is wrong"
    )]
    OutsideFile {
        /// The file.
        path: String,
        /// Its length in bytes.
        length: usize,
        /// First byte asked for.
        start: usize,
        /// One past the last byte asked for.
        end: usize,
    },
    /// A kind of element that plain bytes do not hold.
    #[error(
        "elements of kind {0:?} cannot be read from plain bytes; convert the file to a float, integer or bool kind"
    )]
    Kind(Kind),
    /// A device that this crate does not place tensors on.
    #[error("device {0:?} is not served; use the CPU or CUDA")]
    Device(Device),
}
