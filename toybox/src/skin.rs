//! Two colours and a pattern: what covers the main parts of a thing or a garment.

use crate::colour::{Colour, Rgb, mix, smoothstep};
use crate::rng::{Rng, floor};
use crate::shape::Point;
use crate::world::Weave;
use serde::{Deserialize, Serialize};

/// How the second colour lies on the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is its own name")]
pub enum Pattern {
    Plain,
    Striped,
    Dotted,
    Checkered,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Striped, Self::Dotted, Self::Checkered];

    /// The word in a caption.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Striped => "striped",
            Self::Dotted => "dotted",
            Self::Checkered => "checkered",
        }
    }
}

/// Main and second colour, the pattern that the second makes on the main, and the pattern's shift.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Skin {
    /// The colour that names the thing.
    pub main: Colour,
    /// The colour of the pattern and of trims; never equal to `main`.
    pub second: Colour,
    /// How the two meet.
    pub pattern: Pattern,
    /// Shift of the pattern in periods, `[0, 1)`.
    pub phase: f32,
}

impl Skin {
    /// One at random; two of five are plain.
    pub fn sample(rng: &mut Rng) -> Self {
        let main = rng.below(12);
        let second = (main + 1 + rng.below(11)) % 12;
        let pattern = if rng.chance(0.4) { Pattern::Plain } else { rng.pick(&Pattern::ALL[1..]) };
        Self { main: Colour::ALL[main], second: Colour::ALL[second], pattern, phase: rng.unit() }
    }

    /// The colour at a point, by the measures of `weave`. `soft` is the width over which an edge of the pattern blends: one pixel.
    pub(crate) fn at(self, (x, y): Point, soft: f32, weave: Weave) -> Rgb {
        let Weave { period, stripe, dot, .. } = weave;
        let (u, v) = (x / period + self.phase, y / period + self.phase);
        let soft = soft / period;
        let cover = match self.pattern {
            Pattern::Plain => 0.0,
            Pattern::Striped => band(v, stripe, soft),
            Pattern::Checkered => {
                let (a, b) = (band(u, 0.25, soft), band(v, 0.25, soft));
                a + b - 2.0 * a * b
            }
            Pattern::Dotted => {
                let row = floor(v);
                let shift = (row * 0.5).fract().abs();
                let (dx, dy) = ((u + shift) - floor(u + shift) - 0.5, v - row - 0.5);
                let radius = (dx * dx + dy * dy).sqrt();
                1.0 - smoothstep(dot - soft * 0.5, dot + soft * 0.5, radius)
            }
        };
        mix(self.main.rgb(), self.second.rgb(), cover)
    }
}

/// A soft wave of period 1: 1 within `half` of the middle, else 0.
fn band(t: f32, half: f32, soft: f32) -> f32 {
    let from_middle = (t - floor(t) - 0.5).abs();
    1.0 - smoothstep(half - soft * 0.5, half + soft * 0.5, from_middle)
}
