//! The concept file: one safetensors file.
//!
//! A concept of Textual Inversion or CoRe is exactly one F32 tensor `emb_params` `[n, D]` with everything else in the
//! metadata, which AUTOMATIC1111, `ComfyUI`, `InvokeAI`, kohya and (with `token=`) diffusers load without an
//! export. Concepts of other methods mean nothing to those programs, and are framed so that none of them takes a part for
//! a word. Reading also takes the one tensor of a word, and kohya's sixteen of an XTI, from the tools that write them.

mod atomic;
mod foreign;
mod frame;
mod read;
mod record;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tch::{Device, Kind, Tensor};

use crate::Concept;

pub use atomic::{Draft, hex, remove_strays, write_atomically};
pub use record::{BaseRecord, ConceptRecord};

/// The newest version of this layout; a file with a higher one is refused.
pub const FORMAT_VERSION: u32 = 3;
/// The version of a file of token vectors, which nothing has changed in.
const FIRST_VERSION: u32 = 1;
/// The first version whose tensors are framed.
const FRAMED_VERSION: u32 = 3;

/// The methods whose concepts are token vectors: Textual Inversion, and CoRe, which differs in its loss only.
const TOKEN_VECTORS: [&str; 2] = ["ti", "core"];
const VERSION_KEY: &str = "personalize.format_version";
const RECORD_KEY: &str = "personalize.concept";

/// The tensors of a file by name, f32 on the CPU.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// A concept as it is on disk.
#[derive(Debug)]
pub struct ConceptFile {
    /// What is known of it; for another tool's file only method and token.
    pub record: ConceptRecord,
    /// Where the file's tensors were found and in what form.
    pub origin: Origin,
    tensors: Tensors,
}

/// Who wrote a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This tool.
    Native,
    /// Another one, under this key.
    Foreign {
        /// The key of its first tensor.
        key: String,
    },
}

/// A concept file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{path}: cannot be {verb}: {source}{}", models::advice(.source), path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a concept.
    #[error("{path}: {what}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        what: String,
    },
    /// A file of a later version of this tool.
    #[error("{path}: written in format {found}, but this version reads up to {FORMAT_VERSION}; update personalize", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
}

impl ConceptFile {
    /// From a trained concept; its tensors are copied to the CPU in f32, its settings into the record.
    pub fn new(concept: &dyn Concept, record: ConceptRecord) -> Self {
        let on_cpu = |t: Tensor| t.detach().to_kind(Kind::Float).to_device(Device::Cpu).copy();
        let tensors = concept.tensors().into_iter().map(|(name, t)| (name, on_cpu(t))).collect();
        let record = ConceptRecord { settings: concept.settings(), ..record };
        Self { record, origin: Origin::Native, tensors }
    }

    /// The concept under the record's word, frozen, on the CPU.
    ///
    /// Panics where the record was given another method than the tensors are of.
    pub fn concept(&self) -> Box<dyn Concept> {
        read::build(&self.record, &self.tensors).expect("what was read or written is a concept")
    }

    /// The file's tensors by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Positions that the concept takes in a prompt.
    pub fn num_vectors(&self) -> usize {
        self.concept().num_tokens()
    }

    /// D.
    pub fn width(&self) -> usize {
        self.concept().width() as usize
    }

    /// Writes the file whole or not at all; returns its SHA-256.
    pub fn write(&self, path: &Path) -> Result<String, FileError> {
        let mut data = Vec::new();
        let mut entries = Map::new();
        for (name, tensor) in &self.tensors {
            let start = data.len();
            data.extend(torch_ext::to_bytes(tensor));
            let shape = if self.is_plain() { tensor.size() } else { frame::around(&tensor.size()) };
            let entry =
                json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
            entries.insert(name.clone(), entry);
        }
        let header = self.header(path, entries, &data);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&data);
        write_atomically(path, &bytes).map_err(|source| FileError::Io {
            path: path.to_owned(),
            verb: "written",
            source,
        })?;
        Ok(hex(&Sha256::digest(&bytes)))
    }

    /// Tells whether it is token vectors, which other programs read.
    fn is_plain(&self) -> bool {
        TOKEN_VECTORS.contains(&self.record.method.as_str())
    }

    /// The JSON header, sorted and padded to eight bytes, so that the same concept gives the same bytes.
    fn header(&self, path: &Path, entries: Map<String, Value>, data: &[u8]) -> String {
        let record = &self.record;
        let version = if self.is_plain() { FIRST_VERSION } else { FORMAT_VERSION };
        let mut metadata = BTreeMap::from([
            ("format", "pt".to_owned()),
            (VERSION_KEY, version.to_string()),
            (RECORD_KEY, serde_json::to_string(record).expect("a record is plain data")),
        ]);
        if !record.is_bare() {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            metadata.extend([
                ("modelspec.sai_model_spec", "1.0.1".to_owned()),
                ("modelspec.implementation", "diffusers".to_owned()),
                ("modelspec.title", stem.into_owned()),
                ("modelspec.trigger_phrase", record.token.clone()),
                ("modelspec.hash_sha256", format!("0x{}", hex(&Sha256::digest(data)))),
            ]);
        }
        if let Some(base) = record.base.as_ref().filter(|_| !record.is_bare()) {
            let prediction = if base.prediction_type == "v_prediction" { "v" } else { "epsilon" };
            metadata.extend([
                ("modelspec.architecture", base.architecture(&record.method)),
                ("modelspec.prediction_type", prediction.to_owned()),
                ("modelspec.resolution", format!("{0}x{0}", base.resolution)),
            ]);
        }
        let mut header = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
        header.extend(entries);
        let mut text = Value::Object(header).to_string();
        text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
        text
    }
}
