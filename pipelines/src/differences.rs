//! What sets two records apart, by their fields' names.

use serde::Serialize;
use serde_json::{Map, Value};

/// The fields that differ, each with both values: `sampling.steps (30, 50)`.
pub(crate) fn differences<T: Serialize>(a: &T, b: &T) -> Vec<String> {
    let value = |record: &T| serde_json::to_value(record).unwrap_or_default();
    let mut found = Vec::new();
    walk("", &value(a), &value(b), &mut found);
    found
}

fn walk(name: &str, a: &Value, b: &Value, found: &mut Vec<String>) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                walk(&below(key), &of(a), &of(b), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                walk(&below(&i.to_string()), a, b, found);
            }
        }
        _ if a == b => {}
        _ => found.push(format!("{name} ({}, {})", short(a), short(b))),
    }
}

/// A value in a few characters.
fn short(value: &Value) -> String {
    const MOST: usize = 24;
    match value {
        Value::Null => "none".to_owned(),
        Value::Array(all) => format!("{} entries", all.len()),
        Value::Object(_) => "given".to_owned(),
        value => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let start: String = text.chars().take(MOST).collect();
            if start == text { text } else { start + "…" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_named_with_both_values() {
        let a =
            json!({"steps": 30, "base": {"name": "x", "hash": "0"}, "seeds": [1, 2], "set": [1]});
        let b =
            json!({"steps": 50, "base": {"name": "x", "hash": null}, "seeds": [1, 3], "new": ""});
        assert_eq!(
            differences(&a, &b),
            [
                "steps (30, 50)",
                "base.hash (0, none)",
                "seeds.1 (2, 3)",
                "set (1 entries, none)",
                "new (none, )"
            ]
        );
        assert!(differences(&a, &a).is_empty());
    }
}
