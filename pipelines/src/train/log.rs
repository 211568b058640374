//! `log.jsonl`: a line of JSON for each step, and one for each time that the concept was measured.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use embeddings::file::write_atomically;
use serde::Serialize;

use super::Measurement;
use crate::Error;

/// The log of a run.
pub(crate) struct StepLog {
    path: PathBuf,
    file: File,
}

impl StepLog {
    /// Opens the log and tells what was measured so far; lines of steps beyond `step`, which a resumed run makes again,
    /// are dropped.
    pub(crate) fn open(folder: &Path, step: u64) -> Result<(Self, Vec<Measurement>), Error> {
        let path = folder.join("log.jsonl");
        let (mut kept, mut measured) = (String::new(), Vec::new());
        if step > 0 && path.is_file() {
            let file = torch_ext::file::open(&path).map_err(Error::io(&path, "read"))?;
            for line in BufReader::new(file).lines() {
                let line = line.map_err(Error::io(&path, "read"))?;
                // A line of a step is a measurement of nothing.
                let Ok(record) = serde_json::from_str::<Measurement>(&line) else { continue };
                if record.step <= step {
                    kept.push_str(&line);
                    kept.push('\n');
                    measured.push(record);
                }
            }
        }
        write_atomically(&path, kept.as_bytes()).map_err(Error::io(&path, "written"))?;
        let file = OpenOptions::new().append(true).open(&path);
        Ok((Self { file: file.map_err(Error::io(&path, "written"))?, path }, measured))
    }

    /// Adds a line.
    pub(crate) fn write(&mut self, record: &impl Serialize) -> Result<(), Error> {
        let line = serde_json::to_string(record).expect("numbers are JSON");
        writeln!(self.file, "{line}").map_err(Error::io(&self.path, "written"))
    }
}
