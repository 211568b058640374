//! What can be wrong with a model on disk.

use std::path::{Path, PathBuf};

/// A model folder, weight file, configuration or tokenizer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Something that must be there is not.
    #[error("{path}: {what} is missing; {hint}", path = path.display())]
    Missing {
        /// The path that was looked at.
        path: PathBuf,
        /// What should have been there.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The operating system refused.
    #[error("{path}: cannot be read: {source}{}", advice(.source), path = path.display())]
    Io {
        /// The path that was read.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that does not hold what its name says.
    #[error("{path}: {what}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        what: String,
    },
    /// A configuration that names something these networks do not have.
    #[error("{part}/config.json: {key} is {found}, but only {expected} is supported")]
    Unsupported {
        /// The part of the model (`unet`, `vae`, ...).
        part: &'static str,
        /// The key in its `config.json`.
        key: &'static str,
        /// Its value there.
        found: String,
        /// What could have been used.
        expected: &'static str,
    },
    /// A checkpoint that lacks tensors which the configuration asks for.
    #[error("{0}")]
    Incomplete(String),
    /// libtorch refused (a wrong device, out of memory).
    #[error("libtorch: {0}")]
    Libtorch(String),
}

/// What to do about a failure of the operating system, as the end of a sentence; empty where nothing is known.
pub fn advice(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => "; check the path",
        Kind::NotADirectory | Kind::AlreadyExists => "; a file is where a folder was expected",
        Kind::IsADirectory => "; give a file, not a folder",
        Kind::PermissionDenied => "; change its permissions or use another place",
        Kind::ReadOnlyFilesystem => "; use another place",
        Kind::StorageFull | Kind::QuotaExceeded => "; free some space or use another place",
        Kind::FileTooLarge => "; raise the limit on file sizes or use another place",
        Kind::InvalidData => "; save it as UTF-8 text",
        _ => "",
    }
}

impl From<tch::TchError> for ModelError {
    fn from(error: tch::TchError) -> Self {
        Self::Libtorch(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

impl ModelError {
    /// A failure to read `path`; of a link without anything behind it, that it is one.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        let missing = source.kind() == std::io::ErrorKind::NotFound;
        let dangling = if missing { Self::dangling(path) } else { None };
        dangling.unwrap_or_else(|| Self::Io { path: path.to_owned(), source })
    }

    /// That `path` is a link without anything behind it, where it is one.
    pub(crate) fn dangling(path: &Path) -> Option<Self> {
        let target = std::fs::read_link(path).ok().filter(|_| !path.exists())?;
        let what = format!(
            "a link to {}, where nothing is; its cache is incomplete, so fetch the model again",
            target.display()
        );
        Some(Self::invalid(path, what))
    }

    pub(crate) fn invalid(path: &Path, what: impl Into<String>) -> Self {
        Self::Invalid { path: path.to_owned(), what: what.into() }
    }
}
