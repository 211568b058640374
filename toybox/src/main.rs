//! `toybox`: the picture world from the command line.

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use toybox::{Accessory, Background, Colour, Concept, Error, Style};

/// A small picture world whose truth is known.
#[derive(Parser)]
#[command(version)]
struct Arguments {
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
    /// Write pairs of one person in two poses, with the joints as JSON.
    People {
        /// How many pairs.
        #[arg(long)]
        pairs: u64,
        /// Names the pairs.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// The folder to write to.
        directory: PathBuf,
    },
}

fn run(command: Command) -> Result<PathBuf, Error> {
    match command {
        Command::Sheet { seed, rows, columns, out } => {
            let samples: Vec<_> =
                (0..(rows * columns) as u64).map(|k| toybox::sample(seed, k)).collect();
            let start = Instant::now();
            let cells: Vec<_> =
                samples.into_iter().map(|(scene, caption)| (scene.draw(), caption)).collect();
            let each = start.elapsed().as_secs_f64() * 1e3 / cells.len().max(1) as f64;
            eprintln!("{} pictures, {each:.2} ms each", cells.len());
            toybox::save(&toybox::contact_sheet(&cells, columns), &out)?;
            Ok(out)
        }
        Command::ConceptSheet { out } => {
            let cells: Vec<_> = Concept::all()
                .iter()
                .flat_map(|concept| {
                    let extra = [
                        (Style::Photo, Some(Accessory::Hat(Colour::Red))),
                        (Style::Photo, Some(Accessory::Sunglasses)),
                        (Style::Watercolor, None),
                    ];
                    let extra =
                        extra.map(|(style, worn)| concept.scene(Background::Grass, style, worn, 1));
                    concept.photos().into_iter().chain(extra)
                })
                .map(|scene| (scene.draw(), scene.full_caption()))
                .collect();
            toybox::save(&toybox::contact_sheet(&cells, 8), &out)?;
            Ok(out)
        }
        Command::Dataset { count, seed, directory } => {
            toybox::dataset(&directory, count, seed).map(|()| directory)
        }
        Command::Concepts { directory } => toybox::concepts(&directory).map(|()| directory),
        Command::People { pairs, seed, directory } => {
            toybox::people(&directory, pairs, seed).map(|()| directory)
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(path) => {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("toybox: {error}");
            ExitCode::FAILURE
        }
    }
}
