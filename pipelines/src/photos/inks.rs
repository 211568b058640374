//! What `image` does not hand out: CMYK as JPEG and TIFF hold it, which it gives as RGB, where no profile applies; and the
//! profiles of small TIFFs, which it allows no more memory than the pixels.

use std::io::Cursor;

use image::error::DecodingError;
use image::{ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageResult};
use tiff::decoder::{DecodingResult, Limits};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::colour::Pixels;

/// The inks of a JPEG that holds CMYK or YCCK; `None` for any other.
///
/// Adobe writes inks the wrong way round, 0 for all of an ink, and so does, by now, everybody: Pillow and browsers take
/// every such JPEG for one, with Adobe's marker or without. YCCK is that again as `YCbCr` beside black.
pub(super) fn jpeg(bytes: &[u8]) -> ImageResult<Option<Pixels>> {
    let broken = |error| ImageError::Decoding(DecodingError::new(ImageFormat::Jpeg.into(), error));
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX) // pixels were counted before
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(broken)?;
    let space = decoder.input_colorspace();
    let (Some(space @ (ColorSpace::CMYK | ColorSpace::YCCK)), Some(info)) = (space, decoder.info())
    else {
        return Ok(None);
    };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let mut cmyk = decoder.decode().map_err(broken)?;
    for pixel in cmyk.chunks_exact_mut(4) {
        if space == ColorSpace::YCCK {
            let [y, cb, cr] = [pixel[0], pixel[1], pixel[2]].map(f32::from);
            let (cb, cr) = (cb - 128.0, cr - 128.0);
            // JFIF; the RGB that comes out is the inks, 255 for all of one
            let rgb = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
            for (ink, level) in pixel.iter_mut().zip(rgb) {
                *ink = level.round().clamp(0.0, 255.0) as u8;
            }
        } else {
            pixel[..3].iter_mut().for_each(|ink| *ink = 255 - *ink);
        }
        pixel[3] = 255 - pixel[3];
    }
    let size = (u32::from(info.width), u32::from(info.height));
    Ok(Some(Pixels::Inks { size, cmyk }))
}

/// The colour profile of a TIFF.
pub(super) fn tiff_profile(bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let found = tiff::decoder::Decoder::new(Cursor::new(bytes)).and_then(|mut reader| {
        let value = reader.find_tag(tiff::tags::Tag::IccProfile)?;
        value.map(tiff::decoder::ifd::Value::into_u8_vec).transpose()
    });
    found.map_err(|error| error.to_string())
}

/// The inks of a TIFF that holds CMYK, of at most `most` bytes; `None` for any other.
pub(super) fn tiff(
    bytes: &[u8],
    decoder: &impl ImageDecoder,
    most: usize,
) -> ImageResult<Option<Pixels>> {
    let broken = |error| ImageError::Decoding(DecodingError::new(ImageFormat::Tiff.into(), error));
    let kind = decoder.original_color_type();
    if !matches!(kind, ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
        return Ok(None);
    }
    let mut limits = Limits::default();
    (limits.decoding_buffer_size, limits.intermediate_buffer_size) = (most, most);
    let reader = tiff::decoder::Decoder::new(Cursor::new(bytes)).map_err(broken)?;
    let cmyk = match reader.with_limits(limits).read_image().map_err(broken)? {
        DecodingResult::U8(inks) => inks,
        DecodingResult::U16(inks) => {
            inks.iter().map(|ink| ((u32::from(*ink) + 128) / 257) as u8).collect()
        }
        _ => return Ok(None),
    };
    Ok(Some(Pixels::Inks { size: decoder.dimensions(), cmyk }))
}
