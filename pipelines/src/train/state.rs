//! All that a run needs to go on to the bit: parameters, moments, generator, place.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use embeddings::file::{hex, write_atomically};
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
pub(crate) fn identity(config: &TrainConfig, photos: &str) -> String {
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
    hex(&Sha256::digest(format!("{}\n{photos}", same.to_toml())))
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

/// Puts a saved state into `trainer`, whose parameters are overwritten in place.
pub(crate) fn load(trainer: &mut Trainer, folder: &Path, identity: &str) -> Result<(), Error> {
    let path = folder.join(FILE);
    let damaged = |what: &str| {
        Error::Usage(format!("{}: {what}; start again without --resume", path.display()))
    };
    let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
    let header = SafeTensors::read_metadata(&bytes).map_err(|_| damaged("not a whole state"))?.1;
    let metadata = header.metadata().clone().unwrap_or_default();
    if metadata.get("identity").map(String::as_str) != Some(identity) {
        return Err(damaged(
            "this state belongs to a run with other photos or another configuration (only the number of \
             steps, samples and paths may change)",
        ));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|_| damaged("not a whole state"))?;
    let tensor = |name: String, like: &Tensor| -> Result<Tensor, Error> {
        let view = file.tensor(&name).map_err(|_| damaged("tensors are missing"))?;
        torch_ext::from_bytes(view.data(), Kind::Float, &like.size())
            .map_err(|_| damaged("tensors have other shapes"))
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
        return Err(damaged("its step is missing"));
    };
    let generator = file.tensor("generator").map_err(|_| damaged("its generator is missing"))?;
    trainer.draw.set_state(generator.data()).map_err(|_| damaged("its generator is damaged"))?;
    trainer.step = step as u64;
    trainer.optimizer.steps = trainer.step;
    trainer.loss_scale = loss_scale;
    Ok(())
}
