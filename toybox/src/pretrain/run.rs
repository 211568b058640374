//! What all parts share: the trainer, checkpoints, the log and resuming.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use models::fresh::Fresh;
use models::weights::Checkpoint;
use pipelines::config::LrShape;
use pipelines::trainer::{
    AdamW, AdamWConfig, Average, LearningRate, StepRecord, Stop, TrainStep, Trainer, state,
};
use pipelines::{Error, FolderLock};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use crate::World;

/// Seconds between checkpoints.
const CHECKPOINT_EVERY: u64 = 180;

/// Of the running average of the parameters.
const AVERAGE_DECAY: f64 = 0.999;

/// How one part is trained.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of whose pictures and captions.
    pub world: World,
    /// Folder of the base: configurations are read there, weights written.
    pub base: PathBuf,
    /// Folder for checkpoints, the log and sample sheets.
    pub work: PathBuf,
    /// Optimiser steps.
    pub steps: u64,
    /// Samples in a step.
    pub batch_size: usize,
    /// Scenes that CLIP and the U-Net see again and again.
    pub pictures: usize,
    /// Peak of the learning rate; it warms up over the first hundredth and falls as a cosine.
    pub learning_rate: f64,
    /// Of parameters, samples and noise.
    pub seed: u64,
    /// Steps between sample sheets; 0 draws none.
    pub sample_every: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// `auto`, `f32`, `bf16`: what the network computes in; parameters are f32.
    pub precision: String,
    /// Go on from the checkpoint in `work`.
    pub resume: bool,
    /// Begin with the weights that the base's folder holds.
    pub warm_start: bool,
}

/// What a run reports.
pub enum Report<'a> {
    /// An optimiser step.
    Step(&'a StepRecord),
    /// A file was written.
    Written(&'a Path),
}

/// Where the parameters of `part` come from; with `only`, what it leaves out stays as the folder has it.
pub(super) fn source(
    options: &Options,
    part: &str,
    stem: &str,
    (device, compute): (Device, Kind),
    only: Option<fn(&str) -> bool>,
) -> Result<Fresh, Error> {
    if !options.warm_start && only.is_none() {
        return Ok(Fresh::new(options.seed, compute, device));
    }
    let start = Checkpoint::open(&options.base.join(part), stem, None, Kind::Float, device)?;
    Ok(Fresh::starting_from(start, compute, only.unwrap_or(|_| true)))
}

/// What a part ships: the average of what was trained, and the rest, in half precision.
pub(super) fn shipped(source: &Fresh, average: &[Tensor]) -> Vec<(String, Tensor)> {
    let trained = source.parameters().into_iter().zip(average);
    let trained = trained.map(|((name, _), value)| (name, value.to_kind(Kind::Half)));
    let frozen = source.frozen().into_iter().map(|(name, t)| (name, t.to_kind(Kind::Half)));
    trained.chain(frozen).collect()
}

/// Draws samples with some values of the parameters into a file.
pub(super) type Sheet<'a> = dyn FnMut(&[Tensor], &Path) -> Result<(), Error> + 'a;

/// Trains the parameters of `source` on `step`. `keep` is called at every checkpoint and at the end with the parameters'
/// running average and writes what the part ships; `sheet`, where the part has pictures, draws samples.
pub(super) fn fit(
    name: &str,
    options: &Options,
    source: &Fresh,
    step: &mut dyn TrainStep,
    keep: &mut dyn FnMut(&[Tensor]) -> Result<PathBuf, Error>,
    mut sheet: Option<&mut Sheet<'_>>,
    report: &mut dyn FnMut(Report<'_>) -> ControlFlow<()>,
) -> Result<PathBuf, Error> {
    source.require_complete()?;
    let work = options.work.join(name);
    let Options { world, batch_size, learning_rate, seed, pictures, warm_start, .. } = options;
    let _lock = FolderLock::take(&work)?;
    let identity = json!({
        "part": name,
        "world": world,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "pictures": pictures,
        "warm_start": warm_start,
    })
    .to_string();
    let parameters: Vec<Tensor> = source.parameters().into_iter().map(|(_, leaf)| leaf).collect();
    let adam = AdamWConfig { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.01 };
    let mut trainer = Trainer {
        average: Average::new(&parameters, AVERAGE_DECAY),
        optimizer: AdamW::new(parameters, adam),
        draw: Generator::cpu(options.seed),
        step: 0,
        steps: options.steps,
        accumulation: 1,
        learning_rate: LearningRate {
            peak: options.learning_rate,
            shape: LrShape::Cosine,
            end: 0.0,
            warmup: (options.steps / 100).max(10),
            steps: options.steps,
        },
        max_grad_norm: 1.0,
        loss_scale: 1.0,
    };
    if options.resume {
        state::check(&work, options.steps, &identity)?;
        state::load(&mut trainer, &work)?;
    }
    let mut since = Instant::now();
    let mut after = |trainer: &Trainer, record: &StepRecord| {
        let flow = report(Report::Step(record));
        let due =
            trainer.step.is_multiple_of(options.sample_every) || trainer.step == options.steps;
        if let Some(sheet) = sheet.as_mut().filter(|_| options.sample_every > 0 && due) {
            let path = work.join(format!("sheet-{:06}.png", trainer.step));
            sheet(trainer.values(), &path)?;
            let _ = report(Report::Written(&path)); // asked again after the next step
        }
        let last = flow.is_break() || trainer.step == options.steps;
        if last || since.elapsed().as_secs() >= CHECKPOINT_EVERY {
            since = Instant::now();
            // The weights first: what is killed between the two makes its last steps again.
            let path = keep(trainer.values())?;
            state::save(trainer, &work, &identity, true)?;
            let _ = report(Report::Written(&path)); // likewise
        }
        Ok(flow)
    };
    match trainer.fit(step, &mut after) {
        Ok(_) => Ok(work),
        Err(Stop::Diverged { step }) => Err(Error::diverged(step, Some(work), tch::Kind::Float)),
        Err(Stop::NoBatch(error) | Stop::Failed(error)) => Err(error),
    }
}

/// Runs `work` without gradients while `leaves` hold `values`; afterwards they hold what they held before.
pub(super) fn with_values<T>(leaves: &[Tensor], values: &[Tensor], work: impl FnOnce() -> T) -> T {
    let put = |values: &[Tensor]| {
        leaves.iter().zip(values).for_each(|(leaf, value)| leaf.shallow_clone().copy_(value));
    };
    tch::no_grad(|| {
        let before: Vec<Tensor> = leaves.iter().map(Tensor::copy).collect();
        put(values);
        let done = work();
        put(&before);
        done
    })
}
