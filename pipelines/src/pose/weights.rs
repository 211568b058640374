//! Pose weights: one safetensors file with all that photo and pose need beside a base, and what it is.
//!
//! | tensors | from stage |
//! |---|---|
//! | `image_encoder.…`, `pose_encoder.…` where the pose has its own, `combiner.…` | one; the second keeps them |
//! | `source_projection.…`, `fusion_projection.…`, `pose_stem.…` | two |
//! | `unet.…`, all of it, or `unet_lora.…` (our extension) | two |
//!
//! The metadata hold one key, `personalize.pose`: a [`PoseRecord`] as JSON. A source encoder of its own, `DINOv2` for
//! FPDM, is frozen and stays in the folder that it came in.

use std::path::{Path, PathBuf};

use embeddings::file::{BaseRecord, Draft, FileError, hex};
use models::ModelError;
use models::params::ParamSource as _;
use models::weights::{Checkpoint, table_of_contents, weight_files, write_described};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tch::{Device, Kind, Tensor};
use torch_ext::TensorFile;

use super::shape::{FusionShape, GeneratorShape};
use crate::evaluate::Hashed;
use crate::{Base, Error};

/// The newest version of this layout; a file with a higher one is refused.
const FORMAT_VERSION: u32 = 1;
const RECORD_KEY: &str = "personalize.pose";
/// A tensor without which there is no fusion embedding.
const COMBINER_KEY: &str = "combiner.output_layer.weight";

/// The pose weights that come with this program, for the built-in base.
const BUILT_IN: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/toybox/pose/pose.safetensors");

/// What a file of pose weights says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoseRecord {
    /// Of the layout.
    pub format_version: u32,
    /// Of the first stage.
    pub fusion: FusionShape,
    /// Of the second stage, once it was trained.
    #[serde(default)]
    pub generator: Option<TrainedOn>,
    /// Optimiser steps of the last stage.
    pub steps: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// Its seed.
    pub seed: u64,
    /// The version of this tool.
    pub tool_version: String,
}

/// The second stage and the base that it was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// The sizes of its networks.
    pub shape: GeneratorShape,
    /// The base.
    pub base: BaseRecord,
    /// SHA-256 of the source encoder's weights, where it has a folder of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_encoder: Option<String>,
}

/// SHA-256 of the weights of an encoder's folder.
pub(super) fn encoder_hash(folder: &Path) -> Result<String, Error> {
    Ok(Hashed::read("", &weight_files(folder, "model", None)?)?.sha256)
}

impl PoseRecord {
    /// Of a stage that this tool trains now.
    pub fn new(fusion: FusionShape, generator: Option<TrainedOn>) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            fusion,
            generator,
            steps: 0,
            learning_rate: 0.0,
            seed: 0,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Writes a file whole or not at all.
    pub fn write(&self, path: &Path, tensors: Vec<(String, Tensor)>) -> Result<(), Error> {
        let json = serde_json::to_string(self).expect("a record is plain data");
        let write = || {
            let mut draft = Draft::beside(path)?;
            write_described(&mut draft, tensors, (RECORD_KEY, &json))?;
            draft.replace(path)
        };
        write().map_err(Error::io(path, "written"))
    }
}

/// A file of pose weights, its record read and its tensors still on disk.
#[derive(Debug, Clone)]
pub struct PoseWeights {
    path: PathBuf,
    /// What it says of itself.
    pub record: PoseRecord,
}

impl PoseWeights {
    /// Opens a file and checks that it is what it says. No pickle is ever opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let invalid = |what: String| FileError::Invalid { path: path.to_owned(), what };
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            let what = "pose weights are a .safetensors file; give the one that `pose train-generator` wrote";
            return Err(invalid(what.to_owned()).into());
        }
        let file = TensorFile::open(path).map_err(Error::io(path, "read"))?;
        let (_, header) = table_of_contents(&file).map_err(|e| {
            invalid(format!("not a whole safetensors file ({e}); copy or fetch it again"))
        })?;
        let json = header.metadata().as_ref().and_then(|metadata| metadata.get(RECORD_KEY));
        let Some(json) = json else {
            let what = "safetensors without pose weights: its metadata have no personalize.pose; give the file that \
                        `pose train-fusion` or `pose train-generator` wrote";
            return Err(invalid(what.to_owned()).into());
        };
        // The version first: what a later one holds need not be readable here.
        let version = serde_json::from_str::<serde_json::Value>(json).ok();
        let version = version.as_ref().and_then(|record| record["format_version"].as_u64());
        if version.is_some_and(|version| version > u64::from(FORMAT_VERSION)) {
            let what = format!(
                "pose weights in format {}, but this version reads up to {FORMAT_VERSION}; update personalize",
                version.unwrap_or_default()
            );
            return Err(invalid(what).into());
        }
        let record: PoseRecord = serde_json::from_str(json).map_err(|e| {
            invalid(format!("its metadata are damaged ({e}); copy or train it again"))
        })?;
        record.fusion.encoder.check().map_err(invalid)?;
        let weights = Self { path: path.to_owned(), record };
        if weights.tensors(Kind::Float, Device::Cpu)?.shape(COMBINER_KEY).is_none() {
            let what = format!(
                "pose weights without the combiner ({COMBINER_KEY} is missing), and so without a fusion embedding; copy \
                 them again whole, or train the first stage with `pose train-fusion`"
            );
            return Err(invalid(what).into());
        }
        Ok(weights)
    }

    /// The file that comes with this program.
    pub fn built_in() -> Result<Self, Error> {
        let path = Path::new(BUILT_IN).canonicalize().map_err(|_| {
            Error::Usage(format!(
                "no pose weights are given, and the built-in ones are not at {BUILT_IN} any more; pass --weights FILE, or \
                 build again where the source lies now"
            ))
        })?;
        Self::open(&path)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The second stage, or a refusal of a file that has the first only.
    pub fn generator(&self) -> Result<&TrainedOn, Error> {
        self.record.generator.as_ref().ok_or_else(|| {
            let what =
                "these weights are of the first stage, which draws nothing; train the second with \
                        `pose train-generator` and give its file"
                    .to_owned();
            FileError::Invalid { path: self.path.clone(), what }.into()
        })
    }

    /// Refuses another base than the one that the second stage was trained on; the base must have passed
    /// [`Base::check_weights`].
    pub fn check_base(&self, base: &Base) -> Result<(), Error> {
        let TrainedOn { shape, base: trained_on, .. } = self.generator()?;
        shape.check_base(&base.folder)?;
        let refuse = |what: String| {
            Err(Error::Incompatible(format!(
                "the pose weights {} were trained on {}, {what}; use the base that they were trained on",
                self.path.display(),
                trained_on.name
            )))
        };
        let (ours, theirs) = (&trained_on.prediction_type, &base.record.prediction_type);
        if ours != theirs {
            return refuse(format!(
                "which predicts {ours}, but {} predicts {theirs}",
                base.record.name
            ));
        }
        if !trained_on.same_vocabulary(&base.record) {
            return refuse(format!("whose token table is not that of {}", base.record.name));
        }
        Ok(())
    }

    /// Its tensors, for networks of this kind on this device.
    pub fn tensors(&self, kind: Kind, device: Device) -> Result<Checkpoint, Error> {
        Ok(Checkpoint::file(&self.path, kind, device)?)
    }

    /// Every tensor of the first stage, for the file of the second.
    pub(super) fn first_stage(&self) -> Result<Vec<(String, Tensor)>, Error> {
        let all = Tensor::read_safetensors(&self.path).map_err(ModelError::from)?;
        let first = ["image_encoder.", "pose_encoder.", "combiner."];
        let is_first = |name: &str| first.iter().any(|prefix| name.starts_with(prefix));
        Ok(all.into_iter().filter(|(name, _)| is_first(name)).collect())
    }

    /// SHA-256 of these.
    pub(super) fn first_stage_hash(&self) -> Result<String, Error> {
        let mut first = self.first_stage()?;
        first.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut hasher = Sha256::new();
        for (name, tensor) in first {
            hasher.update(name);
            hasher.update(torch_ext::to_bytes(&tensor));
        }
        Ok(hex(&hasher.finalize()))
    }
}
