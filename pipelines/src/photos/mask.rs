//! Masks: which part of a photo is the subject.

use std::path::{Path, PathBuf};

use image::{GrayImage, RgbImage};

use super::{PhotoError, decode, list, read, scan};

/// What stands where the subject is not: mid grey, which is 0 for the VAE and near an encoder's mean colour.
const NEUTRAL: u8 = 128;

/// The mask of each photo, found in `folder` by the photo's name without its extension.
///
/// Errors: no such folder, or no picture in it; a photo that has no mask or two. Sizes are met when a mask is read.
pub fn masks(folder: &Path, photos: &[PathBuf]) -> Result<Vec<PathBuf>, PhotoError> {
    let (all, _) = list(folder).map_err(|error| match error {
        PhotoError::Missing { .. }
        | PhotoError::NotAFolder { .. }
        | PhotoError::Empty { .. }
        | PhotoError::NoPhotos { .. } => PhotoError::NoMasks { folder: folder.into() },
        error => error,
    })?;
    let mask = |photo: &PathBuf| {
        let of = |mask: &PathBuf| scan::masked(&mask.with_extension("")).unwrap_or(mask.clone());
        let mut own = all.iter().filter(|mask| of(mask).file_stem() == photo.file_stem());
        match (own.next(), own.next()) {
            (Some(mask), None) => Ok(mask.clone()),
            (Some(first), Some(second)) => {
                Err(PhotoError::TwoMasks { first: first.clone(), second: second.clone() })
            }
            (None, _) => Err(PhotoError::NoMask { folder: folder.into(), photo: photo.clone() }),
        }
    };
    photos.iter().map(mask).collect()
}

/// A whole photo, upright, its background replaced by mid grey: as much as the mask is black, or, where the mask has
/// transparent places, as much as it is transparent.
pub fn read_masked(photo: &Path, mask: &Path) -> Result<RgbImage, PhotoError> {
    let (mut pixels, kept) = (read(photo)?, kept(mask)?);
    if kept.dimensions() != pixels.dimensions() {
        return Err(PhotoError::MaskSize {
            mask: mask.into(),
            found: kept.dimensions(),
            expected: pixels.dimensions(),
        });
    }
    if kept.pixels().all(|share| share[0] == 0) {
        return Err(PhotoError::BlackMask { mask: mask.into() });
    }
    for (pixel, share) in pixels.pixels_mut().zip(kept.pixels()) {
        let share = u32::from(share[0]);
        for channel in &mut pixel.0 {
            let blend = u32::from(*channel) * share + u32::from(NEUTRAL) * (255 - share);
            *channel = ((blend + 127) / 255) as u8;
        }
    }
    Ok(pixels)
}

/// How much of each place a mask keeps, 255 for all of it.
fn kept(mask: &Path) -> Result<GrayImage, PhotoError> {
    let bytes = torch_ext::file::read(mask)
        .map_err(|source| PhotoError::File { file: mask.into(), source })?;
    let mask = decode::levels(mask, &bytes, scan::format(mask)?)?;
    if mask.color().has_alpha() {
        let alpha = mask.to_rgba8();
        if alpha.pixels().any(|pixel| pixel[3] < 255) {
            let size = alpha.dimensions();
            return Ok(GrayImage::from_fn(size.0, size.1, |x, y| {
                image::Luma([alpha.get_pixel(x, y)[3]])
            }));
        }
    }
    Ok(mask.into_luma8())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Luma, Rgb, Rgba, RgbaImage};

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        RgbImage::from_pixel(4, 2, Rgb([200, 0, 50])).save(folder.path().join("a.png")).unwrap();
        folder
    }

    #[test]
    fn what_is_black_or_transparent_becomes_grey() {
        let folder = folder();
        let (photo, mask) = (folder.path().join("a.png"), folder.path().join("m.png"));
        let steps = |x| [0, 51, 255, 255][x as usize];
        GrayImage::from_fn(4, 2, |x, _| Luma([steps(x)])).save(&mask).unwrap();
        let by_grey = read_masked(&photo, &mask).unwrap();
        let row: Vec<[u8; 3]> = (0..3).map(|x| by_grey.get_pixel(x, 1).0).collect();
        // a fifth of the photo, four fifths of 128
        assert_eq!(row, [[128; 3], [142, 102, 112], [200, 0, 50]]);
        // a cut-out: the colours of a mask with transparent places say nothing
        RgbaImage::from_fn(4, 2, |x, _| Rgba([9, 9, 9, steps(x)])).save(&mask).unwrap();
        assert_eq!(read_masked(&photo, &mask).unwrap(), by_grey);
    }

    #[test]
    fn masks_go_by_name_and_what_does_not_fit_is_named() {
        let (photos, given) = (folder(), tempfile::tempdir().unwrap());
        let photo = photos.path().join("a.png");
        let none = masks(given.path(), &[]).unwrap_err().to_string();
        assert!(none.contains("is no folder of masks"), "{none}");
        let save = |name: &str, width, level| {
            let path = given.path().join(name);
            GrayImage::from_pixel(width, 2, Luma([level])).save(&path).unwrap();
            path
        };
        let other = save("b.png", 4, 255);
        let told = |photos: &[PathBuf]| masks(given.path(), photos).unwrap_err().to_string();
        let all = std::slice::from_ref(&photo);
        assert!(told(all).contains("holds no mask for the photo") && told(all).contains("a.png"));
        let own = save("a.jpg", 4, 255);
        assert_eq!(masks(given.path(), all).unwrap(), [own]);
        save("a.png", 4, 255);
        assert!(told(all).contains("both masks of one photo"));
        let wide = save("a.png", 5, 255);
        let error = read_masked(&photo, &wide).unwrap_err().to_string();
        assert!(error.contains("5×2, but its photo is 4×2"), "{error}");
        let black = save("a.png", 4, 0);
        let error = read_masked(&photo, &black).unwrap_err().to_string();
        assert!(error.contains("black all over"), "{error}");
        assert_eq!(read_masked(&photo, &other).unwrap(), read(&photo).unwrap());
    }
}
