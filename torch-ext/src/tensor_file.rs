//! Reading tensors out of a large file without holding the file in memory.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::{TorchError, bytes, file};

/// A file that tensors are read from, one at a time.
///
/// It is not mapped into memory: another process may shorten or rewrite a file at any time, which would end this one or
/// change bytes behind a reference. Here it is an error, or other numbers.
#[derive(Debug)]
pub struct TensorFile {
    file: File,
    length: usize,
}

impl TensorFile {
    /// Opens a file; a pipe or device is refused.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = file::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        Ok(Self { file, length })
    }

    /// The bytes that the file had when it was opened.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Reads some bytes, such as a header.
    pub fn bytes(&self, range: Range<usize>) -> Result<Vec<u8>, TorchError> {
        let length = self.inside(&range)?;
        let mut bytes = Vec::with_capacity(length);
        self.fill(range.start, &mut bytes.spare_capacity_mut()[..length])?;
        // SAFETY: `fill` has written so many bytes, or failed.
        unsafe { bytes.set_len(length) };
        Ok(bytes)
    }

    /// Reads the tensor of `source_kind` and `shape` that lies at `range`, as `target_kind` on `device`.
    ///
    /// One copy: from the system to the tensor's own memory, by way of a small piece where the kind or the device
    /// differs. The range may start at any byte.
    pub fn tensor(
        &self,
        range: Range<usize>,
        source_kind: Kind,
        shape: &[i64],
        target_kind: Kind,
        device: Device,
    ) -> Result<Tensor, TorchError> {
        let length = self.inside(&range)?;
        let mut at = range.start;
        let mut next = |to: &mut [MaybeUninit<u8>]| {
            self.fill(at, to)?;
            at += to.len();
            Ok(())
        };
        bytes::filled(&mut next, length, source_kind, shape, target_kind, device)
    }

    /// Gives the length of a range that lies in the file.
    fn inside(&self, range: &Range<usize>) -> Result<usize, TorchError> {
        if range.start <= range.end && range.end <= self.length {
            return Ok(range.len());
        }
        Err(outside(range, self.length))
    }

    /// Fills the whole of `to` with the bytes from `start` on.
    fn fill(&self, start: usize, to: &mut [MaybeUninit<u8>]) -> Result<(), TorchError> {
        let mut done = 0;
        while done < to.len() {
            let left = &mut to[done..];
            let at = libc::off_t::try_from(start + done).unwrap_or(libc::off_t::MAX);
            // SAFETY: the system writes at most `left.len()` bytes to `left`, which is borrowed mutably.
            let count = unsafe {
                libc::pread(self.file.as_raw_fd(), left.as_mut_ptr().cast(), left.len(), at)
            };
            match usize::try_from(count) {
                Ok(0) => return Err(outside(&(start..start + to.len()), start + done)),
                Ok(count) => done += count,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(TorchError::Unreadable(error.to_string()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn outside(range: &Range<usize>, length: usize) -> TorchError {
    TorchError::OutsideFile { length, start: range.start, end: range.end }
}
