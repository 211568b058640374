//! Results on stdout, for people and for programs.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _, stdout};

/// One line. A reader that has gone (`| head`) wants no more and ends nothing; any other failure is told.
pub fn line(text: impl Display) {
    if let Err(error) = writeln!(stdout(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        eprintln!("warning: stdout cannot be written: {error}");
    }
}
