//! All that two evaluations must share for their numbers to be compared.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use embeddings::file::hex;
use models::schedule::TimestepSpacing;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Error;

/// What stands in a prompt's text for the concept when CLIP compares it with the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClipTextPolicy {
    /// Its class, as `DreamBench` Plus has it.
    #[default]
    Class,
    /// Nothing, as in Textual Inversion's and NeTI's code.
    Drop,
    /// Its word, which CLIP does not know.
    Literal,
}

impl FromStr for ClipTextPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "class" => Ok(Self::Class),
            "drop" => Ok(Self::Drop),
            "literal" => Ok(Self::Literal),
            other => Err(Error::Usage(format!(
                "--clip-text '{other}' is unknown; use class, drop or literal"
            ))),
        }
    }
}

/// A file or a set of files, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashed {
    /// The file's or the folder's name.
    pub name: String,
    /// SHA-256 of the contents, hexadecimal.
    pub sha256: String,
}

impl Hashed {
    /// Reads the files one after the other.
    pub(crate) fn read(name: &str, files: &[PathBuf]) -> Result<Self, Error> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        for path in files {
            let mut file = torch_ext::file::open(path).map_err(Error::io(path, "read"))?;
            loop {
                match file.read(&mut buffer).map_err(Error::io(path, "read"))? {
                    0 => break,
                    read => hasher.update(&buffer[..read]),
                }
            }
        }
        Ok(Self { name: name.to_owned(), sha256: hex(&hasher.finalize()) })
    }

    /// One file under its own name.
    pub(crate) fn of_file(path: &Path) -> Result<Self, Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::read(&name, &[path.to_owned()])
    }
}

/// How the pictures were sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplingProtocol {
    /// The sampler's name as it was given.
    pub sampler: String,
    /// Karras noise levels asked for besides the name.
    pub karras: bool,
    /// Spacing of timesteps, where it is not the scheduler's.
    pub spacing: Option<TimestepSpacing>,
    /// Denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance.
    pub guidance: f64,
    /// Pull back to the conditional prediction's contrast.
    pub guidance_rescale: f64,
    /// What the pictures should not be.
    pub negative_prompt: String,
    /// Blocks of the text encoder counted from its end.
    pub clip_skip: usize,
    /// Steps for which concepts are tuned to a prompt first.
    pub refine: u64,
    /// Pixels; nothing for the base's own.
    pub width: Option<i64>,
    /// Pixels; nothing for the base's own.
    pub height: Option<i64>,
    /// Number format of the networks: `f32`, `bf16` or `f16`.
    pub precision: String,
    /// Pictures drawn at once, which moves the last bit of a sum.
    pub batch_size: u32,
}

/// How the U-Net's features are taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LikenessProtocol {
    /// Blocks whose outputs are pooled.
    pub layers: Vec<String>,
    /// The part of the picture over which they are averaged.
    pub pooled: String,
    /// The timestep whose noise is added.
    pub timestep: i64,
    /// The seed of that noise.
    pub seed: u64,
    /// Side of the pictures, in pixels.
    pub resolution: i64,
}

/// All that has to be equal for two results to be compared; the concepts are not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// Of this program.
    pub tool_version: String,
    /// Name of the prompt set.
    pub prompt_set: String,
    /// The prompts, with `{}` for the concept.
    pub prompts: Vec<String>,
    /// What the concept is an example of.
    pub class: Option<String>,
    /// The seed of each picture of a prompt.
    pub seeds: Vec<u64>,
    /// How they are sampled.
    pub sampling: SamplingProtocol,
    /// The base that draws and whose U-Net judges likeness: all its weight files.
    pub base: Hashed,
    /// The photos that pictures are compared with.
    pub photos: Vec<Hashed>,
    /// Their masks in the same order, where only the subject counts: what they leave out is grey.
    #[serde(default)]
    pub masks: Vec<Hashed>,
    /// CLIP: weights, configurations and tokenizer.
    pub clip: Hashed,
    /// DINO, where it judged: weights and configuration.
    #[serde(default)]
    pub dino: Option<Hashed>,
    /// What stands for the concept in CLIP-T.
    pub clip_text: ClipTextPolicy,
    /// How the U-Net's features are taken.
    pub unet: LikenessProtocol,
    /// What the interval is.
    pub interval: String,
}

impl Protocol {
    /// The same pictures, judged as in another protocol.
    pub(super) fn judged_as(self, other: &Self) -> Self {
        let Self { class, photos, masks, clip, dino, clip_text, unet, interval, .. } =
            other.clone();
        Self { class, photos, masks, clip, dino, clip_text, unet, interval, ..self }
    }
}
