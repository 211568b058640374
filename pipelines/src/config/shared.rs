//! What a file that is passed on tells of a configuration.

use std::path::Path;

use super::{Table, TrainConfig, Value};

/// Keys of words and not of paths: a slash means nothing there.
const WORDS: [&str; 4] = ["concept", "class", "initializer", "sample_prompts"];

/// Gives the last name of a path, empty where it has none.
pub(crate) fn last_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl TrainConfig {
    /// Writes the configuration as TOML, of each path its last name: where things lie is nobody else's business.
    pub(crate) fn to_shared_toml(&self) -> String {
        let mut table = Table::try_from(self).expect("strings, numbers and lists are TOML");
        shorten(&mut table);
        toml::to_string(&table).expect("a table is TOML")
    }
}

fn shorten(table: &mut Table) {
    for (_, value) in table.iter_mut().filter(|(key, _)| !WORDS.contains(&key.as_str())) {
        match value {
            Value::String(text) => *text = last_name(Path::new(text)),
            Value::Table(inner) => shorten(inner),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_tells_where_things_lie_and_words_stay_as_they_are() {
        let mut overrides = Table::new();
        let paths = ["photos", "base", "output", "clip", "warm_start", "templates", "core.prompts"];
        for key in paths {
            let setting = format!("{key}=/home/me/{}/", key.replace('.', "-"));
            super::super::set(&mut overrides, &setting).expect("a setting");
        }
        for setting in ["concept=<a/b>", "class=cat/dog", "sample_prompts=['a {} and/or a cat']"] {
            super::super::set(&mut overrides, setting).expect("a setting");
        }
        let config = TrainConfig::resolve(None, None, overrides).expect("a configuration");
        let shared: Table = config.to_shared_toml().parse().expect("TOML");
        assert!(config.to_toml().contains("/home/me") && !shared.to_string().contains("home"));
        assert_eq!(shared["photos"].as_str(), Some("photos"));
        assert_eq!(shared["core"]["prompts"].as_str(), Some("core-prompts"));
        assert_eq!(shared["class"].as_str(), Some("cat/dog"));
        assert_eq!(shared["sample_prompts"][0].as_str(), Some("a {} and/or a cat"));
        assert_eq!(shared["precision"].as_str(), Some("auto"));
    }
}
