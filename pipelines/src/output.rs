//! The folder that a command writes to.

use std::fs;
use std::path::Path;

use crate::Error;

/// Makes `folder` and tries that a file can be written there, so that this fails before the work and not after.
pub(crate) fn prepare_folder(folder: &Path) -> Result<(), Error> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if folder.is_file() {
        return Err(Error::Usage(format!(
            "{} is a file, but the output needs a folder; give another --output",
            folder.display()
        )));
    }
    fs::create_dir_all(folder).map_err(Error::io(folder, "created"))?;
    let probe = folder.join(format!(".{}.tmp", std::process::id()));
    fs::write(&probe, b"").map_err(Error::io(folder, "written"))?;
    fs::remove_file(&probe).map_err(Error::io(&probe, "removed"))
}
