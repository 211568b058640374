//! All that a run needs to go on to the bit: parameters, moments, generator, place.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use embeddings::file::{FileError, hex, write_atomically};
use safetensors::{Dtype, SafeTensors, View};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use tch::{Kind, Tensor};

use super::trainer::Trainer;
use crate::Error;
use crate::config::TrainConfig;

/// The state file's name in the folder of a run.
pub(crate) const FILE: &str = "state.safetensors";

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

/// What must be equal for a resumed run to be the same run: everything but its length, its place on disk
/// and what it shows.
pub(crate) fn identity(config: &TrainConfig, photos: &str, vocabulary: &[f32]) -> String {
    let same = TrainConfig {
        steps: 0,
        output: PathBuf::new(),
        photos: PathBuf::new(),
        base: PathBuf::new(),
        save_every: 0,
        sample_prompts: Vec::new(),
        sample_every: 0,
        sample_steps: 0,
        sample_guidance: 0.0,
        ..config.clone()
    };
    hex(&Sha256::digest(format!("{}\n{photos}\n{vocabulary:?}", same.to_toml())))
}

/// Writes the trainer's state beside the concept.
pub(crate) fn save(trainer: &Trainer, folder: &Path, identity: &str) -> Result<(), Error> {
    let mut tensors: Vec<(String, Bytes)> = Vec::new();
    let optimizer = &trainer.optimizer;
    for (part, all) in [
        ("parameter", &optimizer.parameters),
        ("first_moment", &optimizer.first_moments),
        ("second_moment", &optimizer.second_moments),
    ] {
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
    ]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).expect("plain shapes and sizes");
    let path = folder.join(FILE);
    write_atomically(&path, &bytes).map_err(Error::io(&path, "written"))
}

/// Refuses, before any work, to go on with a state that is damaged, another run's or further than asked for.
pub(crate) fn check(config: &TrainConfig, identity: &str) -> Result<(), Error> {
    let path = config.output.join(FILE);
    if !path.is_file() {
        let text = format!("{}: no state to resume from; start without --resume", path.display());
        return Err(Error::Usage(text));
    }
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let header = SafeTensors::read_metadata(&bytes).map_err(|_| damaged(&path, "not whole"))?.1;
    let metadata = header.metadata().clone().unwrap_or_default();
    match metadata.get("identity") {
        None => return Err(damaged(&path, "not a run's state")),
        Some(found) if found != identity => {
            return Err(Error::Usage(format!(
                "{} belongs to a run with other photos, another base or another configuration (only the number of \
                 steps, samples and paths may change); give what {} holds, or start again with --force",
                path.display(),
                config.output.join("config.toml").display()
            )));
        }
        Some(_) => {}
    }
    let step = metadata.get("step").and_then(|step| step.parse::<u64>().ok());
    match step {
        None => Err(damaged(&path, "without its step")),
        Some(step) if step > config.steps => Err(Error::Usage(format!(
            "{} steps were asked for, but the run in {} has {step} behind it; give more, or start again with --force",
            config.steps,
            config.output.display()
        ))),
        Some(_) => Ok(()),
    }
}

fn damaged(path: &Path, what: &str) -> Error {
    let what = format!("the state to resume from is {what}; start again with --force");
    FileError::Invalid { path: path.to_owned(), what }.into()
}

/// Puts a saved and checked state into `trainer`, whose parameters are overwritten in place.
pub(crate) fn load(trainer: &mut Trainer, folder: &Path) -> Result<(), Error> {
    let path = folder.join(FILE);
    let damaged = |what: &str| damaged(&path, what);
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let header = SafeTensors::read_metadata(&bytes).map_err(|_| damaged("not whole"))?.1;
    let metadata = header.metadata().clone().unwrap_or_default();
    let file = SafeTensors::deserialize(&bytes).map_err(|_| damaged("not whole"))?;
    let tensor = |name: String, like: &Tensor| -> Result<Tensor, Error> {
        let view = file.tensor(&name).map_err(|_| damaged("without some tensors"))?;
        torch_ext::from_bytes(view.data(), Kind::Float, &like.size())
            .map_err(|_| damaged("of other shapes"))
    };
    let optimizer = &mut trainer.optimizer;
    for (part, all) in [
        ("parameter", &mut optimizer.parameters),
        ("first_moment", &mut optimizer.first_moments),
        ("second_moment", &mut optimizer.second_moments),
    ] {
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
    Ok(())
}
