//! `personalize report`, and the report at the end of other commands.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use pipelines::report::report;

use crate::interrupt;
use crate::output;
use crate::progress::Progress;

/// Writes the report of a folder; prints its path.
pub fn run(folder: &Path) -> Result<ExitCode> {
    interrupt::listen()?;
    output::line(report(folder, &mut interrupt::flow)?.display());
    Ok(ExitCode::SUCCESS)
}

/// The report of what was just done in `folder`. What was done is done: where the report fails, that is a warning.
pub fn of(folder: &Path, progress: &Progress) -> Option<PathBuf> {
    progress.say("writing the report");
    let written = report(folder, &mut interrupt::flow);
    written.inspect_err(|error| progress.warn(format!("there is no report: {error}"))).ok()
}
