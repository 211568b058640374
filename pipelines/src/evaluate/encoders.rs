//! The folders of the encoders that judge, and what in them their numbers depend on.

use std::path::{Path, PathBuf};

use models::clip::tokenizer_folder;
use models::vit::DinoConfig;
use models::weights::weight_files;

use super::Hashed;
use crate::Error;

/// The given CLIP, or the one inside the base's folder.
pub(crate) fn clip_folder(given: Option<PathBuf>, base: &Path) -> Result<PathBuf, Error> {
    let folder = given.unwrap_or_else(|| base.join("clip"));
    if folder.join("config.json").is_file() {
        return Ok(folder);
    }
    Err(Error::Usage(if folder.starts_with(base) {
        format!(
            "the base {} has no CLIP with a vision tower beside it; pass --clip DIR, a folder such as that of clip-vit-base-patch32",
            base.display()
        )
    } else {
        format!(
            "--clip {} holds no config.json; give the folder of a CLIPModel in the Hugging Face layout",
            folder.display()
        )
    }))
}

/// Every file that CLIP's numbers depend on.
pub(super) fn hash_clip(folder: &Path) -> Result<Hashed, Error> {
    let mut files = weight_files(folder, "model", None)?;
    let tokenizer = tokenizer_folder(folder);
    let vocabulary = ["vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"];
    let settings = ["config.json", "preprocessor_config.json"];
    files.extend(settings.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
    files.extend(vocabulary.iter().map(|name| tokenizer.join(name)).filter(|path| path.is_file()));
    hashed(folder, &files)
}

/// The same of a folder of DINO, whose pictures are prepared by a rule of the protocol and not by one of the folder.
pub(super) fn hash_dino(folder: &Path) -> Result<Hashed, Error> {
    let config = folder.join("config.json");
    if !config.is_file() {
        return Err(Error::Usage(format!(
            "--dino {} holds no config.json; give the folder of a ViTModel such as dino-vits16 in the Hugging Face layout",
            folder.display()
        )));
    }
    DinoConfig::read(folder)?;
    let mut files = weight_files(folder, "model", None)?;
    files.push(config);
    hashed(folder, &files)
}

fn hashed(folder: &Path, files: &[PathBuf]) -> Result<Hashed, Error> {
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    Hashed::read(&full.file_name().unwrap_or_default().to_string_lossy(), files)
}
