//! `personalize evaluate`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipelines::config::parse_seed;
use pipelines::evaluate::EvaluateRequest;

use super::OutputStyle;
use super::drawing::DrawingArgs;

/// `personalize evaluate`.
#[derive(Args)]
pub struct EvaluateArgs {
    /// How the pictures are drawn; the first concept is the one that is judged.
    #[command(flatten)]
    drawing: DrawingArgs,
    /// Folder of photos to compare with
    #[arg(long, value_name = "DIR", required_unless_present = "compare")]
    photos: Option<PathBuf>,
    /// dreambooth, custom101, core, toybox, or a file with a {} in each line
    #[arg(long, value_name = "SET", required_unless_present = "compare")]
    prompts: Option<String>,
    /// Pictures of each prompt
    #[arg(long, default_value_t = 4)]
    images: u32,
    /// Of the first picture of each prompt, 0 to 2^64-1; picture i has seed + i
    #[arg(short, long, default_value_t = 0, value_parser = parse_seed)]
    seed: u64,
    /// Folder of a CLIP model [default: clip/ in the base's folder, which the built-in base has]
    #[arg(long, value_name = "DIR")]
    clip: Option<PathBuf>,
    /// Folder of DINO, such as that of dino-vits16, to score likeness by it too
    #[arg(long, value_name = "DIR")]
    dino: Option<PathBuf>,
    /// Folder of masks, one for each photo under its name: white is the subject, the rest is replaced by grey
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// What CLIP reads in the concept's place: class, drop (nothing, always reported too) or literal (its word)
    #[arg(long, value_name = "POLICY", default_value = "class")]
    clip_text: String,
    /// What the concept is an example of [default: what its file says]
    #[arg(long, value_name = "WORDS")]
    class: Option<String>,
    /// Folder of the evaluation; the same command goes on where it was stopped
    #[arg(short, long, value_name = "DIR", required_unless_present = "compare")]
    output: Option<PathBuf>,
    /// Write no report.html at the end
    #[arg(long)]
    pub no_report: bool,
    /// Show results side by side, each against the first, and do nothing else
    #[arg(
        long,
        value_name = "RESULTS",
        num_args = 1..,
        conflicts_with_all = ["photos", "prompts", "output", "concept"]
    )]
    pub compare: Vec<PathBuf>,
    /// How results are shown.
    #[command(flatten)]
    pub output_style: OutputStyle,
}

impl EvaluateArgs {
    /// What was asked for.
    pub fn request(&self) -> Result<EvaluateRequest> {
        let output = self.output.clone().unwrap_or_default();
        Ok(EvaluateRequest {
            drawing: self.drawing.request(Vec::new(), (self.images, self.seed), &output)?,
            photos: self.photos.clone().unwrap_or_default(),
            prompts: self.prompts.clone().unwrap_or_default(),
            clip: self.clip.clone(),
            dino: self.dino.clone(),
            masks: self.masks.clone(),
            clip_text: self.clip_text.parse()?,
            class: self.class.clone(),
        })
    }
}
