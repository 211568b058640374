//! Named colours, and arithmetic on red, green, blue in `[0, 1]`.

use serde::{Deserialize, Serialize};

/// Red, green, blue in `[0, 1]`, as stored in a picture (sRGB).
pub type Rgb = [f32; 3];

/// The twelve colours that the world can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is its own name")]
pub enum Colour {
    Red,
    Orange,
    Yellow,
    Green,
    Teal,
    Blue,
    Purple,
    Pink,
    Brown,
    Black,
    White,
    Gray,
}

impl Colour {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Teal,
        Self::Blue,
        Self::Purple,
        Self::Pink,
        Self::Brown,
        Self::Black,
        Self::White,
        Self::Gray,
    ];

    /// The word in a caption.
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Teal => "teal",
            Self::Blue => "blue",
            Self::Purple => "purple",
            Self::Pink => "pink",
            Self::Brown => "brown",
            Self::Black => "black",
            Self::White => "white",
            Self::Gray => "gray",
        }
    }

    /// What is painted. Kept clear of 0 and 1, so that light and shadow show on black and white too.
    pub fn rgb(self) -> Rgb {
        match self {
            Self::Red => [0.86, 0.13, 0.13],
            Self::Orange => [0.97, 0.51, 0.08],
            Self::Yellow => [0.98, 0.83, 0.15],
            Self::Green => [0.20, 0.62, 0.22],
            Self::Teal => [0.08, 0.66, 0.66],
            Self::Blue => [0.14, 0.33, 0.86],
            Self::Purple => [0.50, 0.20, 0.72],
            Self::Pink => [0.97, 0.50, 0.70],
            Self::Brown => [0.48, 0.28, 0.14],
            Self::Black => [0.13, 0.13, 0.15],
            Self::White => [0.94, 0.94, 0.93],
            Self::Gray => [0.56, 0.57, 0.60],
        }
    }
}

/// `a` at `t = 0`, `b` at `t = 1`.
pub fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// [`lerp`] of each channel.
pub fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [lerp(a[0], b[0], t), lerp(a[1], b[1], t), lerp(a[2], b[2], t)]
}

/// Brighter (`factor > 1`) or darker.
pub fn scale(a: Rgb, factor: f32) -> Rgb {
    [a[0] * factor, a[1] * factor, a[2] * factor]
}

/// Perceived brightness.
pub fn luma(a: Rgb) -> f32 {
    0.30 * a[0] + 0.59 * a[1] + 0.11 * a[2]
}

/// 0 below `low`, 1 above `high`, smooth between.
pub fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
