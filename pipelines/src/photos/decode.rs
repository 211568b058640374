//! From a photo's bytes to upright RGB pixels over white.

use std::io::{BufReader, Cursor};
use std::path::Path;

use image::metadata::Orientation;
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage, Rgba,
};

use super::PhotoError;

/// The most pixels of a photo that are decoded.
///
/// The largest phone sensors make 200 megapixels; 2^28 leaves them room, and is at most 0.8 GB as RGB, where a header
/// of a few bytes could ask for any amount.
pub const MAX_PIXELS: u64 = 1 << 28;

/// Decodes a photo, applies its EXIF orientation and lays transparency over white.
pub(super) fn decode(
    file: &Path,
    bytes: &[u8],
    format: ImageFormat,
) -> Result<RgbImage, PhotoError> {
    upright(file, bytes, format).map(over_white)
}

/// Decodes a photo and applies its EXIF orientation.
pub(super) fn upright(
    file: &Path,
    bytes: &[u8],
    format: ImageFormat,
) -> Result<DynamicImage, PhotoError> {
    let broken = |reason: &str| PhotoError::Broken { file: file.into(), reason: reason.into() };
    let undecodable = |error: ImageError| match error {
        ImageError::IoError(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            PhotoError::Truncated { file: file.into() }
        }
        ImageError::Unsupported(error) => {
            PhotoError::UnknownKind { file: file.into(), reason: error.to_string() }
        }
        error => broken(&error.to_string()),
    };

    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err(PhotoError::Truncated { file: file.into() });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(Limits::no_limits()); // our own limit below counts pixels and names the file
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(PhotoError::TooLarge { file: file.into(), width, height });
    }
    if width == 0 || height == 0 {
        return Err(broken(&format!("its size is {width}×{height}")));
    }
    let orientation = decoder.orientation().map_err(undecodable)?;
    let mut photo = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    photo.apply_orientation(orientation);
    Ok(photo)
}

/// Width and height as the photo is seen upright; only the header is read.
pub(super) fn dimensions(file: &Path, format: ImageFormat) -> Result<(u32, u32), PhotoError> {
    let broken =
        |error: ImageError| PhotoError::Broken { file: file.into(), reason: error.to_string() };
    let bytes = torch_ext::file::open(file)
        .map_err(|source| PhotoError::File { file: file.into(), source })?;
    let mut reader = ImageReader::with_format(BufReader::new(bytes), format);
    reader.limits(Limits::no_limits());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        decoder.orientation().map_err(broken)?,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    Ok(if turned { (height, width) } else { (width, height) })
}

/// 8-bit RGB; what is transparent shows white.
fn over_white(photo: DynamicImage) -> RgbImage {
    if !photo.color().has_alpha() {
        return photo.into_rgb8();
    }
    let photo = photo.into_rgba8();
    RgbImage::from_fn(photo.width(), photo.height(), |x, y| {
        let Rgba([r, g, b, alpha]) = *photo.get_pixel(x, y);
        let alpha = u32::from(alpha);
        let blend =
            |colour: u8| ((u32::from(colour) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        image::Rgb([blend(r), blend(g), blend(b)])
    })
}

/// Whether the JPEG reaches its end-of-image marker.
///
/// The decoder fills what is missing with grey and reports success, so the markers are walked here: segments are
/// skipped by their length (an EXIF thumbnail has an end marker of its own), entropy-coded data byte by byte.
/// Data that is wrong in the middle of a whole file is not found: JPEG has no checksum.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2; // behind the start-of-image marker
    while let Some(&[first, marker]) = bytes.get(at..at + 2).and_then(|pair| pair.first_chunk()) {
        match (first, marker) {
            (0xff, 0xd9) => return true,
            // A stuffed zero, a restart marker, a second start, TEM: no length follows.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, 0x02..=0xfe) => {
                let Some(length) = bytes.get(at + 2..at + 4).and_then(|pair| pair.first_chunk())
                else {
                    return false;
                };
                at += 2 + usize::from(u16::from_be_bytes(*length));
            }
            _ => at += 1, // entropy-coded data, or fill bytes before a marker
        }
    }
    false
}
