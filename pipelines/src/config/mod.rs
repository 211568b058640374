//! The configuration of a run: preset, then file, then flags.

mod core;
mod layers;
pub(crate) mod seed;
mod shared;

use std::path::PathBuf;

use embeddings::NormMode;
use serde::{Deserialize, Serialize};
pub use toml::{Table, Value};

pub use self::core::{AttentionMode, CoreConfig, NormShape};
pub(crate) use layers::layered;
pub use layers::set;
pub use seed::parse_seed;
pub(crate) use shared::last_name;

use crate::limits::{counts, shares, up_to, within};
use crate::photos::Crop;
use crate::trainer::AdamWConfig;
use crate::{Error, Precision};

/// The longest run, and the longest time between two of its saves.
pub(crate) const MOST_STEPS: u64 = 10_000_000;

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
    pub warm_start: PathBuf,
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
    pub residual: Option<bool>,
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
    pub lr_end: f64,
    pub warmup_steps: u64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_epsilon: f64,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
    pub min_snr_gamma: f64,
    pub timesteps: Timesteps,
    #[serde(with = "seed")]
    pub seed: u64,
    pub output: PathBuf,
    pub metadata: bool,
    pub save_every: u64,
    pub sample_prompts: Vec<String>,
    pub sample_every: u64,
    pub sample_steps: usize,
    pub sample_guidance: f64,
    pub validate_every: u64,
    pub clip: PathBuf,
    pub keep_best: KeepBest,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<CoreConfig>,
}

/// Which step's concept a run's file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepBest {
    /// The last.
    Off,
    /// That of the lowest validation loss.
    Loss,
    /// That whose sample pictures are most like the photos.
    Likeness,
    /// That whose sample pictures are truest to their prompts.
    Fidelity,
    /// That of the largest product of likeness and fidelity: neither's scale then matters.
    Balance,
}

/// The learning rate over the run, after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrShape {
    /// The same throughout.
    Constant,
    /// Evenly down to its end.
    Linear,
    /// Half a cosine down to its end.
    Cosine,
}

/// How the timesteps of an optimiser step are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timesteps {
    /// Each by itself.
    Uniform,
    /// One in each of as many equal ranges as the step has samples: still uniform, but the step's mean wanders less.
    Stratified,
}

/// A choice by the word that it is written with, on a command line as in a file.
pub(crate) fn word(choice: &impl Serialize) -> Option<String> {
    match serde_json::to_value(choice) {
        Ok(serde_json::Value::String(word)) => Some(word),
        _ => None,
    }
}

/// The name of a file of the concept of this word.
pub(crate) fn concept_file(word: &str, suffix: &str) -> String {
    format!("{}{suffix}.safetensors", word.trim_matches(['<', '>']))
}

impl TrainConfig {
    /// The configuration as TOML, every key of its method present.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("strings, numbers and lists are TOML")
    }

    /// The name of a file of this concept, in the folder of the run.
    pub(crate) fn concept_file(&self, suffix: &str) -> String {
        concept_file(&self.concept, suffix)
    }

    /// The learning rate in force, after any scaling.
    pub fn effective_learning_rate(&self) -> f64 {
        let scale = f64::from(self.batch_size) * f64::from(self.gradient_accumulation);
        self.learning_rate * if self.scale_learning_rate { scale } else { 1.0 }
    }

    /// The optimiser's hyper-parameters.
    pub(crate) fn adam(&self) -> AdamWConfig {
        AdamWConfig {
            beta1: self.adam_beta1,
            beta2: self.adam_beta2,
            epsilon: self.adam_epsilon,
            weight_decay: self.weight_decay,
        }
    }

    /// Refuses what no run can use.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.check_numbers()?;
        for (key, empty, flag) in [
            ("photos", self.photos.as_os_str().is_empty(), "--photos DIR"),
            ("output", self.output.as_os_str().is_empty(), "--output DIR"),
        ] {
            if empty {
                return Err(Error::Usage(format!("{key} is not given; pass {flag}")));
            }
        }
        Ok(())
    }

    /// Refuses numbers that no run can use, whatever reads the configuration.
    pub(super) fn check_numbers(&self) -> Result<(), Error> {
        let wide = u64::from;
        counts(1, MOST_STEPS, &[("steps", self.steps)])?;
        counts(1, 4096, &[("batch_size", wide(self.batch_size))])?;
        counts(1, 1_000_000, &[("gradient_accumulation", wide(self.gradient_accumulation))])?;
        counts(1, 1000, &[("clip_skip", self.clip_skip as u64)])?;
        counts(0, 1000, &[("vectors", wide(self.vectors))])?;
        counts(0, 8192, &[("resolution", wide(self.resolution))])?;
        counts(0, 10_000, &[("sample_steps", self.sample_steps as u64)])?;
        let every = [
            ("warmup_steps", self.warmup_steps),
            ("save_every", self.save_every),
            ("sample_every", self.sample_every),
            ("validate_every", self.validate_every),
        ];
        counts(0, MOST_STEPS, &every)?;
        // A rate that is too high is found by the loss, which says how far it went.
        let rate = [("learning_rate", self.learning_rate)];
        within(&(0.0..=1e38), "a number from 0 up, such as 1e-3", &rate)?;
        up_to(1000.0, &[("weight_decay", self.weight_decay)])?;
        let off_at_zero =
            [("max_grad_norm", self.max_grad_norm), ("min_snr_gamma", self.min_snr_gamma)];
        up_to(1e9, &off_at_zero)?;
        up_to(1.0, &[("adam_epsilon", self.adam_epsilon), ("lr_end", self.lr_end)])?;
        shares(&[("adam_beta1", self.adam_beta1), ("adam_beta2", self.adam_beta2)])?;
        let guidance = [("sample_guidance", self.sample_guidance)];
        within(&(-1000.0..=1000.0), "a number such as 7.5", &guidance)?;
        for (key, value, most) in [
            ("bypass_strength", self.bypass_strength, 10.0),
            ("nested_dropout", self.nested_dropout, 1.0),
            ("sigma_time", self.sigma_time, 1000.0),
            ("sigma_layer", self.sigma_layer, 1000.0),
            ("cap", self.cap, 10.0),
            ("tail_strength", self.tail_strength, 10.0),
        ] {
            up_to(most, &[(key, value.unwrap_or(0.0))])?;
        }
        for (key, value, most) in
            [("hidden_units", self.hidden_units, 4096), ("time_anchors", self.time_anchors, 1000)]
        {
            counts(1, most, &[(key, wide(value.unwrap_or(1)))])?;
        }
        self.core.as_ref().map_or(Ok(()), CoreConfig::check_numbers)
    }
}
