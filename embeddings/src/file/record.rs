//! What a concept file says besides its numbers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TOKEN_VECTORS;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is known of a concept besides its vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConceptRecord {
    /// The training method: `ti`, `core`, `xti`, `neti` or `cones`.
    pub method: String,
    /// The word that stands for it.
    pub token: String,
    /// What it is an example of ("cat").
    #[serde(default)]
    pub class: Option<String>,
    /// What it was trained against.
    #[serde(default)]
    pub base: Option<BaseRecord>,
    /// Optimiser steps behind it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub steps: u64,
    /// The learning rate that was in force, after any scaling.
    #[serde(default, skip_serializing_if = "is_default")]
    pub learning_rate: f64,
    /// The run's seed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seed: u64,
    /// SHA-256 of the photos and captions, hexadecimal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub photos: String,
    /// The version of this tool.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tool_version: String,
    /// Unix time of writing, in seconds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub created: u64,
    /// The resolved configuration, TOML, without the places of files.
    #[serde(default, skip_serializing_if = "is_default")]
    pub config: String,
    /// What the method needs besides tensors to draw the concept.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub settings: Value,
}

impl ConceptRecord {
    /// Keeps what is needed to draw the concept, and nothing of how it was made: method, word, class, settings, and what tells its
    /// base from another, but not its name.
    #[must_use]
    pub fn bare(self) -> Self {
        Self {
            class: self.class,
            base: self.base.map(|base| BaseRecord { name: String::new(), ..base }),
            settings: self.settings,
            ..Self::foreign(&self.method, self.token)
        }
    }

    /// Tells whether nothing is said of how the concept was made.
    pub fn is_bare(&self) -> bool {
        self.tool_version.is_empty()
    }

    /// What another tool's file says: a method and a word.
    pub(super) fn foreign(method: &str, token: String) -> Self {
        Self {
            method: method.to_owned(),
            token,
            class: None,
            base: None,
            steps: 0,
            learning_rate: 0.0,
            seed: 0,
            photos: String::new(),
            tool_version: String::new(),
            created: 0,
            config: String::new(),
            settings: Value::Null,
        }
    }
}

/// The base that a concept was trained against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// The folder's name; empty where it is not told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// D, the width of token vectors.
    pub width: i64,
    /// `epsilon` or `v_prediction`.
    pub prediction_type: String,
    /// Side of the pictures it was trained on, in pixels.
    pub resolution: i64,
    /// A few numbers of the token table, which tell one vocabulary from another whatever the files' kind.
    pub sketch: Vec<f32>,
    /// The id that filled its prompts up; `None` in files from before it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<i64>,
}

impl BaseRecord {
    /// Gives the name to call it by in a sentence.
    pub fn called(&self) -> &str {
        if self.name.is_empty() { "a base whose name its file does not tell" } else { &self.name }
    }

    /// The family by its width, for people.
    pub fn family(width: i64) -> String {
        match width {
            768 => "Stable Diffusion 1.x (768)".to_owned(),
            1024 => "Stable Diffusion 2.x (1024)".to_owned(),
            _ => format!("a base of text width {width}"),
        }
    }

    /// Whether both sketches come from the same token table; half-precision copies count as the same.
    pub fn same_vocabulary(&self, other: &Self) -> bool {
        let scale = self.sketch.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
        self.sketch.len() == other.sketch.len()
            && self.sketch.iter().zip(&other.sketch).all(|(a, b)| (a - b).abs() <= 0.01 * scale)
    }

    /// ModelSpec's architecture id, with the method as its adapter; other tools know `textual-inversion` only.
    pub(super) fn architecture(&self, method: &str) -> String {
        let plain = TOKEN_VECTORS.contains(&method);
        let adapter = if plain { "textual-inversion" } else { method };
        let family = match (self.width, self.prediction_type.as_str()) {
            (768, _) => "stable-diffusion-v1",
            (1024, "v_prediction") => "stable-diffusion-v2-768-v",
            (1024, _) => "stable-diffusion-v2-512",
            _ => "stable-diffusion-other",
        };
        format!("{family}/{adapter}")
    }
}
