//! Telling photos that are the same, or look it.

use image::RgbImage;
use image::imageops;
use sha2::{Digest, Sha256};

/// Bits of the 64 that may differ between two encodings of one picture.
const NEAR_BITS: u32 = 4;
/// Grey levels (mean over the thumbnail) that may differ; tells even pictures of unlike brightness apart.
const NEAR_LEVELS: u32 = 8;

/// What is compared: the file's hash, and whether each pixel of a 9×8 thumbnail is darker than the one to its right.
pub(super) struct Fingerprint {
    bytes: [u8; 32],
    gradient: u64,
    thumbnail: Vec<u8>,
}

impl Fingerprint {
    pub fn new(bytes: &[u8], photo: &RgbImage) -> Self {
        let grey = imageops::grayscale(&imageops::thumbnail(photo, 9, 8));
        let mut gradient = 0;
        for row in grey.rows() {
            let row: Vec<u8> = row.map(|pixel| pixel[0]).collect();
            for pair in row.windows(2) {
                gradient = gradient << 1 | u64::from(pair[0] < pair[1]);
            }
        }
        Self { bytes: Sha256::digest(bytes).into(), gradient, thumbnail: grey.into_raw() }
    }

    /// The index of the first of `others` that is the same, and whether byte for byte.
    pub fn first_match(&self, others: &[Self]) -> Option<(usize, bool)> {
        let exact =
            others.iter().position(|other| other.bytes == self.bytes).map(|index| (index, true));
        exact.or_else(|| {
            others.iter().position(|other| self.looks_like(other)).map(|index| (index, false))
        })
    }

    fn looks_like(&self, other: &Self) -> bool {
        let levels: u32 = self
            .thumbnail
            .iter()
            .zip(&other.thumbnail)
            .map(|(a, b)| u32::from(a.abs_diff(*b)))
            .sum();
        (self.gradient ^ other.gradient).count_ones() <= NEAR_BITS
            && levels <= NEAR_LEVELS * self.thumbnail.len() as u32
    }
}
