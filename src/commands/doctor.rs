//! `personalize doctor`: what this machine can do.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use pipelines::{Base, BaseRecord};

use crate::output;
use crate::progress::Progress;

/// Prints versions, devices and, where a base is named, whether it can be used.
pub fn run(base: Option<&Path>) -> Result<ExitCode> {
    let mut lines = vec![("personalize", env!("CARGO_PKG_VERSION").to_owned())];
    lines.extend(pipelines::machine());
    if let Some(path) = base {
        let mut base = Base::open(path, None)?;
        base.check_weights()?;
        for text in base.warnings() {
            Progress::new(false).warn(text);
        }
        let record = &base.record;
        let family = BaseRecord::family(record.width);
        lines.push((
            "base",
            format!(
                "{}: {family}, {}, {} px",
                record.name, record.prediction_type, record.resolution
            ),
        ));
    }
    for (name, value) in lines {
        output::line(format!("{name:<12} {value}"));
    }
    Ok(ExitCode::SUCCESS)
}
