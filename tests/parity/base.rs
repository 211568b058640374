//! A fixture's model as a folder with weights.

use std::collections::HashMap;
use std::path::Path;

use models::clip::ClipText;
use models::folder::ModelFolder;
use models::params::Params;
use models::unet::UNet;
use models::vae::Vae;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};
use serde_json::Value;
use tempfile::TempDir;

use super::{path, seeded};

/// The family's folder without weights and with some keys of a file at other values; it is deleted with the returned value.
pub fn changed(family: &str, file: &str, changes: &Value) -> TempDir {
    let base = tempfile::tempdir().unwrap();
    for part in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
        copy(&path(&format!("{family}/{part}")), &base.path().join(part));
    }
    let file = base.path().join(file);
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(&file, config.to_string()).unwrap();
    base
}

/// The family's folder with the seeded weights in it.
pub fn with_weights(family: &str) -> TempDir {
    filled(changed(family, "unet/config.json", &serde_json::json!({})))
}

/// A folder with the seeded weights that its configurations ask for.
pub fn filled(base: TempDir) -> TempDir {
    let config = ModelFolder::open(base.path(), None).unwrap();
    let weights = seeded("text_encoder");
    ClipText::new(&Params::root(&weights), &config.text_encoder);
    save(weights, &base.path().join("text_encoder/model.safetensors"));
    let weights = seeded("unet");
    UNet::new(&Params::root(&weights), &config.unet);
    save(weights, &base.path().join("unet/diffusion_pytorch_model.safetensors"));
    let weights = seeded("vae");
    Vae::new(&Params::root(&weights), &config.vae);
    save(weights, &base.path().join("vae/diffusion_pytorch_model.safetensors"));
    base
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn save(weights: models::seeded::Seeded, file: &Path) {
    let drawn: Vec<(String, Vec<usize>, Vec<u8>)> = weights
        .into_drawn()
        .into_iter()
        .map(|(name, tensor)| {
            let shape = tensor.size().iter().map(|n| *n as usize).collect();
            (name, shape, torch_ext::to_bytes(&tensor))
        })
        .collect();
    let views: HashMap<&str, TensorView> = drawn
        .iter()
        .map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        })
        .collect();
    serialize_to_file(views, None, file).unwrap();
}
