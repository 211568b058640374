//! What the bytes of a picture's file show before anything is decoded: whether it is whole, and whether it moves.

use image::ImageFormat;

/// A JPEG that reaches its end.
pub(super) struct Jpeg {
    /// Whether it comes in several passes over the whole picture, whose numbers are in memory until the last.
    pub progressive: bool,
}

/// Walks a JPEG's markers; `None` where it ends before its picture does.
///
/// The decoder fills what is missing with grey and reports success, so the markers are walked here: segments are
/// skipped by their length (an EXIF thumbnail has an end marker of its own), entropy-coded data byte by byte.
/// Data that is wrong in the middle of a whole file is not found: JPEG has no checksum.
pub(super) fn jpeg(bytes: &[u8]) -> Option<Jpeg> {
    let mut progressive = false;
    let mut at = 2; // behind the start-of-image marker
    while let Some(&[first, marker]) = bytes.get(at..at + 2).and_then(|pair| pair.first_chunk()) {
        match (first, marker) {
            (0xff, 0xd9) => return Some(Jpeg { progressive }),
            // A stuffed zero, a restart marker, a second start, TEM: no length follows.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            (0xff, 0x02..=0xfe) => {
                progressive |= matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
                let length = bytes.get(at + 2..at + 4).and_then(|pair| pair.first_chunk())?;
                at += 2 + usize::from(u16::from_be_bytes(*length));
            }
            _ => at += 1, // entropy-coded data, or fill bytes before a marker
        }
    }
    None
}

/// Whether every chunk of a WebP lies within the file. The decoder makes room for what a chunk says that it is long.
pub(super) fn webp_is_whole(bytes: &[u8]) -> bool {
    let mut at = 12; // behind RIFF, its size and WEBP
    while let Some(&length) = bytes.get(at + 4..at + 8).and_then(|length| length.first_chunk()) {
        let length = u32::from_le_bytes(length) as usize;
        if bytes.len() - (at + 8) < length {
            return false;
        }
        at += 8 + length + length % 2;
    }
    true
}

/// Whether a picture moves.
pub(super) fn is_animated(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::Png => png_has(bytes, *b"acTL"),
        // The first chunk of an extended WebP holds flags, and the second of these is the animation's.
        ImageFormat::WebP => {
            bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|flags| flags & 2 != 0)
        }
        _ => false,
    }
}

/// Says whether a PNG has a chunk of this name before its pixels.
pub(super) fn png_has(bytes: &[u8], name: [u8; 4]) -> bool {
    png_chunk(bytes, name).is_some()
}

/// The content of the first chunk of this name before a PNG's pixels; `None` where there is none, or not all of it.
pub(super) fn png_chunk(bytes: &[u8], name: [u8; 4]) -> Option<&[u8]> {
    let mut at = 8; // behind the signature
    while let Some(head) = bytes.get(at..at + 8).and_then(|head| head.first_chunk::<8>()) {
        let [a, b, c, d, kind @ ..] = *head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if kind == name {
            return bytes.get(at + 8..at + 8 + length);
        }
        if &kind == b"IDAT" {
            return None;
        }
        at += 12 + length; // length, name and checksum stand around it
    }
    None
}
