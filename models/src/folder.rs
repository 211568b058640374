//! A Stable Diffusion model in the Hugging Face folder layout.
//!
//! Opening reads configurations only; each part's weights are read when it is asked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use crate::ModelError;
use crate::clip::{self, ClipText, ClipTextConfig};
use crate::config::some_of;
use crate::params::{ParamSource, Params};
use crate::schedule::{NoiseSchedule, ScheduleConfig};
use crate::tokenizer::Tokenizer;
use crate::unet::{self, UNet, UNetConfig};
use crate::vae::{self, Vae, VaeConfig};
use crate::weights::{Checkpoint, variants, weight_files};

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
    warnings: Vec<String>,
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
                if let Some(error) = ModelError::dangling(&path.join(part)) {
                    return Err(error);
                }
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
        let (text_encoder, of_text) =
            clip::TEXT_CLASS.read(&path.join("text_encoder/config.json"))?;
        let (unet, of_unet) = unet::CLASS.read(&path.join("unet/config.json"))?;
        let (vae, of_vae) = vae::CLASS.read(&path.join("vae/config.json"))?;
        let (scheduler, of_scheduler) =
            ScheduleConfig::read(&path.join("scheduler/scheduler_config.json"))?;
        let mut warnings: Vec<String> =
            [of_text, of_unet, of_vae, of_scheduler].into_iter().flatten().collect();
        if let Some(variant) = variant {
            warnings.extend(lacking(path, variant)?);
        }
        let folder = Self {
            path: path.to_owned(),
            variant: variant.map(str::to_owned),
            warnings,
            text_encoder,
            unet,
            vae,
            scheduler,
        };
        folder.text_encoder.check()?;
        folder.unet.check()?;
        folder.vae.check()?;
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

    /// What the user should know of the configurations.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Finds what would stop any work with this base: a damaged weight file, a tensor that is missing or of another
    /// shape than its configuration says, a tokenizer of another model, a schedule without noise. Of the weights only
    /// the tables of contents are read. Returns the tokenizer.
    pub fn check_weights(&self) -> Result<Tokenizer, ModelError> {
        type Build<'a> = &'a dyn Fn(&Params);
        let builds: [Build; 3] = [
            &|params| drop(ClipText::new(params, &self.text_encoder)),
            &|params| drop(UNet::new(params, &self.unet)),
            &|params| drop(Vae::new(params, &self.vae)),
        ];
        for ((part, stem), build) in PARTS.into_iter().zip(builds) {
            let outline = self.checkpoint(part, stem, Kind::Float, Device::Cpu)?.outline();
            build(&Params::root(&outline));
            outline.report()?.require_complete()?;
        }
        NoiseSchedule::new(&self.scheduler)
            .map_err(|e| ModelError::invalid(&self.path.join("scheduler"), e.to_string()))?;
        let (part, stem) = PARTS[0];
        let text = self.checkpoint(part, stem, Kind::Float, Device::Cpu)?;
        self.fitting_tokenizer(text.shape(&token_table_name(&text)).map_or(0, |shape| shape[0]))
    }

    /// The tokenizer, where the text encoder, with a table of `rows`, has vectors for its ids and prompts.
    fn fitting_tokenizer(&self, rows: i64) -> Result<Tokenizer, ModelError> {
        let tokenizer = self.tokenizer()?;
        let (ids, length) = (tokenizer.ids(), tokenizer.length() as i64);
        let positions = self.text_encoder.max_position_embeddings;
        let what = if rows < ids {
            format!("has {ids} tokens, but the text encoder knows {rows}")
        } else if length > positions {
            format!(
                "makes prompts of {length} tokens, but the text encoder has {positions} positions"
            )
        } else {
            return Ok(tokenizer);
        };
        let what = format!("the tokenizer {what}; use parts that belong together");
        Err(ModelError::invalid(&self.path, what))
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
        self.fitting_tokenizer(network.token_table().size()[0])?;
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

/// A warning about the parts that have no weights of this variant, whose plain ones are read instead; an error where no
/// part has any.
fn lacking(path: &Path, variant: &str) -> Result<Option<String>, ModelError> {
    let (mut without, mut there) = (Vec::new(), BTreeSet::new());
    for (part, stem) in PARTS {
        let variants = variants(&path.join(part), stem)?;
        if !variants.contains(variant) {
            without.push(part.to_owned());
        }
        there.extend(variants);
    }
    if without.len() == PARTS.len() {
        let there: Vec<String> = there.into_iter().collect();
        let hint = match &there[..] {
            [] => "its weights have no variants, so leave --variant out".to_owned(),
            all => {
                format!("there are {}, so name one of them or leave --variant out", some_of(all))
            }
        };
        let what = format!("the variant {variant} of the weights");
        return Err(ModelError::Missing { path: path.to_owned(), what, hint });
    }
    Ok((!without.is_empty()).then(|| {
        format!(
            "{}: no variant {variant} of {}; the plain weights are used",
            path.display(),
            some_of(&without)
        )
    }))
}

/// transformers 5 dropped the prefix that the published files have.
fn token_table_name(weights: &Checkpoint) -> String {
    let key = "embeddings.token_embedding.weight";
    if weights.shape(key).is_some() { key.to_owned() } else { format!("text_model.{key}") }
}
