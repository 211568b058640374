//! Which part of a photo is kept, and its resizing to the training size.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};

use super::salience::Salience;

/// The share of what stands out from which on it is said that a cut leaves it out.
const MUCH: f64 = 0.25;

/// How a photo of another aspect is brought to the training pictures'. What is cut leaves a part as large as the photo
/// allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// Cut to the most of what stands out: edges and unusual colours, nearer the middle more than at the border.
    #[default]
    Smart,
    /// Cut to the middle: the shorter side resized to fit, the rest cut off evenly.
    Center,
    /// Kept whole between bars of the mean colour of its border.
    Pad,
    /// Kept whole and squashed, as diffusers' training scripts do it.
    None,
}

/// A part of a photo in pixels from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // the four fields are what they say
pub struct Rectangle {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// What becomes of a photo.
pub(super) struct Cut {
    /// The part that is kept.
    pub part: Rectangle,
    /// The share of what stands out that it leaves out, where that is much.
    pub lost: Option<f64>,
}

impl Crop {
    /// The photo at `target` = (width, height).
    pub fn resized(self, photo: &RgbImage, target: (u32, u32)) -> RgbImage {
        self.apply(self.cut(photo, target).part, photo, target)
    }

    /// The part of `photo` that is kept for `target` = (width, height).
    pub(super) fn cut(self, photo: &RgbImage, target: (u32, u32)) -> Cut {
        let (width, height) = photo.dimensions();
        let whole = Rectangle { x: 0, y: 0, width, height };
        let middle = Rectangle::largest((width, height), target, (0.5, 0.5));
        if matches!(self, Self::Pad | Self::None) || middle == whole {
            return Cut { part: whole, lost: None };
        }
        let salience = Salience::of(photo);
        let share = |part: u32, side: u32| f64::from(part) / f64::from(side);
        let part = match self {
            Self::Smart => {
                let size = (share(middle.width, width), share(middle.height, height));
                Rectangle::largest((width, height), target, salience.focus(size))
            }
            _ => middle,
        };
        let ends =
            |start: u32, part: u32, side: u32| (share(start, side), share(start + part, side));
        let lost =
            salience.lost(ends(part.x, part.width, width), ends(part.y, part.height, height));
        Cut { part, lost: Some(lost).filter(|lost| *lost >= MUCH) }
    }

    /// A part of a photo at `target` size.
    pub(super) fn apply(self, part: Rectangle, photo: &RgbImage, target: (u32, u32)) -> RgbImage {
        if self != Self::Pad {
            return part.resized(photo, target);
        }
        let size = (part.width, part.height);
        let fitting = Rectangle::largest(target, size, (0.5, 0.5)); // the photo's shape within the target's
        let inner = part.resized(photo, (fitting.width, fitting.height));
        let mut padded = RgbImage::from_pixel(target.0, target.1, border(photo));
        imageops::replace(&mut padded, &inner, fitting.x.into(), fitting.y.into());
        padded
    }

    /// Whether a part of a photo has to be enlarged for `target`.
    pub(super) fn enlarges(self, part: Rectangle, target: (u32, u32)) -> bool {
        let (wide, high) = (part.width >= target.0, part.height >= target.1);
        // Between bars one side only is as long as the target's.
        if self == Self::Pad { !wide && !high } else { !wide || !high }
    }

    /// Whether a part of a photo is squashed to `target`: by more than rounding its sides to whole pixels would.
    pub(super) fn squashes(self, part: Rectangle, target: (u32, u32)) -> bool {
        let fitting = Rectangle::largest((part.width, part.height), target, (0.5, 0.5));
        self == Self::None && (fitting.width, fitting.height) != (part.width, part.height)
    }
}

/// The mean colour of a photo's outermost pixels.
fn border(photo: &RgbImage) -> Rgb<u8> {
    let (width, height) = photo.dimensions();
    let (mut sum, mut count) = ([0_u64; 3], 0);
    for (x, y, pixel) in photo.enumerate_pixels() {
        if x == 0 || y == 0 || x == width - 1 || y == height - 1 {
            sum.iter_mut().zip(pixel.0).for_each(|(sum, level)| *sum += u64::from(level));
            count += 1;
        }
    }
    Rgb(sum.map(|sum| ((sum + count / 2) / count) as u8))
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
            Crop::Smart.cut(&even, (64, 64)).part,
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
        let smart = Crop::Smart.cut(&photo, (64, 64)).part;
        assert!(smart.x <= 20 && smart.x + smart.width >= 80, "{smart:?}");
        assert_eq!(Crop::Center.cut(&photo, (64, 64)).part.x, 150);
    }

    #[test]
    fn a_circle_stays_a_circle() {
        let photo = RgbImage::from_fn(200, 100, |x, y| {
            let inside = (f64::from(x) - 99.5).hypot(f64::from(y) - 49.5) < 40.0;
            if inside { Rgb([255; 3]) } else { Rgb([0; 3]) }
        });
        let resized = Crop::Center.resized(&photo, (50, 50));
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
