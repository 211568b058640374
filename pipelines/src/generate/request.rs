//! What is asked for, before anything is looked at.

use std::path::PathBuf;

use models::schedule::TimestepSpacing;
use serde::{Deserialize, Serialize};

use crate::picture::names_picture;
use crate::{DeviceChoice, Error, Precision};

/// The most pictures that one command draws; at a second each they take more than eleven days.
const MOST_PICTURES: u64 = 1_000_000;
/// The most pixels that are drawn at once, or joined in a grid: as many as are decoded of a photo.
const MOST_PIXELS: u64 = 1 << 28;

/// What a user asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GenerateRequest {
    /// Folder of the base model.
    pub base: PathBuf,
    /// Variant of its weight files.
    pub variant: Option<String>,
    /// Concept files, each with the word it is called by, where that is not the file's own. Options on how it is
    /// drawn may follow a file: `cat.safetensors,strength=0.8`.
    pub concepts: Vec<(Option<String>, PathBuf)>,
    /// Prompts, in which concepts stand by their words.
    pub prompts: Vec<String>,
    /// What the pictures should not be; may hold concepts.
    pub negative_prompt: String,
    /// Pictures a prompt.
    pub count: u32,
    /// Pictures drawn at once.
    pub batch_size: u32,
    /// Of the first picture of each prompt; picture i has seed + i, and 0 follows the largest.
    pub seed: u64,
    /// Denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance; 1 or less is none.
    pub guidance: f64,
    /// Pull of the guided prediction's deviation back to the conditional one's, 0 to 1.
    pub guidance_rescale: f64,
    /// Name of the sampler.
    pub sampler: String,
    /// Spacing of timesteps, where it is not the scheduler's own.
    pub spacing: Option<TimestepSpacing>,
    /// Karras noise levels, where the sampler's name does not say it.
    pub karras: bool,
    /// Width in pixels, where it is not the base's own.
    pub width: Option<i64>,
    /// Height in pixels, where it is not the base's own.
    pub height: Option<i64>,
    /// Layers of the text encoder counted from its end: 1 is all, 2 leaves out the last.
    pub clip_skip: usize,
    /// Steps for which copies of the concepts are tuned to each prompt first; 0 is none.
    pub refine: u64,
    /// Cut prompts that are too long.
    pub truncate: bool,
    /// Write one picture of all pictures too.
    pub grid: bool,
    /// Write no parameters into the pictures.
    pub no_metadata: bool,
    /// Replace pictures of the same name.
    pub force: bool,
    /// Where to compute.
    pub device: DeviceChoice,
    /// In what kind of number.
    pub precision: Precision,
    /// Folder for the pictures, or one file (`.png`, `.jpg`, `.webp`) for one picture.
    pub output: PathBuf,
}

impl GenerateRequest {
    /// Refuses numbers that no picture can have.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |text: &str| Err(Error::Usage(text.to_owned()));
        if self.prompts.is_empty() {
            return refuse("no prompt is given; pass --prompt 'a photo of <cat>'");
        }
        for (flag, number) in [
            ("--count", self.count as usize),
            ("--batch-size", self.batch_size as usize),
            ("--clip-skip", self.clip_skip),
        ] {
            if number == 0 {
                return refuse(&format!("{flag} is 0; give 1 or more"));
            }
        }
        let (guidance, rescale) = (self.guidance, self.guidance_rescale);
        if !guidance.is_finite() {
            return refuse(&format!("--guidance is {guidance}; give a finite number such as 7.5"));
        }
        if !(0.0..=1.0).contains(&rescale) {
            return refuse(&format!("--guidance-rescale is {rescale}; give a number from 0 to 1"));
        }
        let pictures = self.prompts.len() as u64 * u64::from(self.count);
        if pictures > MOST_PICTURES {
            return refuse(&format!(
                "{pictures} pictures are asked for, but at most {MOST_PICTURES} are drawn at a time; ask for fewer of each prompt, or give fewer prompts"
            ));
        }
        if self.names_picture()? && (self.prompts.len() > 1 || self.count > 1 || self.grid) {
            return refuse("--output names one picture, but several are asked for; give a folder");
        }
        Ok(())
    }

    /// Refuses more than any machine holds; `width` and `height` are those in force.
    pub(super) fn check_size(&self, width: i64, height: i64) -> Result<(), Error> {
        let picture = width as u64 * height as u64; // checked before to be at most 2^26
        let together = u64::from(self.batch_size.min(self.count));
        if picture * together > MOST_PIXELS {
            return Err(Error::Usage(format!(
                "{together} pictures of {width}x{height} at once are more than any machine holds; lower --batch-size"
            )));
        }
        let all = self.prompts.len() as u64 * u64::from(self.count);
        if self.grid && picture * all > MOST_PIXELS {
            return Err(Error::Usage(format!(
                "a grid of {all} pictures of {width}x{height} is larger than programs open; draw at most {} at a time, or leave out --grid",
                MOST_PIXELS / picture
            )));
        }
        Ok(())
    }

    /// Says whether the output is one picture rather than a folder.
    pub(super) fn names_picture(&self) -> Result<bool, Error> {
        names_picture(&self.output)
    }
}

/// The spacing of timesteps by its name.
pub fn parse_spacing(name: &str) -> Result<TimestepSpacing, Error> {
    match name {
        "leading" => Ok(TimestepSpacing::Leading),
        "trailing" => Ok(TimestepSpacing::Trailing),
        "linspace" => Ok(TimestepSpacing::Linspace),
        other => Err(Error::Usage(format!(
            "spacing '{other}' is unknown; use leading, trailing or linspace"
        ))),
    }
}
