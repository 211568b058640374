//! A picture's bytes as a file of its kind, with how it was made inside.

use std::io;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageError, ImageResult, RgbImage};

use super::PictureParameters;
use crate::Error;

/// The PNG text key that the A1111 family of tools reads.
const A1111_KEY: &str = "parameters";
/// The PNG text key of our own record.
pub(super) const OWN_KEY: &str = "personalize";
/// The quality of JPEG files: losses that nobody sees.
const JPEG_QUALITY: u8 = 95;
/// The bytes that a JPEG has room for in its EXIF segment, behind the segment's length and name.
const JPEG_EXIF_ROOM: usize = 65_527;

/// The kinds of picture that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureFormat {
    /// Lossless, with our own record and the text of the A1111 family.
    Png,
    /// Small, with the A1111 text as EXIF comment.
    Jpeg,
    /// Lossless and smaller than PNG, with the A1111 text as EXIF comment.
    WebP,
}

/// Endings of pictures that are not written; a name with one is no folder's.
const OTHERS: [&str; 10] =
    ["gif", "bmp", "tif", "tiff", "avif", "heic", "heif", "jxl", "jp2", "tga"];

impl PictureFormat {
    /// The kind of a name's ending; `None` where that is no picture's.
    pub fn of(path: &Path) -> Option<Self> {
        match ending(path).as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }
}

fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Says whether an output is one picture rather than a folder. Refuses kinds of picture that are not written.
pub fn names_picture(output: &Path) -> Result<bool, Error> {
    if output.is_dir() {
        return Ok(false);
    }
    if OTHERS.contains(&ending(output).as_str()) {
        return Err(Error::Usage(format!(
            "--output {} names a kind of picture that is not written; end it in .png, .jpg or .webp, or give a folder",
            output.display()
        )));
    }
    Ok(PictureFormat::of(output).is_some())
}

/// Refuses parameters that a picture of this name has no room for.
pub fn check_room(path: &Path, parameters: &PictureParameters) -> Result<(), Error> {
    let length = exif_comment(&parameters.a1111()).len();
    if PictureFormat::of(path) == Some(PictureFormat::Jpeg) && length > JPEG_EXIF_ROOM {
        return Err(Error::Usage(format!(
            "what {} would say of how it was made takes {length} bytes, but a JPEG has room for {JPEG_EXIF_ROOM}; end --output in .png or .webp, or pass --no-metadata",
            path.display()
        )));
    }
    Ok(())
}

/// Encodes a picture as the ending of its name says, as PNG without one.
pub(super) fn encode(
    path: &Path,
    pixels: &RgbImage,
    parameters: Option<&PictureParameters>,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match PictureFormat::of(path).unwrap_or(PictureFormat::Png) {
        PictureFormat::Png => return Ok(png(pixels, parameters)?),
        PictureFormat::Jpeg => {
            let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
            with_comment(encoder, pixels, parameters)
        }
        PictureFormat::WebP => {
            with_comment(WebPEncoder::new_lossless(&mut bytes), pixels, parameters)
        }
    }
    .map_err(io::Error::other)?;
    Ok(bytes)
}

fn png(
    pixels: &RgbImage,
    parameters: Option<&PictureParameters>,
) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, pixels.width(), pixels.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(parameters) = parameters {
        let own = serde_json::to_string(parameters).map_err(io::Error::from)?;
        for (key, text) in [(A1111_KEY, parameters.a1111()), (OWN_KEY, own)] {
            // tEXt is Latin-1 and read by everything; iTXt is UTF-8. The same choice as Pillow's, hence A1111's.
            if text.chars().all(|character| u32::from(character) < 256) {
                encoder.add_text_chunk(key.into(), text)?;
            } else {
                encoder.add_itxt_chunk(key.into(), text)?;
            }
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

fn with_comment(
    mut encoder: impl ImageEncoder,
    pixels: &RgbImage,
    parameters: Option<&PictureParameters>,
) -> ImageResult<()> {
    if let Some(parameters) = parameters {
        let comment = exif_comment(&parameters.a1111());
        encoder.set_exif_metadata(comment).map_err(ImageError::Unsupported)?;
    }
    encoder.write_image(pixels, pixels.width(), pixels.height(), ExtendedColorType::Rgb8)
}

/// EXIF of one thing, the user's comment, as the A1111 family writes and reads it: UTF-16 with the highest byte first.
fn exif_comment(text: &str) -> Vec<u8> {
    const EXIF_POINTER: u16 = 0x8769;
    const USER_COMMENT: u16 = 0x9286;
    const LONG: u16 = 4;
    const UNDEFINED: u16 = 7;
    /// Of a directory of one entry: its count, the entry, no next directory.
    const DIRECTORY: u32 = 2 + 12 + 4;
    const HEADER: u32 = 8;
    let mut comment = b"UNICODE\0".to_vec();
    comment.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
    let entry = |tag: u16, kind: u16, count: u32, value: u32| {
        let parts: [&[u8]; 6] = [
            &1u16.to_be_bytes(),
            &tag.to_be_bytes(),
            &kind.to_be_bytes(),
            &count.to_be_bytes(),
            &value.to_be_bytes(),
            &0u32.to_be_bytes(),
        ];
        parts.concat()
    };
    [
        [b"MM\0*", HEADER.to_be_bytes().as_slice()].concat(),
        entry(EXIF_POINTER, LONG, 1, HEADER + DIRECTORY),
        entry(USER_COMMENT, UNDEFINED, comment.len() as u32, HEADER + 2 * DIRECTORY),
        comment,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::super::record::example;
    use super::*;
    use image::ImageDecoder as _;

    fn picture() -> RgbImage {
        RgbImage::from_fn(24, 16, |x, y| image::Rgb([10 * x as u8, 8 * y as u8, 90]))
    }

    #[test]
    fn an_output_is_a_picture_by_its_ending_unless_it_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        for (name, picture) in
            [("a.png", true), ("a.JPG", true), ("b.jpeg", true), ("c.webp", true), ("v1.5", false)]
        {
            assert_eq!(names_picture(&folder.path().join(name)).unwrap(), picture, "{name}");
        }
        let refused = names_picture(Path::new("out/cat.gif")).unwrap_err().to_string();
        assert!(
            refused.contains("cat.gif") && refused.contains(".png, .jpg or .webp"),
            "{refused}"
        );
        let named_so = folder.path().join("taken.gif");
        std::fs::create_dir(&named_so).unwrap();
        assert!(!names_picture(&named_so).unwrap());
    }

    #[test]
    fn every_kind_is_what_its_ending_says_and_holds_the_a1111_text() {
        let parameters = PictureParameters { prompt: "雪の <cat>".into(), ..example() };
        let expected: Vec<u8> =
            parameters.a1111().encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (name, format, losses) in [
            ("a.jpg", image::ImageFormat::Jpeg, 12),
            ("a.webp", image::ImageFormat::WebP, 0),
            ("a.png", image::ImageFormat::Png, 0),
        ] {
            let bytes = encode(Path::new(name), &picture(), Some(&parameters)).unwrap();
            assert_eq!(image::guess_format(&bytes).unwrap(), format);
            let mut reader = image::ImageReader::new(io::Cursor::new(&bytes));
            reader.set_format(format);
            let mut decoder = reader.into_decoder().unwrap();
            if format != image::ImageFormat::Png {
                let exif = decoder.exif_metadata().unwrap().unwrap();
                assert!(exif.ends_with(&expected), "{name}");
            }
            let found = image::DynamicImage::from_decoder(decoder).unwrap().into_rgb8();
            let apart = found.iter().zip(picture().iter()).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(apart.unwrap() <= losses, "{name}: {apart:?}");
        }
    }

    #[test]
    fn parameters_too_long_for_a_jpeg_are_told_before_anything_is_drawn() {
        let long = PictureParameters { prompt: "snow ".repeat(7000), ..example() };
        let refused = check_room(Path::new("a.jpg"), &long).unwrap_err().to_string();
        assert!(refused.contains("--no-metadata"), "{refused}");
        check_room(Path::new("a.webp"), &long).unwrap();
        encode(Path::new("a.webp"), &picture(), Some(&long)).unwrap();
        check_room(Path::new("a.jpg"), &example()).unwrap();
    }
}
