//! The folder that a command writes to.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use embeddings::file::remove_strays;

use crate::Error;

/// The file that is locked in a folder in which one command may work at a time.
pub(crate) const LOCK: &str = ".personalize.lock";

/// Makes `folder` and tries that a file can be written there, so that this fails before the work and not after; removes
/// what killed processes left half written.
pub(crate) fn prepare_folder(folder: &Path) -> Result<(), Error> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if folder.is_file() {
        return Err(Error::Usage(format!(
            "{} is a file, but the output needs a folder; give another --output",
            folder.display()
        )));
    }
    fs::create_dir_all(folder).map_err(Error::io(folder, "created"))?;
    remove_strays(folder);
    let probe = folder.join(format!(".{}.tmp", std::process::id()));
    fs::write(&probe, b"").map_err(Error::io(folder, "written"))?;
    fs::remove_file(&probe).map_err(Error::io(&probe, "removed"))
}

/// A folder in which no other process works while this lives. The system takes the lock back from a process that ends,
/// however it ends.
#[derive(Debug)]
pub struct FolderLock {
    path: PathBuf,
    _file: File,
}

impl FolderLock {
    /// Makes `folder` where it is not there yet, and locks it; refused while another process has it.
    pub fn take(folder: &Path) -> Result<Self, Error> {
        prepare_folder(folder)?;
        let path = folder.join(LOCK);
        let written = || Error::io(&path, "written");
        // A link would have the file behind it overwritten.
        if fs::symlink_metadata(&path).is_ok_and(|there| !there.is_file()) {
            return Err(Error::Usage(format!(
                "{} is not the lock of a run, for which the name is needed; remove it, or give another --output",
                path.display()
            )));
        }
        loop {
            let open =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = open.map_err(written())?;
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Err(Error::Usage(format!(
                    "{} is in use by another run, {}; wait until it ends, or give another --output",
                    folder.display(),
                    holder(&mut file)
                )));
            } // a file system that has no locks must do without
            if is_at(&file, &path).map_err(written())? {
                // Without a note, as on a full disk, it is a lock all the same.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                return Ok(Self { path, _file: file });
            } // else its holder has removed it since
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // without a holder it is no lock any more
    }
}

/// Names the process that holds a lock.
fn holder(file: &mut File) -> String {
    let mut process = String::new();
    match file.read_to_string(&mut process) {
        Ok(_) if process.parse::<u32>().is_ok() => format!("process {process}"),
        _ => "which does not say its process".to_owned(),
    }
}

/// Says whether an open file still has this name.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (ours, there) = (file.metadata()?, fs::metadata(path));
    Ok(there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_while_its_lock_lives_and_nothing_is_left_there() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("run");
        let lock = FolderLock::take(&inner).unwrap();
        let refused = FolderLock::take(&inner).unwrap_err();
        let process = format!("process {}", std::process::id());
        assert!(refused.to_string().contains(&process), "{refused}");
        assert_eq!(refused.exit_code(), 2);
        drop(lock);
        assert_eq!(inner.read_dir().unwrap().count(), 0);
        // The file behind a link is somebody's.
        let precious = folder.path().join("precious.txt");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, inner.join(LOCK)).unwrap();
        assert!(FolderLock::take(&inner).unwrap_err().to_string().contains("remove it"));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        fs::remove_file(inner.join(LOCK)).unwrap();
        // A process that was killed leaves its file, but no lock.
        fs::write(inner.join(LOCK), "1").unwrap();
        drop(FolderLock::take(&inner).unwrap());
        assert_eq!(inner.read_dir().unwrap().count(), 0);
    }
}
