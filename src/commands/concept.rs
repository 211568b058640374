//! `personalize concept`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use pipelines::distill::{DistillRequest, distill as fit};
use pipelines::inspect::{Inspection, Vocabulary, inspect as measure};
use pipelines::{BaseRecord, ConceptFile, Error, Origin};
use serde_json::json;

use crate::interrupt;
use crate::output;
use crate::progress::Progress;

/// Fits an ordinary token to a concept; prints the path of its file.
pub fn distill(request: &DistillRequest) -> Result<ExitCode> {
    let mut progress = Progress::new(false);
    interrupt::listen()?;
    let distilled = fit(request, &mut |step, steps| {
        progress.step(step, steps, "");
        interrupt::flow()
    });
    progress.finish();
    let Some(distilled) = distilled? else {
        progress.say("interrupted; nothing was written");
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    };
    let share = distilled.misfit * 100.0;
    progress
        .say(format!("the token misses {share:.1}% of what sets the concept apart from its class"));
    output::line(distilled.path.display());
    Ok(ExitCode::SUCCESS)
}

/// Shows what a concept file is; with a base also how it stands in its vocabulary.
pub fn inspect(file: &Path, base: Option<&Path>, as_json: bool) -> Result<ExitCode> {
    let concept = ConceptFile::read(file).map_err(Error::from)?;
    let measured = measure(&concept, base)?;
    let record = &concept.record;
    let origin = match &concept.origin {
        Origin::Native => "personalize".to_owned(),
        Origin::Foreign { key } => format!("another tool (key {key})"),
    };
    let family = BaseRecord::family(concept.width() as i64);
    if as_json {
        let report = json!({
            "file": file, "written_by": origin, "family": family, "vectors": concept.num_vectors(),
            "width": concept.width(), "measured": measured, "record": record,
        });
        output::line(format!("{report:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![
        ("concept", record.token.clone()),
        ("method", record.method.clone()),
        ("class", record.class.clone().unwrap_or_else(|| "-".into())),
        (
            "vectors",
            format!("{} of {}{}", concept.num_vectors(), concept.width(), variation(&measured)),
        ),
        ("for", family),
        ("numbers", format!("{}, all finite", measured.parameters)),
        ("norms", norms(&measured.norms)),
    ];
    if let Some(rank) = measured.effective_rank {
        lines.push(("rank", format!("{rank:.2} effective, of {} vectors", measured.norms.len())));
    }
    if let Some(vocabulary) = &measured.vocabulary {
        lines.extend(beside(vocabulary));
    }
    lines.push(("written by", origin));
    if !record.is_bare() {
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
            format!("{} ({}, {} px)", base.called(), base.prediction_type, base.resolution),
        ));
    }
    for (name, value) in lines {
        output::line(format!("{name:<11} {value}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn variation(measured: &Inspection) -> String {
    match measured.layers {
        None => String::new(),
        Some(layers) if measured.with_time => {
            format!(", another for each timestep and each of {layers} layers")
        }
        Some(layers) => format!(", another for each of {layers} layers"),
    }
}

/// A few lengths as they are, many as their range.
fn norms(norms: &[f64]) -> String {
    if norms.len() <= 16 {
        return norms.iter().map(|norm| format!("{norm:.4}")).collect::<Vec<_>>().join(" ");
    }
    let least = norms.iter().copied().fold(f64::INFINITY, f64::min);
    let most = norms.iter().copied().fold(0.0, f64::max);
    let mean = norms.iter().sum::<f64>() / norms.len() as f64;
    format!("{least:.4} to {most:.4}, mean {mean:.4}")
}

fn beside(vocabulary: &Vocabulary) -> Vec<(&'static str, String)> {
    let mut lines = vec![("words", format!("median norm {:.4}", vocabulary.median_norm))];
    if let Some(cosine) = vocabulary.class_cosine {
        lines.push(("class", format!("cosine {cosine:.3}")));
    }
    let near: Vec<String> =
        vocabulary.nearest.iter().map(|(word, cosine)| format!("{word} {cosine:.3}")).collect();
    lines.push(("nearest", near.join(", ")));
    lines
}
