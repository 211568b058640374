//! Reading: our files, and those of other tools that hold the same things.

use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use super::{
    ConceptFile, ConceptRecord, FIRST_VERSION, FORMAT_VERSION, FRAMED_VERSION, FileError, Origin,
    RECORD_KEY, TOKEN_VECTORS, Tensors, VERSION_KEY, foreign, frame,
};
use crate::{Concept, Cones, Neti, TextualInversion, Xti};

/// Bytes of the largest file that is read; a checkpoint that was given by mistake has more.
const LARGEST: u64 = 1 << 30;

impl ConceptFile {
    /// Reads a file of ours, or one of another tool that holds a Textual Inversion or an XTI. No pickle is ever
    /// opened.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let invalid = |what: String| FileError::Invalid { path: path.to_owned(), what };
        if let Ok(size) = fs::metadata(path).map(|file| file.len())
            && size > LARGEST
        {
            let what = format!(
                "{size} bytes, but no concept has more than {LARGEST}; give the file of a concept"
            );
            return Err(invalid(what));
        }
        let bytes = torch_ext::file::read(path).map_err(|source| FileError::Io {
            path: path.to_owned(),
            verb: "read",
            source,
        })?;
        foreign::refuse_other_formats(path, &bytes).map_err(invalid)?;
        let not_a_concept = |e: &dyn std::fmt::Display| {
            invalid(format!("not a whole safetensors file ({e}); copy or fetch it again"))
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| not_a_concept(&e))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| not_a_concept(&e))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let version = match metadata.get(VERSION_KEY).map(|version| (version, version.parse())) {
            None => FIRST_VERSION,
            Some((_, Ok(version))) if version <= FORMAT_VERSION => version,
            Some((found, _)) => {
                return Err(FileError::Newer { path: path.to_owned(), found: found.clone() });
            }
        };
        let mut tensors = Tensors::new();
        for (name, view) in file.tensors() {
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            let tensor = floats(view.dtype(), view.data(), &shape).ok_or_else(|| {
                invalid(format!(
                    "the tensor {name} is {:?}, but floating point was expected; give the file of a concept",
                    view.dtype()
                ))
            })?;
            let tensor = if version >= FRAMED_VERSION {
                frame::taken_off(&name, &tensor).map_err(invalid)?
            } else {
                tensor
            };
            refuse_what_is_not_finite(&name, &tensor).map_err(invalid)?;
            tensors.insert(name, tensor);
        }
        let (record, origin) = match metadata.get(RECORD_KEY) {
            Some(json) => {
                let record: ConceptRecord = serde_json::from_str(json).map_err(|e| {
                    invalid(format!("its metadata is damaged ({e}); copy or train it again"))
                })?;
                (record, Origin::Native)
            }
            None => foreign::record(path, &tensors).map_err(invalid)?,
        };
        build(&record, &tensors).map_err(invalid)?;
        Ok(Self { record, origin, tensors })
    }
}

/// The concept that a record and tensors describe, or what is wrong with them.
pub(super) fn build(record: &ConceptRecord, tensors: &Tensors) -> Result<Box<dyn Concept>, String> {
    let (word, settings) = (record.token.as_str(), &record.settings);
    Ok(match record.method.as_str() {
        method if TOKEN_VECTORS.contains(&method) => {
            Box::new(TextualInversion::from_tensors(word, tensors)?)
        }
        "xti" => Box::new(Xti::from_tensors(word, tensors)?),
        "neti" => Box::new(Neti::from_tensors(word, tensors, settings)?),
        "cones" => Box::new(Cones::from_tensors(word, tensors, settings)?),
        method => {
            return Err(format!(
                "a concept of the method '{}', but this version reads {}, xti, neti and cones; update personalize",
                method.escape_debug(),
                TOKEN_VECTORS.join(", ")
            ));
        }
    })
}

fn refuse_what_is_not_finite(name: &str, tensor: &Tensor) -> Result<(), String> {
    let finite = tensor.isfinite().reshape([-1]);
    if tensor.numel() == 0 || bool::try_from(finite.all()).unwrap_or(false) {
        return Ok(());
    }
    let at = finite.to_kind(Kind::Int64).argmin(0, false).int64_value(&[]);
    let width = tensor.size().last().copied().unwrap_or(1);
    Err(format!(
        "vector {} holds {} (tensor {name}): the training that wrote it had diverged; train it again with a \
         lower learning rate",
        at / width + 1,
        tensor.reshape([-1]).double_value(&[at])
    ))
}

fn floats(dtype: Dtype, data: &[u8], shape: &[i64]) -> Option<Tensor> {
    let kind = match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        _ => return None,
    };
    Some(torch_ext::from_bytes(data, kind, shape).ok()?.to_kind(Kind::Float))
}
