//! Poses one after the other: their files, and the sheet and the animation of what was drawn of them.

use std::fs;
use std::path::{Path, PathBuf};

use embeddings::file::write_atomically;
use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, DynamicImage, Frame as GifFrame, RgbImage};

use crate::Error;
use crate::picture::{self, Existing};

/// Milliseconds that a picture of an animation stays.
pub const DELAY: u32 = 200;
/// Pictures in a row of a sheet.
const COLUMNS: u32 = 8;

/// The files of a folder that hold poses: `.txt`, where there is none `.json`, and where there is none of that either
/// pictures of poses (`.png`). They are in the order of their names; a number counts as its value, so that `2.txt` comes before `10.txt`.
pub fn poses(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(Error::io(folder, "read"))?.path());
    }
    let ending = |file: &PathBuf, ending: &str| {
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        file.is_file()
            && !hidden
            && file.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
    };
    let kinds = ["txt", "json", "png"];
    let kind = kinds.into_iter().find(|kind| files.iter().any(|file| ending(file, kind)));
    files.retain(|file| kind.is_some_and(|kind| ending(file, kind)));
    if files.is_empty() {
        return Err(Error::Usage(format!(
            "{} holds no pose; give a folder of files with 18 lines `x y` each (.txt), of OpenPose's JSON (.json), or of pose pictures (.png)",
            folder.display()
        )));
    }
    check_names(&files)?;
    files.sort_by_cached_key(|file| {
        natural(&file.file_name().unwrap_or_default().to_string_lossy())
    });
    Ok(files)
}

/// A name cut into text and numbers.
fn natural(name: &str) -> Vec<(String, u64, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        parts.push((text.to_owned(), number.parse().unwrap_or(u64::MAX), number.to_owned()));
        rest = tail;
    }
    parts
}

/// The names of the two.
const SHEET: &str = "sheet";
const ANIMATION: &str = "sequence";

/// Refuses poses whose pictures would have the sheet's name.
fn check_names(poses: &[PathBuf]) -> Result<(), Error> {
    match poses.iter().find(|file| file.file_stem().is_some_and(|stem| stem == SHEET)) {
        None => Ok(()),
        Some(file) => Err(Error::Usage(format!(
            "{} would be drawn into {SHEET}.png, which is the name of the sheet of all; give the pose another name",
            file.display()
        ))),
    }
}

/// Writes `sheet.png` and `sequence.gif` of pictures of one size into a folder that is there; returns the two paths. Both
/// get the same number where one of the two is there already.
pub fn write(
    folder: &Path,
    pictures: &[RgbImage],
    delay: u32,
    existing: Existing,
) -> Result<[PathBuf; 2], Error> {
    let names = |suffix: &str| {
        [format!("{SHEET}{suffix}.png"), format!("{ANIMATION}{suffix}.gif")].map(|n| folder.join(n))
    };
    let mut numbered = (1..).map(|number| names(&format!("-{number}")));
    let is_free = |both: &[PathBuf; 2]| both.iter().all(|path| !path.exists());
    let plain = names("");
    let [sheet, animation] = match existing {
        Existing::Keep if !is_free(&plain) => {
            numbered.find(is_free).expect("numbers do not end before the names do")
        }
        _ => plain,
    };
    let grid = picture::grid(pictures, COLUMNS);
    let sheet = picture::write(&sheet, &grid, None, existing)?;
    write_atomically(&animation, &animate(pictures, delay)?)
        .map_err(Error::io(&animation, "written"))?;
    Ok([sheet, animation])
}

/// The bytes of a GIF that shows the pictures again and again.
fn animate(pictures: &[RgbImage], delay: u32) -> Result<Vec<u8>, Error> {
    /// Of the choice of 256 colours, 1 (best) to 30.
    const SPEED: i32 = 10;
    let mut bytes = Vec::new();
    let fault = |error: image::ImageError| Error::Fault {
        doing: "writing a GIF",
        message: error.to_string(),
    };
    {
        let mut encoder = GifEncoder::new_with_speed(&mut bytes, SPEED);
        encoder.set_repeat(Repeat::Infinite).map_err(fault)?;
        for picture in pictures {
            let pixels = DynamicImage::from(picture.clone()).into_rgba8();
            let frame = GifFrame::from_parts(pixels, 0, 0, Delay::from_numer_denom_ms(delay, 1));
            encoder.encode_frame(frame).map_err(fault)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::AnimationDecoder as _;
    use image::codecs::gif::GifDecoder;

    fn pictures() -> Vec<RgbImage> {
        [10, 120, 240]
            .map(|level| RgbImage::from_pixel(16, 24, image::Rgb([level, 0, 255 - level])))
            .into()
    }

    #[test]
    fn a_sheet_and_an_animation_hold_every_picture_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let [sheet, animation] = write(folder.path(), &pictures(), 100, Existing::Keep).unwrap();
        assert_eq!(image::open(&sheet).unwrap().into_rgb8(), picture::grid(&pictures(), COLUMNS));
        let file = std::io::BufReader::new(fs::File::open(&animation).unwrap());
        let frames = GifDecoder::new(file).unwrap().into_frames().collect_frames().unwrap();
        assert_eq!(frames.len(), 3);
        for (frame, picture) in frames.iter().zip(pictures()) {
            assert_eq!(frame.delay().numer_denom_ms(), (100, 1));
            let (found, expected) = (frame.buffer().get_pixel(8, 8), picture.get_pixel(8, 8));
            assert!(found.0.iter().zip(expected.0).all(|(a, b)| a.abs_diff(b) < 8), "{found:?}");
        }
        let again = write(folder.path(), &pictures(), 100, Existing::Keep).unwrap();
        assert_eq!(
            again.map(|path| path.file_name().unwrap().to_owned()),
            ["sheet-1.png", "sequence-1.gif"]
        );
        fs::remove_file(&sheet).unwrap();
        let beside = write(folder.path(), &pictures(), 100, Existing::Keep).unwrap();
        assert_eq!(beside[1].file_name().unwrap(), "sequence-2.gif");
        assert!(animation.exists());
        let clash = check_names(&["a.txt".into(), "sheet.txt".into()]).unwrap_err().to_string();
        assert!(clash.contains("sheet.txt") && check_names(&["a.txt".into()]).is_ok(), "{clash}");
    }

    #[test]
    fn the_same_pictures_make_the_same_bytes() {
        assert_eq!(animate(&pictures(), 100).unwrap(), animate(&pictures(), 100).unwrap());
    }

    #[test]
    fn poses_come_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["10.txt", "2.txt", "b1.txt", "notes.md", ".hidden.txt", "2.png"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names = |files: Vec<PathBuf>| -> Vec<String> {
            files
                .iter()
                .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(names(poses(folder.path()).unwrap()), ["2.txt", "10.txt", "b1.txt"]);
        for name in ["10.txt", "2.txt", "b1.txt"] {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        assert_eq!(names(poses(folder.path()).unwrap()), ["2.png"]);
        fs::remove_file(folder.path().join("2.png")).unwrap();
        assert!(poses(folder.path()).unwrap_err().to_string().contains("holds no pose"));
    }
}
