//! Ctrl-C, a request to end and a closed terminal: each asks for an orderly end. A second Ctrl-C ends at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output;

static ASKED: AtomicBool = AtomicBool::new(false);

/// The exit code of a command that was interrupted and has saved what it had.
pub const EXIT_CODE: u8 = 130;

/// Listens from now on. A signal that was ignored when the program started stays so: `nohup` means it.
pub fn listen() -> anyhow::Result<()> {
    let heard =
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !torch_ext::is_ignored(signal));
    let mut signals = Signals::new(heard).context("cannot listen for Ctrl-C")?;
    std::thread::spawn(move || signals.forever().for_each(asked));
    Ok(())
}

/// Only Ctrl-C is counted: when a terminal is closed the system and the shell both send SIGHUP, and a supervisor may send
/// SIGTERM and SIGHUP together.
fn asked(signal: i32) {
    let again = ASKED.swap(true, Ordering::SeqCst);
    if again && signal == SIGINT {
        torch_ext::exit_now(EXIT_CODE.into());
    }
    if !again {
        output::say(""); // the terminal has put ^C on the line
        output::say("stopping after this step; press Ctrl-C again to stop at once and lose it");
    }
}

/// Tells whether to go on.
pub fn flow() -> ControlFlow<()> {
    if ASKED.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
