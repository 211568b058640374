//! Pose files to pictures on disk: a skeleton, the skeletons of a sequence, a skeleton over its photo.

use std::path::{Path, PathBuf};

use super::{DEFAULT_SIZE, Frame, check_size, draw, overlay, read, sequence};
use crate::output::prepare_folder;
use crate::picture::{self, Existing, names_picture};
use crate::{Error, photos};

/// Said where pixels are those of a picture that is still to be drawn.
pub(super) const PIXELS_OF_WHAT: &str = "the frame pixels needs the size of the picture that they are pixels of; pass --frame pixels:750x1101 with the size of the photo that the poses were taken from, or --size 352x512 with that of the picture that is drawn";

/// What a user wants drawn.
#[derive(Debug, Clone)]
pub struct RenderRequest {
    /// A pose file, or a folder of them.
    pub pose: PathBuf,
    /// What its coordinates count in.
    pub frame: Frame,
    /// Width and height of the pictures; pixels need one, others are drawn at [`DEFAULT_SIZE`] without it.
    pub size: Option<(u32, u32)>,
    /// A file (`.png`, `.jpg`, `.webp`) for one pose, or a folder.
    pub output: PathBuf,
    /// Replace pictures of the same name.
    pub force: bool,
}

/// Draws a skeleton, or those of a folder with a sheet and an animation; returns what was written.
pub fn render(request: &RenderRequest) -> Result<Vec<PathBuf>, Error> {
    let RenderRequest { pose, frame, size, output, force } = request;
    let size = match (size, frame) {
        (Some(size), _) => *size,
        (None, Frame::Pixels) => {
            return Err(Error::Usage(PIXELS_OF_WHAT.into()));
        }
        (None, _) => DEFAULT_SIZE,
    };
    check_size(size)?;
    let existing = if *force { Existing::Replace } else { Existing::Keep };
    let is_file = names_picture(output)?;
    if !pose.is_dir() {
        let drawn = draw(&read(pose, *frame, size)?, size);
        let file = if is_file { output.clone() } else { output.join(name(pose)) };
        prepare_folder(file.parent().unwrap_or(Path::new("")))?;
        return Ok(vec![picture::write(&file, &drawn, None, existing)?]);
    }
    if is_file {
        return Err(Error::Usage(format!(
            "{} is a folder of poses, but --output {} is one picture; give a folder",
            pose.display(),
            output.display()
        )));
    }
    let files = sequence::poses(pose)?;
    let drawn = files
        .iter()
        .map(|file| Ok(draw(&read(file, *frame, size)?, size)))
        .collect::<Result<Vec<_>, Error>>()?;
    prepare_folder(output)?;
    let mut written = Vec::new();
    for (file, drawn) in files.iter().zip(&drawn) {
        written.push(picture::write(&output.join(name(file)), drawn, None, existing)?);
    }
    written.extend(sequence::write(output, &drawn, sequence::DELAY, existing)?);
    Ok(written)
}

/// Draws a skeleton over its photo, so that one sees whether they belong together; returns what was written.
pub fn check(
    photo: &Path,
    pose: &Path,
    frame: Frame,
    output: &Path,
    force: bool,
) -> Result<PathBuf, Error> {
    let pixels = photos::read(photo)?;
    let skeleton = read(pose, frame, pixels.dimensions())?;
    let file = if names_picture(output)? { output.to_owned() } else { output.join(name(photo)) };
    prepare_folder(file.parent().unwrap_or(Path::new("")))?;
    let existing = if force { Existing::Replace } else { Existing::Keep };
    Ok(picture::write(&file, &overlay(&pixels, &skeleton), None, existing)?)
}

pub(super) fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"))
}

/// The picture of a file.
pub(super) fn name(file: &Path) -> PathBuf {
    PathBuf::from(file.file_name().unwrap_or_default()).with_extension("png")
}
