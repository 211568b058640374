//! The configuration of a run: preset, then file, then flags.

use std::path::{Path, PathBuf};

use embeddings::NormMode;
use serde::{Deserialize, Serialize};
pub use toml::{Table, Value};

use crate::{Error, Precision, photos::Crop};

/// A training method and the preset that lists all its keys.
const PRESETS: [(&str, &str); 4] = [
    ("ti", include_str!("../../configs/train/ti.toml")),
    ("xti", include_str!("../../configs/train/xti.toml")),
    ("neti", include_str!("../../configs/train/neti.toml")),
    ("cones", include_str!("../../configs/train/cones.toml")),
];

/// Everything that a training run reads; `configs/train/` explains each key and holds its default. What is an
/// option is a key of some methods' presets only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the presets in configs/train/ document every key, once")]
pub struct TrainConfig {
    pub method: String,
    pub photos: PathBuf,
    pub concept: String,
    pub class: String,
    pub vectors: u32,
    pub initializer: String,
    pub initializer_random: bool,
    pub templates: String,
    pub norm_mode: Option<NormMode>,
    pub output_bypass: Option<bool>,
    pub bypass_strength: Option<f64>,
    pub nested_dropout: Option<f64>,
    pub hidden_units: Option<u32>,
    pub positional_encoding: Option<bool>,
    pub sigma_time: Option<f64>,
    pub sigma_layer: Option<f64>,
    pub time_anchors: Option<u32>,
    pub slots: Option<String>,
    pub cap: Option<f64>,
    pub tail_strength: Option<f64>,
    pub resolution: u32,
    pub crop: Crop,
    pub flip: bool,
    pub base: PathBuf,
    pub variant: String,
    pub device: String,
    pub precision: Precision,
    pub clip_skip: usize,
    pub gradient_checkpointing: bool,
    pub steps: u64,
    pub batch_size: u32,
    pub gradient_accumulation: u32,
    pub learning_rate: f64,
    pub scale_learning_rate: bool,
    pub lr_schedule: LrShape,
    pub warmup_steps: u64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
    pub min_snr_gamma: f64,
    pub seed: u64,
    pub output: PathBuf,
    pub save_every: u64,
    pub sample_prompts: Vec<String>,
    pub sample_every: u64,
    pub sample_steps: usize,
    pub sample_guidance: f64,
}

/// The learning rate over the run, after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrShape {
    /// The same throughout.
    Constant,
    /// Evenly down to zero.
    Linear,
    /// Half a cosine down to zero.
    Cosine,
}

impl TrainConfig {
    /// Layers a configuration: the method's preset, under the file, under `overrides`. A key that no preset
    /// has is an error that names the nearest one.
    pub fn resolve(file: Option<&Path>, overrides: Table) -> Result<Self, Error> {
        let mut from_file = Table::new();
        if let Some(path) = file {
            let name = path.display();
            let text = std::fs::read_to_string(path).map_err(|e| {
                Error::Usage(format!("{name}: cannot be read: {e}{}", models::advice(&e)))
            })?;
            from_file = text.parse().map_err(|e: toml::de::Error| {
                let line = e.span().map_or(0, |span| text[..span.start].lines().count().max(1));
                Error::Usage(format!("{name}: line {line} is not TOML: {}", e.message().trim()))
            })?;
        }
        let method = |table: &Table| table.get("method").and_then(Value::as_str).map(str::to_owned);
        let method = method(&overrides).or_else(|| method(&from_file)).unwrap_or("ti".to_owned());
        let Some((_, preset)) = PRESETS.iter().find(|(name, _)| *name == method) else {
            let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
            let known = names.join(", ");
            return Err(Error::Usage(format!("method '{method}' is unknown; known: {known}")));
        };
        let mut table: Table = preset.parse().expect("a test parses every preset");
        for (source, layer) in [
            (file.map_or(String::new(), |f| f.display().to_string()), from_file),
            ("--set".to_owned(), overrides),
        ] {
            for (key, value) in layer {
                if !table.contains_key(&key) {
                    return Err(unknown_key(&source, &key, &table));
                }
                table.insert(key, value);
            }
        }
        table.try_into().map_err(|e: toml::de::Error| {
            let text = e.to_string().trim().replace('\n', " ");
            let text = ["u64", "u32", "usize"]
                .iter()
                .fold(text, |text, kind| text.replace(kind, "a whole number of 0 or more"));
            Error::Usage(format!("configuration: {}", text.replace("f64", "a number")))
        })
    }

    /// The configuration as TOML, every key present.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("strings, numbers and lists are TOML")
    }

    /// The learning rate in force, after any scaling.
    pub fn effective_learning_rate(&self) -> f64 {
        let scale = f64::from(self.batch_size) * f64::from(self.gradient_accumulation);
        self.learning_rate * if self.scale_learning_rate { scale } else { 1.0 }
    }

    /// Refuses values that no run can use.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |text: String| Err(Error::Usage(text));
        for (key, value) in [
            ("steps", self.steps),
            ("batch_size", u64::from(self.batch_size)),
            ("gradient_accumulation", u64::from(self.gradient_accumulation)),
            ("vectors", u64::from(self.vectors)),
            ("clip_skip", self.clip_skip as u64),
        ] {
            if value == 0 {
                return refuse(format!("{key} is 0; give 1 or more"));
            }
        }
        for (key, value) in [
            ("learning_rate", self.learning_rate),
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
            ("min_snr_gamma", self.min_snr_gamma),
            ("adam_epsilon", self.adam_epsilon),
        ] {
            if !value.is_finite() || value < 0.0 {
                return refuse(format!("{key} is {value}; give a number of 0 or more"));
            }
        }
        for (key, value) in [("adam_beta1", self.adam_beta1), ("adam_beta2", self.adam_beta2)] {
            if !(0.0..1.0).contains(&value) {
                return refuse(format!("{key} is {value}; give a number from 0 to below 1"));
            }
        }
        for (key, empty, flag) in [
            ("photos", self.photos.as_os_str().is_empty(), "--photos DIR"),
            ("output", self.output.as_os_str().is_empty(), "--output DIR"),
        ] {
            if empty {
                return refuse(format!("{key} is not given; pass {flag}"));
            }
        }
        Ok(())
    }
}

/// `key=value` as a key and a TOML value; what is no TOML is taken as a string.
pub fn parse_setting(setting: &str) -> Result<(String, Value), Error> {
    let Some((key, value)) = setting.split_once('=') else {
        return Err(Error::Usage(format!("'{setting}' is no setting; write --set key=value")));
    };
    let (key, value) = (key.trim().replace('-', "_"), value.trim());
    let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    Ok((key, parsed.unwrap_or_else(|| Value::String(value.to_owned()))))
}

fn unknown_key(source: &str, key: &str, known: &Table) -> Error {
    let nearest = known.keys().max_by_key(|k| (strsim::jaro_winkler(k, key) * 1e6) as u64);
    let hint = match nearest {
        Some(nearest) if strsim::jaro_winkler(nearest, key) > 0.7 => {
            format!("did you mean {nearest}?")
        }
        _ => format!("known: {}", known.keys().cloned().collect::<Vec<_>>().join(", ")),
    };
    Error::Usage(format!("{source}: the key '{key}' is unknown; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(settings: &[&str]) -> Result<TrainConfig, Error> {
        let overrides = settings.iter().map(|s| parse_setting(s).expect("a setting")).collect();
        TrainConfig::resolve(None, overrides)
    }

    #[test]
    fn every_preset_is_complete_and_round_trips() {
        for (name, text) in PRESETS {
            let table: Table = text.parse().expect("TOML");
            let config: TrainConfig = table.try_into().expect("a complete preset");
            assert_eq!(config.method, name);
            let again: TrainConfig = toml::from_str(&config.to_toml()).expect("what was written");
            assert_eq!(again, config);
        }
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/train"));
        assert_eq!(files.expect("the folder").count(), PRESETS.len());
    }

    #[test]
    fn flags_win_over_the_file_which_wins_over_the_preset() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "steps = 7\nseed = 9\n").expect("written");
        let overrides = Table::from_iter([("steps".to_owned(), Value::Integer(3))]);
        let config = TrainConfig::resolve(Some(file.path()), overrides).expect("a configuration");
        assert_eq!((config.steps, config.seed, config.batch_size), (3, 9, 1));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest() {
        let error = resolve(&["learning-rat=1"]).expect_err("no such key").to_string();
        assert!(error.contains("learning_rate"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_names_its_key() {
        let error = resolve(&["steps=many"]).expect_err("no number").to_string();
        assert!(error.contains("steps"), "{error}");
    }

    #[test]
    fn settings_may_be_strings_without_quotes() {
        let config = resolve(&["concept=<cat>", "learning_rate=1e-3"]).expect("a configuration");
        assert_eq!((config.concept.as_str(), config.learning_rate), ("<cat>", 1e-3));
    }
}
