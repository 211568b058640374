//! Which files hold a component's weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

use crate::ModelError;
use crate::config::{read_text, some_of};

/// `….safetensors.index.json`.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// `fp16` of `stem.fp16.safetensors` and of the names that an index of shards has had.
fn variant_of<'a>(name: &'a str, stem: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(stem)?.strip_prefix('.')?;
    let between = |prefix: &str, suffix: &str| rest.strip_prefix(prefix)?.strip_suffix(suffix);
    between("safetensors.index.", ".json")
        .or_else(|| between("safetensors.", ".index.json"))
        .or_else(|| between("", ".safetensors.index.json"))
        .or_else(|| between("", ".safetensors").filter(|variant| !variant.contains("-of-")))
}

/// The names of a folder's files.
fn names_in(folder: &Path) -> Result<BTreeSet<String>, ModelError> {
    let files = fs::read_dir(folder).map_err(|e| ModelError::io(folder, e))?;
    Ok(files.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// The variants of the weights that a folder holds.
pub(crate) fn variants(folder: &Path, stem: &str) -> Result<BTreeSet<String>, ModelError> {
    let names = names_in(folder)?;
    Ok(names.iter().filter_map(|name| variant_of(name, stem)).map(str::to_owned).collect())
}

/// The files that hold the weights: the named variant, else the plain file, else the only variant there is.
pub fn weight_files(
    folder: &Path,
    stem: &str,
    variant: Option<&str>,
) -> Result<Vec<PathBuf>, ModelError> {
    let names = names_in(folder)?;
    let variants = variants(folder, stem)?;
    let find = |variant: Option<&str>| {
        let candidates = match variant {
            Some(v) => vec![
                format!("{stem}.{v}.safetensors"),
                format!("{stem}.safetensors.index.{v}.json"),
                format!("{stem}.{v}.safetensors.index.json"),
                format!("{stem}.safetensors.{v}.index.json"),
            ],
            None => vec![format!("{stem}.safetensors"), format!("{stem}.safetensors.index.json")],
        };
        candidates.into_iter().find(|name| names.contains(name))
    };
    let only = variants.first().filter(|_| variants.len() == 1).map(String::as_str);
    let found = match variant {
        Some(v) => find(Some(v)).or_else(|| find(None)),
        None => find(None).or_else(|| find(Some(only?))),
    };
    let Some(found) = found else {
        return Err(ModelError::Missing {
            path: folder.to_owned(),
            what: format!("{stem}.safetensors"),
            hint: instead(&names, &variants),
        });
    };
    if found.ends_with(".json") {
        shards(folder, &found, &names)
    } else {
        Ok(vec![folder.join(found)])
    }
}

/// What to do where the weights that were asked for are not there.
fn instead(names: &BTreeSet<String>, variants: &BTreeSet<String>) -> String {
    if let Some(first) = variants.first() {
        let all: Vec<String> = variants.iter().cloned().collect();
        return format!("of its variants there are {}: pass --variant {first}", some_of(&all));
    }
    if names.iter().any(|name| name.ends_with(".bin") || name.ends_with(".ckpt")) {
        return "only pickled weights are here, which are never opened; convert them with Python: \
                `StableDiffusionPipeline.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)`"
            .to_owned();
    }
    "fetch the model's safetensors files again".to_owned()
}

/// The files that an index names. It is data from elsewhere: it may only name its neighbours, and these may lead out of
/// their folder only as the links of the Hugging Face cache do.
fn shards(
    folder: &Path,
    index: &str,
    names: &BTreeSet<String>,
) -> Result<Vec<PathBuf>, ModelError> {
    let path = folder.join(index);
    let parsed: ShardIndex = serde_json::from_str(&read_text(&path)?)
        .map_err(|e| ModelError::invalid(&path, format!("not a shard index: {e}")))?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let refuse = |shard: &str| {
        let what = format!(
            "the shard {shard} lies outside of the folder, but only shards beside their index are read; copy it there"
        );
        Err(ModelError::invalid(&path, what))
    };
    for shard in &shards {
        if Path::new(shard).file_name().is_none_or(|name| name != shard.as_str()) {
            return refuse(shard);
        }
        let file = folder.join(shard);
        if !names.contains(shard) {
            let what = format!("a shard that {index} names");
            let hint = "fetch the model again".into();
            return Err(ModelError::Missing { path: file, what, hint });
        }
        if !belongs(folder, &file).map_err(|e| ModelError::io(&file, e))? {
            return refuse(shard);
        }
    }
    Ok(shards.into_iter().map(|shard| folder.join(shard)).collect())
}

/// Whether a file lies in its folder, or where the links of the Hugging Face cache lead: from
/// `models--…/snapshots/…` to `models--…/blobs`.
fn belongs(folder: &Path, file: &Path) -> io::Result<bool> {
    let (folder, file) = (folder.canonicalize()?, file.canonicalize()?);
    let snapshots = folder.ancestors().find(|above| above.ends_with("snapshots"));
    let model = snapshots.and_then(Path::parent).filter(|model| {
        model.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"models--"))
    });
    let blobs = model.and_then(|model| model.join("blobs").canonicalize().ok());
    Ok(file.starts_with(&folder) || blobs.is_some_and(|blobs| file.starts_with(blobs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDS: [&str; 2] =
        ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"];

    /// An index of these shards in `folder`.
    fn index(folder: &Path, name: &str, shards: [&str; 2]) {
        fs::create_dir_all(folder).unwrap();
        let index = format!(r#"{{"weight_map": {{"a": "{}", "b": "{}"}}}}"#, shards[0], shards[1]);
        fs::write(folder.join(name), index).unwrap();
    }

    fn refusal(folder: &Path, variant: Option<&str>) -> String {
        weight_files(folder, "model", variant).unwrap_err().to_string()
    }

    #[test]
    fn every_name_of_a_variant_tells_it() {
        let cases = [
            ("model.fp16.safetensors", Some("fp16")),
            ("model.safetensors.index.fp16.json", Some("fp16")),
            ("model.fp16.safetensors.index.json", Some("fp16")),
            ("model.safetensors.fp16.index.json", Some("fp16")),
            ("model.fp16-00001-of-00002.safetensors", None),
            ("model.safetensors", None),
            ("model.safetensors.index.json", None),
            ("config.json", None),
        ];
        for (name, variant) in cases {
            assert_eq!(variant_of(name, "model"), variant, "{name}");
        }
    }

    #[test]
    fn shards_of_the_only_variant_are_found_without_naming_it() {
        let folder = tempfile::tempdir().unwrap();
        index(folder.path(), "model.safetensors.index.fp16.json", SHARDS);
        for shard in SHARDS {
            fs::write(folder.path().join(shard), "").unwrap();
        }
        let found = weight_files(folder.path(), "model", None).unwrap();
        assert_eq!(found, SHARDS.map(|shard| folder.path().join(shard)));
    }

    #[test]
    fn variants_that_are_there_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model.fp16.safetensors"), "").unwrap();
        assert!(
            refusal(folder.path(), Some("ema")).ends_with("there are fp16: pass --variant fp16")
        );
        fs::write(folder.path().join("model.ema.safetensors"), "").unwrap();
        assert!(refusal(folder.path(), None).ends_with("there are ema, fp16: pass --variant ema"));
    }

    #[test]
    fn shards_outside_the_folder_are_refused_whatever_leads_there() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("b.safetensors"), "").unwrap();
        let absolute = root.path().join("b.safetensors");
        for (i, shard) in ["../b.safetensors", absolute.to_str().unwrap(), "..", "b.safetensors"]
            .into_iter()
            .enumerate()
        {
            let folder = root.path().join(i.to_string());
            index(&folder, "model.safetensors.index.json", ["a.safetensors", shard]);
            fs::write(folder.join("a.safetensors"), "").unwrap();
            std::os::unix::fs::symlink(&absolute, folder.join("b.safetensors")).unwrap();
            let error = refusal(&folder, None);
            assert!(error.contains("lies outside of the folder"), "{shard}: {error}");
        }
    }

    #[test]
    fn the_links_of_the_hugging_face_cache_are_followed_and_broken_ones_named() {
        let root = tempfile::tempdir().unwrap();
        let model = root.path().join("models--owner--name");
        let folder = model.join("snapshots/0123/unet");
        index(&folder, "model.safetensors.index.json", ["a.safetensors", "b.safetensors"]);
        fs::create_dir_all(model.join("blobs")).unwrap();
        for (shard, blob) in [("a.safetensors", "aa"), ("b.safetensors", "bb")] {
            fs::write(model.join("blobs").join(blob), "").unwrap();
            let target = Path::new("../../../blobs").join(blob);
            std::os::unix::fs::symlink(target, folder.join(shard)).unwrap();
        }
        assert_eq!(weight_files(&folder, "model", None).unwrap().len(), 2);
        fs::remove_file(model.join("blobs/bb")).unwrap();
        let error = refusal(&folder, None);
        assert!(error.contains("a link to ../../../blobs/bb, where nothing is"), "{error}");
    }
}
