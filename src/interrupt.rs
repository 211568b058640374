//! Ctrl-C: the first asks for an orderly end, the second ends at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

static ASKED: AtomicBool = AtomicBool::new(false);

/// The exit code of a command that was interrupted and has saved what it had.
pub const EXIT_CODE: u8 = 130;

/// Listens from now on.
pub fn listen() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            torch_ext::exit_now(EXIT_CODE.into());
        }
        eprintln!("\nstopping after this step; press Ctrl-C again to stop at once and lose it");
    })
    .context("cannot listen for Ctrl-C")
}

/// Whether to go on.
pub fn flow() -> ControlFlow<()> {
    if ASKED.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
