//! The folder of an evaluation: what it is about, and whether it can go on.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::results::{read_json, write_json};
use super::{EvaluateRequest, Protocol};
use crate::Error;
use crate::differences::differences;
use crate::output::LOCK;
use crate::picture::UsedConcept;

/// The file that says what a folder is about.
const PLAN: &str = "plan.json";
/// What was found.
pub(super) const RESULTS: &str = "results.json";

/// What a folder is about; written before the first picture.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    task: Task,
    /// Where it all lies, which may change; for the report. Older folders do not have it.
    #[serde(default)]
    request: Option<EvaluateRequest>,
}

/// What an evaluation does.
#[derive(Serialize, Deserialize)]
pub(super) struct Task {
    pub protocol: Protocol,
    pub concepts: Vec<UsedConcept>,
}

/// The evaluation that a folder holds already; nothing for a new one. Anything else in it is refused.
pub(super) fn written(output: &Path) -> Result<Option<Task>, Error> {
    let path = output.join(PLAN);
    if path.exists() {
        return read_json::<Written>(&path, "the plan of an evaluation").map(|w| Some(w.task));
    }
    if holds_files(output) {
        return Err(Error::Usage(format!(
            "{} holds files and no evaluation that could go on ({PLAN} is not there); give another --output",
            output.display()
        )));
    }
    Ok(None)
}

/// Whether there is any file in a folder or in those inside it; what a process that was killed leaves is none.
/// What cannot be read is met again when it is written.
fn holds_files(folder: &Path) -> bool {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours = name == LOCK || name.starts_with('.') && name.ends_with(".tmp");
        if path.is_dir() { holds_files(&path) } else { !ours }
    })
}

/// Refuses an evaluation of other pictures than those of the folder. Pictures can be judged anew: then the fields that
/// differ are returned.
pub(super) fn check(output: &Path, written: &Task, task: &Task) -> Result<Vec<String>, Error> {
    let same_judges = Task {
        protocol: written.protocol.clone().judged_as(&task.protocol),
        concepts: written.concepts.clone(),
    };
    let found = differences(&same_judges, task);
    if found.is_empty() {
        return Ok(differences(&written.protocol, &task.protocol));
    }
    Err(Error::Usage(format!(
        "{} holds another evaluation, which differs in {}; give another --output, or repeat that one to go on",
        output.display(),
        found.join(", ")
    )))
}

/// Notes what the folder is about from now on. Where its pictures are judged anew, what was found before gets another
/// name, and a sentence that says so is returned.
pub(super) fn note(
    output: &Path,
    task: Task,
    request: Option<EvaluateRequest>,
    judged_anew: &[String],
) -> Result<(Task, Option<String>), Error> {
    let mut notice = None;
    if !judged_anew.is_empty() {
        let kept = keep_results(output)?;
        let kept = kept.map(|path| format!("; what was found before is now {}", path.display()));
        notice = Some(format!(
            "the pictures in {} are judged anew, since {} differ{}",
            output.display(),
            judged_anew.join(", "),
            kept.unwrap_or_default()
        ));
    }
    let written = Written { task, request };
    write_json(&output.join(PLAN), &written)?;
    Ok((written.task, notice))
}

/// Gives the results the first free name; nothing where there are none.
fn keep_results(output: &Path) -> Result<Option<PathBuf>, Error> {
    let path = output.join(RESULTS);
    if !path.exists() {
        return Ok(None);
    }
    let mut names = (1..).map(|n| output.join(format!("results-{n}.json")));
    let free = names.find(|path| !path.exists()).expect("numbers do not end");
    fs::rename(&path, &free).map_err(Error::io(&path, "renamed"))?;
    Ok(Some(free))
}

/// What was asked for where this folder was made; nothing where it does not say so.
pub(crate) fn request(folder: &Path) -> Result<Option<EvaluateRequest>, Error> {
    let path = folder.join(PLAN);
    if !path.exists() {
        return Ok(None);
    }
    read_json::<Written>(&path, "the plan of an evaluation").map(|written| written.request)
}
