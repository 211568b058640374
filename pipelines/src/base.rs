//! The frozen base model that a plan found on disk, and whether a concept belongs to it.

use std::path::{Path, PathBuf};

use embeddings::file::{BaseRecord, ConceptFile};
use models::folder::ModelFolder;

use crate::{Error, Precision};

/// Rows of the token table whose first numbers are kept in a concept file.
const SKETCH_ROWS: [usize; 16] =
    [2, 17, 33, 64, 100, 130, 161, 192, 200, 211, 222, 233, 240, 244, 248, 252];

/// A base model: its folder and what a concept file says of it.
#[derive(Debug, Clone)]
pub struct Base {
    /// The folder, its configurations read and checked.
    pub folder: ModelFolder,
    /// What concept files keep of it.
    pub record: BaseRecord,
    /// Whether the files of its tokenizer name different padding.
    pad_is_disputed: bool,
}

/// The base that comes with this program: `assets/toybox` of the folder that it was built in, where its
/// libtorch lies too.
const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/toybox");

impl Base {
    /// Opens the base at `path`: a folder, or the id of a model that the Hugging Face cache on this machine
    /// holds (`stable-diffusion-v1-5/stable-diffusion-v1-5`). Nothing is fetched, and no weight is read: the
    /// record has no sketch until [`Base::check_weights`]. An empty path stands for the base that comes with
    /// this program.
    pub fn open(path: &Path, variant: Option<&str>) -> Result<Self, Error> {
        if path.as_os_str().is_empty() {
            return Self::open(&built_in()?, None);
        }
        let cached = if path.exists() { None } else { cached_snapshot(path) };
        if !path.exists() && cached.is_none() && looks_like_an_id(path) {
            return Err(Error::NotFetched { id: path.to_string_lossy().into_owned() });
        }
        let folder = ModelFolder::open(cached.as_deref().unwrap_or(path), variant)?;
        let scheduler = &folder.scheduler;
        let record = BaseRecord {
            name: if cached.is_some() {
                path.to_string_lossy().into_owned()
            } else {
                folder.name()
            },
            width: folder.text_encoder.hidden_size,
            prediction_type: scheduler.prediction_type.name().to_owned(),
            resolution: native_resolution(&folder),
            sketch: Vec::new(),
            pad: None,
        };
        Ok(Self { folder, record, pad_is_disputed: false })
    }

    /// Finds what would stop any work before it begins: damaged or missing weights, a tokenizer of another model. Reads
    /// the few numbers that tell this base's vocabulary from another's, and what its prompts are padded with.
    pub fn check_weights(&mut self) -> Result<(), Error> {
        let tokenizer = self.folder.check_weights()?;
        self.record.sketch = self.folder.token_sketch(&SKETCH_ROWS, 2)?;
        self.record.pad = Some(tokenizer.pad());
        self.pad_is_disputed = tokenizer.pad_is_disputed();
        Ok(())
    }

    /// What the user should know of the base, whatever is done with it.
    pub fn warnings(&self) -> &[String] {
        self.folder.warnings()
    }

    /// The side of the pictures that the base was trained on, in pixels.
    pub fn resolution(&self) -> i64 {
        self.record.resolution
    }

    /// Refuses pictures whose sides, called by these names, the base cannot divide.
    pub(crate) fn check_size(&self, sides: &[(&str, i64)]) -> Result<(), Error> {
        let f = self.folder.vae.downscale();
        for &(side, pixels) in sides {
            check_largest(side, pixels)?;
            if pixels < f {
                return Err(Error::Usage(format!(
                    "the {side} is {pixels} pixels, but this base needs at least {f}; use {f} or more"
                )));
            }
            if pixels % f != 0 {
                let near = ((pixels + f / 2) / f * f).max(f);
                return Err(Error::Usage(format!(
                    "the {side} is {pixels} pixels, but this base needs a multiple of {f}; use {near}"
                )));
            }
        }
        Ok(())
    }

    /// Refuses to leave out more blocks of the text encoder than it has.
    pub(crate) fn check_clip_skip(&self, clip_skip: usize) -> Result<(), Error> {
        let blocks = self.folder.text_encoder.num_hidden_layers;
        if clip_skip as i64 > blocks {
            return Err(Error::Usage(format!(
                "clip skip {clip_skip} was asked for, but the base's text encoder has {blocks} blocks; use 1 or 2"
            )));
        }
        Ok(())
    }

    /// Refuses a concept of another width or another number of cross-attention layers, by the configurations
    /// alone, and a ConES of another vocabulary.
    pub fn check_concept(&self, file: &ConceptFile) -> Result<(), Error> {
        let (concept, name) = (file.concept(), &self.record.name);
        let refuse = |what: String| {
            let trained_on = file.record.base.as_ref().filter(|base| !base.name.is_empty());
            let trained_on = trained_on.map_or(String::new(), |base| format!(" ({})", base.name));
            let token = &file.record.token;
            Err(Error::Incompatible(format!(
                "the concept {token} is for {what}; use the base that it was trained on{trained_on}"
            )))
        };
        let (have, want) = (concept.width(), self.record.width);
        if have != want {
            let (have, want) = (BaseRecord::family(have), BaseRecord::family(want));
            return refuse(format!("{have}, but the base {name} is {want}"));
        }
        let layers = self.folder.unet.cross_attention_layers();
        if let Some(have) = concept.varies().layers()
            && have != layers
        {
            return refuse(format!(
                "{have} cross-attention layers, but the base {name} has {layers}"
            ));
        }
        let (length, rows) =
            (self.folder.text_encoder.max_position_embeddings, concept.parameters());
        if let Some(rows) = rows.first().map(|rows| rows.size()[0])
            && concept.is_whole_prompt()
            && rows != length
        {
            return refuse(format!("prompts of {rows} tokens, but the base {name} has {length}"));
        }
        let words: Vec<usize> = concept.words().iter().map(|&id| id as usize).collect();
        if !words.is_empty() && self.folder.token_sketch(&words, 1)?.len() < words.len() {
            return refuse(format!("a vocabulary with words that the base {name} has not"));
        }
        Ok(())
    }

    /// A warning where the concept was trained with another vocabulary or other padding; needs [`Base::check_weights`].
    pub fn compare_vocabulary(&self, concept: &ConceptFile) -> Option<String> {
        let (token, name) = (&concept.record.token, &self.record.name);
        let (trained_on, pad) = match &concept.record.base {
            Some(base) if !base.same_vocabulary(&self.record) => {
                return Some(format!(
                    "the concept {token} was trained on {}, whose vocabulary differs from that of {name}; it may not \
                     look the same",
                    base.called()
                ));
            }
            Some(base) => (base.called(), base.pad),
            None => ("another program", None),
        };
        if pad.is_some() && pad != self.record.pad {
            return Some(format!(
                "the concept {token} was trained on {trained_on} with prompts padded otherwise than those of {name}; it \
                 may not look the same"
            ));
        }
        (pad.is_none() && self.pad_is_disputed).then(|| {
            format!(
                "the concept {token} does not say what its prompts were padded with, and the two files of {name} that \
                 say it differ (tokenizer_config.json, special_tokens_map.json); if it was trained with the padding of \
                 the former, train it again"
            )
        })
    }
}

/// The folder of the built-in base.
pub(crate) fn built_in() -> Result<PathBuf, Error> {
    Path::new(BUILT_IN).canonicalize().map_err(|_| {
        Error::Usage(format!(
            "no base is given, and the built-in one is not at {BUILT_IN} any more; pass --base DIR, or build \
             again where the source lies now"
        ))
    })
}

fn native_resolution(folder: &ModelFolder) -> i64 {
    folder.unet.sample_size.unwrap_or(64) * folder.vae.downscale()
}

/// `owner/name`, where no folder `owner` makes it a mistyped path.
fn looks_like_an_id(path: &Path) -> bool {
    let parts: Vec<_> = path.components().collect();
    let [std::path::Component::Normal(owner), std::path::Component::Normal(name)] = parts[..]
    else {
        return false;
    };
    let plain = |part: &std::ffi::OsStr| {
        part.to_str().is_some_and(|text| {
            text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        })
    };
    plain(owner) && plain(name) && !Path::new(owner).exists()
}

/// The snapshot of a model id in the Hugging Face cache, if it is there.
fn cached_snapshot(id: &Path) -> Option<PathBuf> {
    let id = id.to_str()?;
    let (owner, name) = id.split_once('/')?;
    if owner.is_empty() || name.is_empty() || name.contains('/') || id.contains("..") {
        return None;
    }
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = || {
        variable("HF_HOME").or_else(|| {
            let cache =
                variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
            Some(cache.join("huggingface"))
        })
    };
    let hub = variable("HF_HUB_CACHE").or_else(|| Some(home()?.join("hub")))?;
    let model = hub.join(format!("models--{owner}--{name}"));
    let commit = torch_ext::file::read_to_string(model.join("refs/main")).ok()?;
    let snapshot = model.join("snapshots").join(commit.trim());
    snapshot.is_dir().then_some(snapshot)
}

/// Writes a base with random weights of this precision: the configurations and the tokenizer of `like`.
pub fn random_base(like: &Path, output: &Path, precision: Precision) -> Result<(), Error> {
    let kind = precision.resolve(tch::Device::Cpu);
    Ok(models::seeded::write_model(like, output, kind)?)
}

/// Refuses a side of a picture that no base draws.
pub(crate) fn check_largest(side: &str, pixels: i64) -> Result<(), Error> {
    if pixels > 8192 {
        return Err(Error::Usage(format!(
            "the {side} is {pixels} pixels, but at most 8192 can be drawn; use less"
        )));
    }
    Ok(())
}
