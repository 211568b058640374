//! What a subject can wear.

use crate::colour::{Colour, Rgb, scale};
use crate::paint::{Fill, Form, Pen};
use crate::rng::Rng;
use crate::shape::{circle, ellipse, rounded, tube};
use crate::things::Anchors;
use serde::{Deserialize, Serialize};

/// Worn by a thing or a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accessory {
    /// A hat with a brim, of a colour.
    Hat(Colour),
    /// Dark glasses.
    Sunglasses,
}

impl Accessory {
    /// One at random.
    pub fn sample(rng: &mut Rng) -> Self {
        if rng.chance(0.65) { Self::Hat(rng.pick(&Colour::ALL)) } else { Self::Sunglasses }
    }

    /// Draws it where the subject wears it.
    pub(crate) fn draw(self, pen: &mut Pen, anchors: Anchors) {
        match self {
            Self::Hat(colour) => {
                let size = anchors.crown_width.max(0.5);
                pen.within(anchors.crown, size, -0.10, |pen| hat(pen, colour.rgb()));
            }
            Self::Sunglasses => {
                let size = anchors.eyes_width;
                pen.within(anchors.eyes, size, 0.0, sunglasses);
            }
        }
    }
}

/// One unit wide at its crown, standing on the origin.
fn hat(pen: &mut Pen, colour: Rgb) {
    pen.gloss = 0.12;
    let ribbon =
        if crate::colour::luma(colour) > 0.5 { scale(colour, 0.45) } else { [0.93, 0.90, 0.82] };
    pen.fill(&ellipse(0.0, 0.0, 0.86, 0.17), Fill::Solid(colour), Form::Soft(0.12));
    pen.fill(&rounded(-0.47, -0.62, 0.47, 0.05, 0.22), Fill::Solid(colour), Form::Tube);
    pen.fill(&rounded(-0.48, -0.17, 0.48, 0.05, 0.06), Fill::Solid(ribbon), Form::Tube);
}

/// One unit wide about the origin.
fn sunglasses(pen: &mut Pen) {
    let dark = Fill::Solid([0.06, 0.06, 0.08]);
    pen.gloss = 0.0;
    pen.fill(&tube(&[(-0.54, -0.06), (0.0, -0.05), (0.54, -0.06)], 0.07), dark, Form::Flat);
    for side in [-1.0, 1.0] {
        pen.fill(
            &rounded(side * 0.28 - 0.235, -0.13, side * 0.28 + 0.235, 0.19, 0.14),
            dark,
            Form::Soft(0.05),
        );
        pen.opacity = 0.55;
        pen.fill(
            &ellipse(side * 0.28 - 0.08, -0.03, 0.09, 0.055),
            Fill::Solid([0.72, 0.80, 0.92]),
            Form::Flat,
        );
        pen.fill(
            &circle(side * 0.28 + 0.09, 0.09, 0.03),
            Fill::Solid([0.72, 0.80, 0.92]),
            Form::Flat,
        );
        pen.opacity = 1.0;
    }
}
