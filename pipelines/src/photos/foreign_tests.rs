//! Files as other programs and strangers make them: profiles, animations, masks, and what is meant to take memory.

use std::fs;
use std::io::Cursor;
use std::time::Instant;

use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ImageBuffer, ImageEncoder, ImageFormat, Rgb};
use moxcms::ColorProfile;

use super::*;

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(change: impl FnOnce(&mut png::Info<'_>), pixel: &[u8]) -> Vec<u8> {
    let mut info = png::Info::with_size(16, 16);
    info.color_type = png::ColorType::Rgb;
    info.bit_depth = png::BitDepth::Eight;
    change(&mut info);
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::with_info(&mut bytes, info).unwrap().write_header().unwrap();
    writer.write_image_data(&pixel.repeat(256)).unwrap();
    writer.finish().unwrap();
    bytes
}

fn with_profile(profile: Vec<u8>) -> Vec<u8> {
    png(|info| info.icc_profile = Some(profile.into()), &[200, 40, 40])
}

/// The first photo of a folder of these files, and what is said of them.
fn read_all(files: &[(&str, &[u8])], crop: Crop) -> (Photo, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let set = PhotoSet::read(folder.path(), (16, 16), crop).unwrap();
    let report = set.report.iter().map(ToString::to_string).collect();
    (set.photos.into_iter().next().unwrap(), report)
}

fn refused(name: &str, bytes: &[u8]) -> PhotoError {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    fs::write(&file, bytes).unwrap();
    let [whole, header] = [read(&file).map(|_| ()), dimensions(&file).map(|_| ())];
    assert!(header.is_ok() || header.is_err_and(|e| e.to_string().contains(name)));
    whole.unwrap_err()
}

#[test]
fn an_srgb_profile_changes_no_pixel_and_16_bits_are_converted_as_8_are() {
    let srgb = with_profile(ColorProfile::new_srgb().encode().unwrap());
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let bytes = with_profile(p3.clone());
    let words = png(
        |info| {
            info.icc_profile = Some(p3.into());
            info.bit_depth = png::BitDepth::Sixteen;
        },
        &[200, 200, 40, 40, 40, 40],
    );
    let [srgb, bytes, words] = [srgb, bytes, words].map(|file| {
        let (photo, report) = read_all(&[("a.png", &file)], Crop::Center);
        assert_eq!(report.len(), 1, "only that there is one photo: {report:?}");
        photo.pixels[(8, 8)].0
    });
    assert_eq!(srgb, [200, 40, 40]);
    assert!(bytes.iter().zip(srgb).any(|(a, b)| a.abs_diff(b) > 10), "{bytes:?}");
    assert!(bytes.iter().zip(words).all(|(a, b)| a.abs_diff(b) <= 1), "{bytes:?} {words:?}");
}

/// Exif with one field in its Exif directory and one in the directory of interoperability that it may lead to.
fn exif(field: [u8; 12]) -> Vec<u8> {
    let directory = |field: &[u8]| [&1_u16.to_le_bytes(), field, &[0; 4]].concat(); // one field, no next directory
    let leading = |tag: u16, to: u8| {
        [&tag.to_le_bytes()[..], &4_u16.to_le_bytes(), &1_u32.to_le_bytes(), &[to, 0, 0, 0]]
            .concat()
    };
    let interoperability = [1, 0, 2, 0, 4, 0, 0, 0, b'R', b'0', b'3', 0];
    let start = b"II*\0\x08\0\0\0".to_vec();
    let parts = [leading(0x8769, 26), field.to_vec(), interoperability.to_vec()];
    parts.iter().fold(start, |all, field| [all, directory(field)].concat())
}

#[test]
fn a_colour_space_that_is_named_without_a_profile_is_followed() {
    let pixels = RgbImage::from_pixel(16, 16, Rgb([40, 200, 60]));
    let webp = |change: &dyn Fn(&mut WebPEncoder<&mut Vec<u8>>)| {
        let mut bytes = Vec::new();
        let mut encoder = WebPEncoder::new_lossless(&mut bytes);
        change(&mut encoder);
        encoder.write_image(&pixels, 16, 16, image::ExtendedColorType::Rgb8).unwrap();
        read_all(&[("a.webp", &bytes)], Crop::Center).0.pixels
    };
    let adobe = ColorProfile::new_adobe_rgb().encode().unwrap();
    let adobe = webp(&|encoder| encoder.set_icc_profile(adobe.clone()).unwrap());
    let by_index = exif([0x05, 0xa0, 4, 0, 1, 0, 0, 0, 44, 0, 0, 0]); // leads to R03
    let by_number = exif([0x01, 0xa0, 3, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
    let srgb = exif([0x01, 0xa0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    for (exif, expected) in [(by_index, &adobe), (by_number, &adobe), (srgb, &pixels)] {
        let found = webp(&|encoder| encoder.set_exif_metadata(exif.clone()).unwrap());
        assert_eq!(&found, expected);
    }
    assert_ne!(adobe, pixels);

    let plain = png(|_| {}, &[200, 40, 40]);
    let (start, rest) = plain.split_at(33); // behind signature and header
    let chunk = b"cICP\x0c\x0d\x00\x01";
    let sum = crc32fast::hash(chunk).to_be_bytes();
    let named = [start, &4_u32.to_be_bytes()[..], &chunk[..], &sum[..], rest].concat();
    let p3 = with_profile(ColorProfile::new_display_p3().encode().unwrap());
    let [named, p3, plain] =
        [named, p3, plain].map(|bytes| read_all(&[("a.png", &bytes)], Crop::Center).0.pixels);
    assert_eq!(named, p3);
    assert_ne!(named, plain);
}

#[test]
fn a_profile_that_cannot_be_used_is_told_and_passed_over() {
    let mut cut = ColorProfile::new_display_p3().encode().unwrap();
    cut.truncate(200);
    let grey = ColorProfile::new_gray_with_gamma(1.8).encode().unwrap();
    for (profile, reason) in [(cut, "("), (b"no profile".to_vec(), "("), (grey, "for Gray")] {
        let (photo, report) = read_all(&[("a.png", &with_profile(profile))], Crop::Center);
        assert_eq!(photo.pixels[(8, 8)].0, [200, 40, 40]);
        assert!(
            report[0].starts_with("a.png has a colour profile that cannot be used")
                && report[0].contains(reason),
            "{report:?}"
        );
    }
}

#[test]
fn a_profile_that_unpacks_without_end_is_passed_over() {
    let bomb = with_profile(vec![0; 80 << 20]);
    assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
    let (photo, report) = read_all(&[("a.png", &bomb)], Crop::Center);
    assert_eq!(photo.pixels[(8, 8)].0, [200, 40, 40]);
    assert!(report[0].contains("cannot be unpacked"), "{report:?}");
}

#[test]
fn pictures_that_would_take_too_many_bytes_are_refused_before_they_are_decoded() {
    let started = Instant::now();
    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_pixel(8, 8, Rgb([0; 3]));
    // 2^28 pixels, as many as there may be, but of six bytes
    let mut png = encoded(deep.clone(), ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 0, 64, 0, 0, 0, 64, 0]);
    let crc = crc32fast(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&crc);
    let mut tiff = encoded(deep, ImageFormat::Tiff);
    for tag in [256_u16, 257] {
        let entry = [tag.to_le_bytes(), 4_u16.to_le_bytes()].concat();
        let at = tiff.windows(4).rposition(|bytes| bytes == entry).unwrap();
        tiff[at + 8..at + 12].copy_from_slice(&16_384_u32.to_le_bytes());
    }
    // 144 million pixels in one pass are 0.4 GB, in several passes three times that
    let mut jpeg = encoded(RgbImage::new(8, 8), ImageFormat::Jpeg);
    let at = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    jpeg[at + 1] = 0xc2;
    jpeg[at + 5..at + 9].copy_from_slice(&[12_000_u16.to_be_bytes(); 2].concat());
    for (name, bytes) in [("a.png", png), ("a.tif", tiff), ("a.jpg", jpeg)] {
        let error = refused(name, &bytes);
        assert!(matches!(error, PhotoError::TooMuchMemory { .. }), "{error}");
    }
    assert!(started.elapsed().as_secs() < 5);
}

fn crc32fast(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

#[test]
fn a_decoder_s_panic_is_a_fault_of_the_file() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 16, 16);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(vec![1, 2, 3, 4, 5]); // no whole number of colours
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[0; 256]).unwrap();
    writer.finish().unwrap();
    let error = refused("a.png", &bytes);
    assert!(matches!(error, PhotoError::Broken { .. }), "{error}");
    assert!(error.to_string().contains("a.png is not a sound picture"), "{error}");
}

#[test]
fn a_webp_that_says_it_is_longer_than_its_file_is_refused() {
    let mut webp = encoded(RgbImage::new(16, 16), ImageFormat::WebP);
    webp.extend_from_slice(b"EXIF\xff\xff\xff\xf0");
    assert!(matches!(refused("a.webp", &webp), PhotoError::Truncated { .. }));
}

/// A WebP of two frames, each of the pixels of a still one.
fn moving_webp() -> Vec<u8> {
    let mut still = Vec::new();
    WebPEncoder::new_lossless(&mut still)
        .write_image(&[9; 16 * 16 * 3], 16, 16, image::ExtendedColorType::Rgb8)
        .unwrap();
    let chunk = |name: &[u8; 4], data: &[u8]| {
        [name, &(data.len() as u32).to_le_bytes()[..], data, &[0][..data.len() % 2]].concat()
    };
    let frame = [&[0; 6][..], &[15, 0, 0, 15, 0, 0, 100, 0, 0, 2], &still[12..]].concat();
    let chunks = [
        chunk(b"VP8X", &[2, 0, 0, 0, 15, 0, 0, 15, 0, 0]),
        chunk(b"ANIM", &[0; 6]),
        chunk(b"ANMF", &frame),
        chunk(b"ANMF", &frame),
    ]
    .concat();
    chunk(b"RIFF", &[b"WEBP", &chunks[..]].concat())
}

#[test]
fn of_a_picture_that_moves_the_first_frame_is_read_and_it_is_said() {
    let mut apng = Vec::new();
    let mut encoder = png::Encoder::new(&mut apng, 16, 16);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    for level in [9, 200] {
        writer.write_image_data(&[level; 16 * 16 * 3]).unwrap();
    }
    writer.finish().unwrap();
    for (name, bytes) in [("a.png", apng), ("a.webp", moving_webp())] {
        let (photo, report) = read_all(&[(name, &bytes)], Crop::Center);
        assert_eq!(photo.pixels[(8, 8)].0, [9; 3], "{name}");
        assert_eq!(report[0], format!("{name} is animated; its first frame is read"));
    }
    let still = encoded(RgbImage::new(16, 16), ImageFormat::Png);
    assert_eq!(read_all(&[("a.png", &still)], Crop::Center).1.len(), 1);
}

#[test]
fn masks_and_captions_of_other_trainers_are_known() {
    let [a, b, c] = [1, 80, 200].map(|x| {
        encoded(RgbImage::from_fn(16, 16, |_, y| Rgb([x, 5 * y as u8, x])), ImageFormat::Png)
    });
    let files: [(&str, &[u8]); 8] = [
        ("a.jpg", &a),
        ("a-masklabel.png", &a),
        ("a.caption", b"a {} on a table"),
        ("b.png", &b),
        ("b.caption", b"not this"),
        ("b.txt", b"a {} outside"),
        ("c-masklabel.png", &c),
        ("d.caption", b"of nothing"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let set = PhotoSet::read(folder.path(), (16, 16), Crop::Center).unwrap();
    let captions: Vec<_> = set.photos.iter().map(|photo| photo.caption.as_deref()).collect();
    assert_eq!(captions, [Some("a {} on a table"), Some("a {} outside"), None]);
    let report: Vec<_> = set.report.iter().map(ToString::to_string).collect();
    assert_eq!(report[0], "b.caption is left out; b.txt is the photo's caption");
    assert!(report[1].starts_with("skipped 1 mask: a-masklabel.png; "), "{report:?}");
    assert_eq!(report[2], "skipped 1 file: d.caption");
    assert_eq!(masks(folder.path(), &[folder.path().join("c.png")]).unwrap().len(), 1);
}

#[test]
fn a_single_picture_of_an_unsupported_format_is_named_with_a_way_to_convert_it() {
    for (bytes, format, way) in [
        (b"\0\0\0\x18ftypheic".as_slice(), "HEIC", "heif-convert"),
        (b"\0\0\0\x18ftypavif", "AVIF", "avifdec"),
        (b"GIF89a", "GIF", "export it as JPEG or PNG"),
    ] {
        let error = refused("a.jpg", bytes).to_string();
        assert!(error.contains(&format!("a.jpg is {format}")) && error.contains(way), "{error}");
    }
}

#[test]
fn a_cut_that_leaves_out_much_is_told_and_other_ways_keep_all() {
    // Two equal things at both ends of a wide photo.
    let photo = RgbImage::from_fn(160, 40, |x, y| {
        let inside = (10..30).contains(&y) && ((5..25).contains(&x) || (135..155).contains(&x));
        if inside { Rgb([200, 30, 30]) } else { Rgb([90, 110, 100]) }
    });
    let file = encoded(photo, ImageFormat::Png);
    let read = |crop| read_all(&[("a.png", &file)], crop);
    let red = |photo: &Photo| photo.pixels.pixels().filter(|pixel| pixel[0] > 150).count();
    let (smart, report) = read(Crop::Smart);
    assert!(
        report[0].starts_with("a.png: the cut to the training shape leaves out 49 %"),
        "{report:?}"
    );
    assert!((50..80).contains(&red(&smart)), "one thing, whole: {}", red(&smart));
    assert!(read(Crop::Center).1[0].contains("leaves out 100 %"));
    let (pad, report) = read(Crop::Pad);
    assert!(!report[0].contains("cut"), "{report:?}");
    assert_eq!(
        (pad.part.width, pad.pixels[(8, 1)], pad.pixels[(8, 14)]),
        (160, Rgb([90, 110, 100]), Rgb([90, 110, 100]))
    );
    let (squashed, report) = read(Crop::None);
    assert!(report[0].contains("squashed: a.png; --crop pad keeps the shape"), "{report:?}");
    assert_eq!(squashed.pixels.dimensions(), (16, 16));
}
