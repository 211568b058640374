//! From a photo's bytes to upright RGB pixels over white, in sRGB. Everything that reads a picture comes by here.

use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits, RgbImage,
};

use super::colour::Pixels;
use super::{Notice, PhotoError, inks, named, whole};
use crate::error::caught;

/// The most pixels of a photo that are decoded.
///
/// The largest phone sensors make 200 megapixels; 2^28 leaves them room, and is at most 0.8 GB as RGB, where a header
/// of a few bytes could ask for any amount.
pub const MAX_PIXELS: u64 = 1 << 28;

/// The most bytes that a photo may take while it is decoded: those of [`MAX_PIXELS`] as 8-bit RGB, so that 16 bits or
/// transparency leave room for fewer. What comes out takes up to as much again.
pub const MAX_BYTES: u64 = 3 * MAX_PIXELS;

/// The most bytes that a file may hold beside its pixels (profile, texts), however small they are packed.
const MAX_EXTRAS: u64 = 64 << 20;

/// A photo as it is seen: upright, over white, in sRGB.
pub(super) struct Decoded {
    /// Its pixels.
    pub pixels: RgbImage,
    /// What is to be said of it.
    pub notices: Vec<Notice>,
}

/// A photo as its file has it.
struct Opened {
    pixels: Pixels,
    /// Its colour profile; why it cannot be read.
    profile: Result<Option<Vec<u8>>, String>,
    orientation: Orientation,
}

/// Decodes a photo, converts its colours to sRGB, lays transparency over white and turns it upright.
pub(super) fn decode(
    file: &Path,
    bytes: &[u8],
    format: ImageFormat,
) -> Result<Decoded, PhotoError> {
    let Opened { pixels, profile, orientation } = open(file, bytes, format)?;
    let mut notices = Vec::new();
    if whole::is_animated(bytes, format) {
        notices.push(Notice::Animated { file: file.into() });
    }
    let (pixels, fault) = in_srgb(pixels, profile);
    if let Some(reason) = fault {
        notices.push(Notice::BrokenProfile { file: file.into(), reason });
    }
    let mut photo = DynamicImage::from(pixels);
    photo.apply_orientation(orientation);
    Ok(Decoded { pixels: photo.into_rgb8(), notices })
}

/// Decodes a picture whose numbers are no colours, such as a mask, and turns it upright.
pub(super) fn levels(
    file: &Path,
    bytes: &[u8],
    format: ImageFormat,
) -> Result<DynamicImage, PhotoError> {
    let Opened { pixels, orientation, .. } = open(file, bytes, format)?;
    let mut picture = match pixels {
        Pixels::Light(picture) => picture,
        inks @ Pixels::Inks { .. } => inks.into_rgb().into(),
    };
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Width and height as the photo is seen upright; only the header is decoded.
pub(super) fn dimensions(file: &Path, format: ImageFormat) -> Result<(u32, u32), PhotoError> {
    let unreadable = |source| PhotoError::File { file: file.into(), source };
    let (width, height, orientation) = if format == ImageFormat::WebP {
        let bytes = torch_ext::file::read(file).map_err(unreadable)?;
        check_whole(file, &bytes, format)?;
        sound(file, || header(Cursor::new(bytes), format))
    } else {
        let bytes = BufReader::new(torch_ext::file::open(file).map_err(unreadable)?);
        sound(file, || header(bytes, format))
    }?;
    let turned = matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    Ok(if turned { (height, width) } else { (width, height) })
}

fn header(bytes: impl BufRead + Seek, format: ImageFormat) -> ImageResult<(u32, u32, Orientation)> {
    let mut decoder = decoder(bytes, format)?;
    let (width, height) = decoder.dimensions();
    Ok((width, height, decoder.orientation()?))
}

/// What decodes a picture; pixels are left to [`check_size`].
fn decoder<'a>(
    bytes: impl BufRead + Seek + 'a,
    format: ImageFormat,
) -> ImageResult<impl ImageDecoder + 'a> {
    let mut reader = ImageReader::with_format(bytes, format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_EXTRAS);
    reader.limits(limits);
    reader.into_decoder()
}

/// Runs a decoder. Decoders read files from anywhere, and not every one of them refuses every broken file without a
/// panic: that is a fault of the file, not of this program.
fn sound<T>(file: &Path, work: impl FnOnce() -> ImageResult<T>) -> Result<T, PhotoError> {
    let broken = |reason: String| PhotoError::Broken { file: file.into(), reason };
    match caught(work) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(ImageError::IoError(source)))
            if source.kind() == std::io::ErrorKind::UnexpectedEof =>
        {
            Err(PhotoError::Truncated { file: file.into() })
        }
        Ok(Err(ImageError::Unsupported(error))) => {
            Err(PhotoError::UnknownKind { file: file.into(), reason: error.to_string() })
        }
        Ok(Err(ImageError::Limits(_))) => {
            Err(broken("it asks for more memory than its pixels take".into()))
        }
        Ok(Err(error)) => Err(broken(error.to_string())),
        Err(panic) => Err(broken(format!("its decoder failed: {}", panic.replace('\n', " ")))),
    }
}

fn open(file: &Path, bytes: &[u8], format: ImageFormat) -> Result<Opened, PhotoError> {
    let passes = check_whole(file, bytes, format)?;
    let mut decoder = sound(file, || decoder(Cursor::new(bytes), format))?;
    let taken = check_size(file, &decoder, passes)?;
    sound(file, move || {
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(2 * taken + MAX_EXTRAS); // a TIFF's strips are beside its pixels for a while
        decoder.set_limits(limits)?;
        let orientation = decoder.orientation()?;
        let profile = match format {
            ImageFormat::Tiff => inks::tiff_profile(bytes),
            _ => decoder.icc_profile().map_err(|error| error.to_string()),
        };
        let packed = format == ImageFormat::Png && whole::png_has(bytes, *b"iCCP");
        let profile = match profile {
            Ok(None) if packed => Err("it cannot be unpacked".into()),
            Ok(None) => Ok(named::profile(bytes, format, decoder.exif_metadata().ok().flatten())),
            profile => profile,
        };
        let inks = match format {
            ImageFormat::Jpeg => inks::jpeg(bytes)?,
            ImageFormat::Tiff => inks::tiff(bytes, &decoder, taken as usize)?,
            _ => None,
        };
        let pixels = match inks {
            Some(inks) => inks,
            None => Pixels::Light(DynamicImage::from_decoder(decoder)?),
        };
        Ok(Opened { pixels, profile, orientation })
    })
}

/// Refuses a file that ends before its picture does, where its decoder would not; returns whether its picture comes in
/// several passes.
fn check_whole(file: &Path, bytes: &[u8], format: ImageFormat) -> Result<bool, PhotoError> {
    let passes = match format {
        ImageFormat::Jpeg => whole::jpeg(bytes).map(|jpeg| jpeg.progressive),
        ImageFormat::WebP => whole::webp_is_whole(bytes).then_some(false),
        _ => Some(false),
    };
    passes.ok_or_else(|| PhotoError::Truncated { file: file.into() })
}

/// Refuses a picture that would take too much memory; returns the bytes that it takes while it is decoded.
fn check_size(file: &Path, decoder: &impl ImageDecoder, passes: bool) -> Result<u64, PhotoError> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        let reason = format!("its size is {width}×{height}");
        return Err(PhotoError::Broken { file: file.into(), reason });
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS {
        return Err(PhotoError::TooLarge { file: file.into(), width, height });
    }
    let stored = u64::from(decoder.original_color_type().bits_per_pixel()).div_ceil(8);
    let colour = decoder.color_type();
    // Of each number of a JPEG in several passes two bytes more are in memory.
    let passes = if passes { 2 * u64::from(colour.channel_count()) } else { 0 };
    let each = stored.max(u64::from(colour.bytes_per_pixel())) + passes;
    let bytes = pixels * each;
    if bytes > MAX_BYTES {
        return Err(PhotoError::TooMuchMemory { file: file.into(), width, height, bytes });
    }
    Ok(bytes)
}

/// The photo in sRGB, and why its profile was not followed where it has one that cannot be.
fn in_srgb(pixels: Pixels, profile: Result<Option<Vec<u8>>, String>) -> (RgbImage, Option<String>) {
    let fault = match profile {
        Ok(None) => None,
        Ok(Some(profile)) => match pixels.to_srgb(&profile) {
            Ok(photo) => return (photo, None),
            Err(reason) => Some(reason),
        },
        Err(reason) => Some(reason),
    };
    (pixels.into_rgb(), fault)
}
