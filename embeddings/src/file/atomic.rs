//! Files that are whole or not there, and their hashes as text.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// Writes to a sibling, flushes it to the disk and renames it, so that `path` is never half a file.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = Draft::beside(path)?;
    draft.write_all(bytes)?;
    draft.replace(path)
}

/// A file that gets its name when it is whole. Until then it is removed with this value, or, where the process is killed,
/// by [`remove_strays`] of a later one.
#[derive(Debug)]
pub struct Draft(NamedTempFile);

impl Draft {
    /// Makes an empty file in the folder of `path`.
    pub fn beside(path: &Path) -> io::Result<Self> {
        loop {
            let file = Builder::new()
                .prefix(&format!(".{}-", std::process::id()))
                .suffix(".tmp")
                .permissions(Permissions::from_mode(0o666)) // less the umask, as any other new file
                .tempfile_in(folder_of(path))?;
            // The lock tells others that it is no stray. Where there are no locks, strays are not removed either.
            let _ = file.as_file().lock();
            if file.path().exists() {
                return Ok(Self(file));
            } // else it was taken for one before the lock
        }
    }

    /// Flushes it to the disk under the name `path`, in place of what has that name.
    pub fn replace(self, path: &Path) -> io::Result<()> {
        self.0.as_file().sync_all()?;
        self.0.persist(path).map_err(|failed| failed.error)?;
        sync_folder_of(path)
    }

    /// Flushes it to the disk under the name `path`; where there is something of that name it stays, and the draft
    /// comes back.
    pub fn take_free(self, path: &Path) -> io::Result<Option<Self>> {
        self.0.as_file().sync_all()?;
        match self.0.persist_noclobber(path) {
            Ok(_) => sync_folder_of(path).map(|()| None),
            Err(failed) if path.symlink_metadata().is_ok() => Ok(Some(Self(failed.file))),
            // Some network drives know neither hard links nor a rename that spares what is there.
            Err(failed) => Self(failed.file).replace(path).map(|()| None),
        }
    }
}

impl io::Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Removes what processes that were killed left of files that they were writing in `folder`. A file that is still being
/// written is locked and stays, and so does every file of another name.
pub fn remove_strays(folder: &Path) {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_draft(&entry.file_name().to_string_lossy())) {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_file())
            && File::open(&path).is_ok_and(|file| file.try_lock().is_ok())
        {
            let _ = fs::remove_file(&path); // one that cannot be removed is in nobody's way
        }
    }
}

/// Whether a file's name is that of a draft: `.PROCESS-NAME.tmp`, or one of those that earlier versions wrote.
fn is_draft(name: &str) -> bool {
    let Some(inner) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")) else {
        return false;
    };
    let rest = inner.trim_start_matches(|c: char| c.is_ascii_digit());
    let known = |rest: &str| rest.chars().all(|c| c.is_ascii_alphanumeric());
    rest.len() < inner.len()
        && (rest.is_empty() || rest == ".pose" || rest.strip_prefix('-').is_some_and(known))
}

/// Flushes the names in the folder of `path` to the disk: a rename outlives a power cut only then.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    // A folder may be written to and not read.
    let Ok(folder) = File::open(folder_of(path)) else { return Ok(()) };
    match folder.sync_all() {
        // Not every file system can.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_draft_is_gone_with_its_value_and_a_name_that_is_taken_is_spared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        drop(Draft::beside(&path).unwrap());
        assert!(names(folder.path()).is_empty());
        let draft = |text: &str| {
            let mut draft = Draft::beside(&path).unwrap();
            draft.write_all(text.as_bytes()).unwrap();
            draft
        };
        assert!(draft("first").take_free(&path).unwrap().is_none());
        let back = draft("second").take_free(&path).unwrap().expect("the name is taken");
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert!(back.take_free(&folder.path().join("b")).unwrap().is_none());
        draft("third").replace(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "third");
        assert_eq!(names(folder.path()), ["a", "b"]);
    }

    #[test]
    fn a_new_file_has_the_rights_of_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_atomically(&ours, b"x").unwrap();
        fs::write(&plain, b"x").unwrap();
        let rights = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(rights(&ours), rights(&plain));
    }

    #[test]
    fn strays_of_killed_processes_go_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for stray in [".7-0.tmp", ".7-aB3xYz.tmp", ".7.tmp", ".7.pose.tmp"] {
            fs::write(at(stray), "half").unwrap();
        }
        let others = [".mine.tmp", ".tmp", ".x-1.tmp", "7-0.tmp", "notes.tmp"];
        for other in others {
            fs::write(at(other), "a user's").unwrap();
        }
        fs::create_dir(at(".8-0.tmp")).unwrap();
        let draft = Draft::beside(&at("a")).unwrap();
        remove_strays(folder.path());
        assert!(draft.0.path().exists(), "it is being written");
        drop(draft);
        let mut left = [&others[..], &[".8-0.tmp"]].concat();
        left.sort_unstable();
        assert_eq!(names(folder.path()), left);
    }
}
