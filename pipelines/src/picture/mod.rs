//! Pictures: from the decoder's tensor to a file that knows how it was made.

mod encode;
mod file;
mod name;
mod record;

use image::{Rgb, RgbImage, imageops};
use tch::{Kind, Tensor};

pub use encode::{PictureFormat, check_room, names_picture};
pub(crate) use file::is_empty;
pub use file::{Existing, PictureError, read_parameters, write};
pub use name::{names, slug};
pub use record::{Circumstances, PictureParameters, SamplingDetails, UsedConcept};

/// A decoded picture as 8-bit RGB, rounded as diffusers does: `(x / 2 + 0.5)` clamped to [0, 1], times 255, to even.
///
/// `computed` is what the networks computed in, for the advice of an error.
///
/// Shapes: `[3, H, W]` in [-1, 1], any float kind, any device. Errors: a value that is not a number.
pub fn to_rgb(decoded: &Tensor, computed: Kind) -> Result<RgbImage, PictureError> {
    let &[3, height, width] = decoded.size().as_slice() else {
        return Err(PictureError::Shape { found: decoded.size() });
    };
    if decoded.isfinite().all().int64_value(&[]) == 0 {
        return Err(PictureError::NotFinite { exact: computed == Kind::Float });
    }
    let x = ((decoded * 0.5 + 0.5).clamp(0.0, 1.0)).to_kind(Kind::Float) * 255.0;
    let x =
        x.round().to_kind(Kind::Uint8).permute([1, 2, 0]).contiguous().to_device(tch::Device::Cpu); // [H, W, 3]
    let mut pixels = RgbImage::new(width as u32, height as u32);
    let count = pixels.len();
    x.copy_data(&mut pixels, count);
    Ok(pixels)
}

/// The pictures row by row, `columns` beside each other (at least one, at most all), with small white gaps.
///
/// Every cell has the size of the largest picture.
pub fn grid(pictures: &[RgbImage], columns: u32) -> RgbImage {
    const GAP: u32 = 4;
    let count = pictures.len() as u32;
    let columns = columns.clamp(1, count.max(1));
    let rows = count.div_ceil(columns);
    let width = pictures.iter().map(RgbImage::width).max().unwrap_or(0);
    let height = pictures.iter().map(RgbImage::height).max().unwrap_or(0);
    let span = |side: u32, cells: u32| (side * cells + GAP * cells.saturating_sub(1)).max(1);

    let mut sheet = RgbImage::from_pixel(span(width, columns), span(height, rows), Rgb([255; 3]));
    for (picture, index) in pictures.iter().zip(0..) {
        let (x, y) = ((index % columns) * (width + GAP), (index / columns) * (height + GAP));
        imageops::replace(&mut sheet, picture, i64::from(x), i64::from(y));
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_rounds_to_even_and_clamps() {
        // 0.5 of a level: (x * 0.5 + 0.5) * 255 = 127.5 at x = 0 rounds to the even 128.
        let decoded = Tensor::from_slice(&[0.0_f32, -1.0, 1.0, 2.0, -3.0, 0.5]).view([3, 1, 2]);
        assert_eq!(to_rgb(&decoded, Kind::Float).unwrap().into_raw(), [128, 255, 0, 0, 255, 191]);
    }

    #[test]
    fn pixels_survive_the_way_to_the_network_and_back() {
        let pixels =
            RgbImage::from_fn(16, 16, |x, y| Rgb([(16 * y + x) as u8, x as u8, (255 - y) as u8]));
        let tensor = crate::photos::to_tensor(&pixels);
        assert_eq!(tensor.size(), [1, 3, 16, 16]);
        assert_eq!(to_rgb(&tensor.squeeze_dim(0), Kind::Float).unwrap(), pixels);
    }

    #[test]
    fn a_picture_of_nan_is_refused_rather_than_black() {
        let decoded = Tensor::full([3, 2, 2], f64::NAN, (Kind::Float, tch::Device::Cpu));
        let said = |kind| to_rgb(&decoded, kind).unwrap_err().to_string();
        assert!(said(Kind::Half).ends_with("use --precision f32"));
        assert!(!said(Kind::Float).contains("--precision"), "that is in use");
        assert!(matches!(to_rgb(&decoded.get(0), Kind::Float), Err(PictureError::Shape { .. })));
    }

    #[test]
    fn a_grid_places_the_pictures_row_by_row_on_white() {
        let pictures: Vec<_> =
            (1..=3).map(|level| RgbImage::from_pixel(10, 6, Rgb([level; 3]))).collect();
        let sheet = grid(&pictures, 2);
        assert_eq!(sheet.dimensions(), (24, 16));
        let at = |x, y| sheet.get_pixel(x, y)[0];
        assert_eq!([at(0, 0), at(14, 0), at(0, 10), at(14, 10), at(11, 0)], [1, 2, 3, 255, 255]);
        assert_eq!(grid(&pictures, 9).dimensions(), (38, 6));
        assert_eq!(grid(&pictures, 0).dimensions(), (10, 26));
    }
}
