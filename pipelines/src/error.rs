//! What can stop a command, sorted as the exit codes are.

use std::path::PathBuf;

use embeddings::PromptError;
use embeddings::file::FileError;
use models::ModelError;
use models::schedule::ScheduleError;
use tch::Kind;
use torch_ext::TorchError;

use crate::photos::PhotoError;
use crate::picture::PictureError;
use crate::pose::Fault;
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
    Model(ModelError),
    /// A model that is not on this machine.
    #[error(
        "{id} is neither a folder nor a model in the Hugging Face cache of this machine, and nothing is fetched from the network; run `hf download {id}` first, or give the folder of a model"
    )]
    NotFetched {
        /// What looks like the id of a model.
        id: String,
    },
    /// A scheduler or sampler that cannot be used.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A concept file that cannot be used.
    #[error(transparent)]
    Concept(#[from] FileError),
    /// A file of poses or pairs that cannot be used.
    #[error(transparent)]
    Pose(#[from] Fault),
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
        "the training diverged: the loss, gradient or update of step {step} is not finite; {}; {advice}",
        match saved {
            Some(path) => format!("the last good concept is in {}", path.display()),
            None => "nothing was saved".to_owned(),
        }
    )]
    Diverged {
        /// The optimiser step.
        step: u64,
        /// Where the concept as it was before is, if it had learnt anything by then.
        saved: Option<PathBuf>,
        /// What may help.
        advice: &'static str,
    },
    /// The operating system refused.
    #[error("{path}: cannot be {verb}: {source}{}", models::advice(.source), path = path.display())]
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
    /// A fault of this program.
    #[error(
        "a fault in personalize while {doing}: {message}; please report it with the output of -v"
    )]
    Fault {
        /// What was being done.
        doing: &'static str,
        /// The panic's message.
        message: String,
    },
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Libtorch(message) => Self::from_libtorch(&message, "reading the base"),
            error => Self::Model(error),
        }
    }
}

impl Error {
    /// A training at this step whose networks computed in `kind`; `saved` as in [`Error::Diverged`].
    pub fn diverged(step: u64, saved: Option<PathBuf>, kind: Kind) -> Self {
        let advice = match (kind, &saved) {
            (Kind::Float, Some(_)) => "lower --lr",
            (Kind::Float, None) => "lower --lr, or fetch the base again",
            _ => "lower --lr, or use --precision f32",
        };
        Self::Diverged { step, saved, advice }
    }

    /// The exit code of the command that failed so.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Prompt(_) | Self::Templates(_) | Self::Schedule(_) => 2,
            Self::Concept(FileError::Io { verb: "written", .. })
            | Self::Picture(_)
            | Self::Torch(_)
            | Self::Fault { .. } => 1,
            Self::Io { verb, .. } => {
                if *verb == "read" {
                    3
                } else {
                    1
                }
            }
            Self::Photos(_) | Self::Pose(_) | Self::Model(_) | Self::Concept(_) => 3,
            Self::Incompatible(_) => 4,
            Self::OutOfMemory { .. } => 5,
            Self::NotFetched { .. } => 6,
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

    /// Turns the message of a panic into an error: tch and `torch-ext` panic where libtorch fails.
    pub fn from_panic(message: &str, doing: &'static str) -> Self {
        // `called Result::unwrap() on an Err value: Torch("MESSAGE\nException raised from ...")`
        match message.split_once("Torch(\"").or_else(|| message.split_once(TorchError::REFUSED)) {
            Some((_, words)) => Self::from_libtorch(words, doing),
            None => Self::Fault { doing, message: message.replace('\n', " ") },
        }
    }

    fn from_libtorch(message: &str, doing: &'static str) -> Self {
        // Of the CPU, CUDA, oneDNN, the C++ library, cuBLAS and cuDNN.
        let memory = [
            "can't allocate memory",
            "not enough memory",
            "out of memory",
            "out_of_memory",
            "bad_alloc",
            "ALLOC_FAILED",
        ];
        if memory.iter().any(|needle| message.contains(needle)) {
            return Self::OutOfMemory { doing };
        }
        let end = message.find("\\n").or_else(|| message.find('\n')).unwrap_or(message.len());
        let first = message[..end].trim_end_matches(['.', '"', ')']).replace("\\\"", "\"");
        Self::Torch(format!("{first} (while {doing})"))
    }
}

/// Runs tensor work, turning libtorch's failures into errors. User input is checked before, so what is left
/// is memory and the device.
pub(crate) fn guarded<T>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    caught(work).unwrap_or_else(|message| Err(Error::from_panic(&message, doing)))
}

/// Runs work of other crates; a panic's message where it panics. The state behind its references must be dropped then.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("a failure without a message").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Tensor};
    use torch_ext::{FrozenConv2d, Generator};

    const BEYOND_ANY_MACHINE: i64 = 1 << 46; // of f32; a process can name 2^47 bytes

    #[test]
    fn f32_is_advised_where_it_is_not_in_use_yet() {
        for saved in [None, Some(PathBuf::from("cat.safetensors"))] {
            let said = |kind| Error::diverged(3, saved.clone(), kind).to_string();
            assert!(said(Kind::Half).ends_with("lower --lr, or use --precision f32"));
            assert!(said(Kind::Float).contains("lower --lr"), "{}", said(Kind::Float));
            assert!(!said(Kind::Float).contains("--precision"), "{}", said(Kind::Float));
        }
    }

    #[test]
    fn memory_that_tch_or_torch_ext_cannot_have_is_out_of_memory() {
        let asks: [fn(); 3] = [
            || drop(Generator::cpu(0).randn(&[BEYOND_ANY_MACHINE])),
            || drop(Tensor::zeros([BEYOND_ANY_MACHINE], (Kind::Float, Device::Cpu))),
            || {
                let cpu = (Kind::Float, Device::Cpu);
                let layer = FrozenConv2d::new(&Tensor::ones([1, 1, 1, 1], cpu), None, 1, 1 << 20);
                drop(layer.expect("a layer").forward(&Tensor::ones([1 << 12, 1, 1, 1], cpu)));
            },
        ];
        for ask in asks {
            let error = guarded("asking", || {
                ask();
                Ok(())
            });
            let error = error.expect_err("there is none");
            assert_eq!(error.exit_code(), 5, "{error}");
        }
        let told = |message: &str| Error::from_panic(message, "asking").exit_code();
        assert_eq!(told("libtorch refused randn: std::bad_alloc"), 5);
        assert_eq!(told("libtorch refused randn: the size is negative"), 1);
    }

    #[test]
    fn what_torch_ext_refuses_is_told_as_libtorch_s_and_not_as_a_fault_of_ours() {
        let error = guarded("drawing", || {
            drop(Generator::cpu(0).randn(&[-1]));
            Ok(())
        });
        let error = error.expect_err("no size");
        assert!(
            matches!(&error, Error::Torch(words) if words.contains("(while drawing)")),
            "{error}"
        );
    }
}
