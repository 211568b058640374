//! `results.json`: what an evaluation found, and how.

use std::collections::BTreeMap;
use std::path::Path;

use embeddings::file::write_atomically;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Protocol, Summary};
use crate::Error;
use crate::picture::UsedConcept;

/// The version of the file's form.
pub(super) const FORMAT: u32 = 1;

/// What is measured; more is better for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Cosine of CLIP's vectors of picture and photo, mean over all pairs.
    ClipI,
    /// Cosine of DINO's class tokens of picture and photo, mean over all pairs.
    Dino,
    /// Cosine of CLIP's vectors of picture and prompt, the class in the concept's place.
    ClipTClass,
    /// The same with nothing in the concept's place.
    ClipTDrop,
    /// The same with the concept's word.
    ClipTLiteral,
    /// 1 - the cosine of CLIP's vectors of two pictures of a prompt, mean over the pairs.
    Diversity,
    /// Cosine of the U-Net's pooled features of picture and photo, mean over blocks and pairs.
    UnetLikeness,
}

impl Metric {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClipI => "CLIP-I",
            Self::Dino => "DINO",
            Self::ClipTClass => "CLIP-T (class)",
            Self::ClipTDrop => "CLIP-T (drop)",
            Self::ClipTLiteral => "CLIP-T (literal)",
            Self::Diversity => "diversity",
            Self::UnetLikeness => "U-Net likeness",
        }
    }
}

/// A number for each metric that applies.
pub type Scores = BTreeMap<Metric, f64>;

/// One picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PictureResult {
    /// Its file, from the folder of `results.json`.
    pub file: String,
    /// Its seed.
    pub seed: u64,
    /// Its scores; diversity is none of them.
    pub scores: Scores,
}

/// The pictures of one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptResult {
    /// The prompt with `{}` for the concept.
    pub template: String,
    /// The prompt that was drawn.
    pub prompt: String,
    /// The means over its pictures; diversity where there are two or more.
    pub scores: Scores,
    /// Its pictures.
    pub pictures: Vec<PictureResult>,
}

/// All that an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The version of the file's form, 1.
    pub format: u32,
    /// What another evaluation must share to be compared.
    pub protocol: Protocol,
    /// The concepts that were judged.
    pub concepts: Vec<UsedConcept>,
    /// Where it was computed: `cpu` or `cuda:N`.
    pub device: String,
    /// Of each metric over the prompts.
    pub summary: BTreeMap<Metric, Summary>,
    /// The photos among themselves, all pairs: what a perfect likeness would be. Nothing for one photo.
    pub photos: Scores,
    /// Prompt by prompt.
    pub prompts: Vec<PromptResult>,
}

impl Results {
    /// The means over the prompts, metric by metric.
    pub(super) fn summarise(prompts: &[PromptResult]) -> BTreeMap<Metric, Summary> {
        let mut values = BTreeMap::<Metric, Vec<f64>>::new();
        for (metric, value) in prompts.iter().flat_map(|prompt| &prompt.scores) {
            values.entry(*metric).or_default().push(*value);
        }
        let summary = |(metric, values): (_, Vec<f64>)| Some((metric, Summary::of(&values)?));
        values.into_iter().filter_map(summary).collect()
    }

    /// Reads `results.json`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let results: Self = read_json(path, "results of `personalize evaluate`")?;
        if results.format != FORMAT {
            return Err(Error::Usage(format!(
                "{} has form {}, but this version reads form {FORMAT}; evaluate again",
                path.display(),
                results.format
            )));
        }
        Ok(results)
    }
}

/// Reads a JSON file of a known form.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T, Error> {
    let text = torch_ext::file::read_to_string(path).map_err(Error::io(path, "read"))?;
    serde_json::from_str(&text).map_err(|e| {
        Error::Usage(format!(
            "{} does not hold {what} ({e}); give the file of a finished evaluation, or evaluate again into another folder",
            path.display()
        ))
    })
}

/// Writes a JSON file, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from);
    text.and_then(|text| write_atomically(path, (text + "\n").as_bytes()))
        .map_err(Error::io(path, "written"))
}
