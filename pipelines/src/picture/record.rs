//! How a picture was made: our own record, and the line that the A1111 family of tools reads.

use models::samplers::SamplerKind;
use models::schedule::TimestepSpacing;
use serde::{Deserialize, Serialize};

use crate::config::word;

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
    /// The spread of its noise levels, e.g. `karras`, whether the user or the base asked for it; empty where timesteps
    /// say it.
    pub schedule: String,
    /// The weight of classifier-free guidance that was in force.
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
    /// The rest of how it was sampled; `None` in older records and for poses.
    #[serde(flatten)]
    pub details: Option<SamplingDetails>,
    /// What moves the last bits of it; `None` in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circumstances: Option<Circumstances>,
    /// The version of this program.
    pub version: String,
}

/// Settings that change a picture and that records did not always hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplingDetails {
    /// The spacing of timesteps that was in force, whether the user, the base or the sampler asked for it.
    pub spacing: TimestepSpacing,
    /// The pull of guided predictions back to their own contrast.
    pub guidance_rescale: f64,
    /// Layers of the text encoder counted from its end.
    pub clip_skip: usize,
}

/// The order of its sums: what a picture is computed on, and with how many others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circumstances {
    /// `cpu` or `cuda`.
    pub device: String,
    /// The pictures that were drawn at once.
    pub batch_size: usize,
    /// The place of this one among them, from 0.
    pub batch_position: usize,
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
    /// The same, as far as `other` may say more: what an older record does not hold, and what moves the last bits only, is
    /// that of `other`.
    pub(crate) fn completed_by(mut self, other: &Self) -> Self {
        if self.details.is_none() {
            self.details.clone_from(&other.details);
            self.schedule.clone_from(&other.schedule); // which was that of the command alone
        }
        self.circumstances.clone_from(&other.circumstances);
        self
    }

    /// The text under the key `parameters` that A1111, `ComfyUI`'s and Civitai's readers know. A picture is drawn again
    /// from it alone, and the files of its concepts.
    pub fn a1111(&self) -> String {
        let name = |concept: &UsedConcept| concept.placeholder.trim_matches(['<', '>']).to_owned();
        let hash =
            |concept: &UsedConcept| concept.hash.get(..12).unwrap_or(&concept.hash).to_owned();
        let hashes = self.concepts.iter().map(|c| format!("{}: {}", name(c), hash(c)));
        let options = self.concepts.iter().filter(|c| !c.options.is_empty());
        let options = options.map(|c| format!("{}: {}", name(c), c.options));
        let (details, circumstances) = (self.details.as_ref(), self.circumstances.as_ref());
        let together = circumstances.filter(|c| c.batch_size > 1);
        let some = |number: Option<String>| number.unwrap_or_default();
        let pairs = [
            ("Steps", self.steps.to_string()),
            ("Sampler", self.a1111_sampler()),
            ("Schedule type", self.a1111_schedule().to_owned()),
            ("CFG scale", self.guidance.to_string()),
            ("Seed", self.seed.to_string()),
            ("Size", format!("{}x{}", self.width, self.height)),
            ("Model", self.base.clone()),
            ("Batch size", some(together.map(|c| c.batch_size.to_string()))),
            ("Batch pos", some(together.map(|c| c.batch_position.to_string()))),
            (
                "Clip skip",
                some(details.filter(|d| d.clip_skip > 1).map(|d| d.clip_skip.to_string())),
            ),
            ("Timestep spacing", some(details.and_then(|d| word(&d.spacing)))),
            (
                "CFG rescale",
                some(
                    details
                        .filter(|d| d.guidance_rescale != 0.0)
                        .map(|d| d.guidance_rescale.to_string()),
                ),
            ),
            ("Refine steps", if self.refine > 0 { self.refine.to_string() } else { String::new() }),
            ("Precision", self.precision.clone()),
            ("Device", some(circumstances.map(|c| c.device.clone()))),
            ("RNG", "CPU".to_owned()),
            ("TI hashes", hashes.collect::<Vec<_>>().join(", ")),
            ("TI options", options.collect::<Vec<_>>().join(", ")),
            ("Version", format!("personalize {}", self.version)),
        ];
        let settings = pairs.iter().filter(|(_, value)| !value.is_empty());
        let settings = settings
            .map(|(key, value)| format!("{key}: {}", quoted(value)))
            .collect::<Vec<_>>()
            .join(", ");
        format!("{}\nNegative prompt: {}\n{settings}", self.prompt, self.negative_prompt)
    }

    /// The sampler as A1111 calls it.
    fn a1111_sampler(&self) -> String {
        let name = match self.sampler.parse() {
            Ok(SamplerKind::Ddim) => "DDIM",
            Ok(SamplerKind::Pndm) => "PLMS",
            Ok(SamplerKind::Euler) => "Euler",
            Ok(SamplerKind::EulerAncestral) => "Euler a",
            Ok(SamplerKind::Heun) => "Heun",
            Ok(SamplerKind::DpmPlusPlus2M) => "DPM++ 2M",
            Ok(SamplerKind::UniPc) => "UniPC",
            Ok(SamplerKind::Dpm2) => "DPM2",
            Ok(SamplerKind::Lms) => "LMS",
            Err(_) => return self.sampler.to_uppercase(), // that of poses, DDPM
        };
        name.to_owned()
    }

    /// The spread of noise levels as A1111 calls it: where it is not said, A1111 takes Karras for some samplers. Its names
    /// for spacings are `Uniform`, `DDIM` and `Simple`.
    fn a1111_schedule(&self) -> &'static str {
        match (self.schedule.as_str(), self.details.as_ref().map(|details| details.spacing)) {
            ("karras", _) => "Karras",
            (_, Some(TimestepSpacing::Linspace)) => "Uniform",
            (_, Some(TimestepSpacing::Leading)) => "DDIM",
            (_, Some(TimestepSpacing::Trailing)) => "Simple",
            (_, None) => "",
        }
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
        details: Some(SamplingDetails {
            spacing: TimestepSpacing::Leading,
            guidance_rescale: 0.7,
            clip_skip: 2,
        }),
        circumstances: Some(Circumstances {
            device: "cpu".into(),
            batch_size: 4,
            batch_position: 3,
        }),
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
             Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 18446744073709551615, \
             Size: 512x768, Model: \"sd: 1.5\", Batch size: 4, Batch pos: 3, Clip skip: 2, Timestep spacing: leading, \
             CFG rescale: 0.7, Precision: f32, Device: cpu, RNG: CPU, TI hashes: \"cat: 0123456789ab, ink: ffff\", \
             TI options: \"ink: strength=0.5\", Version: personalize 0.1.0"
        );
    }

    #[test]
    fn what_is_as_usual_is_left_out_of_the_a1111_text_but_the_negative_prompt_has_its_line() {
        let plain = PictureParameters {
            negative_prompt: String::new(),
            schedule: String::new(),
            concepts: Vec::new(),
            details: None,
            circumstances: None,
            ..example()
        };
        let text = plain.a1111();
        assert!(text.contains("\nNegative prompt: \nSteps: 30"), "{text}");
        for key in
            ["Schedule", "TI hashes", "TI options", "Batch", "Clip skip", "rescale", "spacing"]
        {
            assert!(!text.contains(key), "{key} is in {text}");
        }
    }

    #[test]
    fn every_sampler_has_the_name_of_a1111_and_is_known_by_it() {
        for kind in SamplerKind::all() {
            let made = PictureParameters { sampler: kind.name().into(), ..example() };
            assert_eq!(made.a1111_sampler().parse::<SamplerKind>().unwrap(), kind);
        }
        let euler = PictureParameters { sampler: "euler_a".into(), ..example() };
        assert!(euler.a1111().contains("Sampler: Euler a, "));
        let ddpm = PictureParameters { sampler: "ddpm".into(), ..example() };
        assert!(ddpm.a1111().contains("Sampler: DDPM, "));
    }

    #[test]
    fn older_records_are_read_and_say_nothing_of_what_they_do_not_hold() {
        let mut old = serde_json::to_value(example()).unwrap();
        let fields = old.as_object_mut().unwrap();
        for added in ["spacing", "guidance_rescale", "clip_skip", "circumstances"] {
            assert!(fields.remove(added).is_some(), "{added}");
        }
        fields.insert("schedule".into(), "".into());
        let old: PictureParameters = serde_json::from_value(old).unwrap();
        assert_eq!((&old.details, &old.circumstances), (&None, &None));
        assert_eq!(old.completed_by(&example()), example());
        let other = SamplingDetails { clip_skip: 1, ..example().details.unwrap() };
        let newer = PictureParameters { details: Some(other), ..example() };
        assert_ne!(newer.completed_by(&example()), example());
    }
}
