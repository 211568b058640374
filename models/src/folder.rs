//! A Stable Diffusion model in the Hugging Face folder layout.
//!
//! Opening reads configurations only; each part's weights are read when it is asked for.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::ModelError;
use crate::clip::{ClipText, ClipTextConfig};
use crate::params::{ParamSource, Params};
use crate::schedule::ScheduleConfig;
use crate::tokenizer::Tokenizer;
use crate::unet::{UNet, UNetConfig};
use crate::vae::{Vae, VaeConfig};
use crate::weights::{Checkpoint, weight_files};

/// The parts of a model that have weights, and the stem of their files.
const PARTS: [(&str, &str); 3] = [
    ("text_encoder", "model"),
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
];

/// The configurations of a model, checked; its weights still on disk.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    path: PathBuf,
    variant: Option<String>,
    /// Of the text encoder.
    pub text_encoder: ClipTextConfig,
    /// Of the U-Net.
    pub unet: UNetConfig,
    /// Of the autoencoder.
    pub vae: VaeConfig,
    /// Of the scheduler.
    pub scheduler: ScheduleConfig,
}

impl ModelFolder {
    /// Opens a folder with `unet/`, `vae/`, `text_encoder/`, `tokenizer/` and `scheduler/`; `variant` names
    /// weight files such as `….fp16.safetensors`.
    pub fn open(path: &Path, variant: Option<&str>) -> Result<Self, ModelError> {
        let missing = |what: &str, hint: &str| ModelError::Missing {
            path: path.to_owned(),
            what: what.to_owned(),
            hint: hint.to_owned(),
        };
        if path.is_file() {
            let what = "a file, but a folder in the Hugging Face layout was expected; convert a single-file \
                        checkpoint with diffusers' `from_single_file(...).save_pretrained(FOLDER)`";
            return Err(ModelError::invalid(path, what));
        }
        if !path.is_dir() {
            return Err(missing(
                "the model folder",
                "give the folder of a Stable Diffusion 1.x or 2.x model",
            ));
        }
        for part in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
            if !path.join(part).is_dir() {
                let hint = "a model folder in the Hugging Face layout has unet/, vae/, text_encoder/, \
                            tokenizer/ and scheduler/";
                return Err(missing(&format!("the folder {part}/"), hint));
            }
        }
        if path.join("text_encoder_2").is_dir() {
            let what =
                "a model with two text encoders (SDXL); Stable Diffusion 1.x and 2.x are supported";
            return Err(ModelError::invalid(path, what));
        }
        let folder = Self {
            path: path.to_owned(),
            variant: variant.map(str::to_owned),
            text_encoder: read_config(&path.join("text_encoder/config.json"))?,
            unet: read_config(&path.join("unet/config.json"))?,
            vae: read_config(&path.join("vae/config.json"))?,
            scheduler: read_scheduler(&path.join("scheduler/scheduler_config.json"))?,
        };
        folder.unet.check()?;
        folder.vae.check()?;
        let (width, heads) =
            (folder.text_encoder.hidden_size, folder.text_encoder.num_attention_heads);
        if width % heads != 0 {
            return Err(ModelError::Unsupported {
                part: "text_encoder",
                key: "num_attention_heads",
                found: heads.to_string(),
                expected: "a number that divides hidden_size",
            });
        }
        let (latents, unet) = (folder.vae.latent_channels, &folder.unet);
        if unet.in_channels != latents || unet.out_channels != latents {
            let what = format!(
                "the U-Net reads {} channels and the VAE has {latents}; models for inpainting or editing are not supported",
                unet.in_channels
            );
            return Err(ModelError::invalid(path, what));
        }
        let (text, unet) = (folder.text_encoder.hidden_size, folder.unet.cross_attention_dim);
        if text != unet {
            let what = format!(
                "the text encoder is {text} wide but the U-Net attends to {unet}; use parts that belong together"
            );
            return Err(ModelError::invalid(path, what));
        }
        Ok(folder)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's name, for people.
    pub fn name(&self) -> String {
        let full = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        full.file_name().unwrap_or(full.as_os_str()).to_string_lossy().into_owned()
    }

    /// Reads the tables of contents of all weight files, so that damaged ones are found before any work.
    pub fn check_weights(&self) -> Result<(), ModelError> {
        for (part, stem) in PARTS {
            self.checkpoint(part, stem, Kind::Float, Device::Cpu)?;
        }
        Ok(())
    }

    /// The files of all weights, by which two bases are told apart.
    pub fn weight_files(&self) -> Result<Vec<PathBuf>, ModelError> {
        let mut files = Vec::new();
        for (part, stem) in PARTS {
            files.extend(weight_files(&self.path.join(part), stem, self.variant.as_deref())?);
        }
        Ok(files)
    }

    /// How many numbers the weights of `text_encoder`, `unet` or `vae` are.
    pub fn parameters(&self, part: &str) -> Result<u64, ModelError> {
        let stem = PARTS.iter().find(|(name, _)| *name == part).map_or("model", |(_, stem)| stem);
        Ok(self.checkpoint(part, stem, Kind::Float, Device::Cpu)?.elements())
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        Tokenizer::open(&self.path.join("tokenizer"))
    }

    /// The text encoder, frozen.
    pub fn load_text_encoder(&self, kind: Kind, device: Device) -> Result<ClipText, ModelError> {
        let weights = self.checkpoint("text_encoder", "model", kind, device)?;
        let network = ClipText::new(&Params::root(&weights), &self.text_encoder);
        weights.report()?.require_complete()?;
        let (rows, ids) = (network.token_table().size()[0], self.tokenizer()?.ids());
        if rows < ids {
            let what = format!(
                "the tokenizer has {ids} tokens, but the text encoder knows {rows}; use parts that belong together"
            );
            return Err(ModelError::invalid(&self.path, what));
        }
        Ok(network)
    }

    /// The U-Net, frozen.
    pub fn load_unet(&self, kind: Kind, device: Device) -> Result<UNet, ModelError> {
        let weights = self.unet_weights(kind, device)?;
        let network = UNet::new(&Params::root(&weights), &self.unet);
        weights.report()?.require_complete()?;
        Ok(network)
    }

    /// The tensors of the U-Net's files, for a network that is trained or that something is put beside.
    pub fn unet_weights(&self, kind: Kind, device: Device) -> Result<Checkpoint, ModelError> {
        self.checkpoint("unet", "diffusion_pytorch_model", kind, device)
    }

    /// The autoencoder, frozen; in f32 where its configuration says that f16 overflows in it.
    pub fn load_vae(&self, kind: Kind, device: Device) -> Result<Vae, ModelError> {
        let kind = if self.vae.force_upcast && kind == Kind::Half { Kind::Float } else { kind };
        let weights = self.checkpoint("vae", "diffusion_pytorch_model", kind, device)?;
        let network = Vae::new(&Params::root(&weights), &self.vae);
        weights.report()?.require_complete()?;
        Ok(network)
    }

    /// The first `columns` numbers of some rows of the token table, read without the rest of it; rows
    /// beyond its end are left out.
    pub fn token_sketch(&self, rows: &[usize], columns: usize) -> Result<Vec<f32>, ModelError> {
        let weights = self.checkpoint("text_encoder", "model", Kind::Float, Device::Cpu)?;
        let name = token_table_name(&weights);
        let mut sketch = Vec::new();
        for &row in rows {
            let Some(row) = weights.row(&name, row)? else { continue };
            let row = Vec::<f32>::try_from(row)?;
            sketch.extend_from_slice(&row[..columns.min(row.len())]);
        }
        Ok(sketch)
    }

    /// The text encoder's table of token vectors, `[rows, D]`, f32 on the CPU, without the rest of it.
    pub fn token_table(&self) -> Result<Tensor, ModelError> {
        let weights = self.checkpoint("text_encoder", "model", Kind::Float, Device::Cpu)?;
        let name = token_table_name(&weights);
        let table = weights.parameter(&name, &weights.shape(&name).unwrap_or_default());
        weights.report()?.require_complete()?;
        Ok(table)
    }

    fn checkpoint(
        &self,
        part: &str,
        stem: &str,
        kind: Kind,
        device: Device,
    ) -> Result<Checkpoint, ModelError> {
        Checkpoint::open(&self.path.join(part), stem, self.variant.as_deref(), kind, device)
    }
}

/// transformers 5 dropped the prefix that the published files have.
fn token_table_name(weights: &Checkpoint) -> String {
    let key = "embeddings.token_embedding.weight";
    if weights.shape(key).is_some() { key.to_owned() } else { format!("text_model.{key}") }
}

/// Python writes infinities into this file, which are no JSON; the schedule reads it itself.
fn read_scheduler(path: &Path) -> Result<ScheduleConfig, ModelError> {
    let text = torch_ext::file::read_to_string(path).map_err(|e| ModelError::io(path, e))?;
    if !text.trim_start().starts_with('{') {
        return Err(ModelError::invalid(path, "not a scheduler's configuration; fetch it again"));
    }
    ScheduleConfig::from_json(&text).map_err(|e| ModelError::invalid(path, e.to_string()))
}

/// What transformers calls the kind of model that a `config.json` is of, before anything else of it is read; empty where
/// it does not say.
pub(crate) fn model_type(path: &Path) -> Result<String, ModelError> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        model_type: String,
    }
    read_config(path).map(|named: Named| named.model_type)
}

/// Reads a configuration; numbers that become sizes of tensors are checked, at every depth.
pub(crate) fn read_config<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = torch_ext::file::read_to_string(path).map_err(|e| ModelError::io(path, e))?;
    let invalid = |e: serde_json::Error| {
        let what = format!("not the configuration that was expected ({e}); fetch it again");
        ModelError::invalid(path, what)
    };
    let value: Value = serde_json::from_str(&text).map_err(invalid)?;
    if let Some((key, size)) = wrong_size(&value) {
        let what = format!(
            "{key} is {size}, but sizes from 1 to {LARGEST_SIZE} were expected; fetch it again"
        );
        return Err(ModelError::invalid(path, what));
    }
    serde_json::from_value(value).map_err(invalid)
}

/// Far above any network of this kind, far below what overflows.
const LARGEST_SIZE: i64 = 1 << 20;

/// Keys whose numbers become shapes of tensors: checked once here, so that no network is built of zeros.
const SIZES: [&str; 18] = [
    "attention_head_dim",
    "block_out_channels",
    "cross_attention_dim",
    "hidden_size",
    "image_size",
    "in_channels",
    "intermediate_size",
    "latent_channels",
    "layers_per_block",
    "max_position_embeddings",
    "norm_num_groups",
    "num_attention_heads",
    "num_hidden_layers",
    "out_channels",
    "patch_size",
    "projection_dim",
    "sample_size",
    "vocab_size",
];

/// The first key that has to be a size and is none, in this object or one inside it.
fn wrong_size(value: &Value) -> Option<(&str, &Value)> {
    value.as_object()?.iter().find_map(|(key, value)| match value {
        Value::Object(_) => wrong_size(value),
        _ => (SIZES.contains(&key.as_str()) && !is_size(value)).then_some((key.as_str(), value)),
    })
}

/// A number in range, a list of such, or nothing.
fn is_size(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(all) => !all.is_empty() && all.iter().all(is_size),
        number => number.as_i64().is_some_and(|n| (1..=LARGEST_SIZE).contains(&n)),
    }
}
