//! `log.jsonl`: a line of JSON for each step, and one for each time that the concept was measured.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use embeddings::file::write_atomically;
use serde::Serialize;

use super::Measurement;
use crate::Error;
use crate::output::is_at;

/// The log of a run.
pub(crate) struct StepLog {
    path: PathBuf,
    file: File,
    /// Its length up to the last whole line.
    length: u64,
    /// Lines that could not be written yet.
    waiting: String,
}

impl StepLog {
    /// Opens the log and tells what was measured so far. Lines of steps beyond `step`, which a resumed run makes again,
    /// are dropped; so are measurements of that step, unless what followed it is `recorded`.
    pub(crate) fn open(
        folder: &Path,
        step: u64,
        recorded: bool,
    ) -> Result<(Self, Vec<Measurement>), Error> {
        let path = folder.join("log.jsonl");
        let (mut kept, mut measured) = (Vec::new(), Vec::new());
        if step > 0 && path.is_file() {
            let bytes = torch_ext::file::read(&path).map_err(Error::io(&path, "read"))?;
            for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                // A line of a step is a measurement of nothing; the last line may have been cut off.
                let Ok(record) = serde_json::from_slice::<Measurement>(line) else { continue };
                let again = !recorded && !record.is_empty() && record.step == step;
                if record.step <= step && !again && line.ends_with(b"\n") {
                    kept.extend_from_slice(line);
                    measured.push(record);
                }
            }
        }
        write_atomically(&path, &kept).map_err(Error::io(&path, "written"))?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(Error::io(&path, "written"))?;
        Ok((Self { path, file, length: kept.len() as u64, waiting: String::new() }, measured))
    }

    /// Adds a line. One that cannot be written waits for the next try.
    pub(crate) fn write(&mut self, record: &impl Serialize) -> Result<(), Error> {
        self.waiting += &serde_json::to_string(record).expect("numbers are JSON");
        self.waiting.push('\n');
        self.flush()
    }

    /// Brings every line to the disk. Fails where somebody has taken the log away, since no line reaches it then.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.flush()?;
        let written = || Error::io(&self.path, "written");
        if !is_at(&self.file, &self.path).map_err(written())? {
            return Err(written()(ErrorKind::NotFound.into()));
        }
        self.file.sync_data().map_err(written())
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.file.write_all(self.waiting.as_bytes()).map_err(|error| {
            let _ = self.file.set_len(self.length); // no half line stays
            Error::io(&self.path, "written")(error)
        })?;
        self.length += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn text(folder: &Path) -> String {
        fs::read_to_string(folder.join("log.jsonl")).unwrap()
    }

    #[test]
    fn a_line_that_could_not_be_written_waits_for_the_next_try() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = StepLog::open(folder.path(), 0, true).unwrap();
        log.write(&Measurement::at(1)).unwrap();
        let reads_only = File::open(folder.path().join("log.jsonl")).unwrap();
        let file = std::mem::replace(&mut log.file, reads_only);
        let error = log.write(&Measurement::at(2)).unwrap_err();
        assert!(error.to_string().contains("log.jsonl: cannot be written"), "{error}");
        log.sync().expect_err("a state must not be saved before its line");
        assert_eq!(text(folder.path()), "{\"step\":1}\n");
        log.file = file;
        log.sync().unwrap();
        log.write(&Measurement::at(3)).unwrap();
        assert_eq!(text(folder.path()), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
    }

    #[test]
    fn what_is_made_again_is_dropped_and_so_is_a_line_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let whole = [
            r#"{"step":2,"loss":1.0}"#,
            r#"{"step":2,"likeness":0.5}"#,
            r#"{"step":3,"loss":1.0}"#,
            r#"{"step":3,"likeness":0.6}"#,
            r#"{"step":4,"loss":1.0}"#,
        ];
        for (step, recorded, kept) in [(4, true, 5), (3, true, 4), (3, false, 3), (2, true, 2)] {
            let cut = whole.join("\n") + "\n{\"step\":4,\"like";
            fs::write(folder.path().join("log.jsonl"), cut).unwrap();
            let (_, measured) = StepLog::open(folder.path(), step, recorded).unwrap();
            assert_eq!(text(folder.path()), whole[..kept].join("\n") + "\n");
            assert_eq!(measured.len(), kept);
        }
    }
}
