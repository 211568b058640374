//! What a run or an evaluation was, as one HTML file that holds everything it shows: pictures as data, plots as SVG, a
//! style sheet and a few lines of script. It is made from the folder alone, so an old folder can get one, too.

mod attention;
mod command;
mod curves;
mod evaluation;
mod home;
mod page;
mod quantities;
mod run;
mod samples;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use embeddings::file::write_atomically;

use crate::Error;

/// The name of the file in the folder that it is about.
pub const FILE: &str = "report.html";

/// Writes the report of a run's or an evaluation's folder into it, and returns its path.
///
/// What the folder speaks of and is not there any more (photos, the base) is left out with a sentence in its place. The
/// base is read for the attention maps; where `flow` breaks, these are left out as well.
pub fn report(folder: &Path, flow: &mut dyn FnMut() -> ControlFlow<()>) -> Result<PathBuf, Error> {
    let html = if folder.join("results.json").is_file() {
        evaluation::page(folder, flow)?
    } else if folder.join("config.toml").is_file() {
        run::page(folder, flow)?
    } else {
        return Err(Error::Usage(format!(
            "{} holds neither config.toml of a run nor results.json of a finished evaluation; give the folder that was --output of train or evaluate",
            folder.display()
        )));
    };
    let path = folder.join(FILE);
    write_atomically(&path, html.as_bytes()).map_err(Error::io(&path, "written"))?;
    Ok(path)
}
