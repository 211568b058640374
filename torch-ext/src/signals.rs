//! The process as the system sees it: its signals and its end.

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
