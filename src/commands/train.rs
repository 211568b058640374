//! `personalize train`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use pipelines::config::TrainConfig;
use pipelines::train::{
    Event, Observer, PhotoPreview, Preview, PromptPreview, Start, TrainPlan, train,
};
use serde_json::json;

use crate::cli::TrainArgs;
use crate::interrupt;
use crate::output;
use crate::show::Show;

/// Trains a concept; prints its path, then that of the report.
pub fn run(args: &TrainArgs) -> Result<ExitCode> {
    let config =
        TrainConfig::resolve(args.preset.as_deref(), args.config.as_deref(), args.overrides()?)?;
    if args.print_config {
        output::line(config.to_toml().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let start = if args.dry_run { Start::DryRun } else { super::start(args.resume, args.force) };
    let plan = TrainPlan::new(config, start)?;
    let mut show = Show::new(&args.output_style, &[]);
    for text in plan.warnings() {
        let _ = show.on(&Event::Warning { text });
    }
    if args.dry_run {
        print(&plan.preview()?, show.json);
        if let Some(sheet) = &args.crop_sheet {
            let path = plan.write_crop_sheet(sheet)?;
            show.progress.say(format!("what is kept of each photo is drawn in {}", path.display()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    for line in plan.summary() {
        show.progress.say(line);
    }
    interrupt::listen()?;
    let outcome = train(&plan, &mut show);
    let (path, code) = show.ended(outcome)?;
    let folder = path.as_deref().and_then(Path::parent).filter(|_| !args.no_report);
    let report = folder.and_then(|folder| super::report::of(folder, &show.progress));
    if show.json {
        let interrupted = code != ExitCode::SUCCESS;
        output::line(
            json!({ "event": "end", "path": path, "report": report, "interrupted": interrupted }),
        );
    } else {
        path.iter().chain(&report).for_each(|path| output::line(path.display()));
    }
    Ok(code)
}

/// A photo, and which part of it is kept.
fn kept(PhotoPreview { file, size: (width, height), part }: &PhotoPreview) -> String {
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
    let kept = if (part.width, part.height) == (*width, *height) {
        "all of it".to_owned()
    } else if part.width < *width {
        format!("x {} to {}", part.x, part.x + part.width)
    } else {
        format!("y {} to {}", part.y, part.y + part.height)
    };
    format!("{name}, {width}x{height}: {kept}")
}

/// Shows what a run would do.
fn print(preview: &Preview, as_json: bool) {
    if as_json {
        output::line(serde_json::to_string(preview).expect("a preview is plain data"));
        return;
    }
    preview.plan.iter().for_each(output::line);
    preview.photos.iter().map(kept).for_each(output::line);
    for PromptPreview { prompt, tokens, reference } in &preview.prompts {
        output::line(prompt);
        output::line(format!("  tokens {}", tokens.join(" ")));
        if let Some(reference) = reference {
            output::line(format!("  class  {}", reference.join(" ")));
        }
    }
    output::line(format!("about {:.1} GB of memory", preview.memory as f64 / 1e9));
}
