//! Reading tensors out of a large file without holding the file in memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};
use tch::{Device, Kind, Tensor};

use crate::{TorchError, bytes};

/// A file mapped into memory, read-only and private to this process.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
    path: PathBuf,
}

impl MappedFile {
    /// Maps a file. Its pages are read when they are looked at. The file must not be shortened or rewritten while it is
    /// open here; files of this project are replaced by renaming, which leaves an open map as it was.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = File::open(&path)?;
        // SAFETY: read-only and private. As for every map, shortening the file meanwhile ends the process; the docs
        // above ask for files that are replaced, not rewritten.
        let map = unsafe { MmapOptions::new().map_copy_read_only(&file) }?;
        Ok(Self { map, path })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The tensor of `source_kind` and `shape` that lies at `range`, as `target_kind` on `device`.
    ///
    /// One copy: the result is libtorch's own memory and outlives the map; the file's pages are let go of afterwards, so
    /// that a file being read does not stay in memory beside the tensors made of it. The range may start at any byte.
    pub fn tensor(
        &self,
        range: Range<usize>,
        source_kind: Kind,
        shape: &[i64],
        target_kind: Kind,
        device: Device,
    ) -> Result<Tensor, TorchError> {
        let Some(bytes) = self.map.get(range.clone()) else {
            return Err(TorchError::OutsideFile {
                path: self.path.display().to_string(),
                length: self.map.len(),
                start: range.start,
                end: range.end,
            });
        };
        let tensor = bytes::converted(bytes, source_kind, shape, target_kind, device)?;
        // Advice, so a failure costs only memory.
        // SAFETY: dropped pages of a private map that was never written to are read from the file again when needed.
        let _ = unsafe {
            self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len())
        };
        Ok(tensor)
    }
}
