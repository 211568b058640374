//! The photos of a concept: a folder in, pictures of the training size and a report of what was noticed out.
//!
//! [`PhotoSet::read`] lists the folder ([`scan`]), decodes each photo upright over white ([`decode`]), cuts it to the
//! target ([`crop`]) and compares all of them ([`duplicates`]). What a user can live with is a [`Notice`]; what would
//! train on something else than the photo is a [`PhotoError`] that names the file.

mod augment;
mod colour;
mod crop;
mod decode;
mod duplicates;
#[cfg(test)]
mod foreign_tests;
mod inks;
mod mask;
mod named;
mod notice;
mod salience;
mod scan;
mod sheet;
#[cfg(test)]
mod tests;
mod whole;

use std::path::{Path, PathBuf};

use embeddings::file::hex;
use image::RgbImage;
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

pub use augment::Augmentation;
pub use crop::{Crop, Rectangle};
pub use decode::{MAX_BYTES, MAX_PIXELS};
pub use mask::{masks, read_masked};
pub use notice::{Notice, PhotoError};
pub use sheet::sheet;

use duplicates::Fingerprint;

/// Fewer photos than this are reported: Textual Inversion's authors recommend three to five.
pub const FEW_PHOTOS: usize = 3;

/// One photo, ready to train on.
#[derive(Debug, Clone)]
pub struct Photo {
    /// Where it was read from.
    pub path: PathBuf,
    /// The first line of the `.txt` file beside it.
    pub caption: Option<String>,
    /// The pixels at the target size, upright, over white.
    pub pixels: RgbImage,
    /// Width and height of the upright photo before it was cut.
    pub original: (u32, u32),
    /// The part of the upright photo that `pixels` shows.
    pub part: Rectangle,
}

/// The photos of one concept, in the byte order of their names.
#[derive(Debug, Clone)]
pub struct PhotoSet {
    /// At least one photo, all of one size.
    pub photos: Vec<Photo>,
    /// What the user should know, in the order in which it was noticed.
    pub report: Vec<Notice>,
}

impl PhotoSet {
    /// Reads every photo of `folder` at `size` = (width, height), both above zero.
    pub fn read(folder: &Path, size: (u32, u32), crop: Crop) -> Result<Self, PhotoError> {
        let scan::Listing { entries, mut report } = scan::list(folder)?;

        let mut photos: Vec<Photo> = Vec::with_capacity(entries.len());
        let mut fingerprints: Vec<Fingerprint> = Vec::with_capacity(entries.len());
        let mut squashed = Vec::new();
        for scan::Entry { path, format, caption } in entries {
            let bytes = torch_ext::file::read(&path)
                .map_err(|source| PhotoError::File { file: path.clone(), source })?;
            let decode::Decoded { pixels: upright, notices } =
                decode::decode(&path, &bytes, format)?;
            report.extend(notices);
            let original = upright.dimensions();
            let crop::Cut { part, lost } = crop.cut(&upright, size);
            if let Some(lost) = lost {
                report.push(Notice::CutsMuch { file: path.clone(), lost });
            }
            if crop.squashes(part, size) {
                squashed.push(path.clone());
            }
            if crop.enlarges(part, size) {
                report.push(Notice::TooSmall { file: path.clone(), size: original, target: size });
            }
            let fingerprint = Fingerprint::new(&bytes, &upright);
            if let Some((first, same_bytes)) = fingerprint.first_match(&fingerprints) {
                let a = photos[first].path.clone(); // one fingerprint for each photo, in order
                report.push(Notice::Duplicate { a, b: path.clone(), same_bytes });
            }
            fingerprints.push(fingerprint);
            photos.push(Photo {
                pixels: crop.apply(part, &upright, size),
                path,
                caption,
                original,
                part,
            });
        }

        if !squashed.is_empty() {
            report.push(Notice::Squashed { files: squashed });
        }
        if photos.len() < FEW_PHOTOS {
            report.push(Notice::TooFew { count: photos.len() });
        }
        let bare: Vec<_> = photos
            .iter()
            .filter(|photo| photo.caption.is_none())
            .map(|photo| photo.path.clone())
            .collect();
        if !bare.is_empty() && bare.len() < photos.len() {
            report.push(Notice::WithoutCaption { files: bare });
        }
        Ok(Self { photos, report })
    }

    /// SHA-256 (hex) over sizes, pixels and captions in order: equal exactly when the training would see the same.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for Photo { pixels, caption, .. } in &self.photos {
            let (width, height) = pixels.dimensions();
            hasher.update(width.to_le_bytes());
            hasher.update(height.to_le_bytes());
            hasher.update(pixels.as_raw());
            // A length before the text keeps "no caption" apart from an empty one and one photo from the next.
            match caption {
                None => hasher.update(u64::MAX.to_le_bytes()),
                Some(text) => {
                    hasher.update((text.len() as u64).to_le_bytes());
                    hasher.update(text);
                }
            }
        }
        hex(&hasher.finalize())
    }
}

/// The photos of a folder, undecoded, in the byte order of their names; and what else was noticed.
pub fn list(folder: &Path) -> Result<(Vec<PathBuf>, Vec<Notice>), PhotoError> {
    let scan::Listing { entries, report } = scan::list(folder)?;
    Ok((entries.into_iter().map(|entry| entry.path).collect(), report))
}

/// One whole picture, upright, over white: for encoders that cut it by a rule of their own.
pub fn read(file: &Path) -> Result<RgbImage, PhotoError> {
    let bytes = torch_ext::file::read(file)
        .map_err(|source| PhotoError::File { file: file.into(), source })?;
    decode::decode(file, &bytes, scan::format(file)?).map(|photo| photo.pixels)
}

/// Width and height of a picture as it is seen upright, by its header.
pub fn dimensions(file: &Path) -> Result<(u32, u32), PhotoError> {
    decode::dimensions(file, scan::format(file)?)
}

/// The picture as the VAE reads it: `[1, 3, H, W]` f32 in [-1, 1], x/127.5 - 1 as in diffusers' training scripts.
pub fn to_tensor(pixels: &RgbImage) -> Tensor {
    let (width, height) = pixels.dimensions();
    let x = Tensor::from_slice(pixels.as_raw()).view([1, i64::from(height), i64::from(width), 3]);
    let x = x.permute([0, 3, 1, 2]).to_kind(Kind::Double); // [1, 3, H, W]
    (x / 127.5 - 1.0).to_kind(Kind::Float).contiguous()
}

/// The picture with left and right exchanged.
pub fn mirrored(pixels: &RgbImage) -> RgbImage {
    image::imageops::flip_horizontal(pixels)
}
