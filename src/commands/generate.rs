//! `personalize generate`.

use std::process::ExitCode;

use anyhow::Result;
use pipelines::Refined;
use pipelines::generate::{GeneratePlan, Progress as Step, generate};
use serde_json::json;

use crate::cli::GenerateArgs;
use crate::interrupt;
use crate::output;
use crate::progress::Progress;

/// Draws pictures; prints their paths.
pub fn run(args: &GenerateArgs) -> Result<ExitCode> {
    let (quiet, as_json) = (args.output_style.quiet, args.output_style.json);
    let request = args.request()?;
    let seed = request.seed;
    let plan = GeneratePlan::new(request)?;
    let mut progress = Progress::new(quiet);
    for text in plan.warnings() {
        progress.warn(text);
    }
    progress.say(format!("base {}, seed {seed}", plan.base_name()));
    interrupt::listen()?;
    let drawn = generate(&plan, &mut |event| {
        match event {
            Step::Phase(doing) => progress.say(doing),
            Step::Step { done, total } => progress.step(done as u64, total as u64, ""),
            Step::Refined(report) => progress.say(told(report)),
            Step::Picture(path) if !as_json => {
                progress.above(|| output::line(path.display()));
            }
            Step::Picture(_) | Step::Encoded => {}
        }
        interrupt::flow()
    });
    progress.finish();
    let drawn = drawn?;
    if as_json {
        output::line(
            json!({ "seed": seed, "pictures": drawn.paths, "refined": drawn.refined, "interrupted": drawn.interrupted }),
        );
    }
    Ok(if drawn.interrupted { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// One line for people.
fn told(report: &Refined) -> String {
    let Refined { prompt, steps, moved, before, after } = report;
    let terms: Vec<String> = before
        .iter()
        .zip(after)
        .map(|((name, before), (_, after))| format!("{name} {before:.3e} -> {after:.3e}"))
        .collect();
    let steps = format!("refined for '{prompt}' in {steps} steps");
    format!("{steps}: moved by {:.1} % of the norm; {}", 100.0 * moved, terms.join(", "))
}
