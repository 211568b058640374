//! Finding CUDA once, before anything else asks libtorch for it.

use std::ffi::CStr;
use std::sync::OnceLock;

/// What this process can use of CUDA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cuda {
    /// At least one device can be used.
    Available {
        /// How many devices there are.
        devices: usize,
    },
    /// Everything runs on the CPU.
    Absent {
        /// Why, in one sentence.
        reason: String,
    },
}

impl Cuda {
    /// Whether at least one device can be used.
    pub fn is_available(&self) -> bool {
        matches!(self, Self::Available { .. })
    }
}

/// Registers libtorch's CUDA half if this machine has a driver, and says what was found. Later calls give the same answer.
///
/// libtorch asks for its CUDA half once and remembers the answer, so this must come before the first question about
/// CUDA; call it first in `main` and in each test. The linker drops `libtorch_cuda.so` from a program that names no
/// symbol of it, hence the explicit load. A machine without a driver does not pay for it: there the library, its
/// 0.2 GB of memory and its start-up time stay out, and an installation without that half is no error.
pub fn init() -> &'static Cuda {
    static FOUND: OnceLock<Cuda> = OnceLock::new();
    FOUND.get_or_init(find)
}

fn find() -> Cuda {
    if let Err(why) = load(c"libcuda.so.1") {
        return Cuda::Absent { reason: format!("No NVIDIA driver is installed ({why}).") };
    }
    if let Err(why) = load(c"libtorch_cuda.so") {
        return Cuda::Absent {
            reason: format!("The CUDA half of libtorch cannot be loaded ({why})."),
        };
    }
    match usize::try_from(tch::Cuda::device_count()) {
        Ok(devices) if devices > 0 => Cuda::Available { devices },
        _ => Cuda::Absent {
            reason: "A driver is installed, but it offers no device (is CUDA_VISIBLE_DEVICES empty, or the driver too old for CUDA 13?).".into(),
        },
    }
}

/// Loads a library for the rest of the process, its symbols visible to those loaded later.
fn load(library: &CStr) -> Result<(), String> {
    // SAFETY: a NUL-terminated name. Initialisers of the driver and of libtorch may run on any thread, and the handle
    // is never closed, so nothing they registered can dangle.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror gives null or a NUL-terminated string of this thread, valid until its next dl call; copied here.
    let why = unsafe {
        let message = libc::dlerror();
        if message.is_null() {
            None
        } else {
            Some(CStr::from_ptr(message).to_string_lossy().into_owned())
        }
    };
    Err(why.unwrap_or_else(|| format!("{} was not found", library.to_string_lossy())))
}
