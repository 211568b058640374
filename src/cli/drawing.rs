//! What `generate` and `evaluate` share: how pictures are drawn.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use pipelines::config::parse_seed;
use pipelines::generate::GenerateRequest;
use pipelines::templates::prompt_lines;

use super::OutputStyle;

/// How pictures are drawn.
#[derive(Args)]
pub struct DrawingArgs {
    /// Concept file, or NAME=FILE to call it by another word; may be given several times. Options may follow:
    /// strength=0..2 (0 the class, 1 as learnt), truncate=UNITS and bypass=ALPHA (NeTI), layers=4-9 (files that
    /// share a word share it by layers)
    #[arg(short, long, value_name = "[NAME=]FILE[,KEY=VALUE]...")]
    concept: Vec<String>,
    /// Folder of a Stable Diffusion 1.x or 2.x model [default: the built-in toybox]
    #[arg(long, value_name = "DIR", env = "PERSONALIZE_BASE", visible_alias = "model")]
    base: Option<PathBuf>,
    /// Variant of the base's weight files, e.g. fp16
    #[arg(long)]
    variant: Option<String>,
    /// What not to draw
    #[arg(short, long, default_value = "", hide_default_value = true)]
    negative_prompt: String,
    /// Pictures drawn at once
    #[arg(long, default_value_t = 1)]
    batch_size: u32,
    /// Denoising steps
    #[arg(long, default_value_t = 30)]
    steps: u32,
    /// Scale of classifier-free guidance; 1 or less is none, as in diffusers
    #[arg(long, default_value_t = 7.5, visible_aliases = ["cfg-scale", "guidance-scale"])]
    guidance: f64,
    /// Pull guided predictions back to their own contrast, 0 to 1 (0.7 for zero-terminal-SNR models)
    #[arg(long, default_value_t = 0.0)]
    guidance_rescale: f64,
    /// ddim, pndm, euler, `euler_a`, heun, dpm++2m, dpm2, lms or unipc; with `_karras` for Karras noise levels
    #[arg(long, default_value = "dpm++2m", visible_alias = "sampling-method")]
    sampler: String,
    /// leading, trailing or linspace [default: the model's]
    #[arg(long)]
    spacing: Option<String>,
    /// Karras noise levels
    #[arg(long)]
    karras: bool,
    /// Width in pixels [default: the model's]
    #[arg(short = 'W', long)]
    width: Option<i64>,
    /// Height in pixels [default: the model's]
    #[arg(short = 'H', long)]
    height: Option<i64>,
    /// 2 leaves out the text encoder's last block
    #[arg(long, default_value_t = 1)]
    clip_skip: u32,
    /// Tune copies of the concepts to each prompt for so many steps first, 10 for instance; no file changes
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "STEPS")]
    refine: u64,
    /// Cut prompts of more than 75 tokens instead of refusing them, and say what was cut
    #[arg(long)]
    truncate: bool,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", env = "PERSONALIZE_DEVICE")]
    device: String,
    /// auto, f32, bf16 or f16
    #[arg(long, default_value = "auto")]
    precision: String,
}

impl DrawingArgs {
    /// A request of these prompts' pictures, into this folder or file.
    pub(super) fn request(
        &self,
        prompts: Vec<String>,
        (count, seed): (u32, u64),
        output: &std::path::Path,
    ) -> Result<GenerateRequest> {
        let spacing =
            self.spacing.as_deref().map(pipelines::generate::parse_spacing).transpose()?;
        Ok(GenerateRequest {
            base: self.base.clone().unwrap_or_default(),
            variant: self.variant.clone(),
            concepts: self.concept.iter().map(|c| split_name(c)).collect(),
            prompts,
            negative_prompt: self.negative_prompt.clone(),
            count,
            batch_size: self.batch_size,
            seed,
            steps: self.steps as usize,
            guidance: self.guidance,
            guidance_rescale: self.guidance_rescale,
            sampler: self.sampler.clone(),
            spacing,
            karras: self.karras,
            width: self.width,
            height: self.height,
            clip_skip: self.clip_skip as usize,
            refine: self.refine,
            truncate: self.truncate,
            grid: false,
            no_metadata: false,
            force: false,
            device: self.device.parse()?,
            precision: self.precision.parse()?,
            output: output.to_owned(),
        })
    }
}

/// `personalize generate`.
#[derive(Args)]
pub struct GenerateArgs {
    /// How the pictures are drawn.
    #[command(flatten)]
    drawing: DrawingArgs,
    /// What to draw; may be given several times
    #[arg(short, long)]
    prompt: Vec<String>,
    /// File with a prompt in each line; # begins a comment
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Pictures of each prompt
    #[arg(short = 'b', long, default_value_t = 1, visible_alias = "batch-count")]
    count: u32,
    /// Of the first picture, 0 to 2^64-1; picture i has seed + i [default: random, printed; so is -1]
    #[arg(short, long, value_parser = drawing_seed)]
    seed: Option<Seed>,
    /// Write all pictures as one, too
    #[arg(long)]
    grid: bool,
    /// Write no parameters into the pictures
    #[arg(long)]
    no_metadata: bool,
    /// Replace pictures of the same name
    #[arg(long)]
    force: bool,
    /// Folder, or one file for one picture: .png, .jpg or .webp
    #[arg(short, long, default_value = "out")]
    output: PathBuf,
    /// How results are shown.
    #[command(flatten)]
    pub output_style: OutputStyle,
}

impl GenerateArgs {
    /// What was asked for, with a seed drawn where none was given.
    pub fn request(&self) -> Result<GenerateRequest> {
        let mut prompts = self.prompt.clone();
        if let Some(path) = &self.prompt_file {
            prompts.extend(read_prompts(path)?);
        }
        let seed = self.seed.unwrap_or(Seed::Random).draw();
        Ok(GenerateRequest {
            grid: self.grid,
            no_metadata: self.no_metadata,
            force: self.force,
            ..self.drawing.request(prompts, (self.count, seed), &self.output)?
        })
    }
}

/// `NAME=FILE` or `FILE`; a path may hold `=` itself, and so may the options behind its first comma.
fn split_name(concept: &str) -> (Option<String>, PathBuf) {
    match concept.split_once('=') {
        Some((name, file)) if !name.contains(['/', ',']) && !PathBuf::from(concept).exists() => {
            (Some(name.to_owned()), file.into())
        }
        _ => (None, concept.into()),
    }
}

fn read_prompts(path: &PathBuf) -> Result<Vec<String>> {
    let text = match torch_ext::file::read_to_string(path) {
        Ok(text) => text,
        Err(source) => bail!(pipelines::Error::Io { path: path.clone(), verb: "read", source }),
    };
    Ok(prompt_lines(&text).map(|(_, line)| line.to_owned()).collect())
}

/// A seed as it is typed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seed {
    /// This one.
    Given(u64),
    /// Any.
    Random,
}

impl Seed {
    /// The seed; a random one fits in the 32 bits which every tool reads.
    pub(super) fn draw(self) -> u64 {
        use std::hash::{BuildHasher as _, Hasher as _};
        match self {
            Self::Given(seed) => seed,
            Self::Random => std::hash::RandomState::new().build_hasher().finish() & 0xFFFF_FFFF,
        }
    }
}

/// Reads a seed, or -1 for a random one, as other programs have it.
pub(super) fn drawing_seed(text: &str) -> Result<Seed, String> {
    match text.trim() {
        "-1" => Ok(Seed::Random),
        text => parse_seed(text)
            .map(Seed::Given)
            .map_err(|error| format!("{error}, or -1 for a random one")),
    }
}
