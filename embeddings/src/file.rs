//! The concept file: one safetensors file that other tools read as it is.
//!
//! A Textual Inversion concept is exactly one F32 tensor `emb_params` `[n, D]` with everything else in the
//! metadata, which AUTOMATIC1111, `ComfyUI`, `InvokeAI`, kohya and (with `token=`) diffusers load without an
//! export. Reading also takes the single-tensor files that those tools write.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tch::Kind;

use crate::TextualInversion;

/// The version of this layout; a file with a higher one is refused.
pub const FORMAT_VERSION: u32 = 1;

/// The methods whose concepts are plain token vectors: Textual Inversion, and CoRe, which differs in its loss only.
const METHODS: [&str; 2] = ["ti", "core"];
const TENSOR: &str = "emb_params";
const VERSION_KEY: &str = "personalize.format_version";
const RECORD_KEY: &str = "personalize.concept";

/// What is known of a concept besides its vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConceptRecord {
    /// The training method: `ti` or `core`.
    pub method: String,
    /// The word that stands for it.
    pub token: String,
    /// What it is an example of ("cat").
    #[serde(default)]
    pub class: Option<String>,
    /// What it was trained against.
    #[serde(default)]
    pub base: Option<BaseRecord>,
    /// Optimiser steps behind it.
    #[serde(default)]
    pub steps: u64,
    /// The learning rate that was in force, after any scaling.
    #[serde(default)]
    pub learning_rate: f64,
    /// The run's seed.
    #[serde(default)]
    pub seed: u64,
    /// SHA-256 of the photos and captions, hexadecimal.
    #[serde(default)]
    pub photos: String,
    /// The version of this tool.
    #[serde(default)]
    pub tool_version: String,
    /// Unix time of writing, in seconds.
    #[serde(default)]
    pub created: u64,
    /// The resolved configuration, TOML.
    #[serde(default)]
    pub config: String,
}

/// The base that a concept was trained against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// The folder's name.
    pub name: String,
    /// D, the width of token vectors.
    pub width: i64,
    /// `epsilon` or `v_prediction`.
    pub prediction_type: String,
    /// Side of the pictures it was trained on, in pixels.
    pub resolution: i64,
    /// A few numbers of the token table, which tell one vocabulary from another whatever the files' kind.
    pub sketch: Vec<f32>,
}

impl BaseRecord {
    /// The family by its width, for people.
    pub fn family(width: i64) -> String {
        match width {
            768 => "Stable Diffusion 1.x (768)".to_owned(),
            1024 => "Stable Diffusion 2.x (1024)".to_owned(),
            _ => format!("a base of text width {width}"),
        }
    }

    /// Whether both sketches come from the same token table; half-precision copies count as the same.
    pub fn same_vocabulary(&self, other: &Self) -> bool {
        let scale = self.sketch.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
        self.sketch.len() == other.sketch.len()
            && self.sketch.iter().zip(&other.sketch).all(|(a, b)| (a - b).abs() <= 0.01 * scale)
    }

    /// ModelSpec's architecture id.
    fn architecture(&self) -> String {
        let family = match (self.width, self.prediction_type.as_str()) {
            (768, _) => "stable-diffusion-v1",
            (1024, "v_prediction") => "stable-diffusion-v2-768-v",
            (1024, _) => "stable-diffusion-v2-512",
            _ => "stable-diffusion-other",
        };
        format!("{family}/textual-inversion")
    }
}

/// A concept as it is on disk.
#[derive(Debug)]
pub struct ConceptFile {
    /// What is known of it; for another tool's file only the token.
    pub record: ConceptRecord,
    /// Where the file's tensor was found and in what form.
    pub origin: Origin,
    /// The vectors, row by row.
    values: Vec<f32>,
    rows: usize,
}

/// Who wrote a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This tool.
    Native,
    /// Another one, under this key.
    Foreign {
        /// The key of its tensor.
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
    /// From a trained concept; `vectors` go to the CPU in f32.
    pub fn new(concept: &TextualInversion, record: ConceptRecord) -> Self {
        let vectors = concept.vectors().detach().to_kind(Kind::Float);
        let values = torch_ext::to_bytes(&vectors)
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        Self { record, origin: Origin::Native, values, rows: concept.num_tokens() }
    }

    /// Vectors of the concept.
    pub fn num_vectors(&self) -> usize {
        self.rows
    }

    /// D.
    pub fn width(&self) -> usize {
        self.values.len() / self.rows.max(1)
    }

    /// The Euclidean length of each vector.
    pub fn norms(&self) -> Vec<f32> {
        let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
        self.values.chunks(self.width().max(1)).map(length).collect()
    }

    /// The concept, frozen, on the CPU.
    pub fn concept(&self) -> TextualInversion {
        let shape = [self.rows as i64, self.width() as i64];
        let vectors = tch::Tensor::from_slice(&self.values).reshape(shape);
        TextualInversion::new(&self.record.token, &vectors)
    }

    /// Reads a file of ours or a single-tensor file of another tool. No pickle is ever opened.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let invalid = |what: String| FileError::Invalid { path: path.to_owned(), what };
        let bytes = fs::read(path).map_err(|source| FileError::Io {
            path: path.to_owned(),
            verb: "read",
            source,
        })?;
        let pickle = bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02");
        if pickle {
            return Err(invalid(
                "a pickle, which can run programs and is never opened; convert it to safetensors with the \
                 tool that wrote it"
                    .into(),
            ));
        }
        if bytes.is_empty() || bytes.starts_with(b"version https://git-lfs") {
            let what = if bytes.is_empty() { "an empty file" } else { "a Git LFS pointer" };
            return Err(invalid(format!("{what} and not a concept; copy or fetch it again")));
        }
        let not_a_concept = |e: &dyn std::fmt::Display| {
            invalid(format!("not a whole safetensors file ({e}); copy or fetch it again"))
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| not_a_concept(&e))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| not_a_concept(&e))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        if let Some(version) = metadata.get(VERSION_KEY)
            && version.parse::<u32>().is_ok_and(|v| v > FORMAT_VERSION)
        {
            return Err(FileError::Newer { path: path.to_owned(), found: version.clone() });
        }
        let mut names = tensors.names();
        names.sort_unstable();
        let [key] = names[..] else {
            return Err(invalid(format!(
                "a concept is one tensor [vectors, width], but this file holds {}: {}; give the file of a \
                 Textual Inversion for Stable Diffusion 1.x or 2.x",
                names.len(),
                names.iter().take(6).copied().collect::<Vec<_>>().join(", ")
            )));
        };
        let view = tensors.tensor(key).map_err(|e| not_a_concept(&e))?;
        let (rows, width) = match *view.shape() {
            [width] => (1, width),
            [rows, width] => (rows, width),
            _ => (0, 0),
        };
        if rows == 0 || width == 0 {
            return Err(invalid(format!(
                "a concept is a tensor of shape [vectors, width], but {key} is {:?}; give the file of a Textual \
                 Inversion",
                view.shape()
            )));
        }
        let values = floats(view.dtype(), view.data()).ok_or_else(|| {
            invalid(format!("the tensor {key} is {:?}, but floating point was expected; give the file of a Textual Inversion", view.dtype()))
        })?;
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            return Err(invalid(format!(
                "vector {} holds {}: the training that wrote it had diverged; train it again with a lower \
                 learning rate",
                at / width + 1,
                values[at]
            )));
        }
        let (record, origin) = match metadata.get(RECORD_KEY) {
            Some(json) => {
                let record: ConceptRecord = serde_json::from_str(json).map_err(|e| {
                    invalid(format!("its metadata is damaged ({e}); copy or train it again"))
                })?;
                if !METHODS.contains(&record.method.as_str()) {
                    let (method, known) = (record.method.escape_debug(), METHODS.join(", "));
                    return Err(invalid(format!(
                        "a concept of the method '{method}', but this version reads {known}; update personalize"
                    )));
                }
                (record, Origin::Native)
            }
            None => (foreign_record(path, key), Origin::Foreign { key: key.to_owned() }),
        };
        Ok(Self { record, origin, values, rows })
    }

    /// Writes the file whole or not at all; returns its SHA-256.
    pub fn write(&self, path: &Path) -> Result<String, FileError> {
        let data: Vec<u8> = self.values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let header = self.header(path, &data);
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

    /// The JSON header, sorted and padded to eight bytes, so that the same concept gives the same bytes.
    fn header(&self, path: &Path, data: &[u8]) -> String {
        let record = &self.record;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut metadata = BTreeMap::from([
            ("format", "pt".to_owned()),
            (VERSION_KEY, FORMAT_VERSION.to_string()),
            (RECORD_KEY, serde_json::to_string(record).expect("a record is plain data")),
            ("modelspec.sai_model_spec", "1.0.1".to_owned()),
            ("modelspec.implementation", "diffusers".to_owned()),
            ("modelspec.title", stem.into_owned()),
            ("modelspec.trigger_phrase", record.token.clone()),
            ("modelspec.hash_sha256", format!("0x{}", hex(&Sha256::digest(data)))),
        ]);
        if let Some(base) = &record.base {
            let prediction = if base.prediction_type == "v_prediction" { "v" } else { "epsilon" };
            metadata.extend([
                ("modelspec.architecture", base.architecture()),
                ("modelspec.prediction_type", prediction.to_owned()),
                ("modelspec.resolution", format!("{0}x{0}", base.resolution)),
            ]);
        }
        let header = serde_json::json!({
            "__metadata__": metadata,
            TENSOR: {
                "dtype": "F32",
                "shape": [self.rows, self.width()],
                "data_offsets": [0, data.len()],
            },
        });
        let mut text = header.to_string();
        text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
        text
    }
}

/// Writes to a sibling, flushes it to the disk and renames it, so that `path` is never half a file.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = write_beside(path, bytes)?;
    fs::rename(&temporary, path).inspect_err(|_| {
        let _ = fs::remove_file(&temporary); // the first error is the one to report
    })
}

/// Writes a temporary file in the folder of `path` and flushes it to the disk; the caller gives it its name.
/// Where that fails nothing is left behind.
pub fn write_beside(path: &Path, bytes: &[u8]) -> std::io::Result<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{}-{number}.tmp", std::process::id()));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary); // it may not exist; the first error is the one to report
    })?;
    Ok(temporary)
}

/// Other tools name a concept by the key of its tensor or by the file.
fn foreign_record(path: &Path, key: &str) -> ConceptRecord {
    let generic = [TENSOR, "emp_params", "clip_l", "clip_h"].contains(&key);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let token = if generic { format!("<{stem}>") } else { key.to_owned() };
    ConceptRecord {
        method: METHODS[0].to_owned(),
        token,
        class: None,
        base: None,
        steps: 0,
        learning_rate: 0.0,
        seed: 0,
        photos: String::new(),
        tool_version: String::new(),
        created: 0,
        config: String::new(),
    }
}

fn floats(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    let kind = match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        _ => return None,
    };
    let count = data.len() / kind.elt_size_in_bytes();
    let tensor = torch_ext::from_bytes(data, kind, &[count as i64]).ok()?.to_kind(Kind::Float);
    Vec::try_from(tensor).ok()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
