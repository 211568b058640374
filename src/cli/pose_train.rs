//! `personalize pose train-fusion` and `train-generator`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipelines::config::{Table, Value, parse_seed};

use super::OutputStyle;
use super::keys::{path, seed, small, table, text};
use super::pose::FRAMES;

/// What both stages are given; every default is the preset's.
#[derive(Args)]
pub struct PoseRunArgs {
    /// Folder of photos, poses and pairs
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What coordinates count in
    #[arg(long, help = format!("What coordinates count in: {FRAMES}"))]
    frame: Option<String>,
    /// Width and height of the pictures that are learnt
    #[arg(long, value_name = "WxH")]
    size: Option<String>,
    /// Folder of the run
    #[arg(short, long, value_name = "DIR", visible_alias = "output-dir")]
    output: Option<PathBuf>,
    /// fpdm (default), or toybox: small networks, for a CPU
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Optimiser steps
    #[arg(long, alias = "max-train-steps")]
    steps: Option<u32>,
    /// Pairs in a micro-batch
    #[arg(long, alias = "train-batch-size")]
    batch_size: Option<u32>,
    /// Micro-batches in an optimiser step
    #[arg(long, visible_alias = "grad-accum", alias = "gradient-accumulation-steps")]
    gradient_accumulation: Option<u32>,
    /// Learning rate
    #[arg(long, alias = "learning-rate")]
    lr: Option<f64>,
    /// constant, linear or cosine
    #[arg(long, alias = "lr-scheduler", value_name = "SHAPE")]
    lr_schedule: Option<String>,
    /// Steps over which the learning rate rises from 0
    #[arg(long, alias = "lr-warmup-steps", value_name = "STEPS")]
    warmup_steps: Option<u32>,
    /// Largest norm of a gradient; 0 is no limit
    #[arg(long)]
    max_grad_norm: Option<f64>,
    /// Seed of everything random, 0 to 2^64-1
    #[arg(long, value_parser = parse_seed)]
    seed: Option<u64>,
    /// Steps between checkpoints
    #[arg(long, value_name = "STEPS", alias = "save-steps")]
    save_every: Option<u32>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, env = "PERSONALIZE_DEVICE")]
    device: Option<String>,
    /// What networks compute in: auto, f32, bf16 or f16; what is trained is f32
    #[arg(long, alias = "mixed-precision")]
    precision: Option<String>,
    /// TOML file with any of the keys of configs/pose/
    #[arg(long, value_name = "FILE")]
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
    /// How results are shown.
    #[command(flatten)]
    pub output_style: OutputStyle,
}

impl PoseRunArgs {
    /// The keys that were given, the stage's own among them, `--set` last.
    fn overrides(&self, own: Vec<(&str, Option<Value>)>) -> Result<Table> {
        let mut keys = vec![
            ("data", path(self.data.as_ref())),
            ("frame", text(self.frame.as_ref())),
            ("size", text(self.size.as_ref())),
            ("output", path(self.output.as_ref())),
            ("steps", small(self.steps)),
            ("batch_size", small(self.batch_size)),
            ("gradient_accumulation", small(self.gradient_accumulation)),
            ("learning_rate", self.lr.map(Value::from)),
            ("lr_schedule", text(self.lr_schedule.as_ref())),
            ("warmup_steps", small(self.warmup_steps)),
            ("max_grad_norm", self.max_grad_norm.map(Value::from)),
            ("seed", seed(self.seed)),
            ("save_every", small(self.save_every)),
            ("device", text(self.device.as_ref())),
            ("precision", text(self.precision.as_ref())),
        ];
        keys.extend(own);
        table(keys, &self.set)
    }
}

/// `personalize pose train-fusion`.
#[derive(Args)]
pub struct TrainFusionArgs {
    /// Folder of the encoder of photos and poses that is trained on: CLIP, `DINOv2`, or `built-in` for the built-in base's
    #[arg(long, value_name = "DIR")]
    encoder: Option<PathBuf>,
    /// What both stages are given.
    #[command(flatten)]
    pub run: PoseRunArgs,
}

impl TrainFusionArgs {
    /// The keys that were given.
    pub fn overrides(&self) -> Result<Table> {
        self.run.overrides(vec![("encoder", path(self.encoder.as_ref()))])
    }
}

/// `personalize pose train-generator`.
#[derive(Args)]
pub struct TrainGeneratorArgs {
    /// File of the first stage, which `pose train-fusion` wrote
    #[arg(long, value_name = "FILE")]
    fusion: Option<PathBuf>,
    /// File of a second stage of the same shapes to begin with; its first stage is taken, too, unless --fusion gives another
    #[arg(long, value_name = "FILE")]
    warm_start: Option<PathBuf>,
    /// Folder of a Stable Diffusion 1.x or 2.x model [default: the built-in toybox]
    #[arg(long, value_name = "DIR", env = "PERSONALIZE_BASE", visible_alias = "model")]
    base: Option<PathBuf>,
    /// Variant of the base's weight files, e.g. fp16
    #[arg(long)]
    variant: Option<String>,
    /// Folder of the encoder that source photos become tokens by, e.g. `DINOv2` [default: the first stage's]
    #[arg(long, value_name = "DIR")]
    source_encoder: Option<PathBuf>,
    /// What of the U-Net is trained: full, light (thin matrices; our extension) or new (one from nothing)
    #[arg(long)]
    mode: Option<String>,
    /// What both stages are given.
    #[command(flatten)]
    pub run: PoseRunArgs,
}

impl TrainGeneratorArgs {
    /// The keys that were given.
    pub fn overrides(&self) -> Result<Table> {
        self.run.overrides(vec![
            ("fusion", path(self.fusion.as_ref())),
            ("warm_start", path(self.warm_start.as_ref())),
            ("base", path(self.base.as_ref())),
            ("variant", text(self.variant.as_ref())),
            ("source_encoder", path(self.source_encoder.as_ref())),
            ("mode", text(self.mode.as_ref())),
        ])
    }
}
