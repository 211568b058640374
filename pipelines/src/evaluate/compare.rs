//! Evaluations side by side.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Metric, Results, Summary};
use crate::Error;
use crate::differences::differences;

/// One metric over several evaluations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricComparison {
    /// Which.
    pub metric: Metric,
    /// The mean of each evaluation.
    pub means: Vec<f64>,
    /// Of each but the first: its prompts' values less the first one's, in pairs.
    pub differences: Vec<Summary>,
}

/// Several evaluations of one protocol.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Their files.
    pub files: Vec<PathBuf>,
    /// The metrics that all have.
    pub metrics: Vec<MetricComparison>,
}

/// Compares two or more results; refuses those of different protocols, naming the fields.
pub fn compare(files: &[PathBuf]) -> Result<Comparison, Error> {
    let [first, others @ ..] = files else { return Err(too_few(0)) };
    if others.is_empty() {
        return Err(too_few(1));
    }
    let a = Results::read(first)?;
    let mut all = vec![a];
    for path in others {
        let b = Results::read(path)?;
        check_protocols(first, path, &all[0], &b)?;
        all.push(b);
    }
    let metrics = all[0].summary.keys().filter_map(|metric| side_by_side(*metric, &all));
    Ok(Comparison { metrics: metrics.collect(), files: files.to_vec() })
}

fn too_few(count: usize) -> Error {
    Error::Usage(format!(
        "a comparison needs two or more results, but {count} are given; pass --compare a/results.json b/results.json"
    ))
}

fn check_protocols(first: &Path, path: &Path, a: &Results, b: &Results) -> Result<(), Error> {
    let found = differences(&a.protocol, &b.protocol);
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} and {} cannot be compared, since their protocols differ in {}; evaluate both in the same way",
        first.display(),
        path.display(),
        found.join(", ")
    )))
}

/// Nothing where a prompt lacks the metric.
fn side_by_side(metric: Metric, all: &[Results]) -> Option<MetricComparison> {
    let values = |results: &Results| -> Option<Vec<f64>> {
        results.prompts.iter().map(|prompt| prompt.scores.get(&metric).copied()).collect()
    };
    let values = all.iter().map(values).collect::<Option<Vec<_>>>()?;
    let difference = |other: &Vec<f64>| {
        let pairs: Vec<f64> = other.iter().zip(&values[0]).map(|(b, a)| b - a).collect();
        Summary::of(&pairs)
    };
    Some(MetricComparison {
        metric,
        means: all.iter().map(|r| Some(r.summary.get(&metric)?.mean)).collect::<Option<_>>()?,
        differences: values[1..].iter().map(difference).collect::<Option<_>>()?,
    })
}
