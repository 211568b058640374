//! What runs leave in their folder besides the concept, the log and the state, and taking away what is another run's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use embeddings::check_placeholder;
use embeddings::file::remove_strays;

use crate::Error;
use crate::config::{Table, TrainConfig, concept_file};
use crate::report;
use crate::trainer::state;

/// Sample pictures, `STEP-PROMPT.png`.
const SAMPLES: &str = "samples";
/// Concepts as they were under way, `WORD-STEP.safetensors`.
const SNAPSHOTS: &str = "snapshots";

/// The folder of sample pictures, made where it is not there.
pub(super) fn samples(folder: &Path) -> Result<PathBuf, Error> {
    made(folder.join(SAMPLES))
}

/// The name of the picture of a prompt after a step.
pub(super) fn sample(step: u64, prompt: usize) -> String {
    format!("{step:06}-{prompt}.png")
}

/// The file of the concept as it was after a step; its folder is made.
pub(super) fn snapshot(config: &TrainConfig, step: u64) -> Result<PathBuf, Error> {
    Ok(made(config.output.join(SNAPSHOTS))?.join(config.concept_file(&format!("-{step:06}"))))
}

fn made(folder: PathBuf) -> Result<PathBuf, Error> {
    fs::create_dir_all(&folder).map_err(Error::io(&folder, "created"))?;
    Ok(folder)
}

/// Removes all that a run before left, so that nothing there is taken for the work of the one that begins. The file `keep`
/// stays until the new run has something to put in its place. Nothing is touched where no run was.
pub(super) fn clear(folder: &Path, keep: &Path) -> Result<(), Error> {
    let Ok(text) = torch_ext::file::read_to_string(folder.join("config.toml")) else {
        return Ok(());
    };
    let word = text.parse::<Table>().ok().and_then(|mut table| table.remove("concept"));
    let word = word.as_ref().and_then(|word| word.as_str());
    // What is no word of a concept may be a path out of here.
    let Some(word) = word.filter(|word| check_placeholder(word).is_ok()) else { return Ok(()) };
    let concept = folder.join(concept_file(word, ""));
    let others = [state::FILE, report::FILE].map(|name| folder.join(name));
    for path in others.into_iter().chain([concept]).filter(|path| path != keep) {
        remove(&path)?;
    }
    forget(folder, 0)
}

/// Removes the sample pictures and snapshots of steps after `last`.
pub(super) fn forget(folder: &Path, last: u64) -> Result<(), Error> {
    for (name, step_of) in
        [(SAMPLES, sample_step as fn(&str) -> Option<u64>), (SNAPSHOTS, snapshot_step)]
    {
        let inner = folder.join(name);
        remove_strays(&inner);
        for entry in inner.read_dir().into_iter().flatten().flatten() {
            let step = step_of(&entry.file_name().to_string_lossy());
            if step.is_some_and(|step| step > last) {
                remove(&entry.path())?;
            }
        }
        let _ = fs::remove_dir(&inner); // which fails, and should, unless it is empty
    }
    Ok(())
}

fn remove(file: &Path) -> Result<(), Error> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(file, "removed")(error)),
        _ => Ok(()),
    }
}

/// The step of a picture's name; `None` for a name that no run gives.
fn sample_step(name: &str) -> Option<u64> {
    let (step, prompt) = name.strip_suffix(".png")?.split_once('-')?;
    number(prompt)?;
    number(step).filter(|_| step.len() >= 6)
}

/// The step of a snapshot's name; `None` for a name that no run gives.
fn snapshot_step(name: &str) -> Option<u64> {
    let (_, step) = name.strip_suffix(".safetensors")?.rsplit_once('-')?;
    number(step).filter(|_| step.len() >= 6)
}

fn number(digits: &str) -> Option<u64> {
    digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, empty ones.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    fn left(folder: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for entry in folder.read_dir().unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                names.extend(left(&entry.path()).iter().map(|inner| format!("{name}/{inner}")));
            } else {
                names.push(name);
            }
        }
        names.sort();
        names
    }

    const RUN: [&str; 8] = [
        "cat.safetensors",
        "log.jsonl",
        "report.html",
        "samples/000002-0.png",
        "samples/1234567-1.png",
        "snapshots/cat-000002.safetensors",
        "snapshots/dog-000004.safetensors",
        "state.safetensors",
    ];
    const USERS: [&str; 6] = [
        "dog.safetensors",
        "notes.txt",
        "samples/best.png",
        "samples/2-0.png",
        "samples/000002-0.jpg",
        "snapshots/cat-best.safetensors",
    ];

    #[test]
    fn what_a_run_left_is_removed_and_nothing_of_the_user_s() {
        let folder = folder(&[&RUN[..], &USERS].concat());
        fs::write(folder.path().join("config.toml"), "concept = \"<cat>\"\n").unwrap();
        clear(folder.path(), &folder.path().join("dog.safetensors")).unwrap();
        // The run that begins writes log and configuration anew.
        let mut expected = [&USERS[..], &["config.toml", "log.jsonl"]].concat();
        expected.sort_unstable();
        assert_eq!(left(folder.path()), expected);
    }

    #[test]
    fn nothing_is_removed_where_no_run_was() {
        let folder = folder(&RUN);
        let keep = folder.path().join("cat.safetensors");
        clear(folder.path(), &keep).unwrap();
        for other in ["steps = 3\n", "concept = \"../cat\"\n"] {
            fs::write(folder.path().join("config.toml"), other).unwrap();
            clear(folder.path(), &keep).unwrap();
        }
        assert_eq!(left(folder.path()).len(), RUN.len() + 1);
    }

    #[test]
    fn what_lies_beyond_a_step_is_forgotten() {
        let folder = folder(&RUN);
        forget(folder.path(), 2).unwrap();
        let gone = ["samples/1234567-1.png", "snapshots/dog-000004.safetensors"];
        let expected: Vec<_> = RUN.into_iter().filter(|name| !gone.contains(name)).collect();
        assert_eq!(left(folder.path()), expected);
        forget(folder.path(), 0).unwrap();
        assert!(!folder.path().join("samples").exists());
    }
}
