//! The ten places, each with depth and detail of its own for each seed; and a studio.

mod indoor;
mod land;
mod shore;
mod studio;
mod town;

use crate::colour::{Colour, Rgb, mix, smoothstep};
use crate::paint::{Fill, Form, Layer, Pen, frame};
use crate::rng::{Rng, cloud};
use crate::shape::{Point, blob, circle, ellipse};
use crate::skin::{Pattern, Skin};
use serde::{Deserialize, Serialize};

/// Where a scene takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is its own name")]
pub enum Background {
    Beach,
    Snow,
    Grass,
    City,
    Desert,
    Night,
    Forest,
    Kitchen,
    Floor,
    Water,
    /// Nothing to see: for pairs of people only, since the built-in base has not learnt it.
    Studio,
}

impl Background {
    /// All that the built-in base learns.
    pub const ALL: [Self; 10] = [
        Self::Beach,
        Self::Snow,
        Self::Grass,
        Self::City,
        Self::Desert,
        Self::Night,
        Self::Forest,
        Self::Kitchen,
        Self::Floor,
        Self::Water,
    ];

    /// The phrase that ends a caption.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Beach => "on the beach",
            Self::Snow => "in the snow",
            Self::Grass => "on the grass",
            Self::City => "in the city",
            Self::Desert => "in the desert",
            Self::Night => "at night",
            Self::Forest => "in the forest",
            Self::Kitchen => "in the kitchen",
            Self::Floor => "on a wooden floor",
            Self::Water => "on the water",
            Self::Studio => "in a studio",
        }
    }

    /// What the place's light does to the subject's colours; the same for each seed.
    pub(crate) fn tint(self) -> Rgb {
        self.draw(0).tint
    }

    /// Draws the place.
    pub(crate) fn draw(self, seed: u64) -> Setting {
        let rng = &mut Rng::new(seed);
        match self {
            Self::Beach => shore::beach(rng),
            Self::Water => shore::water(rng),
            Self::Desert => shore::desert(rng),
            Self::Snow => land::snow(rng),
            Self::Grass => land::grass(rng),
            Self::Forest => land::forest(rng),
            Self::City => town::city(rng),
            Self::Night => town::night(rng),
            Self::Kitchen => indoor::kitchen(rng),
            Self::Floor => indoor::floor(rng),
            Self::Studio => studio::backdrop(rng),
        }
    }
}

/// A place, ready for its subject.
pub(crate) struct Setting {
    pub layer: Layer,
    /// What the place's light does to the subject's colours.
    pub tint: Rgb,
    /// Colour and strength of the shadow on the ground.
    pub shadow: (Rgb, f32),
    /// Does the ground mirror the subject?
    pub mirrors: bool,
}

impl Setting {
    fn outdoors(layer: Layer, shadow: Rgb) -> Self {
        Self { layer, tint: [1.0, 1.0, 1.0], shadow: (shadow, 0.52), mirrors: false }
    }
}

/// A pen in pixels for landscapes; `horizon` of the sky is left to the caller.
fn pixel_pen(layer: &mut Layer) -> Pen<'_> {
    let skin =
        Skin { main: Colour::White, second: Colour::Black, pattern: Pattern::Plain, phase: 0.0 };
    let mut pen = Pen::new(layer, frame((0.0, 0.0), 1.0, false, 0.0), skin);
    pen.gloss = 0.0;
    pen
}

/// A seed for noise.
fn noise_seed(rng: &mut Rng) -> u32 {
    (rng.bits() >> 32) as u32
}

/// A sky from `top` to `low` at the horizon, with clouds of a strength.
fn sky(x: f32, y: f32, horizon: f32, (top, low): (Rgb, Rgb), clouds: f32, seed: u32) -> Rgb {
    let t = (y / horizon).min(1.0);
    let base = mix(top, low, t * t * 0.6 + t * 0.4);
    if clouds <= 0.0 {
        return base;
    }
    let density =
        smoothstep(0.50, 0.78, cloud(x * 0.022, y * 0.055, seed)) * clouds * (1.0 - t * 0.5);
    mix(base, [1.0, 1.0, 1.0], density)
}

/// How far along the ground a row lies: 0 at the horizon, 1 at the lower edge, stretched as in perspective.
fn nearness(y: f32, horizon: f32) -> f32 {
    ((y - horizon) / (128.0 - horizon)).clamp(0.0, 1.0)
}

/// Ground texture in perspective: fine and flat far away, coarse near.
fn ground_noise(x: f32, y: f32, horizon: f32, size: f32, seed: u32) -> f32 {
    let depth = 1.0 / (nearness(y, horizon) + 0.10);
    cloud((x - 64.0) * depth * size, depth * 14.0 * size, seed)
}

/// A ridge line of hills as an outline from `y` down to `floor`.
fn hills(rng: &mut Rng, y: f32, rise: f32, floor: f32) -> tiny_skia::Path {
    let mut points: Vec<Point> = vec![(-30.0, floor + 10.0)];
    for k in 0..7 {
        points.push((-14.0 + 26.0 * k as f32 + rng.range(-6.0, 6.0), y - rng.unit() * rise));
    }
    points.push((158.0, floor + 10.0));
    blob(&points)
}

/// A round tree that stands on `(x, y)`.
fn tree(pen: &mut Pen, rng: &mut Rng, (x, y): Point, size: f32, leaf: Rgb) {
    pen.fill(
        &crate::shape::limb((x, y), (x, y - size * 0.6), size * 0.09, size * 0.07),
        Fill::Solid([0.36, 0.25, 0.16]),
        Form::Soft(1.5),
    );
    for (dx, dy, r) in
        [(-0.26, -0.72, 0.30), (0.26, -0.70, 0.28), (0.0, -0.98, 0.32), (0.02, -0.72, 0.30)]
    {
        let jitter = rng.range(0.9, 1.1);
        pen.fill(
            &circle(x + dx * size, y + dy * size, r * size * jitter),
            Fill::Solid(leaf),
            Form::Ball,
        );
    }
}

/// A fir that stands on `(x, y)`; `frost` whitens its upper sides.
fn fir(pen: &mut Pen, (x, y): Point, size: f32, leaf: Rgb, frost: bool) {
    pen.fill(
        &crate::shape::rectangle(x - size * 0.05, y - size * 0.2, x + size * 0.05, y),
        Fill::Solid([0.33, 0.23, 0.16]),
        Form::Flat,
    );
    for (base, half, top) in [(0.14, 0.34, 0.62), (0.40, 0.27, 0.84), (0.64, 0.19, 1.06)] {
        let cone = |grow: f32, lift: f32| {
            crate::shape::polygon(&[
                (x - size * half * grow, y - size * (base + lift)),
                (x + size * half * grow, y - size * (base + lift)),
                (x, y - size * top),
            ])
        };
        pen.fill(&cone(1.0, 0.0), Fill::Solid(leaf), Form::Soft(size * 0.12));
        if frost {
            pen.fill(&cone(0.62, 0.16), Fill::Solid([0.94, 0.96, 1.0]), Form::Flat);
        }
    }
}

/// A glowing disc with a halo.
fn sun(pen: &mut Pen, (x, y): Point, radius: f32, colour: Rgb) {
    for (grow, opacity) in [(2.6, 0.10), (1.9, 0.14), (1.4, 0.22), (1.0, 1.0)] {
        pen.opacity = opacity;
        pen.fill(&ellipse(x, y, radius * grow, radius * grow), Fill::Solid(colour), Form::Glow);
    }
    pen.opacity = 1.0;
}
