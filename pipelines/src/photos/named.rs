//! Colour spaces that a photo names without a profile: Adobe RGB in a camera's Exif, Display P3 in a PNG.

use exif::{In, Tag, Value};
use image::ImageFormat;
use moxcms::ColorProfile;

use super::whole;

/// Returns the profile of the colour space that a photo names; `None` for sRGB and for one that is not known.
pub(super) fn profile(bytes: &[u8], format: ImageFormat, exif: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let named = if format == ImageFormat::Png && is_display_p3(bytes) {
        ColorProfile::new_display_p3()
    } else if exif.is_some_and(is_adobe_rgb) {
        ColorProfile::new_adobe_rgb()
    } else {
        return None;
    };
    named.encode().ok()
}

/// Says whether Exif names Adobe RGB: by `R03` (DCF 2.0), or by the number that some cameras write for it.
fn is_adobe_rgb(exif: Vec<u8>) -> bool {
    let Ok(exif) = exif::Reader::new().read_raw(exif) else { return false };
    let field = |tag| exif.get_field(tag, In::PRIMARY).map(|field| &field.value);
    let index = field(Tag::InteroperabilityIndex);
    let by_index = matches!(index, Some(Value::Ascii(text)) if text.first().is_some_and(|text| text == b"R03"));
    by_index || field(Tag::ColorSpace).and_then(|space| space.get_uint(0)) == Some(2)
}

/// Says whether a PNG's coding-independent code points (PNG 3, section 11.3.2.6) are those of Display P3: its primaries
/// with the transfer of sRGB.
fn is_display_p3(bytes: &[u8]) -> bool {
    whole::png_chunk(bytes, *b"cICP").is_some_and(|points| points.starts_with(&[12, 13]))
}
