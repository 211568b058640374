//! All that a run needs to go on to the bit: parameters, moments, generator, place.

use std::collections::HashMap;
use std::path::Path;

use embeddings::file::{FileError, write_atomically};
use safetensors::{Dtype, SafeTensors, View};
use serde_json::Value;
use std::borrow::Cow;
use tch::{Kind, Tensor};

use super::Trainer;
use crate::Error;
use crate::differences::differences;

/// The state file's name in the folder of a run.
pub const FILE: &str = "state.safetensors";

struct Bytes(Dtype, Vec<usize>, Vec<u8>);

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        self.0
    }
    fn shape(&self) -> &[usize] {
        &self.1
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.2)
    }
    fn data_len(&self) -> usize {
        self.2.len()
    }
}

/// Writes the trainer's state into the folder of its run. `identity`, best a JSON object of what was set, tells this run
/// from another. Where what follows the last step is not `recorded`, a resumed run does that first.
pub fn save(trainer: &Trainer, folder: &Path, identity: &str, recorded: bool) -> Result<(), Error> {
    let mut tensors: Vec<(String, Bytes)> = Vec::new();
    let optimizer = &trainer.optimizer;
    let average = trainer.average.as_ref().map(|average| ("average", &average.tensors));
    let parts = [
        ("parameter", &optimizer.parameters),
        ("first_moment", &optimizer.first_moments),
        ("second_moment", &optimizer.second_moments),
    ];
    for (part, all) in parts.into_iter().chain(average) {
        for (i, tensor) in all.iter().enumerate() {
            let shape = tensor.size().iter().map(|&n| n as usize).collect();
            let bytes = torch_ext::to_bytes(&tensor.detach().to_kind(Kind::Float));
            tensors.push((format!("{part}.{i}"), Bytes(Dtype::F32, shape, bytes)));
        }
    }
    let generator = trainer.draw.state();
    tensors.push(("generator".into(), Bytes(Dtype::U8, vec![generator.len()], generator)));
    let metadata = HashMap::from([
        ("step".to_owned(), trainer.step.to_string()),
        ("loss_scale".to_owned(), trainer.loss_scale.to_string()),
        ("identity".to_owned(), identity.to_owned()),
        ("recorded".to_owned(), recorded.to_string()),
    ]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).expect("plain shapes and sizes");
    let path = folder.join(FILE);
    write_atomically(&path, &bytes).map_err(Error::io(&path, "written"))
}

/// Whether a folder holds a state to go on from.
pub(crate) fn is_there(folder: &Path) -> bool {
    folder.join(FILE).exists()
}

/// Removes the state of a run that is to be overwritten.
pub(crate) fn remove(folder: &Path) -> Result<(), Error> {
    let path = folder.join(FILE);
    if !is_there(folder) {
        return Ok(());
    }
    std::fs::remove_file(&path).map_err(Error::io(&path, "removed"))
}

/// Refuses, before any work, to go on with a state that is damaged, another run's or further than asked for.
pub fn check(folder: &Path, steps: u64, identity: &str) -> Result<(), Error> {
    let path = folder.join(FILE);
    if !path.exists() {
        let text = format!("{}: no state to resume from; start without --resume", path.display());
        return Err(Error::Usage(text));
    }
    let bytes = torch_ext::file::read(&path).map_err(Error::io(&path, "read"))?;
    let header = SafeTensors::read_metadata(&bytes).map_err(|_| damaged(&path, "not whole"))?.1;
    let metadata = header.metadata().clone().unwrap_or_default();
    match metadata.get("identity") {
        None => return Err(damaged(&path, "not a run's state")),
        Some(found) if found != identity => {
            return Err(Error::Usage(format!(
                "{} belongs to a run with another configuration{}; only the number of steps, what is shown and saved under way, \
                 the device and paths may change: give {}, or start again with --force",
                path.display(),
                differing(found, identity),
                given_before(folder)
            )));
        }
        Some(_) => {}
    }
    let step = metadata.get("step").and_then(|step| step.parse::<u64>().ok());
    match step {
        None => Err(damaged(&path, "without its step")),
        Some(step) if step > steps => Err(Error::Usage(format!(
            "{steps} steps were asked for, but the run in {} has {step} behind it; give more, or start again with --force",
            folder.display()
        ))),
        Some(_) => Ok(()),
    }
}

/// Names what differs between the run that was and the one that is asked for, as the end of a clause; empty where the
/// state, an older one, does not say.
fn differing(found: &str, identity: &str) -> String {
    let [was, is] = [found, identity].map(serde_json::from_str::<Value>);
    match (was, is) {
        (Ok(was), Ok(is)) => format!(", which differs in {}", differences(&was, &is).join(", ")),
        _ => String::new(),
    }
}

/// Says where the settings of a run are to be found.
fn given_before(folder: &Path) -> String {
    let config = folder.join("config.toml");
    if config.is_file() {
        return format!("what {} holds", config.display());
    }
    "the settings that it began with".into()
}

fn damaged(path: &Path, what: &str) -> Error {
    let what = format!("the state to resume from is {what}; start again with --force");
    FileError::Invalid { path: path.to_owned(), what }.into()
}

/// Puts a saved and checked state into `trainer`, whose parameters are overwritten in place. Returns whether what follows
/// its last step is recorded.
pub fn load(trainer: &mut Trainer, folder: &Path) -> Result<bool, Error> {
    let path = folder.join(FILE);
    let damaged = |what: &str| damaged(&path, what);
    let bytes = torch_ext::file::read(&path).map_err(Error::io(&path, "read"))?;
    let header = SafeTensors::read_metadata(&bytes).map_err(|_| damaged("not whole"))?.1;
    let metadata = header.metadata().clone().unwrap_or_default();
    let file = SafeTensors::deserialize(&bytes).map_err(|_| damaged("not whole"))?;
    let tensor = |name: String, like: &Tensor| -> Result<Tensor, Error> {
        let view = file.tensor(&name).map_err(|_| damaged("without some tensors"))?;
        torch_ext::from_bytes(view.data(), Kind::Float, &like.size())
            .map_err(|_| damaged("of other shapes"))
    };
    let optimizer = &mut trainer.optimizer;
    let average = trainer.average.as_mut().map(|average| ("average", &mut average.tensors));
    let parts = [
        ("parameter", &mut optimizer.parameters),
        ("first_moment", &mut optimizer.first_moments),
        ("second_moment", &mut optimizer.second_moments),
    ];
    for (part, all) in parts.into_iter().chain(average) {
        for (i, target) in all.iter_mut().enumerate() {
            let saved = tensor(format!("{part}.{i}"), target)?;
            tch::no_grad(|| target.copy_(&saved));
        }
    }
    let number = |key: &str| metadata.get(key).and_then(|v| v.parse::<f64>().ok());
    let (Some(step), Some(loss_scale)) = (number("step"), number("loss_scale")) else {
        return Err(damaged("without its step"));
    };
    let generator = file.tensor("generator").map_err(|_| damaged("without its generator"))?;
    trainer.draw.set_state(generator.data()).map_err(|_| damaged("of another generator"))?;
    trainer.step = step as u64;
    trainer.optimizer.steps = trainer.step;
    trainer.loss_scale = loss_scale;
    Ok(metadata.get("recorded").is_none_or(|recorded| recorded == "true"))
}
