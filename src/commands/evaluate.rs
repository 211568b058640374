//! `personalize evaluate`.

use std::process::ExitCode;

use anyhow::Result;
use pipelines::evaluate::{
    Comparison, EvaluatePlan, Evaluated, Results, Summary, compare, evaluate,
};
use pipelines::generate::Progress as Step;
use serde_json::json;

use crate::cli::EvaluateArgs;
use crate::interrupt;
use crate::output;
use crate::progress::Progress;

/// Draws, scores and prints a table, or compares what was scored before.
pub fn run(args: &EvaluateArgs) -> Result<ExitCode> {
    let (quiet, as_json) = (args.output_style.quiet, args.output_style.json);
    if !args.compare.is_empty() {
        let comparison = compare(&args.compare)?;
        if as_json {
            output::line(json!(comparison));
        } else {
            side_by_side(&comparison);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let plan = EvaluatePlan::new(args.request()?)?;
    let mut progress = Progress::new(quiet);
    for text in plan.warnings() {
        progress.warn(text);
    }
    progress.say(format!("base {}", plan.base_name()));
    interrupt::listen()?;
    let evaluated = evaluate(&plan, &mut |event| {
        match event {
            Step::Phase(doing) => {
                progress.finish();
                progress.say(doing);
            }
            Step::Step { done, total } => progress.step(done as u64, total as u64, ""),
            Step::Picture(path) => progress.say(path.display()),
            Step::Encoded | Step::Refined(_) => {}
        }
        interrupt::flow()
    });
    progress.finish();
    match evaluated? {
        Evaluated::Interrupted => {
            progress.say("interrupted; the same command goes on from here");
            Ok(ExitCode::from(interrupt::EXIT_CODE))
        }
        Evaluated::Done(results, path) => {
            let folder = path.parent().filter(|_| !args.no_report);
            let report = folder.and_then(|folder| super::report::of(folder, &progress));
            if as_json {
                output::line(
                    json!({ "results": path, "report": report, "summary": results.summary, "photos": results.photos }),
                );
            } else {
                table(&results);
                [path].iter().chain(&report).for_each(|path| output::line(path.display()));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The metrics over the prompts, and of the photos among themselves.
fn table(results: &Results) {
    output::line(format!(
        "{:<18}{:>8}{:>8}   {:<18}{:>8}",
        "", "mean", "sd", "95 % interval", "photos"
    ));
    for (metric, summary) in &results.summary {
        let deviation = summary.standard_deviation.map_or("-".into(), |sd| format!("{sd:.4}"));
        let photos = results.photos.get(metric).map_or("-".into(), |p| format!("{p:.4}"));
        output::line(format!(
            "{:<18}{:>8.4}{deviation:>8}   {:<18}{photos:>8}",
            metric.name(),
            summary.mean,
            interval(summary)
        ));
    }
}

/// Each file's mean, and its differences from the first one's prompts.
fn side_by_side(comparison: &Comparison) {
    for found in &comparison.metrics {
        output::line(found.metric.name());
        for (i, (file, mean)) in comparison.files.iter().zip(&found.means).enumerate() {
            let against = i
                .checked_sub(1)
                .map(|i| &found.differences[i])
                .map(|difference| format!("   {:+.4}   {}", difference.mean, interval(difference)));
            let line = format!("  {mean:.4}{}", against.unwrap_or_else(|| " ".repeat(31)));
            output::line(format!("{line:<42}{}", file.display()));
        }
    }
}

fn interval(summary: &Summary) -> String {
    summary.interval.map_or("-".into(), |[low, high]| format!("{low:.4} to {high:.4}"))
}
