//! A run as it is watched: what it reports, and how it ended.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use pipelines::Error;
use pipelines::train::{Event, Measurement, Observer, Outcome};

use crate::cli::OutputStyle;
use crate::interrupt;
use crate::output;
use crate::progress::Progress;

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
pub struct Show {
    /// Where lines and bars go.
    pub progress: Progress,
    /// Whether events are JSON.
    pub json: bool,
    /// The step that the run began after.
    from: u64,
    steps: u64,
    /// The terms of a step that are shown beside its loss.
    terms: &'static [&'static str],
}

impl Show {
    /// Shows nothing yet.
    pub fn new(style: &OutputStyle, terms: &'static [&'static str]) -> Self {
        Self { progress: Progress::new(style.quiet), json: style.json, from: 0, steps: 0, terms }
    }

    /// Says how a run ended; returns what it wrote, and the exit code.
    pub fn ended(
        &mut self,
        outcome: Result<Outcome, Error>,
    ) -> Result<(Option<PathBuf>, ExitCode)> {
        self.progress.finish();
        Ok(match outcome? {
            Outcome::Finished(path) => (Some(path), ExitCode::SUCCESS),
            Outcome::Interrupted(path) => {
                self.progress.say(self.parting(path.as_deref()));
                (path, ExitCode::from(interrupt::EXIT_CODE))
            }
        })
    }
}

impl Show {
    /// Tells what is there after an interruption; a resumed run has what it was resumed from, whatever it wrote itself.
    fn parting(&self, written: Option<&Path>) -> &'static str {
        if written.is_some() || self.from > 0 {
            "interrupted; go on with the same command and --resume"
        } else {
            "interrupted before the first step; nothing was saved"
        }
    }
}

impl Observer for Show {
    fn on(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        if self.json {
            output::line(serde_json::to_string(event).expect("events are plain data"));
        }
        match event {
            Event::Phase { doing } => self.progress.say(doing),
            Event::Start { from, steps, learning_rate, parameters } => {
                (self.from, self.steps) = (*from, *steps);
                let resumed = if *from > 0 { format!(" from step {from}") } else { String::new() };
                self.progress.say(format!(
                    "training {parameters} numbers for {steps} steps{resumed}, learning rate {learning_rate} in force"
                ));
            }
            Event::Step(record) => {
                let mut text = format!("loss {:.4} norm {:.3}", record.loss, record.norm);
                for (name, value) in
                    record.terms.iter().filter(|(name, _)| self.terms.contains(name))
                {
                    let _ = write!(text, " {name} {value:.3}"); // a string takes everything
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_was_saved_is_said_only_where_nothing_is_there() {
        let style = OutputStyle { json: false, quiet: true, verbose: 0 };
        let mut show = Show::new(&style, &[]);
        let mut begins = |from| {
            let _ = show.on(&Event::Start { from, steps: 9, learning_rate: 1.0, parameters: 1 });
            (show.parting(None), show.parting(Some(Path::new("x"))))
        };
        let (nothing, something) = begins(0);
        assert!(nothing.contains("nothing was saved") && something.contains("--resume"));
        let (resumed, written) = begins(4);
        assert!(resumed.contains("--resume") && written == resumed);
    }
}
