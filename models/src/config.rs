//! Configuration files of networks and schedulers: every key checked by its class in Python before anything is built.
//!
//! A key that the class does not know is told of and left out, as diffusers does it. One that it knows is read, or
//! changes nothing here, or may have only the values that are followed here; any other value is refused by the key's
//! name. A number must lie in a range far above any model's, so that no small file asks for memory without end.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ModelError;

/// What a key may hold. `null` stands for the key's default, except in a switch and in a part.
pub(crate) enum Rule {
    /// A whole number from the first to the last.
    Whole(i64, i64),
    /// Such a number for all levels, or a list with one for each.
    ByLevel(i64, i64),
    /// A list of such numbers.
    Wholes(i64, i64),
    /// A number from the first to the last.
    Number(f64, f64),
    /// A list of any length.
    List(&'static Rule),
    /// A word that who reads it knows.
    Text,
    /// True or false, and what `null` is: false wherever Python asks for the truth of its `None`.
    Switch(bool),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of these words.
    Words(&'static [&'static str]),
    /// The only kind that there is of a part of the network, or `null` for a network without that part.
    Part(&'static str),
    /// A part that these networks do not have: only `null` and false, for all levels or for each.
    Unset,
    /// Anything: either it is checked by who reads it, or it changes nothing in what is computed here.
    Any,
}

impl Rule {
    fn allows(&self, value: &Value) -> bool {
        let whole = |value: &Value, least: i64, most: i64| {
            value.as_i64().is_some_and(|n| (least..=most).contains(&n))
        };
        let each = |one: &dyn Fn(&Value) -> bool| {
            value.as_array().is_some_and(|all| {
                !all.is_empty() && all.len() <= MOST_LEVELS && all.iter().all(one)
            })
        };
        let word =
            |value: &Value, words: &[&str]| value.as_str().is_some_and(|w| words.contains(&w));
        match *self {
            Self::Whole(least, most) => whole(value, least, most),
            Self::ByLevel(least, most) => {
                whole(value, least, most) || each(&|one| whole(one, least, most))
            }
            Self::Wholes(least, most) => each(&|one| whole(one, least, most)),
            Self::Number(least, most) => {
                value.as_f64().is_some_and(|number| (least..=most).contains(&number))
            }
            Self::List(rule) => {
                value.as_array().is_some_and(|all| all.iter().all(|one| rule.allows(one)))
            }
            Self::Text => value.is_string(),
            Self::Switch(_) => value.is_boolean(),
            Self::Word(words) => word(value, words),
            Self::Words(words) => each(&|one| word(one, words)),
            Self::Part(kind) => word(value, &[kind]),
            Self::Unset => match value {
                Value::Array(levels) => levels.iter().all(|level| *level == Value::Bool(false)),
                value => *value == Value::Bool(false),
            },
            Self::Any => true,
        }
    }

    /// What may be there, as the end of a sentence.
    fn expected(&self) -> String {
        let range = |least: &dyn std::fmt::Display, most: &dyn std::fmt::Display| {
            format!("from {least} to {most}")
        };
        match self {
            Self::Whole(least, most) if least == most => format!("only {least} is supported"),
            Self::Whole(least, most) => {
                format!("a whole number {} was expected", range(least, most))
            }
            Self::ByLevel(least, most) => format!(
                "a whole number {0} or a list of them, one a level, was expected",
                range(least, most)
            ),
            Self::Wholes(least, most) => {
                format!(
                    "a list of at most {MOST_LEVELS} whole numbers {} was expected",
                    range(least, most)
                )
            }
            Self::Number(least, most) => format!("a number {} was expected", range(least, most)),
            Self::List(rule) => format!("a list was expected; in it, {}", rule.expected()),
            Self::Text => "a word was expected".to_owned(),
            Self::Switch(_) => "true or false was expected".to_owned(),
            Self::Word(words) => format!("only {} is supported", words.join(" or ")),
            Self::Words(words) => format!("only a list of {} is supported", words.join(" or ")),
            Self::Part(kind) => format!("only {kind} or null is supported"),
            Self::Unset => "only null or false is supported".to_owned(),
            Self::Any => String::new(),
        }
    }
}

/// Levels of a network: each halves the picture, so more have no use.
const MOST_LEVELS: usize = 16;

/// A class of Python, by the keys that its constructor takes.
pub(crate) struct Class {
    /// Its name, which `_class_name` must be where the file has it; empty where several classes share their files.
    pub name: &'static str,
    pub keys: &'static [(&'static str, Rule)],
    /// Whether keys that it does not know are told of: diffusers does so, transformers keeps them in silence.
    pub tells: bool,
}

impl Class {
    /// Reads a file; also a warning about what the class does not know in it.
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        path: &Path,
    ) -> Result<(T, Option<String>), ModelError> {
        self.parse(path, &read_text(path)?)
    }

    /// The same from the text of a file.
    pub(crate) fn parse<T: DeserializeOwned>(
        &self,
        path: &Path,
        text: &str,
    ) -> Result<(T, Option<String>), ModelError> {
        let mut known = Map::new();
        let mut unknown = Vec::new();
        for (key, value) in object(path, text)? {
            if key == "_class_name" {
                self.check_name(path, &value)?;
                known.insert(key, value);
                continue;
            }
            if key.starts_with('_') || key == "quantization_config" {
                continue;
            }
            match (self.keys.iter().find(|(name, _)| *name == key), value) {
                (None, _) => unknown.push(key),
                (Some((_, Rule::Part(_))), Value::Null) => {
                    known.insert(key, Value::Null);
                }
                (Some((_, Rule::Switch(null))), Value::Null) => {
                    known.insert(key, Value::Bool(*null));
                }
                (Some(_), Value::Null) => {}
                (Some((_, rule)), value) => {
                    if !rule.allows(&value) {
                        let what = format!("{key} is {}, but {}", brief(&value), rule.expected());
                        return Err(ModelError::invalid(path, what));
                    }
                    known.insert(key, value);
                }
            }
        }
        let config = serde_json::from_value(Value::Object(known)).map_err(|e| unlike(path, &e))?;
        let warning = (self.tells && !unknown.is_empty()).then(|| {
            format!(
                "{}: unknown to {} and left out: {}",
                path.display(),
                if self.name.is_empty() { "every scheduler" } else { self.name },
                some_of(&unknown)
            )
        });
        Ok((config, warning))
    }

    fn check_name(&self, path: &Path, found: &Value) -> Result<(), ModelError> {
        if self.name.is_empty() || found.is_null() || *found == self.name {
            return Ok(());
        }
        let what = format!("of the class {}, but only {} is supported", brief(found), self.name);
        Err(ModelError::invalid(path, what))
    }
}

/// The first few of a list.
pub(crate) fn some_of(all: &[String]) -> String {
    let named = all.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(5) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// A value as the file has it, cut where it is long.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The text of a file of a model's folder.
pub(crate) fn read_text(path: &Path) -> Result<String, ModelError> {
    torch_ext::file::read_to_string(path).map_err(|e| ModelError::io(path, e))
}

/// The object that a JSON file holds.
fn object(path: &Path, text: &str) -> Result<Map<String, Value>, ModelError> {
    serde_json::from_str(text).map_err(|e| unlike(path, &e))
}

/// Only a file that is no JSON is a broken one.
fn unlike(path: &Path, error: &serde_json::Error) -> ModelError {
    let advice = match error.classify() {
        serde_json::error::Category::Data => "use a file of the model that it belongs to",
        _ => "fetch it again",
    };
    ModelError::invalid(
        path,
        format!("not the configuration that was expected ({error}); {advice}"),
    )
}

/// What transformers calls the kind of model that a `config.json` is of, before anything else of it is read; empty where
/// it does not say.
pub(crate) fn model_type(path: &Path) -> Result<String, ModelError> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        model_type: String,
    }
    read_config(path).map(|named: Named| named.model_type)
}

/// Reads a configuration of another network than those of a base; numbers that become sizes of tensors are checked, at
/// every depth.
pub(crate) fn read_config<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let value = Value::Object(object(path, &read_text(path)?)?);
    if let Some((key, size, most)) = wrong_size(&value) {
        let what = format!("{key} is {}, but sizes from 1 to {most} were expected", brief(size));
        return Err(ModelError::invalid(path, what));
    }
    serde_json::from_value(value).map_err(|e| unlike(path, &e))
}

/// Far above any channels or widths of this kind of network, far below what overflows.
pub(crate) const WIDEST: i64 = 1 << 17;
/// The same for blocks one behind the other.
pub(crate) const DEEPEST: i64 = 256;
/// Rows of a table of token vectors.
pub(crate) const MOST_TOKENS: i64 = 1 << 22;
/// The side of a picture or of latents, in pixels.
pub(crate) const LARGEST_SIDE: i64 = 8192;

/// Keys whose numbers become shapes of tensors, with the most of each.
const SIZES: [(&str, i64); 12] = [
    ("crop_size", LARGEST_SIDE),
    ("hidden_size", WIDEST),
    ("image_size", LARGEST_SIDE),
    ("intermediate_size", WIDEST),
    ("max_position_embeddings", WIDEST),
    ("num_attention_heads", WIDEST),
    ("num_hidden_layers", DEEPEST),
    ("patch_size", LARGEST_SIDE),
    ("projection_dim", WIDEST),
    ("shortest_edge", LARGEST_SIDE),
    ("size", LARGEST_SIDE),
    ("vocab_size", MOST_TOKENS),
];

/// The first key that has to be a size and is none, in this object or one inside it; with the most that it may be.
fn wrong_size(value: &Value) -> Option<(&str, &Value, i64)> {
    value.as_object()?.iter().find_map(|(key, value)| match value {
        Value::Object(_) => wrong_size(value),
        _ => SIZES
            .iter()
            .find(|(name, most)| name == key && !is_size(value, *most))
            .map(|(_, most)| (key.as_str(), value, *most)),
    })
}

/// A number in range, a list of such, or `null`.
fn is_size(value: &Value, most: i64) -> bool {
    match value {
        Value::Null => true,
        Value::Array(all) => !all.is_empty() && all.iter().all(|one| is_size(one, most)),
        number => number.as_i64().is_some_and(|n| (1..=most).contains(&n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(default)]
    struct Config {
        layers: i64,
        flag: bool,
        part: Option<String>,
    }

    impl Default for Config {
        fn default() -> Self {
            Self { layers: 2, flag: true, part: Some("whole".to_owned()) }
        }
    }

    const CLASS: Class = Class {
        name: "Network",
        tells: true,
        keys: &[
            ("layers", Rule::Whole(1, 9)),
            ("flag", Rule::Switch(false)),
            ("part", Rule::Part("whole")),
            ("kernel", Rule::Whole(3, 3)),
            ("extra", Rule::Unset),
            ("words", Rule::Words(&["a", "b"])),
            ("widths", Rule::ByLevel(1, 9)),
            ("scale", Rule::Number(-1.0, 1.0)),
        ],
    };

    fn parse(text: &str) -> Result<(Config, Option<String>), String> {
        CLASS.parse(Path::new("net/config.json"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn null_is_the_default_and_false_where_python_asks_for_truth() {
        let (config, warning) = parse(r#"{"layers": null, "flag": null, "extra": null}"#).unwrap();
        assert_eq!(config, Config { flag: false, ..Config::default() });
        assert_eq!(warning, None);
        assert_eq!(parse("{}").unwrap().0, Config::default());
        assert_eq!(parse(r#"{"part": null}"#).unwrap().0.part, None);
    }

    #[test]
    fn a_value_that_is_not_followed_is_refused_with_file_and_key() {
        for (key, value, expected) in [
            ("layers", "10", "a whole number from 1 to 9"),
            ("layers", "2.5", "a whole number"),
            ("layers", "18446744073709551615", "a whole number"),
            ("flag", "\"yes\"", "true or false"),
            ("part", "\"half\"", "only whole or null"),
            ("kernel", "5", "only 3 is supported"),
            ("extra", "\"text\"", "only null"),
            ("words", "[\"a\", \"c\"]", "a list of a or b"),
            ("widths", "[1, 0]", "one a level"),
            ("widths", "[]", "one a level"),
            ("scale", "1e308", "a number from -1 to 1"),
        ] {
            let error = parse(&format!(r#"{{"{key}": {value}}}"#)).unwrap_err();
            let start = format!("net/config.json: {key} is ");
            assert!(error.starts_with(&start) && error.contains(expected), "{error}");
        }
        let long = format!(r#"{{"extra": "{}"}}"#, "x".repeat(10_000));
        assert!(parse(&long).unwrap_err().len() < 200);
    }

    #[test]
    fn unknown_keys_are_told_of_once_and_another_class_is_refused() {
        let text =
            r#"{"_class_name": "Network", "_note": 1, "surprise": [1], "b": 2, "layers": 3}"#;
        let (config, warning) = parse(text).unwrap();
        assert_eq!(config.layers, 3);
        let told = "net/config.json: unknown to Network and left out: surprise, b";
        assert_eq!(warning.as_deref(), Some(told));
        let error = parse(r#"{"_class_name": "TinyNetwork"}"#).unwrap_err();
        assert!(error.contains("\"TinyNetwork\", but only Network"), "{error}");
    }

    #[test]
    fn only_a_broken_file_is_to_be_fetched_again() {
        assert!(parse("{\"layers\": 2").unwrap_err().ends_with("fetch it again"));
        assert!(!parse("[1]").unwrap_err().contains("fetch"));
    }
}
