//! How a picture was made: our own record, and the line that the A1111 family of tools reads.

use serde::{Deserialize, Serialize};

/// All that a picture's regeneration needs. Written as JSON into the PNG.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PictureParameters {
    /// The prompt as given, placeholders included.
    pub prompt: String,
    /// The negative prompt; empty for none.
    pub negative_prompt: String,
    /// Denoising steps.
    pub steps: u32,
    /// The sampler's name, e.g. `dpm++2m`.
    pub sampler: String,
    /// The spacing of its noise levels, e.g. `karras`; empty where the sampler has one only.
    pub schedule: String,
    /// The weight of classifier-free guidance.
    pub guidance: f64,
    /// The seed of this picture's initial noise.
    pub seed: u64,
    /// Steps for which the concepts were tuned to the prompt first; 0 for none.
    #[serde(default)]
    pub refine: u64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The name of the base model.
    pub base: String,
    /// The kind of number the base computed in: `f32`, `bf16`, `f16`.
    pub precision: String,
    /// The concepts of the prompts.
    pub concepts: Vec<UsedConcept>,
    /// The version of this program.
    pub version: String,
}

/// A concept that a picture was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedConcept {
    /// Its word in the prompt, e.g. `<cat>`.
    pub placeholder: String,
    /// SHA-256 of its file, hex.
    pub hash: String,
    /// How it was drawn where that is not how it was learnt, e.g. `strength=0.8`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
}

impl PictureParameters {
    /// The text under the key `parameters` that A1111, `ComfyUI`'s and Civitai's readers know.
    pub fn a1111(&self) -> String {
        let concepts = self.concepts.iter().map(|UsedConcept { placeholder, hash, .. }| {
            format!("{}: {}", placeholder.trim_matches(['<', '>']), hash.get(..12).unwrap_or(hash))
        });
        let pairs = [
            ("Steps", self.steps.to_string()),
            ("Sampler", self.sampler.clone()),
            ("Schedule type", self.schedule.clone()),
            ("CFG scale", self.guidance.to_string()),
            ("Seed", self.seed.to_string()),
            ("Size", format!("{}x{}", self.width, self.height)),
            ("Model", self.base.clone()),
            ("TI hashes", concepts.collect::<Vec<_>>().join(", ")),
            ("Version", format!("personalize {}", self.version)),
        ];
        let settings = pairs.iter().filter(|(_, value)| !value.is_empty());
        let settings = settings
            .map(|(key, value)| format!("{key}: {}", quoted(value)))
            .collect::<Vec<_>>()
            .join(", ");
        let negative = if self.negative_prompt.is_empty() {
            String::new()
        } else {
            format!("\nNegative prompt: {}", self.negative_prompt)
        };
        format!("{}{negative}\n{settings}", self.prompt)
    }
}

/// A value with a comma, colon or line break as a JSON string, as its readers expect.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.into()
    }
}

#[cfg(test)]
pub(super) fn example() -> PictureParameters {
    PictureParameters {
        prompt: "a photo of <cat> in the snow".into(),
        negative_prompt: "blurry, dark".into(),
        steps: 30,
        sampler: "dpm++2m".into(),
        schedule: "karras".into(),
        guidance: 7.5,
        seed: u64::MAX,
        refine: 0,
        width: 512,
        height: 768,
        base: "sd: 1.5".into(),
        precision: "f32".into(),
        concepts: vec![
            UsedConcept {
                placeholder: "<cat>".into(),
                hash: "0123456789abcdef".into(),
                options: String::new(),
            },
            UsedConcept {
                placeholder: "<ink>".into(),
                hash: "ffff".into(),
                options: "strength=0.5".into(),
            },
        ],
        version: "0.1.0".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_a1111_text_has_its_three_parts_and_quotes_lists() {
        assert_eq!(
            example().a1111(),
            "a photo of <cat> in the snow\n\
             Negative prompt: blurry, dark\n\
             Steps: 30, Sampler: dpm++2m, Schedule type: karras, CFG scale: 7.5, Seed: 18446744073709551615, \
             Size: 512x768, Model: \"sd: 1.5\", TI hashes: \"cat: 0123456789ab, ink: ffff\", Version: personalize 0.1.0"
        );
    }

    #[test]
    fn what_is_empty_is_left_out_of_the_a1111_text() {
        let plain = PictureParameters {
            negative_prompt: String::new(),
            schedule: String::new(),
            concepts: Vec::new(),
            ..example()
        };
        let text = plain.a1111();
        assert!(
            !text.contains("Negative") && !text.contains("Schedule") && !text.contains("TI hashes"),
            "{text}"
        );
    }
}
