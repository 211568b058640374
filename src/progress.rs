//! Bars on a terminal, a plain line now and then elsewhere, nothing when quiet.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Progress of one command on stderr.
pub struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Shows nothing yet.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, bar: None, started: Instant::now(), last_line: Instant::now() }
    }

    /// A line above the bar.
    pub fn say(&self, text: impl Display) {
        if !self.quiet {
            self.above(|| output::say(text));
        }
    }

    /// Runs something that prints, with the bar out of its way.
    pub fn above(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Warnings are shown even when quiet.
    pub fn warn(&self, text: impl Display) {
        self.above(|| output::say(format_args!("warning: {text}")));
    }

    /// Moves on to `done` of `total`.
    pub fn step(&mut self, done: u64, total: u64, text: &str) {
        if self.quiet {
            return;
        }
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let template = "{pos}/{len} [{wide_bar}] {elapsed}<{eta} {per_sec} {msg}";
                let style = ProgressStyle::with_template(template).expect("a constant template");
                let style = style.with_key(
                    "per_sec",
                    |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                        let _ = write!(out, "{:.2}it/s", state.per_sec());
                    },
                );
                ProgressBar::new(total).with_style(style)
            });
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(text.to_owned());
        } else if self.last_line.elapsed() >= BETWEEN_LINES || done == total {
            self.last_line = Instant::now();
            let seconds = self.started.elapsed().as_secs();
            output::say(format_args!("{done}/{total} after {seconds} s {text}"));
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
