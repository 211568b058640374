//! What can be typed. Parsing does nothing else; what it means is decided in `pipelines`.

mod drawing;
mod evaluate;
mod keys;
mod pose;
mod pose_train;

use std::any::TypeId;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use pipelines::config::{Table, Value, parse_seed};

use keys::{path, seed, small, table, text};

pub use drawing::GenerateArgs;
pub use evaluate::EvaluateArgs;
pub use pose::{CheckArgs, PoseCommand, PoseEvaluateArgs, PoseGenerateArgs, RenderArgs};
pub use pose_train::{PoseRunArgs, TrainFusionArgs, TrainGeneratorArgs};

/// Learn a concept from a few photos with a frozen Stable Diffusion, and draw it in any prompt.
#[derive(Parser)]
#[command(
    version,
    propagate_version = true,
    max_term_width = 100,
    args_override_self = true,
    mut_subcommands(taking_negative_numbers)
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Lets every value of a command be a negative number: whether `--guidance -3` is a good one is said by who reads it.
fn taking_negative_numbers(command: clap::Command) -> clap::Command {
    let take = |arg: clap::Arg| {
        let takes_values = arg.get_action().takes_values();
        // clap does not know -1e-3 for a number.
        let is_float = arg.get_value_parser().type_id() == TypeId::of::<f64>();
        arg.allow_negative_numbers(takes_values).allow_hyphen_values(is_float)
    };
    command.mut_args(take).mut_subcommands(taking_negative_numbers)
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Learn a concept from a folder of photos
    #[command(
        after_help = "Example:\n  personalize train --photos photos/cat --concept '<cat>' --class cat \
                            --base MODEL --steps 300 --seed 1 --output runs/cat"
    )]
    Train(Box<TrainArgs>),
    /// Draw pictures of one or several concepts
    #[command(
        after_help = "Example:\n  personalize generate --concept runs/cat/cat.safetensors --base MODEL \
                            --prompt 'a photo of <cat> in the snow' --seed 7 --count 4 --output out/"
    )]
    Generate(Box<GenerateArgs>),
    /// Say how good a concept is: draw it in fixed prompts and compare with photos and prompts
    #[command(
        after_help = "Examples:\n  personalize evaluate --concept runs/cat/cat.safetensors --photos photos/cat \
                            --prompts dreambooth --base MODEL --clip CLIP --output out/cat\n  \
                            personalize evaluate --compare out/cat/results.json out/cat-neti/results.json"
    )]
    Evaluate(Box<EvaluateArgs>),
    /// Write report.html of a run or an evaluation again: its pictures, curves, scores and attention maps in one file
    #[command(after_help = "Example:\n  personalize report runs/cat")]
    Report {
        /// Folder that was --output of train or evaluate
        folder: PathBuf,
    },
    /// Work with concept files
    Concept {
        /// What to do with it.
        #[command(subcommand)]
        command: ConceptCommand,
    },
    /// Work with people in poses: skeletons, data, scores
    Pose {
        /// What to do with them.
        #[command(subcommand)]
        command: PoseCommand,
    },
    /// Show versions, devices and, with --base, whether a base can be used
    Doctor {
        /// Folder of a base model to look at
        #[arg(long, value_name = "DIR", env = "PERSONALIZE_BASE")]
        base: Option<PathBuf>,
    },
    /// Write a completion script to stdout
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a base model with random weights, for tests, benchmarks and demonstrations
    #[command(hide = true)]
    RandomBase {
        /// Folder with the configurations and the tokenizer to use
        #[arg(long)]
        like: PathBuf,
        /// Folder to write
        #[arg(long)]
        output: PathBuf,
        /// Of the weights on disk
        #[arg(long, default_value = "f32")]
        precision: String,
    },
}

/// `personalize concept ...`.
#[derive(Subcommand)]
pub enum ConceptCommand {
    /// Fit an ordinary token to a ConES concept, for tools that know no other
    Distill {
        /// The ConES concept
        file: PathBuf,
        /// Folder of the base model that it was trained on
        #[arg(long, value_name = "DIR", env = "PERSONALIZE_BASE")]
        base: PathBuf,
        /// The file to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Optimiser steps
        #[arg(long, default_value_t = 500)]
        steps: u64,
        /// Learning rate
        #[arg(long, default_value_t = 1e-3)]
        lr: f64,
        /// auto, cpu, cuda or cuda:N
        #[arg(long, default_value = "auto", env = "PERSONALIZE_DEVICE")]
        device: String,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Show what a concept file holds
    Inspect {
        /// The file
        file: PathBuf,
        /// Folder of a base model, to show the nearest words of its vocabulary [default: the built-in toybox, where the
        /// concept was trained on it]
        #[arg(long, value_name = "DIR", env = "PERSONALIZE_BASE")]
        base: Option<PathBuf>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// How results are shown.
#[derive(Args)]
pub struct OutputStyle {
    /// Results as JSON on stdout
    #[arg(long)]
    pub json: bool,
    /// No progress on stderr; warnings and errors stay
    #[arg(short, long)]
    pub quiet: bool,
    /// More detail, and traces of failures inside libtorch
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// `personalize train`. Every flag is a key of the configuration; a flag that is not given leaves the file's
/// or the preset's value.
#[derive(Args)]
pub struct TrainArgs {
    /// Folder with 3 to 6 photos
    #[arg(long, value_name = "DIR", visible_alias = "data", alias = "train-data-dir")]
    photos: Option<PathBuf>,
    /// The word that stands for the concept in prompts
    #[arg(long, value_name = "WORD", visible_alias = "token", alias = "placeholder-token")]
    concept: Option<String>,
    /// What the concept is an example of; training starts from this word
    #[arg(long, value_name = "WORDS")]
    class: Option<String>,
    /// Folder of a Stable Diffusion 1.x or 2.x model [default: the built-in toybox]
    #[arg(
        long,
        value_name = "DIR",
        env = "PERSONALIZE_BASE",
        visible_alias = "model",
        alias = "pretrained-model-name-or-path"
    )]
    base: Option<PathBuf>,
    /// Variant of the base's weight files, e.g. fp16
    #[arg(long)]
    variant: Option<String>,
    /// Training method: core (default), ti, xti, neti or cones
    #[arg(long)]
    method: Option<String>,
    /// Variant of the method's preset; core has default, paper-literal, official-compat and fast
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Folder of the run
    #[arg(short, long, value_name = "DIR", visible_alias = "output-dir")]
    output: Option<PathBuf>,
    /// Optimiser steps
    #[arg(long, alias = "max-train-steps")]
    steps: Option<u32>,
    /// Seed of everything random, 0 to 2^64-1
    #[arg(long, value_parser = parse_seed)]
    seed: Option<u64>,
    /// Token vectors of the concept
    #[arg(long, alias = "num-vectors")]
    vectors: Option<u32>,
    /// Word or phrase to start from, where it is not the class
    #[arg(long, value_name = "WORDS", aliases = ["initializer-token", "init-word"])]
    init: Option<String>,
    /// Start from random vectors
    #[arg(long)]
    init_random: bool,
    /// Begin with the values of a concept file of the same method
    #[arg(long, value_name = "FILE")]
    warm_start: Option<PathBuf>,
    /// Rows that ConES learns: noun, noun+tail:4, noun-replace or prompt
    #[arg(long)]
    slots: Option<String>,
    /// object, style, photo, captions or a file with a {} in each line
    #[arg(long, value_name = "SET")]
    templates: Option<String>,
    /// Side of the training pictures in pixels
    #[arg(long)]
    resolution: Option<u32>,
    /// smart or center, which cut; pad, which puts bars beside a photo; or none, which squashes it
    #[arg(long)]
    crop: Option<String>,
    /// Mirror every second sample
    #[arg(long)]
    flip: bool,
    /// Samples in a micro-batch
    #[arg(long, alias = "train-batch-size")]
    batch_size: Option<u32>,
    /// Micro-batches in an optimiser step
    #[arg(long, visible_alias = "grad-accum", alias = "gradient-accumulation-steps")]
    gradient_accumulation: Option<u32>,
    /// Learning rate
    #[arg(long, alias = "learning-rate")]
    lr: Option<f64>,
    /// Multiply the learning rate by the samples of a step
    #[arg(long)]
    scale_lr: bool,
    /// constant, linear or cosine
    #[arg(long, alias = "lr-scheduler", value_name = "SHAPE")]
    lr_schedule: Option<String>,
    /// Steps over which the learning rate rises from 0
    #[arg(long, alias = "lr-warmup-steps", value_name = "STEPS")]
    warmup_steps: Option<u32>,
    /// Largest norm of a gradient; 0 is no limit
    #[arg(long)]
    max_grad_norm: Option<f64>,
    /// Min-SNR weights with this gamma, e.g. 5; 0 is off
    #[arg(long, alias = "snr-gamma")]
    min_snr_gamma: Option<f64>,
    /// Less memory, about a third more time; with CoRe only where it compares no attention
    #[arg(long)]
    gradient_checkpointing: bool,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, env = "PERSONALIZE_DEVICE")]
    device: Option<String>,
    /// Of the frozen base: auto, f32, bf16 or f16
    #[arg(long, alias = "mixed-precision")]
    precision: Option<String>,
    /// 2 leaves out the text encoder's last block
    #[arg(long)]
    clip_skip: Option<u32>,
    /// Prompt to draw while training ({} is the concept); may be given several times
    #[arg(long, value_name = "PROMPT", alias = "validation-prompt")]
    sample_prompt: Vec<String>,
    /// Steps between sample pictures
    #[arg(long, value_name = "STEPS", alias = "validation-steps")]
    sample_every: Option<u32>,
    /// Steps between saves
    #[arg(long, value_name = "STEPS", alias = "save-steps")]
    save_every: Option<u32>,
    /// Write a concept file that tells only what drawing it needs: method, word, class, settings and the base's sketch
    #[arg(long)]
    no_metadata: bool,
    /// Steps between losses at fixed photos, noises and timesteps; 0 is never
    #[arg(long, value_name = "STEPS")]
    validate_every: Option<u32>,
    /// Folder of a CLIP model that judges the sample pictures [default: clip/ in the base's folder, where there is one]
    #[arg(long, value_name = "DIR")]
    clip: Option<PathBuf>,
    /// Keep the best concept instead of the last: by loss, likeness, fidelity or balance
    #[arg(long, value_name = "BY")]
    keep_best: Option<String>,
    /// TOML file with any of the keys of configs/train/
    #[arg(long, value_name = "FILE", env = "PERSONALIZE_CONFIG")]
    pub config: Option<PathBuf>,
    /// One key of the configuration; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on with the run in --output
    #[arg(long)]
    pub resume: bool,
    /// Overwrite the run in --output
    #[arg(long, conflicts_with = "resume")]
    pub force: bool,
    /// Write no report.html at the end
    #[arg(long)]
    pub no_report: bool,
    /// Print the resolved configuration and stop
    #[arg(long)]
    pub print_config: bool,
    /// Print the plan, what is kept of each photo, five prompts with their token ids and the memory it needs; train and
    /// write nothing
    #[arg(long, conflicts_with = "resume")]
    pub dry_run: bool,
    /// With --dry-run, write a picture (PNG) of all photos with what is kept of each
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    pub crop_sheet: Option<PathBuf>,
    /// How results are shown.
    #[command(flatten)]
    pub output_style: OutputStyle,
}

impl TrainArgs {
    /// The keys that were given, `--set` last.
    pub fn overrides(&self) -> Result<Table> {
        let switch = |on: bool| on.then_some(Value::from(true));
        let samples = &self.sample_prompt;
        let keys = [
            ("photos", path(self.photos.as_ref())),
            ("concept", text(self.concept.as_ref())),
            ("class", text(self.class.as_ref())),
            ("base", path(self.base.as_ref())),
            ("variant", text(self.variant.as_ref())),
            ("method", text(self.method.as_ref())),
            ("output", path(self.output.as_ref())),
            ("steps", small(self.steps)),
            ("seed", seed(self.seed)),
            ("vectors", small(self.vectors)),
            ("initializer", text(self.init.as_ref())),
            ("initializer_random", switch(self.init_random)),
            ("warm_start", path(self.warm_start.as_ref())),
            ("slots", text(self.slots.as_ref())),
            ("templates", text(self.templates.as_ref())),
            ("resolution", small(self.resolution)),
            ("crop", text(self.crop.as_ref())),
            ("flip", switch(self.flip)),
            ("batch_size", small(self.batch_size)),
            ("gradient_accumulation", small(self.gradient_accumulation)),
            ("learning_rate", self.lr.map(Value::from)),
            ("scale_learning_rate", switch(self.scale_lr)),
            ("lr_schedule", text(self.lr_schedule.as_ref())),
            ("warmup_steps", small(self.warmup_steps)),
            ("max_grad_norm", self.max_grad_norm.map(Value::from)),
            ("min_snr_gamma", self.min_snr_gamma.map(Value::from)),
            ("gradient_checkpointing", switch(self.gradient_checkpointing)),
            ("device", text(self.device.as_ref())),
            ("precision", text(self.precision.as_ref())),
            ("clip_skip", small(self.clip_skip)),
            ("sample_prompts", (!samples.is_empty()).then(|| Value::from(samples.clone()))),
            ("sample_every", small(self.sample_every)),
            ("save_every", small(self.save_every)),
            ("metadata", self.no_metadata.then_some(Value::from(false))),
            ("validate_every", small(self.validate_every)),
            ("clip", path(self.clip.as_ref())),
            ("keep_best", text(self.keep_best.as_ref())),
        ];
        table(keys, &self.set)
    }
}
