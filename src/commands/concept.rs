//! `personalize concept`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use pipelines::{BaseRecord, ConceptFile, Error, Origin};
use serde_json::json;

use crate::output;

/// Shows what a concept file is.
pub fn inspect(file: &Path, as_json: bool) -> Result<ExitCode> {
    let concept = ConceptFile::read(file).map_err(Error::from)?;
    let (record, norms) = (&concept.record, concept.norms());
    let origin = match &concept.origin {
        Origin::Native => "personalize".to_owned(),
        Origin::Foreign { key } => format!("another tool (key {key})"),
    };
    let family = BaseRecord::family(concept.width() as i64);
    if as_json {
        let report = json!({
            "file": file, "written_by": origin, "family": family, "vectors": concept.num_vectors(),
            "width": concept.width(), "norms": norms, "record": record,
        });
        output::line(format!("{report:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    let text = |norm: &f32| format!("{norm:.4}");
    let mut lines = vec![
        ("concept", record.token.clone()),
        ("method", record.method.clone()),
        ("class", record.class.clone().unwrap_or_else(|| "-".into())),
        ("vectors", format!("{} of {}", concept.num_vectors(), concept.width())),
        ("for", family),
        ("norms", norms.iter().map(text).collect::<Vec<_>>().join(" ")),
        ("written by", origin),
    ];
    if concept.origin == Origin::Native {
        lines.extend([
            (
                "trained",
                format!("{} steps at {}, seed {}", record.steps, record.learning_rate, record.seed),
            ),
            ("photos", record.photos.clone()),
            ("version", record.tool_version.clone()),
        ]);
    }
    if let Some(base) = &record.base {
        lines.push((
            "base",
            format!("{} ({}, {} px)", base.name, base.prediction_type, base.resolution),
        ));
    }
    for (name, value) in lines {
        // The file is somebody else's: no escape sequence of it reaches the terminal.
        output::line(format!("{name:<11} {}", value.replace(char::is_control, "\u{fffd}")));
    }
    Ok(ExitCode::SUCCESS)
}
