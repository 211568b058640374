//! Which part of a photo is kept, and its resizing to the training size: aspect kept, never squashed.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};

/// How a photo of another aspect is cut. Either way the part is as large as the photo allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// Around what stands out: edges and unusual colours, nearer the middle more than at the border.
    #[default]
    Smart,
    /// Around the middle: the shorter side resized to fit, the rest cut off evenly.
    Center,
}

/// A part of a photo in pixels from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the four fields are what they say
pub struct Rectangle {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Crop {
    /// The part of `photo` that is kept, at `target` = (width, height).
    pub fn resized(self, photo: &RgbImage, target: (u32, u32)) -> RgbImage {
        self.part(photo, target).resized(photo, target)
    }

    /// The part of `photo` that is kept for `target` = (width, height).
    pub(super) fn part(self, photo: &RgbImage, target: (u32, u32)) -> Rectangle {
        let focus = match self {
            Self::Center => (0.5, 0.5),
            Self::Smart => focus(photo),
        };
        Rectangle::largest(photo.dimensions(), target, focus)
    }
}

impl Rectangle {
    /// The largest part of `size` with the aspect of `target`, as near to `focus` (fractions of the size) as it fits.
    pub fn largest(size: (u32, u32), target: (u32, u32), focus: (f64, f64)) -> Self {
        let [(w, h), (tw, th)] = [size, target].map(|(w, h)| (u64::from(w), u64::from(h)));
        // round(w * th / tw) in integers, so that equal aspects give exactly the whole photo
        let scaled = |side: u64, by: u64, over: u64| ((2 * side * by + over) / (2 * over)).max(1);
        let (width, height) = if w * th <= h * tw {
            (w, scaled(w, th, tw).min(h))
        } else {
            (scaled(h, tw, th).min(w), h)
        };
        let start = |side: u64, part: u64, focus: f64| {
            let centred = side as f64 * focus - part as f64 / 2.0;
            centred.round().clamp(0.0, (side - part) as f64) as u32
        };
        let (x, y) = (start(w, width, focus.0), start(h, height, focus.1));
        Self { x, y, width: width as u32, height: height as u32 }
    }

    /// This part of `photo` at `target` size, in one step (Lanczos, widened when scaling down).
    pub(super) fn resized(self, photo: &RgbImage, target: (u32, u32)) -> RgbImage {
        let part = imageops::crop_imm(photo, self.x, self.y, self.width, self.height);
        imageops::resize(&*part, target.0, target.1, FilterType::Lanczos3)
    }
}

/// Where the subject is, as fractions of width and height.
///
/// On a thumbnail each pixel's saliency is its contrast to its neighbours plus its distance from the photo's mean
/// colour, weighed by a centre prior. The focus is the centre of mass of what exceeds the mean by a standard deviation,
/// so that an even background has no pull. A photo without contrast has its focus in the middle.
fn focus(photo: &RgbImage) -> (f64, f64) {
    const SIDE: u32 = 96; // enough to see where a subject is; more only finds texture
    const PRIOR: f64 = 0.35; // standard deviation of the centre prior, in fractions of each side

    let (width, height) = photo.dimensions();
    let scale = f64::from(SIDE) / f64::from(width.max(height));
    let side = |full: u32| ((f64::from(full) * scale).round() as u32).clamp(1, full);
    let thumbnail = imageops::thumbnail(photo, side(width), side(height));
    let (width, height) = thumbnail.dimensions();

    let pixels = thumbnail.pixels().count() as f64;
    let mut mean = [0.0; 3];
    for Rgb(pixel) in thumbnail.pixels() {
        for (sum, &channel) in mean.iter_mut().zip(pixel) {
            *sum += f64::from(channel) / pixels;
        }
    }
    let distance = |a: [f64; 3], b: [f64; 3]| {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    };
    let at =
        |x: u32, y: u32| thumbnail.get_pixel(x.min(width - 1), y.min(height - 1)).0.map(f64::from);
    let saliency: Vec<(f64, f64, f64)> = thumbnail
        .enumerate_pixels()
        .map(|(x, y, &Rgb(pixel))| {
            let pixel = pixel.map(f64::from);
            let edges = distance(pixel, at(x + 1, y)) + distance(pixel, at(x, y + 1));
            let (fx, fy) =
                ((f64::from(x) + 0.5) / f64::from(width), (f64::from(y) + 0.5) / f64::from(height));
            let prior = (-((fx - 0.5).powi(2) + (fy - 0.5).powi(2)) / (2.0 * PRIOR * PRIOR)).exp();
            (fx, fy, (edges + distance(pixel, mean)) * prior)
        })
        .collect();

    let average = saliency.iter().map(|(.., s)| s).sum::<f64>() / pixels;
    let deviation =
        (saliency.iter().map(|(.., s)| (s - average).powi(2)).sum::<f64>() / pixels).sqrt();
    let (mut mass, mut x, mut y) = (0.0, 0.0, 0.0);
    for (fx, fy, s) in saliency {
        let outstanding = (s - average - deviation).max(0.0);
        mass += outstanding;
        x += outstanding * fx;
        y += outstanding * fy;
    }
    // Below one grey level the picture is even, and what is left is rounding.
    if average < 1.0 || mass == 0.0 { (0.5, 0.5) } else { (x / mass, y / mass) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_part_lies_inside_the_photo_and_has_the_aspect_of_the_target(
            size in (1_u32..20_000, 1_u32..20_000),
            target in (1_u32..4_096, 1_u32..4_096),
            focus in (0.0..=1.0, 0.0..=1.0),
        ) {
            let part = Rectangle::largest(size, target, focus);
            prop_assert!(part.width >= 1 && part.x + part.width <= size.0);
            prop_assert!(part.height >= 1 && part.y + part.height <= size.1);
            prop_assert!(part.width == size.0 || part.height == size.1);
            // The side that was cut is the nearest whole number of pixels to the exact aspect.
            let (w, h) = (f64::from(part.width), f64::from(part.height));
            let aspect = f64::from(target.0) / f64::from(target.1);
            let off = if part.width == size.0 && part.height < size.1 { h - w / aspect } else { w - h * aspect };
            prop_assert!(off.abs() <= 0.5 + 1e-6 || (part.width == 1 || part.height == 1), "{part:?} off by {off}");
        }
    }

    #[test]
    fn a_photo_of_the_right_aspect_is_kept_whole() {
        let whole = Rectangle { x: 0, y: 0, width: 1023, height: 1023 };
        assert_eq!(Rectangle::largest((1023, 1023), (512, 512), (0.0, 1.0)), whole);
    }

    #[test]
    fn an_even_photo_is_cut_in_the_middle() {
        let even = RgbImage::from_pixel(300, 100, Rgb([90, 120, 30]));
        assert_eq!(
            Crop::Smart.part(&even, (64, 64)),
            Rectangle { x: 100, y: 0, width: 100, height: 100 }
        );
    }

    #[test]
    fn the_smart_part_holds_the_subject_that_the_middle_would_cut() {
        // A red square at 20..80 of a wide photo whose background has a faint gradient.
        let photo = RgbImage::from_fn(400, 100, |x, y| {
            if (20..80).contains(&x) && (20..80).contains(&y) {
                Rgb([210, 30, 40])
            } else {
                Rgb([120, 130, 110 + (x / 20) as u8])
            }
        });
        let smart = Crop::Smart.part(&photo, (64, 64));
        assert!(smart.x <= 20 && smart.x + smart.width >= 80, "{smart:?}");
        assert_eq!(Crop::Center.part(&photo, (64, 64)).x, 150);
    }

    #[test]
    fn a_circle_stays_a_circle() {
        let photo = RgbImage::from_fn(200, 100, |x, y| {
            let inside = (f64::from(x) - 99.5).hypot(f64::from(y) - 49.5) < 40.0;
            if inside { Rgb([255; 3]) } else { Rgb([0; 3]) }
        });
        let resized = Crop::Center.part(&photo, (50, 50)).resized(&photo, (50, 50));
        let lit = |along: &dyn Fn(u32) -> (u32, u32)| {
            (0..50)
                .filter(|&i| {
                    let (x, y) = along(i);
                    resized.get_pixel(x, y)[0] > 127
                })
                .count()
        };
        assert_eq!(lit(&|i| (i, 25)), 40);
        assert_eq!(lit(&|i| (25, i)), 40);
    }
}
