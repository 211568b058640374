//! A run that begins with a concept that was learnt before.

use std::collections::BTreeMap;
use std::path::Path;

use embeddings::Concept;
use embeddings::file::ConceptFile;
use serde_json::Value;
use tch::Tensor;

use crate::config::TrainConfig;
use crate::{Base, Error};

/// Reads the concept's file, of any program, if it is for this base and of what the configuration trains.
pub(super) fn read(config: &TrainConfig, base: &Base) -> Result<ConceptFile, Error> {
    let path = &config.warm_start;
    let file = ConceptFile::read(path)?;
    base.check_concept(&file)?;
    // They differ in the loss, not in what is learnt.
    let learnt = |method: &str| if method == "core" { "ti" } else { method }.to_owned();
    let method = &file.record.method;
    if learnt(method) != learnt(&config.method) {
        let what = format!("it is of the method {method}, but {} is to be trained", config.method);
        return refuse(path, &what, &format!("pass --method {method}"));
    }
    let (found, wanted) = (file.num_vectors(), config.vectors);
    if ["ti", "core", "xti"].contains(&method.as_str()) && found != wanted as usize {
        let what = format!("it has {found} vectors, but {wanted} are to be trained");
        return refuse(path, &what, &format!("pass --vectors {found}"));
    }
    Ok(file)
}

fn refuse<T>(path: &Path, what: &str, way: &str) -> Result<T, Error> {
    Err(Error::Incompatible(format!(
        "{} cannot be gone on with: {what}; {way}, or train without --warm-start",
        path.display()
    )))
}

/// Gives a concept all values of a file, what is not trained among them; it must have the same tensors and settings.
pub(super) fn copy_into(
    concept: &dyn Concept,
    path: &Path,
    file: &ConceptFile,
) -> Result<(), Error> {
    let refuse = |what: &str| refuse(path, what, "give the settings that it was trained with");
    // As the concept names and shapes them: another program's file may do it otherwise.
    let theirs = file.concept();
    let mut left: BTreeMap<String, Tensor> = theirs.tensors().into_iter().collect();
    let mut pairs = Vec::new();
    for (name, own) in concept.tensors() {
        let Some(found) = left.remove(&name) else {
            return refuse(&format!("it has no {name}, which is to be trained"));
        };
        if found.size() != own.size() {
            let (found, own) = (found.size(), own.size());
            return refuse(&format!("its {name} is {found:?}, {own:?} is to be trained"));
        }
        pairs.push((own, found));
    }
    if let Some(name) = left.keys().next() {
        return refuse(&format!("it has a {name}, which is not to be trained"));
    }
    if let Some(key) = differing(&concept.settings(), &theirs.settings()) {
        return refuse(&format!("its {key} is another"));
    }
    for (mut own, found) in pairs {
        tch::no_grad(|| own.copy_(&found));
    }
    Ok(())
}

/// The first key whose values differ by more than what another precision of the base makes of them.
fn differing(ours: &Value, theirs: &Value) -> Option<String> {
    const ROUNDING: f64 = 0.01;
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => ours.iter().find_map(|(key, value)| {
            let inner = differing(value, theirs.get(key).unwrap_or(&Value::Null))?;
            Some(if inner.is_empty() { key.clone() } else { inner })
        }),
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64()?, b.as_f64()?);
            ((a - b).abs() > ROUNDING * a.abs().max(b.abs())).then(String::new)
        }
        _ => (ours != theirs).then(String::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_differ_by_more_than_rounding() {
        let known =
            json!({ "norm_mode": "joint", "target_norm": 0.4, "mapper": { "hidden": 128 } });
        assert_eq!(differing(&known, &known), None);
        let rounded =
            json!({ "norm_mode": "joint", "target_norm": 0.401, "mapper": { "hidden": 128 } });
        assert_eq!(differing(&known, &rounded), None);
        let wider = json!({ "norm_mode": "joint", "target_norm": 0.4, "mapper": { "hidden": 64 } });
        assert_eq!(differing(&known, &wider).as_deref(), Some("hidden"));
        let other =
            json!({ "norm_mode": "token", "target_norm": 0.4, "mapper": { "hidden": 128 } });
        assert_eq!(differing(&known, &other).as_deref(), Some("norm_mode"));
    }
}
