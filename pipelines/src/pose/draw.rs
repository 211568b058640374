//! Skeletons as pictures: coloured limbs on black, or over a photo.

use std::path::Path;

use image::RgbImage;
use tiny_skia::{Color, FillRule, Paint, PathBuilder, Pixmap, Rect, Transform};

use super::Skeleton;
use crate::{Error, photos};

/// Radius of a joint and half the width of a limb, as a share of the picture's height: 4 pixels of 550.
///
/// FPDM draws 4 pixels on canvases of 550 and of 1101, so that its training and its tests differ; here there is one.
pub const LINE_WIDTH: f64 = 4.0 / 550.0;

/// The limbs, in the order in which they are drawn.
const LIMBS: [(usize, usize); 17] = [
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
];

/// Of the joints and, but for the last, of the limbs: OpenPose's wheel of hues with red and blue exchanged, as FPDM
/// (and PCDMs) draws it.
const COLOURS: [[u8; 3]; 18] = [
    [0, 0, 255],
    [0, 85, 255],
    [0, 170, 255],
    [0, 255, 255],
    [0, 255, 170],
    [0, 255, 85],
    [0, 255, 0],
    [85, 255, 0],
    [170, 255, 0],
    [255, 255, 0],
    [255, 170, 0],
    [255, 85, 0],
    [255, 0, 0],
    [255, 0, 85],
    [255, 0, 170],
    [255, 0, 255],
    [170, 0, 255],
    [85, 0, 255],
];

/// How much a limb covers what is below it: 0.6.
const OPACITY: u8 = 153;

/// The skeleton on black; `size` is width and height, both above zero.
///
/// The same pixels on every machine. What lies between two pixels is drawn between them, not rounded to one.
pub fn draw(skeleton: &Skeleton, size: (u32, u32)) -> RgbImage {
    overlay(&RgbImage::new(size.0, size.1), skeleton)
}

/// The skeleton over a photo.
pub fn overlay(photo: &RgbImage, skeleton: &Skeleton) -> RgbImage {
    let (width, height) = photo.dimensions();
    let mut canvas = Pixmap::new(width, height).expect("a picture has pixels");
    for (to, from) in canvas.data_mut().chunks_exact_mut(4).zip(photo.pixels()) {
        to.copy_from_slice(&[from[0], from[1], from[2], 255]);
    }
    let joints = skeleton.at((width, height)).map(|joint| joint.map(|(x, y)| (x as f32, y as f32)));
    let radius = (LINE_WIDTH * f64::from(height)) as f32;
    for (joint, colour) in joints.iter().zip(COLOURS) {
        if let Some(circle) = joint.and_then(|(x, y)| PathBuilder::from_circle(x, y, radius)) {
            fill(&mut canvas, &circle, colour, 255, Transform::identity());
        }
    }
    for ((from, to), colour) in LIMBS.into_iter().zip(COLOURS) {
        let (Some(a), Some(b)) = (joints[from], joints[to]) else { continue };
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let length = (dx * dx + dy * dy).sqrt();
        let ellipse = Rect::from_xywh(-0.5 * length, -radius, length, 2.0 * radius)
            .and_then(PathBuilder::from_oval);
        // Joints that lie on each other have no limb between them.
        if let Some(ellipse) = ellipse.filter(|_| length > 1e-3) {
            let (cos, sin) = (dx / length, dy / length);
            let (x, y) = ((a.0 + b.0) * 0.5, (a.1 + b.1) * 0.5);
            fill(
                &mut canvas,
                &ellipse,
                colour,
                OPACITY,
                Transform::from_row(cos, sin, -sin, cos, x, y),
            );
        }
    }
    RgbImage::from_fn(width, height, |x, y| {
        let pixel = canvas.pixel(x, y).expect("the same size");
        image::Rgb([pixel.red(), pixel.green(), pixel.blue()])
    })
}

fn fill(canvas: &mut Pixmap, path: &tiny_skia::Path, [r, g, b]: [u8; 3], alpha: u8, at: Transform) {
    let mut paint = Paint::default();
    paint.set_color(Color::from_rgba8(r, g, b, alpha));
    canvas.fill_path(path, &paint, FillRule::Winding, at, None);
}

/// A drawn skeleton from a file. It stays a picture: joints are not looked for.
///
/// Errors: a picture of one colour, which holds no skeleton, or one that is not mostly black with limbs of full colours,
/// which is none.
pub fn read_picture(file: &Path) -> Result<RgbImage, Error> {
    /// Levels by which a lossy format may miss black.
    const BLACK: u8 = 48;
    let picture = photos::read(file)?;
    let first = *picture.get_pixel(0, 0);
    let one = |pixel: &image::Rgb<u8>| {
        pixel.0.iter().zip(first.0).all(|(level, first)| level.abs_diff(first) <= BLACK)
    };
    let refuse = |what: &str| Err(super::Fault::at(file, None, what).into());
    if picture.pixels().all(one) {
        return refuse(
            "holds no skeleton: it is of one colour; make a pose picture with `personalize pose render`",
        );
    }
    let dark = picture.pixels().filter(|pixel| pixel.0.iter().all(|level| *level <= BLACK)).count();
    let count = (picture.width() * picture.height()) as usize;
    if 2 * dark < count {
        return refuse(
            "is no pose picture: that is coloured limbs on black, and less than half of it is black; make one with `personalize pose render`",
        );
    }
    // A colour of the wheel lacks red, green or blue, and so does, nearly, what shines through a limb.
    let is_full = |[r, g, b]: [u8; 3]| {
        let (least, most) = (r.min(g).min(b), r.max(g).max(b));
        most > BLACK && u16::from(least) * 2 <= u16::from(most)
    };
    let full = picture.pixels().filter(|pixel| is_full(pixel.0)).count();
    if 5 * full < 4 * (count - dark) {
        return refuse(
            "is no pose picture: its limbs are of full colours, and what is not black here is rather grey; make one with `personalize pose render`",
        );
    }
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use super::*;
    use embeddings::file::hex;
    use sha2::{Digest, Sha256};

    /// Arms out, on a canvas of FPDM's training: 375 by 550.
    fn person() -> Skeleton {
        let joints = [
            (187.0, 80.0),
            (187.0, 130.0),
            (147.0, 130.0),
            (107.0, 160.0),
            (67.0, 130.0),
            (227.0, 130.0),
            (267.0, 160.0),
            (307.0, 130.0),
            (165.0, 270.0),
            (165.0, 370.0),
            (165.0, 470.0),
            (209.0, 270.0),
            (209.0, 370.0),
            (209.0, 470.0),
            (179.0, 72.0),
            (195.0, 72.0),
            (171.0, 78.0),
            (203.0, 78.0),
        ];
        Skeleton(joints.map(|(x, y)| Some((x / 375.0, y / 550.0))))
    }

    fn at(picture: &RgbImage, x: u32, y: u32) -> [u8; 3] {
        picture.get_pixel(x, y).0
    }

    #[test]
    fn a_limb_s_middle_is_six_tenths_of_its_colour_over_black() {
        let picture = draw(&person(), (375, 550));
        assert_eq!(at(&picture, 167, 130), [0, 0, 153]); // the right shoulder's, ff0000 before the exchange
        assert_eq!(at(&picture, 207, 130), [0, 51, 153]); // the left shoulder's, ff5500
        assert_eq!(at(&picture, 165, 320), [51, 153, 0]); // the right thigh's, 00ff55
        assert_eq!(at(&picture, 5, 5), [0; 3]);
    }

    #[test]
    fn every_limb_has_its_own_colour() {
        let seen = person();
        for (index, (a, b)) in LIMBS.into_iter().enumerate() {
            let mut two = Skeleton([None; 18]);
            two.0[a] = seen.0[a];
            two.0[b] = seen.0[b];
            let middle = |f: fn((f64, f64)) -> f64, side: f64| {
                side * (f(seen.0[a].unwrap()) + f(seen.0[b].unwrap())) / 2.0
            };
            let picture = draw(&two, (375, 550));
            let found = at(&picture, middle(|p| p.0, 375.0) as u32, middle(|p| p.1, 550.0) as u32);
            for (level, colour) in found.into_iter().zip(COLOURS[index]) {
                // Ears and eyes are so near that a joint's circle reaches the middle.
                assert!(
                    level.abs_diff((f64::from(colour) * 0.6).round() as u8) <= 1
                        || length(&seen, a, b) < 16.0,
                    "limb {index}: {found:?}"
                );
            }
        }
    }

    fn length(skeleton: &Skeleton, a: usize, b: usize) -> f64 {
        let joints = skeleton.at((375, 550));
        let (a, b) = (joints[a].unwrap(), joints[b].unwrap());
        (a.0 - b.0).hypot(a.1 - b.1)
    }

    #[test]
    fn a_joint_that_is_not_seen_takes_its_limbs_with_it() {
        let mut skeleton = person();
        skeleton.0[3] = None; // the right elbow
        let picture = draw(&skeleton, (375, 550));
        assert_eq!(at(&picture, 127, 145), [0; 3]);
        assert_eq!(at(&picture, 87, 145), [0; 3]);
        assert_eq!(at(&picture, 67, 130), COLOURS[4]); // the wrist stays
        assert_eq!(draw(&Skeleton([None; 18]), (8, 8)), RgbImage::new(8, 8));
    }

    #[test]
    fn lines_are_as_wide_as_the_picture_is_high() {
        let lit = |height: u32| {
            let picture = draw(&person(), (height * 375 / 550, height));
            let count = picture.pixels().filter(|pixel| pixel.0 != [0; 3]).count();
            count as f64 / f64::from(picture.width() * picture.height())
        };
        let (small, large) = (lit(550), lit(1100));
        assert!((small - large).abs() < 0.1 * large, "{small} {large}");
    }

    #[test]
    fn a_mirrored_skeleton_is_drawn_in_the_mirrored_places() {
        let (skeleton, size) = (person(), (96, 128));
        let covered = |picture: &RgbImage| -> Vec<bool> {
            picture.pixels().map(|pixel| pixel.0.iter().any(|level| *level > 64)).collect()
        };
        let here = covered(&crate::photos::mirrored(&draw(&skeleton, size)));
        let there = covered(&draw(&skeleton.mirrored(), size));
        let differ = here.iter().zip(&there).filter(|(a, b)| a != b).count();
        assert!(differ <= here.len() / 500, "{differ} pixels"); // rounding at the edges
    }

    #[test]
    fn the_same_skeleton_draws_the_same_pixels_everywhere() {
        let hash = |size| hex(&Sha256::digest(draw(&person(), size).as_raw()));
        assert_eq!([hash((352, 512)), hash((128, 128))], PINNED);
    }

    const PINNED: [&str; 2] = [
        "ac466754e41d3bee8c001ed7e88a9fd04345c35f70bbd4b6b9b08815ae4c475b",
        "cdf64c06d8d6cbde6716502bbfc630617b31e6857b3c0abb663ba0ffa4b7c4d8",
    ];

    #[test]
    fn over_a_photo_the_limbs_let_it_through() {
        let photo = RgbImage::from_pixel(375, 550, image::Rgb([100, 200, 50]));
        let picture = overlay(&photo, &person());
        assert_eq!(at(&picture, 5, 5), [100, 200, 50]);
        let found = at(&picture, 167, 130); // 0.4 of the photo and 0.6 of blue
        for (level, expected) in found.into_iter().zip([40, 80, 173]) {
            assert!(level.abs_diff(expected) <= 1, "{found:?}");
        }
    }

    #[test]
    fn pictures_without_a_skeleton_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let saved = |name: &str, picture: &RgbImage| {
            let file = folder.path().join(name);
            picture.save(&file).unwrap();
            read_picture(&file)
        };
        let drawn = draw(&person(), (96, 128));
        assert_eq!(saved("drawn.png", &drawn).unwrap(), drawn);
        saved("drawn.jpg", &drawn).unwrap();
        for (name, level) in [("black.png", 0), ("grey.png", 128), ("white.jpg", 255)] {
            let said = saved(name, &RgbImage::from_pixel(32, 32, image::Rgb([level; 3])));
            let said = said.unwrap_err().to_string();
            assert!(said.contains(name) && said.contains("no skeleton"), "{said}");
        }
        let photo =
            RgbImage::from_fn(32, 32, |x, y| image::Rgb([100 + 4 * x as u8, 7 * y as u8, 9]));
        let said = saved("photo.png", &photo).unwrap_err().to_string();
        assert!(said.contains("photo.png") && said.contains("half"), "{said}");
        let mut speck = RgbImage::new(64, 64);
        speck.put_pixel(9, 9, image::Rgb([255; 3]));
        let text = RgbImage::from_fn(64, 64, |x, y| {
            image::Rgb([if y % 8 < 5 && x % 5 == 0 { 230 } else { 0 }; 3])
        });
        let night = RgbImage::from_fn(64, 64, |x, y| {
            let lamp = if x > 40 && y > 30 { 90 } else { 10 };
            image::Rgb([lamp, lamp + 10, lamp + (x + y) as u8 / 4])
        });
        for (name, picture) in [("speck.png", speck), ("text.png", text), ("night.png", night)] {
            let said = saved(name, &picture).unwrap_err().to_string();
            assert!(said.contains(name) && said.contains("full colours"), "{said}");
        }
    }
}
