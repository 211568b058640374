//! `personalize pose train-fusion` and `train-generator`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use pipelines::pose::{
    FusionConfig, GeneratorConfig, Ready, Retrieval, retrieval, train_fusion, train_generator,
};
use serde_json::json;

use crate::cli::{PoseRunArgs, TrainFusionArgs, TrainGeneratorArgs};
use crate::interrupt;
use crate::output;
use crate::show::Show;

/// Trains the first stage; prints its file, and how well it finds held-out pictures.
pub fn fusion(args: &TrainFusionArgs) -> Result<ExitCode> {
    let PoseRunArgs { preset, config, resume, force, output_style, .. } = &args.run;
    let config = FusionConfig::resolve(preset.as_deref(), config.as_deref(), args.overrides()?)?;
    let Ready { plan, mut train, test } = config.ready(super::start(*resume, *force))?;
    let mut show = Show::new(output_style, &["top-1", "top-5", "mean rank"]);
    interrupt::listen()?;
    let outcome = train_fusion(&plan, &mut train, &mut show);
    let (path, code) = show.ended(outcome)?;
    let held_out = match (&path, test) {
        (Some(path), Some(mut test)) if code == ExitCode::SUCCESS => {
            Some(retrieval(path, &mut test, plan.device())?)
        }
        _ => None,
    };
    if show.json {
        let interrupted = code != ExitCode::SUCCESS;
        output::line(
            json!({ "event": "end", "path": path, "held_out": held_out, "interrupted": interrupted }),
        );
        return Ok(code);
    }
    if let Some((count, Retrieval { top1, top5, mean_rank })) = held_out {
        show.progress.say(format!(
            "of {count} held-out targets, their sources among the candidates: top-1 {top1:.3}, top-5 {top5:.3}, mean rank {mean_rank:.2}"
        ));
    }
    print(path.as_deref());
    Ok(code)
}

/// The path of what a run wrote, where it wrote anything.
fn print(path: Option<&Path>) {
    if let Some(path) = path {
        output::line(path.display());
    }
}

/// Trains the second stage; prints its file.
pub fn generator(args: &TrainGeneratorArgs) -> Result<ExitCode> {
    let PoseRunArgs { preset, config, resume, force, output_style, .. } = &args.run;
    let config = GeneratorConfig::resolve(preset.as_deref(), config.as_deref(), args.overrides()?)?;
    let Ready { plan, mut train, .. } = config.ready(super::start(*resume, *force))?;
    let mut show = Show::new(output_style, &[]);
    interrupt::listen()?;
    let outcome = train_generator(&plan, &mut train, &mut show);
    let (path, code) = show.ended(outcome)?;
    if show.json {
        let interrupted = code != ExitCode::SUCCESS;
        output::line(json!({ "event": "end", "path": path, "interrupted": interrupted }));
    } else {
        print(path.as_deref());
    }
    Ok(code)
}
