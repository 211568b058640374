//! Reading files that somebody else may have named.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// Opens a file for reading, and only a file: to open a pipe waits for whoever writes to it, and a device may never end.
///
/// All that a user names is read through here.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    let kind = fs::metadata(path)?.file_type();
    let found = match kind {
        _ if kind.is_file() => return File::open(path),
        _ if kind.is_dir() => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    let why = format!("it is {found}, but a file was expected; save its content to a file first");
    Err(io::Error::new(ErrorKind::InvalidInput, why))
}

/// Reads a whole file, as [`open`] opens it.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a whole file of UTF-8 text, as [`open`] opens it, without the byte order mark that Windows puts before it.
///
/// Errors: `InvalidData` where it is no UTF-8.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    let mark = text.len() - text.trim_start_matches('\u{feff}').len();
    text.drain(..mark);
    Ok(text)
}
