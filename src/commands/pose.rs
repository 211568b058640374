//! `personalize pose`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use pipelines::Error;
use pipelines::generate::Progress as Step;
use pipelines::pose::data::{Survey, survey};
use pipelines::pose::evaluate::{Evaluation, Metric, evaluate as score};
use pipelines::pose::{Fault, PosePlan, check as over_photo, generate as paint, render as draw};
use serde_json::json;

use crate::cli::{CheckArgs, PoseEvaluateArgs, PoseGenerateArgs, RenderArgs};
use crate::interrupt;
use crate::output;
use crate::progress::Progress;

/// Draws skeletons; prints their paths.
pub fn render(args: &RenderArgs) -> Result<ExitCode> {
    for path in draw(&args.request()?)? {
        output::line(path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Draws a person in poses; prints the paths.
pub fn generate(args: &PoseGenerateArgs) -> Result<ExitCode> {
    let (quiet, as_json) = (args.output_style.quiet, args.output_style.json);
    let request = args.request()?;
    let seed = request.seed;
    let plan = PosePlan::new(request)?;
    let mut progress = Progress::new(quiet);
    for text in plan.warnings() {
        progress.warn(text);
    }
    progress.say(plan.summary());
    interrupt::listen()?;
    let drawn = paint(&plan, &mut |event| {
        match event {
            Step::Phase(doing) => progress.say(doing),
            Step::Step { done, total } => progress.step(done as u64, total as u64, ""),
            Step::Picture(path) if !as_json => {
                progress.above(|| output::line(path.display()));
            }
            Step::Picture(_) | Step::Encoded | Step::Refined(_) => {}
        }
        interrupt::flow()
    });
    progress.finish();
    let drawn = drawn?;
    if as_json {
        output::line(
            json!({ "seed": seed, "pictures": drawn.paths, "interrupted": drawn.interrupted }),
        );
    }
    Ok(if drawn.interrupted { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// Draws a skeleton over its photo, or tells all that is wrong in a folder.
pub fn check(args: &CheckArgs) -> Result<ExitCode> {
    let frame = args.frame.parse()?;
    if let Some(root) = &args.data {
        return report(root, &survey(root, frame)?, args.json);
    }
    let (Some(photo), Some(pose), Some(output)) = (&args.photo, &args.pose, &args.output) else {
        bail!(Error::Usage("--photo, --pose and --output go together; or give --data".into()));
    };
    let path = over_photo(photo, pose, frame, output, args.force)?;
    output::line(if args.json {
        json!({ "picture": path }).to_string()
    } else {
        path.display().to_string()
    });
    Ok(ExitCode::SUCCESS)
}

/// What a folder holds and each fault in it on a line; a folder with faults is a failure.
fn report(root: &Path, found: &Survey, as_json: bool) -> Result<ExitCode> {
    let Survey { data, pairs, photos, poses, faults } = found;
    if as_json {
        output::line(json!({
            "pairs": pairs, "train": data.train.len(), "test": data.test.len(),
            "photos": photos, "poses": poses, "faults": faults,
        }));
    } else {
        let sound = format!("{} to train, {} to test", data.train.len(), data.test.len());
        output::line(format!("pairs        {pairs}, sound are {sound}"));
        output::line(format!("photos       {photos}"));
        output::line(format!("poses        {poses}"));
        faults.iter().for_each(output::line);
    }
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let count = format!("{} fault{}", faults.len(), if faults.len() == 1 { "" } else { "s" });
    let what =
        format!("{count}, listed on stdout; correct or remove what they name and check again");
    bail!(Error::Pose(Fault { file: root.to_owned(), line: None, what }))
}

/// Scores drawn pictures; prints a table.
pub fn evaluate(args: &PoseEvaluateArgs) -> Result<ExitCode> {
    let found = score(&args.request()?)?;
    if let Some(file) = &args.output {
        found.write(file)?;
    }
    if args.json {
        output::line(json!(found));
        return Ok(ExitCode::SUCCESS);
    }
    table(&found);
    if let Some(file) = &args.output {
        output::line(file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each metric, a column for each row of the evaluation.
fn table(found: &Evaluation) {
    let title = format!("{} pictures", found.count);
    let columns: Vec<String> = found.rows.iter().map(|row| format!("{:>18}", row.name)).collect();
    output::line(format!("{title:<20}{}", columns.concat()));
    for metric in Metric::ALL {
        let cell = |value: Option<&f64>| match value {
            Some(value) => format!("{value:>18.4}"),
            None => format!("{:>18}", "-"),
        };
        if found.rows.iter().any(|row| row.means.contains_key(&metric)) {
            let cells: Vec<String> =
                found.rows.iter().map(|row| cell(row.means.get(&metric))).collect();
            output::line(format!("{:<20}{}", metric.name(), cells.concat()));
        }
    }
}
