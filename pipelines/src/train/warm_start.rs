//! A run that begins with a concept that was learnt before.

use std::collections::BTreeMap;
use std::path::Path;

use embeddings::Concept;
use embeddings::file::ConceptFile;
use serde_json::Value;
use tch::Tensor;

use crate::{Base, Error};

/// The concept's file, if it is for this base.
pub(super) fn read(path: &Path, base: &Base) -> Result<ConceptFile, Error> {
    let file = ConceptFile::read(path)?;
    base.check_concept(&file)?;
    Ok(file)
}

/// Gives a concept all values of a file, what is not trained among them; it must have the same tensors and settings.
pub(super) fn copy_into(
    concept: &dyn Concept,
    path: &Path,
    file: &ConceptFile,
) -> Result<(), Error> {
    let refuse = |what: String| {
        Err(Error::Incompatible(format!(
            "{} cannot be gone on with: {what}; give the settings that it was trained with, or train without --warm-start",
            path.display()
        )))
    };
    let method = &file.record.method;
    let theirs: BTreeMap<&str, &Tensor> = file.tensors().collect();
    let mut pairs = Vec::new();
    for (name, own) in concept.tensors() {
        let Some(found) = theirs.get(&*name) else {
            return refuse(format!("it is of the method {method} and has no {name}"));
        };
        if found.size() != own.size() {
            let (found, own) = (found.size(), own.size());
            return refuse(format!("its {name} is {found:?}, {own:?} is to be trained"));
        }
        pairs.push((own, *found));
    }
    if theirs.len() != pairs.len() {
        return refuse(format!("it is of the method {method} and holds more"));
    }
    if let Some(key) = differing(&concept.settings(), &file.concept().settings()) {
        return refuse(format!("its {key} is another"));
    }
    for (mut own, found) in pairs {
        tch::no_grad(|| own.copy_(found));
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
