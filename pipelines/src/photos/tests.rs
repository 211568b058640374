//! Folders as people have them. Every picture is made here, and some are broken here.

use std::fs;
use std::io::Cursor;

use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};
use tempfile::TempDir;

use super::*;

const RED: [u8; 3] = [200, 30, 40];
const BLUE: [u8; 3] = [20, 40, 210];

/// Left half red, right half blue, with a texture that depends on `seed`, so that no two look alike.
fn halves(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let [r, g, b] = if x < width / 2 { RED } else { BLUE };
        let texture = (x / 3 * (seed + 1) + y / 4 * (7 * seed + 3)) % 40;
        Rgb([r, g + texture as u8, b])
    })
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// Reads a folder that holds `bytes` under `name`, at 16×16 around the middle.
fn read_one(name: &str, bytes: &[u8]) -> Result<Photo, PhotoError> {
    let folder = folder(&[(name, bytes)]);
    PhotoSet::read(folder.path(), (16, 16), Crop::Center)
        .map(|set| set.photos.into_iter().next().unwrap())
}

fn report(set: &PhotoSet) -> Vec<String> {
    set.report.iter().map(ToString::to_string).collect()
}

/// The JPEG with an EXIF segment behind its first marker: orientation, then `tail` as an embedded thumbnail would be.
fn with_exif(jpeg: &[u8], orientation: u8, big_endian: bool, tail: &[u8]) -> Vec<u8> {
    let mut exif = b"Exif\0\0".to_vec();
    exif.extend(if big_endian {
        [
            b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(),
            &[orientation, 0, 0, 0, 0, 0, 0],
        ]
        .concat()
    } else {
        [
            b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(),
            &[orientation, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat()
    });
    exif.extend(tail);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

fn near(found: Rgb<u8>, expected: [u8; 3]) -> bool {
    // Red and blue only: the texture lies in green. JPEG is off by a few levels.
    found[0].abs_diff(expected[0]) < 25 && found[2].abs_diff(expected[2]) < 25
}

#[test]
fn exif_orientation_turns_the_photo_before_it_is_cut() {
    let jpeg = encoded(halves(64, 32, 1), ImageFormat::Jpeg);
    // orientation, where the red half goes: 6 and 8 stand the photo up, 3 turns it round, 2 mirrors it
    for (orientation, size, red, blue) in [
        (1, (64, 32), (1, 8), (14, 8)),
        (2, (64, 32), (14, 8), (1, 8)),
        (3, (64, 32), (14, 8), (1, 8)),
        (6, (32, 64), (8, 1), (8, 14)),
        (8, (32, 64), (8, 14), (8, 1)),
    ] {
        for big_endian in [false, true] {
            let photo = read_one("a.jpg", &with_exif(&jpeg, orientation, big_endian, b"")).unwrap();
            assert_eq!(photo.original, size, "orientation {orientation}");
            let at = |(x, y)| *photo.pixels.get_pixel(x, y);
            assert!(near(at(red), RED) && near(at(blue), BLUE), "orientation {orientation}");
        }
    }
}

#[test]
fn every_format_and_kind_of_pixel_becomes_8_bit_rgb() {
    let rgb = RgbImage::from_pixel(16, 16, Rgb([100, 150, 200]));
    for (name, format) in [
        ("a.png", ImageFormat::Png),
        ("a.webp", ImageFormat::WebP),
        ("a.bmp", ImageFormat::Bmp),
        ("a.tiff", ImageFormat::Tiff),
    ] {
        assert_eq!(read_one(name, &encoded(rgb.clone(), format)).unwrap().pixels, rgb, "{name}");
    }
    let jpeg = read_one("a.jpg", &encoded(rgb.clone(), ImageFormat::Jpeg)).unwrap();
    assert!(jpeg.pixels.iter().zip(rgb.iter()).all(|(a, b)| a.abs_diff(*b) <= 2));

    let grey: ImageBuffer<Luma<u8>, _> = ImageBuffer::from_pixel(16, 16, Luma([90]));
    assert_eq!(
        read_one("a.png", &encoded(grey, ImageFormat::Png)).unwrap().pixels[(3, 3)],
        Rgb([90; 3])
    );
    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> =
        ImageBuffer::from_pixel(16, 16, Rgb([257 * 10, 257 * 20, 65_535]));
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        assert_eq!(
            read_one("a.png", &encoded(deep.clone(), format)).unwrap().pixels[(3, 3)],
            Rgb([10, 20, 255])
        );
    }
}

#[test]
fn transparency_shows_white() {
    let rgba = image::RgbaImage::from_fn(16, 16, |x, _| {
        if x < 8 { Rgba([10, 20, 30, 0]) } else { Rgba([0, 100, 255, 128]) }
    });
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let pixels = read_one("a.png", &encoded(rgba.clone(), format)).unwrap().pixels;
        assert_eq!((pixels[(0, 0)], pixels[(15, 0)]), (Rgb([255; 3]), Rgb([127, 177, 255])));
    }
    let grey: ImageBuffer<LumaA<u8>, _> = ImageBuffer::from_pixel(16, 16, LumaA([0, 0]));
    assert_eq!(
        read_one("a.png", &encoded(grey, ImageFormat::Png)).unwrap().pixels[(3, 3)],
        Rgb([255; 3])
    );
}

#[test]
fn a_palette_with_a_transparent_entry_is_read() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 16, 16);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Two);
    encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
    encoder.set_trns(vec![255, 0]);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[0b0000_0000, 0, 0b0101_0101, 0b0101_0101].repeat(16)).unwrap();
    writer.finish().unwrap();
    let pixels = read_one("a.png", &bytes).unwrap().pixels;
    assert_eq!((pixels[(0, 5)], pixels[(15, 5)]), (Rgb([10, 20, 30]), Rgb([255; 3])));
}

#[test]
fn a_photo_cut_short_anywhere_is_refused_in_every_format() {
    let picture = halves(48, 48, 1);
    for (name, format) in [
        ("a.jpg", ImageFormat::Jpeg),
        ("a.png", ImageFormat::Png),
        ("a.webp", ImageFormat::WebP),
        ("a.bmp", ImageFormat::Bmp),
        ("a.tif", ImageFormat::Tiff),
    ] {
        let whole = encoded(picture.clone(), format);
        for eighth in 1..8 {
            let error = read_one(name, &whole[..whole.len() * eighth / 8]).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("remove it"),
                "{name} cut at {eighth}/8: {error}"
            );
        }
    }
}

#[test]
fn a_jpeg_is_refused_at_every_cut_even_behind_a_whole_thumbnail() {
    let jpeg =
        with_exif(&encoded(halves(24, 24, 1), ImageFormat::Jpeg), 1, false, b"\xff\xd8\xff\xd9");
    assert!(read_one("a.jpg", &jpeg).is_ok());
    assert!(read_one("a.jpg", &[&jpeg[..], b"what a phone appends"].concat()).is_ok());
    for cut in 3..jpeg.len() {
        assert!(
            matches!(read_one("a.jpg", &jpeg[..cut]), Err(PhotoError::Truncated { .. })),
            "cut at {cut}"
        );
    }
}

#[test]
fn a_header_that_asks_for_400_million_pixels_is_refused_before_they_are_allocated() {
    let mut png = encoded(halves(8, 8, 1), ImageFormat::Png);
    png[16..20].copy_from_slice(&20_000_u32.to_be_bytes());
    png[20..24].copy_from_slice(&20_000_u32.to_be_bytes());
    let mut crc = crc32(&png[12..29]).to_be_bytes();
    png[29..33].swap_with_slice(&mut crc);
    let error = read_one("big.png", &png).unwrap_err();
    assert!(matches!(error, PhotoError::TooLarge { width: 20_000, height: 20_000, .. }), "{error}");
    assert!(error.to_string().ends_with(
        "big.png is 20000×20000 pixels, more than the 268 million that are read; scale it down or remove it"
    ));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

#[test]
fn content_decides_over_the_name() {
    let png = encoded(halves(16, 16, 1), ImageFormat::Png);
    assert!(read_one("a.jpg", &png).is_ok());
    assert!(read_one("without_extension", &png).is_ok());
    assert!(matches!(
        read_one("a.jpg", b"<html>not found</html>"),
        Err(PhotoError::NotAPicture { .. })
    ));
    assert!(matches!(read_one("a.jpg", b""), Err(PhotoError::ZeroBytes { .. })));
    assert!(matches!(
        read_one("a.png", &[&png[..40], &[7; 200]].concat()),
        Err(PhotoError::Broken { .. })
    ));
}

#[test]
fn a_folder_as_people_have_it_gives_its_photos_and_a_short_report() {
    let jpeg = |seed| encoded(halves(64, 64, seed), ImageFormat::Jpeg);
    let tiff = encoded(halves(32, 32, 9), ImageFormat::Tiff);
    let folder = folder(&[
        ("b.jpg", &jpeg(1)),
        ("B.JPG", &jpeg(2)),
        ("a.png", &encoded(halves(64, 64, 3), ImageFormat::Png)),
        ("b.txt", b"\xef\xbb\xbf  a <cat> asleep \r\nsecond line\r\n"),
        ("a.txt", b" \r\n"),
        ("README.txt", b"hello"),
        (".DS_Store", b"x"),
        ("._b.jpg", b"x"),
        ("Thumbs.db", b"x"),
        ("BMW notes", b"BMW, and more text than a header has"),
        ("live.mov", b"\0\0\0\x14ftypqt  "),
        ("c.heic", b"\0\0\0\x18ftypheic"),
        ("d.jpg", b"\0\0\0\x18ftypavif"),
        ("e.dng", &tiff),
        ("f.gif", b"GIF89a"),
    ]);
    fs::create_dir(folder.path().join("raw")).unwrap();

    let set = PhotoSet::read(folder.path(), (32, 32), Crop::Smart).unwrap();
    let photos: Vec<_> = set
        .photos
        .iter()
        .map(|photo| (photo.path.file_name().unwrap().to_str().unwrap(), photo.caption.as_deref()))
        .collect();
    assert_eq!(photos, [("B.JPG", None), ("a.png", None), ("b.jpg", Some("a <cat> asleep"))]);
    assert!(set.photos.iter().all(|photo| photo.pixels.dimensions() == (32, 32)));
    assert_eq!(
        report(&set),
        [
            "a.txt is empty; its photo counts as without a caption",
            "b.txt has several lines; the first is the caption",
            "skipped 6 files: .DS_Store, ._b.jpg, BMW notes, README.txt, Thumbs.db and 1 more",
            "skipped 1 sub-folder: raw; only photos that lie directly in the folder are read",
            "AVIF is not supported, so 1 picture is left out: d.jpg; export as JPEG or PNG to use it, e.g. `avifdec photo.avif photo.png`",
            "GIF is not supported, so 1 picture is left out: f.gif; export as JPEG or PNG to use it",
            "HEIC is not supported, so 1 picture is left out: c.heic; export as JPEG or PNG to use it, e.g. `heif-convert photo.heic photo.jpg`; iPhones write JPEG with Camera > Formats > Most Compatible",
            "camera raw is not supported, so 1 picture is left out: e.dng; export as JPEG or PNG to use it",
            "no caption for 2 photos: B.JPG, a.png",
        ]
    );
}

#[test]
fn folders_that_hold_no_photo_are_refused_each_with_its_reason() {
    let read = |path: &Path| PhotoSet::read(path, (16, 16), Crop::Smart).unwrap_err();
    let empty = folder(&[]);
    assert!(matches!(read(empty.path()), PhotoError::Empty { .. }));
    assert!(matches!(read(&empty.path().join("nowhere")), PhotoError::Missing { .. }));
    let single = folder(&[("a.png", &encoded(halves(16, 16, 1), ImageFormat::Png))]);
    assert!(matches!(read(&single.path().join("a.png")), PhotoError::NotAFolder { .. }));
    let foreign = folder(&[("notes.md", b"x"), ("c.heic", b"\0\0\0\x18ftypheic")]);
    let error = read(foreign.path()).to_string();
    assert!(
        error.contains("holds no photo") && error.contains("notes.md") && error.contains("HEIC"),
        "{error}"
    );
}

#[test]
fn a_caption_in_another_encoding_is_refused() {
    let folder = folder(&[
        ("a.png", &encoded(halves(16, 16, 1), ImageFormat::Png)),
        ("a.txt", b"\xff\xfea\0"),
    ]);
    let error = PhotoSet::read(folder.path(), (16, 16), Crop::Smart).unwrap_err().to_string();
    assert!(error.ends_with("a.txt is not UTF-8 text; save it as UTF-8"), "{error}");
}

#[test]
fn copies_and_lookalikes_are_told_and_different_photos_are_not() {
    let photo = |seed| DynamicImage::from(halves(96, 96, seed)).blur(2.0);
    let smaller = photo(1).resize_exact(48, 48, image::imageops::FilterType::Triangle);
    let flat = |level| RgbImage::from_pixel(64, 64, Rgb([level; 3]));
    let folder = folder(&[
        ("a.png", &encoded(photo(1), ImageFormat::Png)),
        ("b.png", &encoded(photo(1), ImageFormat::Png)),
        ("c.jpg", &encoded(smaller, ImageFormat::Jpeg)),
        ("d.png", &encoded(photo(1).fliph(), ImageFormat::Png)),
        ("e.png", &encoded(flat(40), ImageFormat::Png)),
        ("f.png", &encoded(flat(200), ImageFormat::Png)),
    ]);
    let set = PhotoSet::read(folder.path(), (32, 32), Crop::Smart).unwrap();
    assert_eq!(
        report(&set),
        [
            "a.png and b.png are the same file",
            "a.png and c.jpg show nearly the same; each counts, so what they show weighs double",
        ]
    );
}

#[test]
fn few_and_small_photos_are_told() {
    let folder = folder(&[("a.png", &encoded(halves(100, 40, 1), ImageFormat::Png))]);
    let set = PhotoSet::read(folder.path(), (64, 64), Crop::Smart).unwrap();
    assert_eq!(
        report(&set),
        [
            "a.png is 100×40, too small for 64×64: it is enlarged, and the concept will look soft",
            "only 1 photo: 3 or more, with different backgrounds, teach the concept rather than the photo",
        ]
    );
}

#[test]
fn the_thinnest_photos_are_enlarged_not_refused() {
    for (width, height) in [(1, 1), (1, 90), (90, 1)] {
        let thin = RgbImage::from_fn(width, height, |x, y| Rgb([(x + y) as u8, 0, 0]));
        for crop in [Crop::Smart, Crop::Center] {
            let folder = folder(&[("a.png", &encoded(thin.clone(), ImageFormat::Png))]);
            let set = PhotoSet::read(folder.path(), (16, 24), crop).unwrap();
            assert_eq!(set.photos[0].pixels.dimensions(), (16, 24));
        }
    }
}

#[test]
fn the_hash_follows_pixels_and_captions_but_not_names() {
    let (one, two) = (
        encoded(halves(16, 16, 1), ImageFormat::Png),
        encoded(halves(16, 16, 2), ImageFormat::Png),
    );
    let hash = |files: &[(&str, &[u8])]| {
        PhotoSet::read(folder(files).path(), (16, 16), Crop::Smart).unwrap().hash()
    };
    let plain = hash(&[("a.png", &one), ("b.png", &two)]);
    assert_eq!(plain.len(), 64);
    assert_eq!(plain, hash(&[("x.png", &one), ("y.png", &two)]));
    assert_ne!(plain, hash(&[("a.png", &two), ("b.png", &one)]));
    assert_ne!(plain, hash(&[("a.png", &one), ("b.png", &two), ("a.txt", b"a {}")]));
    assert_ne!(
        hash(&[("a.png", &one), ("a.txt", b"{}")]),
        hash(&[("a.png", &one), ("a.txt", b"a {}")])
    );
}

#[test]
fn the_tensor_has_the_training_scripts_values() {
    let pixels = RgbImage::from_raw(2, 1, vec![0, 1, 255, 128, 254, 77]).unwrap();
    let tensor = to_tensor(&pixels);
    assert_eq!((tensor.size(), tensor.kind()), (vec![1, 3, 1, 2], Kind::Float));
    // numpy: (np.array([0, 128, 1, 254, 255, 77], np.uint8) / 127.5 - 1.0).astype(np.float32)
    let expected = [-1.0, 0.003_921_569, -0.992_156_86, 0.992_156_86, 1.0, -0.396_078_44_f32];
    assert_eq!(Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap(), expected);
    let turned = to_tensor(&mirrored(&pixels));
    assert!(turned.equal(&tensor.flip([3])));
}
