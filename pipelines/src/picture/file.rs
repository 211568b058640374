//! Files of pictures, written whole or not at all.

use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};

use embeddings::file::Draft;
use image::RgbImage;

use super::PictureParameters;
use super::encode::{OWN_KEY, encode};
use crate::error::caught;

/// What happens where a file of the name already is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// It stays, and the new one is called `name-1`, `name-2`…
    #[default]
    Keep,
    /// It is replaced.
    Replace,
}

/// Why a picture cannot be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// A tensor that is no picture.
    #[error("a picture has the shape [3, H, W], but {found:?} was given")]
    Shape {
        /// The shape given.
        found: Vec<i64>,
    },
    /// NaN or infinity among the pixels.
    #[error(
        "the decoded picture holds values that are not numbers; {}",
        if *exact { "fetch the base again or train the concept anew, whichever is damaged" } else { "use --precision f32" }
    )]
    NotFinite {
        /// Whether it was computed in f32 already.
        exact: bool,
    },
    /// A file that cannot be written.
    #[error("{path} cannot be written: {source}{}", models::advice(.source))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A picture that its kind of file cannot hold.
    #[error("the picture for {path} cannot be encoded: {source}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        source: io::Error,
    },
    /// A file that cannot be read as PNG.
    #[error("{path} cannot be read as a PNG picture: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: png::DecodingError,
    },
    /// A PNG without our record.
    #[error(
        "{path} does not say how it was made: it was saved without metadata, or by another program"
    )]
    NoRecord {
        /// The file.
        path: PathBuf,
    },
    /// A record that is not ours.
    #[error(
        "the record in {path} cannot be understood: {source}; it was written by another version of this program"
    )]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Writes a picture as the ending of its name says, with how it was made if `parameters` are given, and returns the path
/// it got.
///
/// The file appears whole under its name or not at all.
pub fn write(
    path: &Path,
    pixels: &RgbImage,
    parameters: Option<&PictureParameters>,
    existing: Existing,
) -> Result<PathBuf, PictureError> {
    let bytes = encode(path, pixels, parameters)
        .map_err(|source| PictureError::Encode { path: path.into(), source })?;
    save(path, &bytes, existing).map_err(|source| PictureError::Write { path: path.into(), source })
}

/// How the picture at `path` was made.
pub fn read_parameters(path: &Path) -> Result<PictureParameters, PictureError> {
    let unreadable = |source| PictureError::Read { path: path.into(), source };
    let file = torch_ext::file::open(path).map_err(|error| unreadable(error.into()))?;
    let decoder = png::Decoder::new(BufReader::new(file));
    let reader = caught(|| decoder.read_info())
        .unwrap_or_else(|panic| Err(io::Error::other(panic).into()))
        .map_err(unreadable)?;
    let info = reader.info();
    let latin1 = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == OWN_KEY);
    let utf8 = info.utf8_text.iter().find(|chunk| chunk.keyword == OWN_KEY);
    let text = match (latin1, utf8) {
        (Some(chunk), _) => chunk.text.clone(),
        (None, Some(chunk)) => chunk.get_text().map_err(unreadable)?,
        (None, None) => return Err(PictureError::NoRecord { path: path.into() }),
    };
    serde_json::from_str(&text)
        .map_err(|source| PictureError::BadRecord { path: path.into(), source })
}

/// Says whether a file is empty, as an earlier version or a copy that failed could leave it.
pub(crate) fn is_empty(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.len() == 0)
}

/// Writes beside the target and flushes to the disk, then takes the target's name in one step: where that has to stay,
/// the first free one of `name.png`, `name-1.png`, `name-2.png`…
fn save(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<PathBuf> {
    let mut draft = Draft::beside(path)?;
    draft.write_all(bytes)?;
    if existing == Existing::Replace {
        return draft.replace(path).map(|()| path.to_path_buf());
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    let extension = extension.unwrap_or_default();
    let mut target = path.to_path_buf();
    for number in 1_u32.. {
        match draft.take_free(&target)? {
            None => return Ok(target),
            Some(back) => draft = back,
        }
        target = path.with_file_name(format!("{stem}-{number}{extension}"));
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::super::record::example;
    use super::*;
    use std::fs;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn picture(level: u8) -> RgbImage {
        RgbImage::from_pixel(5, 3, image::Rgb([level, 2, 3]))
    }

    #[test]
    fn parameters_come_back_as_they_went_in_latin_or_not() {
        let folder = tempfile::tempdir().unwrap();
        for prompt in ["a <cat>, \"quoted\"\ntwo lines", "naïve café", "雪の中の<猫> 🐈"] {
            let parameters = PictureParameters { prompt: prompt.into(), ..example() };
            let path =
                write(&folder.path().join("a.png"), &picture(1), Some(&parameters), Existing::Keep)
                    .unwrap();
            assert_eq!(read_parameters(&path).unwrap(), parameters);
            assert_eq!(image::open(&path).unwrap().into_rgb8(), picture(1));
        }
    }

    #[test]
    fn a_file_without_a_byte_is_empty_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        assert!(!is_empty(&path) && !is_empty(folder.path()));
        fs::write(&path, "").unwrap();
        assert!(is_empty(&path));
        fs::write(&path, "notes of mine").unwrap();
        assert!(!is_empty(&path));
    }

    #[test]
    fn other_tools_find_the_a1111_text_as_text_or_international_text() {
        let text = |prompt: &str| {
            let parameters = PictureParameters { prompt: prompt.into(), ..example() };
            let bytes = encode(Path::new("a.png"), &picture(1), Some(&parameters)).unwrap();
            let info =
                png::Decoder::new(io::Cursor::new(bytes)).read_info().unwrap().info().clone();
            let latin1 =
                info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == "parameters");
            let utf8 = info.utf8_text.iter().find(|chunk| chunk.keyword == "parameters");
            (latin1.map(|chunk| chunk.text.clone()), utf8.map(|chunk| chunk.get_text().unwrap()))
        };
        let (latin1, utf8) = text("café");
        assert!(latin1.unwrap().starts_with("café\nNegative prompt: ") && utf8.is_none());
        let (latin1, utf8) = text("猫");
        assert!(latin1.is_none() && utf8.unwrap().starts_with("猫\nNegative prompt: "));
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number_unless_replacing_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        for (level, expected) in [(1, "a.png"), (2, "a-1.png"), (3, "a-2.png")] {
            let written = write(&path, &picture(level), None, Existing::Keep).unwrap();
            assert_eq!(written, folder.path().join(expected));
        }
        assert_eq!(write(&path, &picture(9), None, Existing::Replace).unwrap(), path);
        assert_eq!(image::open(&path).unwrap().into_rgb8(), picture(9));
        assert_eq!(names(folder.path()), ["a-1.png", "a-2.png", "a.png"]);
    }

    #[test]
    fn a_failed_write_names_the_path_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing").join("a.png");
        let error = write(&missing, &picture(1), None, Existing::Keep).unwrap_err().to_string();
        assert!(error.contains("missing") && error.ends_with("; check the path"), "{error}");

        let taken = folder.path().join("taken.png"); // a folder, which no file replaces
        fs::create_dir(&taken).unwrap();
        assert!(matches!(
            write(&taken, &picture(1), None, Existing::Replace),
            Err(PictureError::Write { .. })
        ));
        assert_eq!(names(folder.path()), ["taken.png"]);
    }

    #[test]
    fn pictures_without_our_record_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let plain = write(&folder.path().join("a.png"), &picture(1), None, Existing::Keep).unwrap();
        assert!(matches!(read_parameters(&plain), Err(PictureError::NoRecord { .. })));
        let text = folder.path().join("t.png");
        fs::write(&text, "no picture").unwrap();
        assert!(matches!(read_parameters(&text), Err(PictureError::Read { .. })));
        assert!(matches!(
            read_parameters(&folder.path().join("none.png")),
            Err(PictureError::Read { .. })
        ));
    }
}
