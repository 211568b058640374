//! The process as the system sees it: where it starts, its signals and its end.

use std::sync::atomic::{AtomicBool, Ordering};

static REMOVED: AtomicBool = AtomicBool::new(false);

/// Tells if the folder that the process was started in had been removed, so that no relative path means anything.
///
/// oneMKL ends such a process with words of its own while libtorch is loaded, before `main`. So it has been left for `/`.
pub fn started_in_removed_folder() -> bool {
    REMOVED.load(Ordering::Relaxed)
}

/// Leaves a folder that has been removed, before any library starts.
#[cfg(target_os = "linux")]
#[used]
// SAFETY: the system calls what stands in this section of a program, on its only thread, before the start of its libraries.
// The function below asks for nothing but two system calls, which are ready by then.
#[unsafe(link_section = ".preinit_array")]
static BEFORE_LIBRARIES: extern "C" fn() = {
    extern "C" fn leave() {
        let mut name = [0; libc::PATH_MAX as usize];
        // SAFETY: at most so many bytes are written as there is room for, and both names end in a zero byte.
        unsafe {
            if libc::getcwd(name.as_mut_ptr(), name.len()).is_null()
                && *libc::__errno_location() == libc::ENOENT
            {
                libc::chdir(c"/".as_ptr());
                REMOVED.store(true, Ordering::Relaxed);
            }
        }
    }
    leave
};

/// Ends the process at once, while other threads may be inside libtorch.
///
/// `std::process::exit` would take libtorch's globals down under their feet, and the process would end by a crash.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes any code and never returns.
    unsafe { libc::_exit(code) }
}

/// From now on a write beyond the limit on file sizes (`ulimit -f`) fails as one on a full disk does, where the system
/// would end the process without a word.
pub fn survive_file_size_limit() {
    // SAFETY: ignoring a signal installs no handler, and nothing here waits for this one.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Tells if a signal is ignored now. Whoever started this process may have asked for it, as `nohup` does with `SIGHUP` and
/// a shell with `SIGINT` of what it runs in the background; listening to the signal would undo that.
pub fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action this only writes the present one, for which there is room; it fails for a number that
    // is no signal, and then the zeros stand, which are a valid `sigaction` too.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}
