//! `toybox`: the picture world from the command line.
#![deny(clippy::print_stdout, clippy::print_stderr)] // they panic where a write fails; `output` does not

#[path = "../../src/output.rs"]
mod output;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use toybox::pretrain::{Options, Part, Report};
use toybox::{Accessory, Background, Clothes, Colour, Layout, Place, Redraw, Style, World};

/// A small picture world whose truth is known.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// By whose measures scenes are drawn; the built-in base has learnt the fine world.
    #[arg(long, global = true, default_value = "fine")]
    world: World,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Draw a contact sheet of random scenes with their captions.
    Sheet {
        /// Names the scenes.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Rows of pictures.
        #[arg(long, default_value_t = 6)]
        rows: usize,
        /// Pictures in a row.
        #[arg(long, default_value_t = 8)]
        columns: usize,
        /// The PNG file to write.
        out: PathBuf,
    },
    /// Draw the held-out concepts, one row each: five photos, then with a hat, with sunglasses, in watercolor.
    ConceptSheet {
        /// The PNG file to write.
        out: PathBuf,
    },
    /// Lay out pictures of 128 by 128 in rows, each with words below it.
    Board {
        /// Pictures in a row.
        #[arg(long, default_value_t = 5)]
        columns: usize,
        /// The PNG file to write.
        out: PathBuf,
        /// `FILE` or `FILE=WORDS`.
        #[arg(required = true)]
        pictures: Vec<String>,
    },
    /// Write pictures and their captions.
    Dataset {
        /// How many.
        #[arg(long)]
        count: u64,
        /// Names the data set.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The folder to write to.
        directory: PathBuf,
    },
    /// Write the held-out concepts: five photos and the genes of each.
    Concepts {
        /// The folder to write to.
        directory: PathBuf,
    },
    /// Train a part of the built-in base: tokenizer, then clip, then vae, then unet.
    Pretrain(PretrainArguments),
    /// Double the channels of the U-Net's outermost level, keeping what it learnt.
    Widen {
        /// Folder of the base.
        #[arg(long, default_value = "assets/toybox")]
        base: PathBuf,
    },
    /// Measure the base against its bars; prints JSON.
    Measure {
        /// Folder of the base.
        #[arg(long, default_value = "assets/toybox")]
        base: PathBuf,
        /// Scenes to draw and judge.
        #[arg(long, default_value_t = 400)]
        count: usize,
        /// auto, cpu, cuda or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
    },
    /// Write pairs of one person in two poses: photos, poses, lists of pairs, silhouettes, backgrounds, genes.
    People {
        /// How many pairs to learn from.
        #[arg(long)]
        pairs: u64,
        /// How many more to be judged by; they show other people.
        #[arg(long, default_value_t = 0)]
        test: u64,
        /// Where they stand.
        #[arg(long, default_value = "anywhere")]
        place: Place,
        /// How poses and pairs are listed.
        #[arg(long, default_value = "fpdm")]
        layout: Layout,
        /// Names the pairs.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The folder to write to.
        directory: PathBuf,
    },
    /// Train what finds joints in pictures of toybox people; `personalize pose evaluate` judges by it.
    Joints {
        /// Folder that `toybox people` wrote.
        #[arg(long)]
        people: PathBuf,
        /// Optimiser steps.
        #[arg(long, default_value_t = 600)]
        steps: u64,
        /// Seed of everything random.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The file to write.
        out: PathBuf,
    },
    /// Draw the test pairs of a people folder as pose weights do, and with conditions withheld or exchanged.
    Redraw(RedrawArguments),
    /// Say in how many drawn pictures clothes have the right colour and pattern.
    Clothes {
        /// Folder of the true genes.
        #[arg(long)]
        genes: PathBuf,
        /// Folders of drawn pictures.
        #[arg(required = true)]
        drawn: Vec<PathBuf>,
    },
}

#[derive(clap::Args)]
struct RedrawArguments {
    /// Folder that `toybox people` wrote.
    #[arg(long)]
    people: PathBuf,
    /// Pose weights; the built-in ones where none are given.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Test pairs, from the first.
    #[arg(long, default_value_t = 128)]
    count: usize,
    /// Denoising steps.
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Both scales of the guidance.
    #[arg(long, default_value_t = 2.0)]
    guidance: f64,
    /// A row to draw, such as `model`; may be given several times, none are all.
    #[arg(long)]
    row: Vec<String>,
    /// The folder to write to.
    directory: PathBuf,
}

#[derive(clap::Args)]
struct PretrainArguments {
    /// What to train.
    part: Part,
    /// Folder of the base: configurations are read there, weights written.
    #[arg(long, default_value = "assets/toybox")]
    base: PathBuf,
    /// Folder for checkpoints, the log and sample sheets.
    #[arg(long, default_value = "runs/toybox")]
    work: PathBuf,
    /// Optimiser steps.
    #[arg(long, default_value_t = 2000)]
    steps: u64,
    /// Samples in a step.
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// Scenes that CLIP and the U-Net see again and again.
    #[arg(long, default_value_t = 50_000)]
    pictures: usize,
    /// Peak of the learning rate.
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Of parameters, samples and noise.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps between sample sheets; 0 draws none.
    #[arg(long, default_value_t = 500)]
    sample_every: u64,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// auto, f32 or bf16.
    #[arg(long, default_value = "auto")]
    precision: String,
    /// Go on from the checkpoint.
    #[arg(long)]
    resume: bool,
    /// Begin with the weights that the base's folder holds; goes with --resume where such a run goes on.
    #[arg(long)]
    warm_start: bool,
}

fn pretrain(world: World, arguments: PretrainArguments) -> Result<PathBuf, pipelines::Error> {
    let options = Options {
        world,
        base: arguments.base,
        work: arguments.work,
        steps: arguments.steps,
        batch_size: arguments.batch_size,
        pictures: arguments.pictures,
        learning_rate: arguments.lr,
        seed: arguments.seed,
        sample_every: arguments.sample_every,
        device: arguments.device,
        precision: arguments.precision,
        resume: arguments.resume,
        warm_start: arguments.warm_start,
    };
    let mut shown = Instant::now();
    toybox::pretrain::pretrain(arguments.part, &options, &mut |report| {
        match report {
            Report::Step(record) if shown.elapsed().as_secs() >= 10 || record.step < 4 => {
                shown = Instant::now();
                let terms = record.terms.iter().map(|(name, value)| format!(" {name} {value:.4}"));
                let terms: String = terms.collect();
                let (step, loss, seconds) = (record.step, record.loss, record.seconds);
                output::say(format_args!("{step} loss {loss:.4}{terms} {seconds:.2} s"));
            }
            Report::Step(_) => {}
            Report::Written(path) => output::say(format_args!("wrote {}", path.display())),
        }
        std::ops::ControlFlow::Continue(())
    })
}

/// Draws each held-out concept of a world: its photos, then with a hat, with sunglasses and in watercolour.
fn concept_cells(world: World) -> Vec<(image::RgbImage, String)> {
    let extra = [
        (Style::Photo, Some(Accessory::Hat(Colour::Red))),
        (Style::Photo, Some(Accessory::Sunglasses)),
        (Style::Watercolor, None),
    ];
    let scenes = world.concepts().iter().flat_map(|concept| {
        let extra = extra.map(|(style, worn)| concept.scene(Background::Grass, style, worn, 1));
        concept.photos().into_iter().chain(extra)
    });
    scenes.map(|scene| (scene.draw(), scene.full_caption())).collect()
}

fn run(world: World, command: Command) -> Result<PathBuf, Box<dyn std::error::Error>> {
    match command {
        Command::Sheet { seed, rows, columns, out } => {
            let samples: Vec<_> =
                (0..(rows * columns) as u64).map(|k| toybox::sample(world, seed, k)).collect();
            let start = Instant::now();
            let cells: Vec<_> =
                samples.into_iter().map(|(scene, caption)| (scene.draw(), caption)).collect();
            let each = start.elapsed().as_secs_f64() * 1e3 / cells.len().max(1) as f64;
            output::say(format_args!("{} pictures, {each:.2} ms each", cells.len()));
            toybox::save(&toybox::contact_sheet(&cells, columns), &out)?;
            Ok(out)
        }
        Command::ConceptSheet { out } => {
            let cells = concept_cells(world);
            toybox::save(&toybox::contact_sheet(&cells, 8), &out)?;
            Ok(out)
        }
        Command::Measure { base, count, device } => {
            let bars = toybox::bars::measure(world, &base, count, &device)?;
            output::line(serde_json::to_string_pretty(&bars)?);
            Ok(base)
        }
        Command::Widen { base } => Ok(toybox::pretrain::widen(&base)?),
        Command::Pretrain(arguments) => Ok(pretrain(world, arguments)?),
        Command::Board { columns, out, pictures } => {
            let cells: Vec<_> = pictures
                .iter()
                .map(|cell| {
                    let (file, words) = cell.split_once('=').unwrap_or((cell, ""));
                    let picture = image::open(file).map_err(|e| format!("{file}: {e}"))?.to_rgb8();
                    if picture.dimensions() != (toybox::SIZE, toybox::SIZE) {
                        let (width, height) = picture.dimensions();
                        return Err(format!(
                            "{file}: 128x128 pixels were expected, {width}x{height} were found"
                        ));
                    }
                    Ok((picture, words.to_owned()))
                })
                .collect::<Result<_, _>>()?;
            toybox::save(&toybox::contact_sheet(&cells, columns), &out)?;
            Ok(out)
        }
        Command::Dataset { count, seed, directory } => {
            toybox::dataset(&directory, world, count, seed)?;
            Ok(directory)
        }
        Command::Concepts { directory } => {
            toybox::concepts(&directory, world)?;
            Ok(directory)
        }
        Command::People { pairs, test, place, layout, seed, directory } => {
            toybox::people(&directory, world, [pairs, test], seed, place, layout)?;
            Ok(directory)
        }
        Command::Joints { people, steps, seed, out } => {
            let mut shown = Instant::now();
            toybox::joints(&people, steps, seed, &out, &mut |record| {
                if shown.elapsed().as_secs() >= 10 || record.step == steps {
                    shown = Instant::now();
                    let (_, distance) = record.terms[0];
                    output::say(format_args!(
                        "{} loss {:.4}, {distance:.3} cells off",
                        record.step, record.loss
                    ));
                }
            })?;
            Ok(out)
        }
        Command::Redraw(arguments) => {
            let RedrawArguments { people, weights, count, steps, guidance, row, directory } =
                arguments;
            let request = Redraw { people, weights, count, steps, guidance, rows: row };
            toybox::redraw(&request, &directory, &mut |row, done| {
                output::say(format_args!("{row} {done}"));
            })?;
            Ok(directory)
        }
        Command::Clothes { genes, drawn } => {
            output::line(format_args!(
                "{:<24}{:>8}{:>8}{:>8}{:>10}",
                "", "count", "top", "bottom", "pattern"
            ));
            for folder in &drawn {
                let Clothes { count, top, bottom, pattern } = toybox::clothes(folder, &genes)?;
                let name = folder.file_name().unwrap_or_default().to_string_lossy();
                output::line(format_args!(
                    "{name:<24}{count:>8}{top:>8.3}{bottom:>8.3}{pattern:>10.3}"
                ));
            }
            Ok(genes)
        }
    }
}

fn main() -> ExitCode {
    let Arguments { world, command } = Arguments::parse();
    output::end(match run(world, command) {
        Ok(path) => {
            output::line(path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::say(format_args!("toybox: {error}"));
            ExitCode::FAILURE
        }
    })
}
