//! `personalize`: learn a concept from a few photos with a frozen Stable Diffusion, and draw it.
//!
//! What was typed ([`cli`]) becomes a checked plan in `pipelines`; the commands here show what it reports.
#![deny(clippy::print_stdout, clippy::print_stderr)] // they panic where a write fails; `output` does not

mod cli;
mod commands;
mod interrupt;
mod output;
mod progress;
mod show;

use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command, ConceptCommand, PoseCommand};
use pipelines::distill::DistillRequest;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // What was typed may be the name of a foreign file, so clap's words go the way of all others.
            error.render().to_string().trim_end().lines().for_each(output::say);
            return ExitCode::from(2);
        }
        Err(help) => {
            output::wrote(help.print());
            return output::end(ExitCode::SUCCESS);
        }
    };
    quiet_panics(&cli.command);
    torch_ext::survive_file_size_limit();
    // `pipelines` turns libtorch's failures into errors; what still arrives here is a fault of ours.
    let result = std::panic::catch_unwind(|| run(cli.command)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(pipelines::Error::from_panic(&text.unwrap_or_default(), "starting").into())
    });
    output::end(result.unwrap_or_else(|error| {
        if let Some(error) = error.downcast_ref::<pipelines::Error>() {
            output::say(format_args!("error: {error}"));
            return ExitCode::from(error.exit_code());
        }
        output::say(format_args!("error: {error:#}"));
        ExitCode::FAILURE
    }))
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    if torch_ext::started_in_removed_folder() {
        let why = "the working directory has been removed; change to one that exists and try again";
        anyhow::bail!(pipelines::Error::Usage(why.to_owned()));
    }
    match command {
        Command::Train(args) => commands::train::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Evaluate(args) => commands::evaluate::run(&args),
        Command::Report { folder } => commands::report::run(&folder),
        Command::Concept { command } => match command {
            ConceptCommand::Inspect { file, base, json } => {
                commands::concept::inspect(&file, base.as_deref(), json)
            }
            ConceptCommand::Distill { file, base, output, steps, lr, device, force } => {
                let device = device.parse()?;
                let learning_rate = lr;
                let concept = file;
                commands::concept::distill(&DistillRequest {
                    concept,
                    base,
                    output,
                    force,
                    steps,
                    learning_rate,
                    device,
                })
            }
        },
        Command::Pose { command } => match command {
            PoseCommand::TrainFusion(args) => commands::pose_train::fusion(&args),
            PoseCommand::TrainGenerator(args) => commands::pose_train::generator(&args),
            PoseCommand::Generate(args) => commands::pose::generate(&args),
            PoseCommand::Render(args) => commands::pose::render(&args),
            PoseCommand::Check(args) => commands::pose::check(&args),
            PoseCommand::Evaluate(args) => commands::pose::evaluate(&args),
        },
        Command::Doctor { base } => commands::doctor::run(base.as_deref()),
        Command::Completions { shell } => commands::completions(shell),
        Command::RandomBase { like, output, precision } => {
            commands::random_base(&like, &output, &precision)
        }
    }
}

/// libtorch's failures arrive as panics; their traces are for those who ask for them with -v.
fn quiet_panics(command: &Command) {
    let verbose = match command {
        Command::Train(args) => args.output_style.verbose,
        Command::Generate(args) => args.output_style.verbose,
        Command::Evaluate(args) => args.output_style.verbose,
        Command::Pose { command: PoseCommand::TrainFusion(args) } => args.run.output_style.verbose,
        Command::Pose { command: PoseCommand::TrainGenerator(args) } => {
            args.run.output_style.verbose
        }
        Command::Pose { command: PoseCommand::Generate(args) } => args.output_style.verbose,
        _ => 0,
    };
    if verbose == 0 {
        std::panic::set_hook(Box::new(|_| {}));
    }
}
