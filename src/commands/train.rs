//! `personalize train`.

use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Result;
use pipelines::config::TrainConfig;
use pipelines::train::{
    Event, Measurement, Observer, Outcome, Preview, PromptPreview, Start, TrainPlan, train,
};
use serde_json::json;

use crate::cli::TrainArgs;
use crate::interrupt;
use crate::output;
use crate::progress::Progress;

/// Trains a concept; prints its path.
pub fn run(args: &TrainArgs) -> Result<ExitCode> {
    let config =
        TrainConfig::resolve(args.preset.as_deref(), args.config.as_deref(), args.overrides()?)?;
    if args.print_config {
        output::line(config.to_toml().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let start = match (args.dry_run, args.resume, args.force) {
        (true, ..) => Start::DryRun,
        (_, true, _) => Start::Resume,
        (_, _, true) => Start::Overwrite,
        _ => Start::New,
    };
    let plan = TrainPlan::new(config, start)?;
    let mut show = Show {
        progress: Progress::new(args.output_style.quiet),
        json: args.output_style.json,
        steps: 0,
    };
    for text in plan.warnings() {
        let _ = show.on(&Event::Warning { text });
    }
    if args.dry_run {
        print(&plan.preview()?, show.json);
        return Ok(ExitCode::SUCCESS);
    }
    for line in plan.summary() {
        show.progress.say(line);
    }
    interrupt::listen()?;
    let outcome = train(&plan, &mut show);
    show.progress.finish();
    let (path, code) = match outcome? {
        Outcome::Finished(path) => (Some(path), ExitCode::SUCCESS),
        Outcome::Interrupted(path) => {
            show.progress.say(match path {
                Some(_) => "interrupted; go on with the same command and --resume",
                None => "interrupted before the first step; nothing was saved",
            });
            (path, ExitCode::from(interrupt::EXIT_CODE))
        }
    };
    if show.json {
        let interrupted = code != ExitCode::SUCCESS;
        output::line(json!({ "event": "end", "path": path, "interrupted": interrupted }));
    } else if let Some(path) = path {
        output::line(path.display());
    }
    Ok(code)
}

/// Shows what a run would do.
fn print(preview: &Preview, as_json: bool) {
    if as_json {
        output::line(serde_json::to_string(preview).expect("a preview is plain data"));
        return;
    }
    preview.plan.iter().for_each(output::line);
    for PromptPreview { prompt, tokens, reference } in &preview.prompts {
        output::line(prompt);
        output::line(format!("  tokens {}", tokens.join(" ")));
        if let Some(reference) = reference {
            output::line(format!("  class  {}", reference.join(" ")));
        }
    }
    output::line(format!("about {:.1} GB of memory", preview.memory as f64 / 1e9));
}

/// What was measured, in a line.
fn words(measured: &Measurement) -> String {
    let numbers = [
        ("validation loss", measured.validation_loss),
        ("likeness", measured.likeness),
        ("fidelity", measured.fidelity),
    ];
    let numbers = numbers.iter().filter_map(|(name, n)| n.map(|n| format!("{name} {n:.4}")));
    format!("after step {}: {}", measured.step, numbers.collect::<Vec<_>>().join(", "))
}

/// Shows events: bars and lines on stderr, or JSON lines on stdout.
struct Show {
    progress: Progress,
    json: bool,
    steps: u64,
}

impl Observer for Show {
    fn on(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        if self.json {
            output::line(serde_json::to_string(event).expect("events are plain data"));
        }
        match event {
            Event::Phase { doing } => self.progress.say(doing),
            Event::Start { from, steps, learning_rate, parameters } => {
                self.steps = *steps;
                let resumed = if *from > 0 { format!(" from step {from}") } else { String::new() };
                self.progress.say(format!(
                    "training {parameters} numbers for {steps} steps{resumed}, learning rate {learning_rate} in force"
                ));
            }
            Event::Step(record) => {
                let text = format!("loss {:.4} norm {:.3}", record.loss, record.norm);
                self.progress.step(record.step, self.steps, &text);
            }
            Event::Measured(measured) => self.progress.say(words(measured)),
            Event::Sample { path } => self.progress.say(format!("sample {}", path.display())),
            Event::Saved { path, step } => {
                self.progress.say(format!("saved {} after step {step}", path.display()));
            }
            Event::Warning { text } => self.progress.warn(text),
        }
        self.flow()
    }

    fn flow(&self) -> ControlFlow<()> {
        interrupt::flow()
    }
}
