//! The contact sheet: every photo with what is kept of it.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::{PhotoError, PhotoSet, Rectangle, read};
use crate::picture::grid;

/// The longer side of a photo on the sheet, in pixels.
const SIDE: u32 = 320;
/// Photos in a row.
const COLUMNS: u32 = 4;
/// Of the frame around what is kept.
const FRAME: Rgb<u8> = Rgb([230, 40, 160]);

/// All photos of a set, whole, what is not kept of them darkened. The photos are read again.
pub fn sheet(set: &PhotoSet) -> Result<RgbImage, PhotoError> {
    let cells = set.photos.iter().map(|photo| Ok(cell(&read(&photo.path)?, photo.part)));
    Ok(grid(&cells.collect::<Result<Vec<_>, PhotoError>>()?, COLUMNS))
}

fn cell(photo: &RgbImage, part: Rectangle) -> RgbImage {
    let (width, height) = photo.dimensions();
    let scale = f64::from(SIDE) / f64::from(width.max(height));
    let scaled = |length: u32| (f64::from(length) * scale).round() as u32;
    let (wide, high) = (scaled(width).max(1), scaled(height).max(1));
    let mut cell = imageops::resize(photo, wide, high, FilterType::Triangle);
    let (left, right) = (scaled(part.x), scaled(part.x + part.width).min(wide));
    let (top, bottom) = (scaled(part.y), scaled(part.y + part.height).min(high));
    for (x, y, pixel) in cell.enumerate_pixels_mut() {
        if x < left || x >= right || y < top || y >= bottom {
            *pixel = pixel.0.map(|level| level / 4).into();
        } else if [left, right - 1].contains(&x) || [top, bottom - 1].contains(&y) {
            *pixel = FRAME;
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_framed_and_the_rest_is_dark() {
        let photo = RgbImage::from_pixel(640, 320, Rgb([200; 3]));
        let cell = cell(&photo, Rectangle { x: 0, y: 0, width: 320, height: 320 });
        assert_eq!(cell.dimensions(), (320, 160));
        let [inside, outside, edge] = [(80, 80), (240, 80), (159, 80)].map(|(x, y)| cell[(x, y)]);
        assert_eq!((inside, outside, edge), (Rgb([200; 3]), Rgb([50; 3]), FRAME));
    }
}
