//! What can go wrong between Rust and libtorch.

use tch::{Device, Kind};

/// A call that libtorch or this crate refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TorchError {
    /// libtorch threw.
    #[error("{}{call}: {message}", Self::REFUSED)]
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
        "bytes {start}..{end} were asked for, but the file has {length}; it is cut short or its header is wrong"
    )]
    OutsideFile {
        /// Its length in bytes.
        length: usize,
        /// First byte asked for.
        start: usize,
        /// One past the last byte asked for.
        end: usize,
    },
    /// A file that the system does not read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// A kind of element that plain bytes do not hold.
    #[error(
        "elements of kind {0:?} cannot be read from plain bytes; convert them to a float, integer or bool kind"
    )]
    Kind(Kind),
    /// A device that this crate does not place tensors on.
    #[error("device {0:?} is not served; use the CPU or CUDA")]
    Device(Device),
}

impl TorchError {
    /// The words that a panic of this crate begins with, by which it is told from others.
    pub const REFUSED: &str = "libtorch refused ";
}
