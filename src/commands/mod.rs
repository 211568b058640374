//! One module a command.

pub mod concept;
pub mod doctor;
pub mod evaluate;
pub mod generate;
pub mod pose;
pub mod pose_train;
pub mod report;
pub mod train;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;
use pipelines::train::Start;

/// How a run stands to what its folder holds.
fn start(resume: bool, force: bool) -> Start {
    match (resume, force) {
        (true, _) => Start::Resume,
        (_, true) => Start::Overwrite,
        _ => Start::New,
    }
}

/// Writes a shell's completion script to stdout.
#[expect(clippy::unnecessary_wraps, reason = "every command gives a result")]
pub fn completions(shell: Shell) -> Result<ExitCode> {
    let mut command = crate::cli::Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "personalize", &mut script);
    crate::output::line(String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Writes a base with random weights.
pub fn random_base(like: &Path, output: &Path, precision: &str) -> Result<ExitCode> {
    pipelines::random_base(like, output, precision.parse()?)?;
    crate::output::line(output.display());
    Ok(ExitCode::SUCCESS)
}
