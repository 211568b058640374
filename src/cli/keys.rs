//! Flags as keys of a configuration.

use std::path::PathBuf;

use anyhow::Result;
use pipelines::config::{self, Table, Value};

pub(super) fn path(path: Option<&PathBuf>) -> Option<Value> {
    path.map(|path| Value::from(path.to_string_lossy().into_owned()))
}

pub(super) fn text(text: Option<&String>) -> Option<Value> {
    text.map(|text| Value::from(text.as_str()))
}

pub(super) fn seed(seed: Option<u64>) -> Option<Value> {
    // A configuration takes a seed as text, too, since TOML's numbers end at 2^63 - 1.
    seed.map(|seed| Value::from(seed.to_string()))
}

pub(super) fn small(count: Option<u32>) -> Option<Value> {
    count.map(Value::from)
}

/// The keys that were given, those of `--set` last.
pub(super) fn table<'a>(
    keys: impl IntoIterator<Item = (&'a str, Option<Value>)>,
    settings: &[String],
) -> Result<Table> {
    let mut table: Table =
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    for setting in settings {
        config::set(&mut table, setting)?;
    }
    Ok(table)
}
