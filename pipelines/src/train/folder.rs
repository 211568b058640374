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

/// Makes a folder in that of a run, which is not made again where somebody has taken it away.
fn made(folder: PathBuf) -> Result<PathBuf, Error> {
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Error::io(&folder, "created")(error))
        }
        _ => Ok(folder),
    }
}

/// Removes all that a run before left, so that nothing there is taken for the work of the one that begins. The file `keep`
/// stays until the new run has something to put in its place. Where no configuration tells of a run, samples and snapshots
/// go, which only a run names so, and state and report too if the new run is `forced` upon the folder.
pub(super) fn clear(folder: &Path, keep: &Path, forced: bool) -> Result<(), Error> {
    let config = torch_ext::file::read_to_string(folder.join("config.toml")).ok();
    if forced || config.is_some() {
        let word = config.and_then(|text| text.parse::<Table>().ok()?.remove("concept"));
        // What is no word of a concept may be a path out of here.
        let word = word.as_ref().and_then(|word| word.as_str());
        let word = word.filter(|word| check_placeholder(word).is_ok());
        let concept = word.map(|word| folder.join(concept_file(word, "")));
        let others = [state::FILE, report::FILE].map(|name| folder.join(name));
        for path in others.into_iter().chain(concept).filter(|path| path != keep) {
            remove(&path)?;
        }
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
        clear(folder.path(), &folder.path().join("dog.safetensors"), false).unwrap();
        // The run that begins writes log and configuration anew.
        let mut expected = [&USERS[..], &["config.toml", "log.jsonl"]].concat();
        expected.sort_unstable();
        assert_eq!(left(folder.path()), expected);
    }

    #[test]
    fn without_a_configuration_samples_go_and_by_force_state_and_report_too() {
        let folder = folder(&[&RUN[..], &USERS].concat());
        let keep = folder.path().join("cat.safetensors");
        let kept = |more: &[&'static str]| {
            let mut kept = [&USERS[..], &["cat.safetensors", "log.jsonl"], more].concat();
            kept.sort_unstable();
            kept
        };
        clear(folder.path(), &keep, false).unwrap();
        assert_eq!(left(folder.path()), kept(&["report.html", "state.safetensors"]));
        clear(folder.path(), &keep, true).unwrap();
        assert_eq!(left(folder.path()), kept(&[]));
    }

    #[test]
    fn a_configuration_that_names_no_concept_takes_none_away() {
        for other in ["", "steps = 3\n", "concept = \"../cat\"\n", "concept = [\"<c"] {
            let folder = folder(&RUN);
            fs::write(folder.path().join("config.toml"), other).unwrap();
            clear(folder.path(), &folder.path().join("dog.safetensors"), false).unwrap();
            assert_eq!(left(folder.path()), ["cat.safetensors", "config.toml", "log.jsonl"]);
        }
    }

    #[test]
    fn a_folder_that_was_taken_away_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        assert!(samples(folder.path()).is_ok() && samples(folder.path()).is_ok());
        assert!(samples(&folder.path().join("gone")).is_err());
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
