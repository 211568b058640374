//! `personalize pose`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use pipelines::Error;
use pipelines::pose::evaluate::{EvaluateRequest, TruePoses};
use pipelines::pose::{PoseRequest, RenderRequest, parse_size};

use super::drawing::{Seed, drawing_seed};
use super::{OutputStyle, TrainFusionArgs, TrainGeneratorArgs};

/// `personalize pose ...`.
#[derive(Subcommand)]
pub enum PoseCommand {
    /// Train the first stage: a photo and a pose to the vector of the photo that is sought
    #[command(
        after_help = "Examples:\n  personalize pose train-fusion --data deepfashion --frame 256-margin-40 --encoder clip-vit-large-patch14 \\\n    \
                            --output runs/fusion\n  personalize pose train-fusion --preset toybox --data people --frame pixels --output runs/fusion"
    )]
    TrainFusion(Box<TrainFusionArgs>),
    /// Train the second stage: pictures of the person in the pose
    #[command(
        after_help = "Examples:\n  personalize pose train-generator --data deepfashion --frame 256-margin-40 --fusion runs/fusion/fusion.safetensors \\\n    \
                            --base stable-diffusion-2-1 --source-encoder dinov2-large --output runs/pose\n  \
                            personalize pose train-generator --preset toybox --data people --frame pixels \\\n    \
                            --fusion runs/fusion/fusion.safetensors --output runs/pose"
    )]
    TrainGenerator(Box<TrainGeneratorArgs>),
    /// Draw the person of a photo in a pose, or in each pose of a folder with a sheet and an animation
    #[command(
        after_help = "Examples:\n  personalize pose generate --source her.png --pose walk.txt --frame pixels:750x1101 --output out/walk.png\n  \
                            personalize pose generate --source her.png --pose dance/ --frame pixels:750x1101 --output out/dance"
    )]
    Generate(Box<PoseGenerateArgs>),
    /// Draw the skeleton of a pose, or of each pose of a folder with a sheet and an animation
    #[command(
        after_help = "Example:\n  personalize pose render --pose walk.txt --frame 256x176 --output walk.png"
    )]
    Render(RenderArgs),
    /// Draw a pose over its photo, or look through a whole folder of photos, poses and pairs
    #[command(
        after_help = "Examples:\n  personalize pose check --photo her.jpg --pose her.txt --frame pixels --output check.png\n  \
                            personalize pose check --data deepfashion --frame 256-margin-40"
    )]
    Check(CheckArgs),
    /// Say how like the true photos drawn ones are
    #[command(
        after_help = "Example:\n  personalize pose evaluate --drawn out --truth people/img/target \
                            --source people/img/source --output scores.json"
    )]
    Evaluate(Box<PoseEvaluateArgs>),
}

/// What coordinates count in.
pub(super) const FRAMES: &str = "256-margin-40, 256x176, pixels or pixels:WxH";

/// `personalize pose generate`.
#[derive(Args)]
pub struct PoseGenerateArgs {
    /// Photo of the person
    #[arg(long, value_name = "FILE")]
    source: PathBuf,
    /// Pose: 18 lines `x y` (.txt) or a picture of a skeleton (.png), or a folder of either
    #[arg(long, value_name = "FILE|DIR")]
    pose: PathBuf,
    /// What coordinates count in
    #[arg(long, help = format!("What coordinates count in, where the pose is text: {FRAMES}"))]
    frame: Option<String>,
    /// Pose weights, which `pose train-generator` wrote [default: the built-in ones, for toybox people]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Folder of the Stable Diffusion model that they were trained on [default: the built-in toybox]
    #[arg(long, value_name = "DIR", env = "PERSONALIZE_BASE", visible_alias = "model")]
    base: Option<PathBuf>,
    /// Variant of the base's weight files, e.g. fp16
    #[arg(long)]
    variant: Option<String>,
    /// Folder of the encoder that the weights were trained with, where it is not in them
    #[arg(long, value_name = "DIR")]
    source_encoder: Option<PathBuf>,
    /// Width and height, multiples of 8 [default: what was learnt]
    #[arg(long, value_name = "WxH")]
    size: Option<String>,
    /// Denoising steps
    #[arg(long, default_value_t = 20)]
    steps: u32,
    /// Scale of photo and pose in the guidance; 1 or less is none
    #[arg(long, default_value_t = 2.0, visible_alias = "cfg-scale")]
    guidance: f64,
    /// Scale of the fusion embedding; 0 draws without it [default: that of --guidance]
    #[arg(long)]
    fusion_guidance: Option<f64>,
    /// ddpm (adds noise at each step) or ddim
    #[arg(long, default_value = "ddpm")]
    sampler: String,
    /// Of the noise, 0 to 2^64-1, the same for every pose [default: random, printed; so is -1]
    #[arg(short, long, value_parser = drawing_seed)]
    seed: Option<Seed>,
    /// Pictures drawn at once
    #[arg(long, default_value_t = 4)]
    batch_size: u32,
    /// Folder, or one file for one pose: .png, .jpg or .webp
    #[arg(short, long, default_value = "out")]
    output: PathBuf,
    /// Replace pictures of the same name
    #[arg(long)]
    force: bool,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", env = "PERSONALIZE_DEVICE")]
    device: String,
    /// auto, f32, bf16 or f16
    #[arg(long, default_value = "auto")]
    precision: String,
    /// How results are shown.
    #[command(flatten)]
    pub output_style: OutputStyle,
}

impl PoseGenerateArgs {
    /// What was asked for, with a seed drawn where none was given.
    pub fn request(&self) -> Result<PoseRequest> {
        let stochastic = match self.sampler.as_str() {
            "ddpm" => true,
            "ddim" => false,
            other => {
                bail!(Error::Usage(format!(
                    "the sampler '{other}' is unknown here; use ddpm or ddim"
                )))
            }
        };
        Ok(PoseRequest {
            source: self.source.clone(),
            pose: self.pose.clone(),
            frame: self.frame.as_deref().map(str::parse).transpose()?,
            weights: self.weights.clone(),
            base: self.base.clone().unwrap_or_default(),
            variant: self.variant.clone(),
            source_encoder: self.source_encoder.clone(),
            size: self.size.as_deref().map(parse_size).transpose()?,
            steps: self.steps as usize,
            guidance: self.guidance,
            fusion_guidance: self.fusion_guidance,
            stochastic,
            seed: self.seed.unwrap_or(Seed::Random).draw(),
            batch_size: self.batch_size as usize,
            output: self.output.clone(),
            force: self.force,
            device: self.device.parse()?,
            precision: self.precision.parse()?,
        })
    }
}

/// `personalize pose render`.
#[derive(Args)]
pub struct RenderArgs {
    /// File of 18 lines `x y`, or a folder of such files
    #[arg(long, value_name = "FILE|DIR")]
    pose: PathBuf,
    /// What its coordinates count in
    #[arg(long, help = format!("What its coordinates count in: {FRAMES}"))]
    frame: String,
    /// Width and height of the picture, multiples of 8 [default: 352x512; none for pixels]
    #[arg(long, value_name = "WxH")]
    size: Option<String>,
    /// Folder, or one file for one pose: .png, .jpg or .webp
    #[arg(short, long, default_value = "out")]
    output: PathBuf,
    /// Replace pictures of the same name
    #[arg(long)]
    force: bool,
}

impl RenderArgs {
    /// What was asked for.
    pub fn request(&self) -> Result<RenderRequest> {
        Ok(RenderRequest {
            pose: self.pose.clone(),
            frame: self.frame.parse()?,
            size: self.size.as_deref().map(parse_size).transpose()?,
            output: self.output.clone(),
            force: self.force,
        })
    }
}

/// `personalize pose check`.
#[derive(Args)]
pub struct CheckArgs {
    /// Photo that the pose was found in
    #[arg(long, value_name = "FILE", requires_all = ["pose", "output"], required_unless_present = "data")]
    pub photo: Option<PathBuf>,
    /// File of 18 lines `x y`
    #[arg(long, value_name = "FILE", requires = "photo")]
    pub pose: Option<PathBuf>,
    /// Folder of photos, poses and pairs, as FPDM or as DPTN and CFLD lay them out
    #[arg(long, value_name = "DIR", conflicts_with_all = ["photo", "pose", "output"])]
    pub data: Option<PathBuf>,
    /// What coordinates count in
    #[arg(long, help = format!("What coordinates count in: {FRAMES}"))]
    pub frame: String,
    /// Where the photo with the skeleton over it goes: a .png, .jpg or .webp file or a folder
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// Replace a picture of the same name
    #[arg(long)]
    pub force: bool,
    /// Results as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// `personalize pose evaluate`.
#[derive(Args)]
pub struct PoseEvaluateArgs {
    /// Folder of drawn pictures
    #[arg(long, value_name = "DIR")]
    drawn: PathBuf,
    /// Folder of the true pictures, of the same names
    #[arg(long, value_name = "DIR")]
    truth: PathBuf,
    /// Folder of the source photos, of the same names: what copying them would score
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Folder of the true silhouettes, light on dark: adds foreground L1
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Folder of the backgrounds without anybody: what they would score, and with --masks how silhouettes overlap
    #[arg(long, value_name = "DIR")]
    backgrounds: Option<PathBuf>,
    /// Folder of the true poses, 18 lines `x y` for each picture: adds the error of joints, for toybox people
    #[arg(long, value_name = "DIR", requires = "frame")]
    poses: Option<PathBuf>,
    /// What their coordinates count in
    #[arg(long, requires = "poses", help = format!("What their coordinates count in: {FRAMES}"))]
    frame: Option<String>,
    /// Weights of what finds joints, which `toybox joints` wrote [default: the built-in ones]
    #[arg(long, value_name = "FILE", requires = "poses")]
    joints: Option<PathBuf>,
    /// AlexNet's weights and those of LPIPS: adds LPIPS (docs/pose.md says how to get the file)
    #[arg(long, value_name = "FILE")]
    lpips: Option<PathBuf>,
    /// Inception-v3's weights: adds the Fréchet distance from the true pictures (likewise)
    #[arg(long, value_name = "FILE")]
    fid: Option<PathBuf>,
    /// Another folder to measure it from, e.g. of the photos that were trained on
    #[arg(long, value_name = "DIR", requires = "fid")]
    fid_reference: Option<PathBuf>,
    /// Where these two networks compute: auto, cpu, cuda or cuda:N
    #[arg(long, env = "PERSONALIZE_DEVICE", default_value = "auto")]
    device: String,
    /// Another folder to score beside the drawn one; may be given several times
    #[arg(long, value_name = "NAME=DIR")]
    beside: Vec<String>,
    /// Resize all pictures to this first (bicubic); scores of different sizes do not compare
    #[arg(long, value_name = "WxH")]
    size: Option<String>,
    /// JSON file for all scores, picture by picture
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Results as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

impl PoseEvaluateArgs {
    /// What was asked for.
    pub fn request(&self) -> Result<EvaluateRequest> {
        let mut rows = vec![("drawn".to_owned(), self.drawn.clone())];
        rows.extend(self.source.clone().map(|folder| ("source copied".to_owned(), folder)));
        for beside in &self.beside {
            match beside.split_once('=') {
                Some((name, folder)) if !name.is_empty() && !folder.is_empty() => {
                    rows.push((name.to_owned(), folder.into()));
                }
                _ => bail!(Error::Usage(format!(
                    "--beside '{beside}' is not NAME=DIR; write codec=out/codec"
                ))),
            }
        }
        let frame = self.frame.as_deref().map(str::parse).transpose()?;
        Ok(EvaluateRequest {
            truth: self.truth.clone(),
            rows,
            masks: self.masks.clone(),
            backgrounds: self.backgrounds.clone(),
            poses: self.poses.clone().zip(frame).map(|(folder, frame)| TruePoses {
                folder,
                frame,
                finder: self.joints.clone(),
            }),
            lpips: self.lpips.clone(),
            fid: self.fid.clone(),
            fid_reference: self.fid_reference.clone(),
            device: self.device.parse()?,
            size: self.size.as_deref().map(parse_size).transpose()?,
        })
    }
}
