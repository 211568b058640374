//! The pictures that stand for a photo in training: itself, or views of it drawn at random.

use image::{Rgb, RgbImage};
use serde::{Deserialize, Serialize};
use torch_ext::Generator;

use super::{Rectangle, mirrored};

/// How the views of a photo differ from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    /// Not at all.
    None,
    /// A part of the photo's own aspect with 0.8 to 1 of its area, anywhere in it.
    Safe,
    /// Three quarters are turned by up to 45 degrees, whole, over black: the released code of CoRe.
    Rotate,
}

/// The share of views that are mirrored where flips are on.
const MIRRORED: f64 = 0.25;
/// The smallest share of the area that a safe view shows.
const SMALLEST_PART: f64 = 0.8;
/// The share of views that are turned.
const TURNED: f64 = 0.75;

impl Augmentation {
    /// `count` views of `photo` at its own size, drawn from `draw`; without augmentation the photo, and its mirror
    /// image where `flip` is on.
    pub fn views(
        self,
        photo: &RgbImage,
        flip: bool,
        count: usize,
        draw: &Generator,
    ) -> Vec<RgbImage> {
        let view = || {
            let [kind, a, b, c] = [(); 4].map(|()| draw.rand(&[1]).double_value(&[0]));
            let view = match self {
                Self::Safe => part(photo, SMALLEST_PART + (1.0 - SMALLEST_PART) * a, b, c),
                Self::Rotate if kind < TURNED => turned(photo, (90.0 * a - 45.0).to_radians()),
                Self::None | Self::Rotate => photo.clone(),
            };
            let mirror = flip && draw.rand(&[1]).double_value(&[0]) < MIRRORED;
            if mirror { mirrored(&view) } else { view }
        };
        match (self, flip) {
            (Self::None, false) => vec![photo.clone()],
            (Self::None, true) => vec![photo.clone(), mirrored(photo)],
            _ => (0..count).map(|_| view()).collect(),
        }
    }
}

/// A part with this share of the area, at the shares `left` and `top` of the room there is, at the photo's size.
fn part(photo: &RgbImage, area: f64, left: f64, top: f64) -> RgbImage {
    let (width, height) = photo.dimensions();
    let shrunk = |side: u32| ((f64::from(side) * area.sqrt()).round() as u32).clamp(1, side);
    let (w, h) = (shrunk(width), shrunk(height));
    let start = |room: u32, share: f64| (f64::from(room) * share).round() as u32;
    let part =
        Rectangle { x: start(width - w, left), y: start(height - h, top), width: w, height: h };
    part.resized(photo, (width, height))
}

/// The photo turned by `angle` (radians) about its middle, shrunk so that all of it is seen, black around it;
/// bilinear.
fn turned(photo: &RgbImage, angle: f64) -> RgbImage {
    let (width, height) = photo.dimensions();
    let (sin, cos) = angle.sin_cos();
    let shrink = sin.abs() + cos.abs(); // of a square; the canvas grows by it and is scaled back
    let middle = [width, height].map(|side| (f64::from(side) - 1.0) / 2.0);
    let pixel = |x: i64, y: i64| {
        let inside = (0..i64::from(width)).contains(&x) && (0..i64::from(height)).contains(&y);
        if inside { photo.get_pixel(x as u32, y as u32).0 } else { [0; 3] }
    };
    RgbImage::from_fn(width, height, |x, y| {
        let (dx, dy) = (f64::from(x) - middle[0], f64::from(y) - middle[1]);
        let from_x = middle[0] + shrink * (cos * dx + sin * dy);
        let from_y = middle[1] + shrink * (cos * dy - sin * dx);
        let (left, top) = (from_x.floor(), from_y.floor());
        let (right_share, lower_share) = (from_x - left, from_y - top);
        let (left, top) = (left as i64, top as i64);
        let corners = [
            (pixel(left, top), (1.0 - right_share) * (1.0 - lower_share)),
            (pixel(left + 1, top), right_share * (1.0 - lower_share)),
            (pixel(left, top + 1), (1.0 - right_share) * lower_share),
            (pixel(left + 1, top + 1), right_share * lower_share),
        ];
        Rgb([0, 1, 2].map(|channel| {
            let level: f64 = corners.iter().map(|(pixel, w)| f64::from(pixel[channel]) * w).sum();
            level.round() as u8
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photo() -> RgbImage {
        RgbImage::from_fn(40, 40, |x, y| Rgb([6 * x as u8, 6 * y as u8, 200]))
    }

    #[test]
    fn without_augmentation_a_photo_is_itself_and_its_mirror_image() {
        let (photo, draw) = (photo(), Generator::cpu(1));
        let one = Augmentation::None.views(&photo, false, 5, &draw);
        assert_eq!(one, std::slice::from_ref(&photo));
        let both = Augmentation::None.views(&photo, true, 5, &draw);
        assert_eq!(both, [photo.clone(), mirrored(&photo)]);
    }

    #[test]
    fn safe_views_differ_show_no_border_and_a_quarter_are_mirrored() {
        let views = Augmentation::Safe.views(&photo(), true, 400, &Generator::cpu(1));
        assert_eq!(views.len(), 400);
        assert_ne!(views[0], views[1]);
        assert!(views.iter().all(|view| view.dimensions() == (40, 40)));
        assert!(views.iter().all(|view| view.pixels().all(|pixel| pixel[2] == 200)), "no black");
        let mirrored = views.iter().filter(|v| v.get_pixel(0, 20)[0] > v.get_pixel(39, 20)[0]);
        let share = mirrored.count() as f64 / 400.0;
        assert!((share - 0.25).abs() < 0.06, "{share}");
        let unmirrored = Augmentation::Safe.views(&photo(), false, 50, &Generator::cpu(1));
        assert!(unmirrored.iter().all(|v| v.get_pixel(0, 20)[0] < v.get_pixel(39, 20)[0]));
    }

    #[test]
    fn turned_views_keep_the_middle_and_have_black_corners() {
        let turned = turned(&photo(), 45f64.to_radians());
        assert_eq!(turned.get_pixel(0, 0), &Rgb([0, 0, 0]));
        assert!((i32::from(turned.get_pixel(20, 20)[0]) - 120).abs() < 10);
        let views = Augmentation::Rotate.views(&photo(), false, 400, &Generator::cpu(1));
        let whole = views.iter().filter(|view| **view == photo()).count() as f64 / 400.0;
        assert!((whole - 0.25).abs() < 0.06, "{whole}");
    }

    #[test]
    fn a_turn_by_nothing_changes_nothing() {
        assert_eq!(turned(&photo(), 0.0), photo());
    }
}
