//! `personalize`: learn a concept from a few photos with a frozen Stable Diffusion, and draw it.
//!
//! What was typed ([`cli`]) becomes a checked plan in `pipelines`; the commands here show what it reports.

mod cli;
mod commands;
mod interrupt;
mod progress;

use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command, ConceptCommand};

fn main() -> ExitCode {
    let cli = Cli::parse();
    quiet_panics();
    let result = match cli.command {
        Command::Train(args) => commands::train::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Concept { command: ConceptCommand::Inspect { file, json } } => {
            commands::concept::inspect(&file, json)
        }
        Command::Doctor { base } => commands::doctor::run(base.as_deref()),
        Command::Completions { shell } => commands::completions(shell),
        Command::RandomBase { like, output, precision } => {
            commands::random_base(&like, &output, &precision)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(
            error.downcast_ref::<pipelines::Error>().map_or(1, pipelines::Error::exit_code),
        )
    })
}

/// libtorch's failures arrive as panics that `pipelines` turns into errors; their traces are for developers.
fn quiet_panics() {
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
}
