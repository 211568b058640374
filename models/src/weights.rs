//! Weight files in the Hugging Face layout: one safetensors file, a variant of it, or shards with an index.
//!
//! A tensor goes from the memory map to its kind and device in one copy; nothing is initialised first.

mod files;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError, View};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};
use torch_ext::{TensorFile, TorchError};

use crate::ModelError;
use crate::params::ParamSource;

pub(crate) use files::variants;
pub use files::weight_files;

/// One tensor on disk.
struct Entry {
    file: usize,
    kind: Kind,
    shape: Vec<i64>,
    bytes: Range<usize>,
}

/// The tensors of one component, not yet read.
pub struct Checkpoint {
    /// The folder, or the file that stands alone.
    from: PathBuf,
    files: Vec<(PathBuf, TensorFile)>,
    entries: HashMap<String, Entry>,
    kind: Kind,
    device: Device,
    /// Whether tensors are looked up only, and none is read.
    outline: bool,
    taken: RefCell<BTreeSet<String>>,
    misses: RefCell<Vec<Miss>>,
    failure: RefCell<Option<ModelError>>,
}

/// A tensor that the network asked for and the files do not hold in that shape.
#[derive(Debug, Clone)]
pub struct Miss {
    /// Its name.
    pub name: String,
    /// The shape that the configuration asks for.
    pub expected: Vec<i64>,
    /// The shape it has on disk, where the name exists.
    pub found: Option<Vec<i64>>,
    /// The most similar name that nothing has asked for, looked for where the miss will be named.
    pub nearest: Option<String>,
}

/// What became of the tensors of a component.
#[must_use = "a network with missing tensors holds zeros in their place"]
#[derive(Debug)]
pub struct LoadReport {
    /// How many were loaded.
    pub loaded: usize,
    /// Those that were asked for and not found, or found in another shape.
    pub missing: Vec<Miss>,
    /// Those that nothing asked for.
    pub unused: Vec<String>,
    /// The folder of a component, or a file that stands alone.
    from: PathBuf,
}

/// How many of the missing tensors an error names.
const NAMED: usize = 5;

impl LoadReport {
    /// Refuses a network with missing tensors; the error names them and the nearest key for each.
    ///
    /// Extra tensors are normal (position ids, averaged weights) and no reason to refuse.
    pub fn require_complete(self) -> Result<(), ModelError> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let describe = |miss: &Miss| match (&miss.found, &miss.nearest) {
            (Some(found), _) => {
                format!("{} is {found:?} and not {:?}", miss.name, miss.expected)
            }
            (None, Some(nearest)) => {
                format!("{} {:?} (nearest: {nearest})", miss.name, miss.expected)
            }
            (None, None) => format!("{} {:?}", miss.name, miss.expected),
        };
        let mut named: Vec<String> = self.missing.iter().take(NAMED).map(describe).collect();
        if self.missing.len() > named.len() {
            named.push(format!("and {} more", self.missing.len() - named.len()));
        }
        let (asked, advice) = if self.from.is_dir() {
            ("config.json asks for", "use weights and a config.json that belong together")
        } else {
            ("this network has", "give the file that was made for it")
        };
        Err(ModelError::Incomplete(format!(
            "{}: {} of {} tensors that {asked} are missing or of another shape: {}; {advice}",
            self.from.display(),
            self.missing.len(),
            self.missing.len() + self.loaded,
            named.join(", "),
        )))
    }
}

impl Checkpoint {
    /// Opens the weights in `folder` whose file is `stem` (`diffusion_pytorch_model` or `model`), of this
    /// variant where one is named; a folder with only one variant is opened without naming it.
    pub fn open(
        folder: &Path,
        stem: &str,
        variant: Option<&str>,
        kind: Kind,
        device: Device,
    ) -> Result<Self, ModelError> {
        Self::of(folder, weight_files(folder, stem, variant)?, kind, device)
    }

    /// Opens one file, whose name ends in `.safetensors`.
    pub fn file(path: &Path, kind: Kind, device: Device) -> Result<Self, ModelError> {
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            let what = "weights are read from .safetensors files; save them as one (`safetensors.torch.save_file` in Python)";
            return Err(ModelError::invalid(path, what.to_owned()));
        }
        Self::of(path, vec![path.to_owned()], kind, device)
    }

    fn of(
        from: &Path,
        paths: Vec<PathBuf>,
        kind: Kind,
        device: Device,
    ) -> Result<Self, ModelError> {
        let mut files = Vec::new();
        let mut entries = HashMap::new();
        for path in paths {
            let file = TensorFile::open(&path).map_err(|e| ModelError::io(&path, e))?;
            read_header(&path, &file, files.len(), &mut entries)?;
            files.push((path, file));
        }
        Ok(Self {
            from: from.to_owned(),
            files,
            entries,
            kind,
            device,
            outline: false,
            taken: RefCell::default(),
            misses: RefCell::default(),
            failure: RefCell::default(),
        })
    }

    /// The same files as a source that only looks tensors up: a network built from it computes nothing and takes no
    /// memory, and [`Checkpoint::report`] tells whether all of its tensors are there.
    #[must_use]
    pub fn outline(self) -> Self {
        Self { outline: true, ..self }
    }

    /// The numbers in all tensors, read from the tables of contents.
    pub fn elements(&self) -> u64 {
        self.entries.values().map(|entry| entry.shape.iter().product::<i64>() as u64).sum()
    }

    /// What was loaded, missed and left over so far by the network that is built from this.
    pub fn report(&self) -> Result<LoadReport, ModelError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let taken = self.taken.borrow();
        let mut unused: Vec<String> =
            self.entries.keys().filter(|name| !taken.contains(*name)).cloned().collect();
        unused.sort();
        let mut missing = self.misses.borrow().clone();
        for miss in missing.iter_mut().take(NAMED) {
            let closeness =
                |name: &&String| (strsim::normalized_levenshtein(&miss.name, name) * 1e6) as u64;
            let alike = unused.iter().filter(|name| closeness(name) > 500_000);
            miss.nearest = alike.max_by_key(closeness).cloned();
        }
        let loaded = taken.len() - missing.iter().filter(|miss| miss.found.is_some()).count();
        Ok(LoadReport { loaded, missing, unused, from: self.from.clone() })
    }

    /// One row of a two-dimensional tensor, read alone; nothing where there is no such tensor or row.
    pub fn row(&self, name: &str, row: usize) -> Result<Option<Tensor>, ModelError> {
        let Some(Entry { file, kind, shape, bytes }) = self.entries.get(name) else {
            return Ok(None);
        };
        let [rows, width] = shape[..] else { return Ok(None) };
        if row >= rows as usize {
            return Ok(None);
        }
        let stride = bytes.len() / rows as usize;
        let start = bytes.start + row * stride;
        let row =
            Entry { file: *file, kind: *kind, shape: vec![width], bytes: start..start + stride };
        self.read(&row, &[width]).map(Some)
    }

    fn read(&self, entry: &Entry, shape: &[i64]) -> Result<Tensor, ModelError> {
        let (path, file) = &self.files[entry.file];
        file.tensor(entry.bytes.clone(), entry.kind, shape, self.kind, self.device).map_err(
            |error| match error {
                TorchError::Libtorch { message, .. } => {
                    ModelError::Libtorch(message.lines().next().unwrap_or_default().to_owned())
                }
                error => ModelError::invalid(path, error.to_string()),
            },
        )
    }
}

impl ParamSource for Checkpoint {
    fn parameter(&self, name: &str, shape: &[i64]) -> Tensor {
        let miss =
            |found| Miss { name: name.to_owned(), expected: shape.to_vec(), found, nearest: None };
        let Some(entry) = self.entries.get(name) else {
            self.misses.borrow_mut().push(miss(None));
            return placeholder(shape, self.kind);
        };
        self.taken.borrow_mut().insert(name.to_owned());
        // A 1×1 convolution and a linear layer are the same numbers; files disagree on which it is.
        if without_ones(&entry.shape) != without_ones(shape) {
            self.misses.borrow_mut().push(miss(Some(entry.shape.clone())));
            return placeholder(shape, self.kind);
        }
        if self.outline {
            return placeholder(shape, self.kind);
        }
        match self.read(entry, shape) {
            Ok(tensor) => tensor,
            Err(error) => {
                self.failure.borrow_mut().get_or_insert(error);
                placeholder(shape, self.kind)
            }
        }
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.entries.get(name).map(|entry| entry.shape.clone())
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn device(&self) -> Device {
        self.device
    }
}

/// A tensor of this shape in the memory of one number: a configuration may ask for any size that its weights do not
/// have. It wants a gradient, so that no layer lays it out anew.
pub(crate) fn placeholder(shape: &[i64], kind: Kind) -> Tensor {
    let one = Tensor::zeros(vec![1; shape.len()], (kind, Device::Cpu));
    one.expand(shape, false).set_requires_grad(true)
}

fn without_ones(shape: &[i64]) -> &[i64] {
    let end = shape.iter().rposition(|&n| n != 1).map_or(0, |i| i + 1);
    &shape[..end]
}

fn read_header(
    path: &Path,
    weights: &TensorFile,
    file: usize,
    entries: &mut HashMap<String, Entry>,
) -> Result<(), ModelError> {
    const POINTER: &[u8] = b"version https://git-lfs";
    if weights.length() == 0 {
        return Err(ModelError::invalid(path, "an empty file; fetch it again"));
    }
    if weights.bytes(0..POINTER.len()).is_ok_and(|start| start == POINTER) {
        let what = "a Git LFS pointer and not the weights; run `git lfs pull` in the model folder";
        return Err(ModelError::invalid(path, what));
    }
    let start = weights.bytes(0..weights.length().min(4));
    if start.is_ok_and(|start| start == b"PK\x03\x04" || matches!(start[..], [0x80, 2..=5, ..])) {
        let what = "pickled weights under the name of safetensors, which are never opened; save them with Python's \
                    `safetensors.torch.save_file`";
        return Err(ModelError::invalid(path, what));
    }
    let (data, contents) = table_of_contents(weights).map_err(|error| {
        let what = match error {
            // Whole, of a later version or of kinds of number that are not known.
            SafeTensorError::InvalidHeaderDeserialization(_) => {
                format!(
                    "a safetensors file that is not understood: {error}; use f32, f16 or bf16 weights"
                )
            }
            _ => format!("not a whole safetensors file: {error}; fetch it again"),
        };
        ModelError::invalid(path, what)
    })?;
    for (name, tensor) in contents.tensors() {
        let kind = match tensor.dtype {
            Dtype::F64 => Kind::Double,
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::U8 => Kind::Uint8,
            Dtype::BOOL => Kind::Bool,
            // Only refused where a network asks for it: it is then reported as missing.
            _ => continue,
        };
        let (start, end) = tensor.data_offsets;
        let shape = tensor.shape.iter().map(|&n| n as i64).collect();
        entries.insert(name, Entry { file, kind, shape, bytes: data + start..data + end });
    }
    Ok(())
}

/// Reads what a safetensors file says that it holds, and where its data begin. The tensors lie one after the other, fit
/// their shapes, and are all of the file; the file itself is not read.
pub fn table_of_contents(file: &TensorFile) -> Result<(usize, Metadata), SafeTensorError> {
    const LONGEST: usize = 100_000_000; // what safetensors itself allows
    let read = |range| file.bytes(range).map_err(|e| SafeTensorError::IoError(io::Error::other(e)));
    let length = file.length();
    if length < 8 {
        return Err(SafeTensorError::HeaderTooSmall);
    }
    let header = read(0..8)?;
    let header = header.try_into().map_or(u64::MAX, u64::from_le_bytes); // 8 bytes
    let Some(header) = usize::try_from(header).ok().filter(|&header| header <= LONGEST) else {
        return Err(SafeTensorError::HeaderTooLarge);
    };
    let data = 8 + header;
    if data > length {
        return Err(SafeTensorError::InvalidHeaderLength);
    }
    let header = read(8..data)?;
    let header = std::str::from_utf8(&header).map_err(SafeTensorError::InvalidHeader)?;
    let contents: Metadata = serde_json::from_str(header)?;
    if data + contents.data_len() != length {
        return Err(SafeTensorError::MetadataIncompleteBuffer);
    }
    Ok((data, contents))
}

/// Writes tensors by name as they are, f32, f16 or bf16.
pub fn write(path: &Path, tensors: Vec<(String, Tensor)>) -> Result<(), ModelError> {
    safetensors::serialize_to_file(leaving(tensors), None, path)
        .map_err(|e| ModelError::invalid(path, format!("cannot be written: {e}")))
}

/// Writes the same with one entry of metadata, tensor by tensor: gigabytes are never in memory a second time.
pub fn write_described(
    out: &mut dyn io::Write,
    tensors: Vec<(String, Tensor)>,
    (key, value): (&str, &str),
) -> io::Result<()> {
    let mut tensors: Vec<(String, Leaving)> = leaving(tensors).collect();
    // The wider kinds first, as the crate does it, so that every number lies at a multiple of its own size.
    tensors.sort_by(|(a, x), (b, y)| y.dtype().cmp(&x.dtype()).then_with(|| a.cmp(b)));
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({ key: value }))]);
    let mut end = 0;
    for (name, tensor) in &tensors {
        let start = end;
        end += tensor.data_len();
        let entry =
            json!({ "dtype": tensor.dtype(), "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    tensors.iter().try_for_each(|(_, tensor)| out.write_all(&tensor.data()))
}

fn leaving(tensors: Vec<(String, Tensor)>) -> impl Iterator<Item = (String, Leaving)> {
    tensors.into_iter().map(|(name, tensor)| {
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        (name, Leaving { tensor, shape })
    })
}

/// A tensor on its way to disk, with its shape as safetensors counts.
struct Leaving {
    tensor: Tensor,
    shape: Vec<usize>,
}

impl View for Leaving {
    fn dtype(&self) -> Dtype {
        match self.tensor.kind() {
            Kind::Half => Dtype::F16,
            Kind::BFloat16 => Dtype::BF16,
            _ => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(torch_ext::to_bytes(&self.tensor))
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}
