//! What can stop a command, sorted as the exit codes are.

use std::path::PathBuf;

use embeddings::PromptError;
use embeddings::file::FileError;
use models::ModelError;
use models::schedule::ScheduleError;

use crate::photos::PhotoError;
use crate::picture::PictureError;
use crate::templates::TemplateError;

/// Any failure of a pipeline; its display is one sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A prompt that cannot be used.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Photos that cannot be used.
    #[error(transparent)]
    Photos(#[from] PhotoError),
    /// Templates that cannot be used.
    #[error(transparent)]
    Templates(#[from] TemplateError),
    /// A base that cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A scheduler or sampler that cannot be used.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A concept file that cannot be used.
    #[error(transparent)]
    Concept(#[from] FileError),
    /// A picture that cannot be written.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A concept for another base.
    #[error("{0}")]
    Incompatible(String),
    /// Not enough memory.
    #[error(
        "out of memory while {doing}; lower --batch-size, --width or --height, or pass --gradient-checkpointing or --precision bf16"
    )]
    OutOfMemory {
        /// What was being done.
        doing: &'static str,
    },
    /// A loss that is no number.
    #[error(
        "the loss of step {step} is not a number; {} as it was before that step; lower --lr, or use --precision f32",
        match saved { Some(path) => format!("the concept was kept in {}", path.display()), None => "nothing was saved".to_owned() }
    )]
    Diverged {
        /// The optimiser step.
        step: u64,
        /// Where the last good concept is.
        saved: Option<PathBuf>,
    },
    /// The operating system refused.
    #[error("{path}: cannot be {verb}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// `read`, `written`, `created`.
        verb: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl Error {
    /// The exit code of the command that failed so.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Prompt(_) | Self::Templates(_) | Self::Schedule(_) => 2,
            Self::Concept(FileError::Io { verb: "written", .. })
            | Self::Picture(_)
            | Self::Io { .. }
            | Self::Torch(_) => 1,
            Self::Photos(_) | Self::Model(_) | Self::Concept(_) => 3,
            Self::Incompatible(_) => 4,
            Self::OutOfMemory { .. } => 5,
            Self::Diverged { .. } => 7,
        }
    }

    pub(crate) fn io(
        path: &std::path::Path,
        verb: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, verb, source }
    }

    /// tch panics where libtorch fails; this turns the message of such a panic into an error.
    pub(crate) fn from_panic(message: &str, doing: &'static str) -> Self {
        let memory = ["out of memory", "can't allocate memory", "not enough memory"];
        if memory.iter().any(|needle| message.contains(needle)) {
            Self::OutOfMemory { doing }
        } else {
            Self::Torch(format!("{} (while {doing})", message.lines().next().unwrap_or_default()))
        }
    }
}

/// Runs tensor work, turning libtorch's failures into errors. User input is checked before, so what is left
/// is memory and the device.
pub(crate) fn guarded<T>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    // The state behind the references is dropped with the run that failed.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a failure without a message");
            Err(Error::from_panic(message, doing))
        }
    }
}
