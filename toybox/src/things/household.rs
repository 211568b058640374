//! Teapot, mug, backpack, lamp.

use super::Anchors;
use crate::colour::lerp;
use crate::paint::{Fill, Form, Pen};
use crate::shape::{blob, circle, ellipse, polygon, rounded, tube};

/// Genes: width of the belly, its height, length of the spout.
pub fn teapot(pen: &mut Pen, [wide, tall, spout]: [f32; 3]) -> Anchors {
    pen.gloss = 0.5;
    let (rx, ry) = (lerp(0.58, 0.80, wide), lerp(0.48, 0.68, tall));
    let centre = -ry - 0.05;
    let reach = lerp(0.32, 0.62, spout);
    // Handle behind, then the spout, then the belly over both roots.
    let hold = rx * 0.8;
    pen.fill(
        &tube(
            &[
                (-hold, centre - ry * 0.45),
                (-rx - 0.24, centre - ry * 0.62),
                (-rx - 0.40, centre - ry * 0.10),
                (-rx - 0.18, centre + ry * 0.38),
                (-hold, centre + ry * 0.45),
            ],
            0.14,
        ),
        Fill::Trim,
        Form::Soft(0.1),
    );
    let tip = (rx + reach, centre - ry * 0.85);
    pen.fill(
        &blob(&[
            (rx * 0.7, centre - 0.12),
            (rx + reach * 0.45, centre - ry * 0.35),
            (tip.0 - 0.05, tip.1),
            (tip.0 + 0.10, tip.1 - 0.02),
            (rx + reach * 0.72, centre + ry * 0.05),
            (rx * 0.75, centre + ry * 0.55),
        ]),
        Fill::Ground,
        Form::Soft(0.14),
    );
    pen.fill(
        &ellipse(tip.0 + 0.03, tip.1, 0.085, 0.04),
        Fill::Solid([0.12, 0.09, 0.08]),
        Form::Flat,
    );
    pen.fill(&rounded(-rx * 0.55, -0.13, rx * 0.55, 0.0, 0.05), Fill::Trim, Form::Tube);
    pen.fill(&ellipse(0.0, centre, rx, ry), Fill::Main, Form::Ball);
    // Lid and knob.
    let rim = centre - ry * 0.84;
    pen.fill(&ellipse(0.0, rim, rx * 0.60, 0.085), Fill::Trim, Form::Soft(0.08));
    pen.fill(
        &blob(&[
            (-rx * 0.52, rim - 0.02),
            (-rx * 0.32, rim - 0.19),
            (0.0, rim - 0.26),
            (rx * 0.32, rim - 0.19),
            (rx * 0.52, rim - 0.02),
            (0.0, rim + 0.06),
        ]),
        Fill::Ground,
        Form::Soft(0.16),
    );
    pen.fill(&circle(0.0, rim - 0.33, 0.11), Fill::Trim, Form::Ball);
    Anchors {
        crown: (0.0, rim - 0.30),
        crown_width: rx * 0.9,
        eyes: (0.0, centre - ry * 0.18),
        eyes_width: rx * 1.25,
    }
}

/// Genes: height, how much it widens upwards, size of the handle.
pub fn mug(pen: &mut Pen, [tall, flare, handle]: [f32; 3]) -> Anchors {
    pen.gloss = 0.4;
    let (height, foot) = (lerp(1.05, 1.60, tall), 0.56);
    let rim = foot + lerp(-0.06, 0.24, flare);
    let size = lerp(0.26, 0.46, handle);
    let middle = -height * 0.5;
    pen.fill(
        &tube(
            &[
                (rim * 0.85, middle - size * 0.9),
                (rim + size * 0.75, middle - size * 0.85),
                (rim + size * 1.05, middle),
                (rim + size * 0.65, middle + size * 0.85),
                (foot * 0.85, middle + size * 0.9),
            ],
            0.16,
        ),
        Fill::Trim,
        Form::Soft(0.1),
    );
    pen.fill(
        &blob(&[
            (-rim, -height),
            (-(rim + foot) * 0.5, -height * 0.5),
            (-foot, -0.10),
            (-foot * 0.6, 0.0),
            (foot * 0.6, 0.0),
            (foot, -0.10),
            ((rim + foot) * 0.5, -height * 0.5),
            (rim, -height),
            (0.0, -height + 0.12),
        ]),
        Fill::Main,
        Form::Tube,
    );
    pen.fill(&ellipse(0.0, -height, rim, 0.17), Fill::Trim, Form::Soft(0.05));
    pen.fill(
        &ellipse(0.0, -height, rim - 0.08, 0.115),
        Fill::Solid([0.30, 0.17, 0.10]),
        Form::Flat,
    );
    pen.fill(
        &ellipse(0.04, -height + 0.035, rim - 0.16, 0.065),
        Fill::Solid([0.45, 0.27, 0.16]),
        Form::Flat,
    );
    Anchors {
        crown: (0.0, -height - 0.05),
        crown_width: rim * 1.7,
        eyes: (0.0, -height * 0.62),
        eyes_width: rim * 1.35,
    }
}

/// Genes: height, size of the front pocket, length of the flap.
pub fn backpack(pen: &mut Pen, [tall, pocket, flap]: [f32; 3]) -> Anchors {
    pen.gloss = 0.08;
    let (height, half) = (lerp(1.35, 1.85, tall), 0.66);
    for side in [-1.0, 1.0] {
        let points = [
            (side * 0.50, -height * 0.88),
            (side * 0.86, -height * 0.62),
            (side * 0.84, -0.30),
            (side * 0.60, -0.12),
        ];
        pen.fill(&tube(&points, 0.15), Fill::Solid([0.24, 0.22, 0.22]), Form::Soft(0.08));
    }
    let loop_points = [
        (-0.20, -height + 0.06),
        (-0.16, -height - 0.16),
        (0.16, -height - 0.16),
        (0.20, -height + 0.06),
    ];
    pen.fill(&tube(&loop_points, 0.09), Fill::Solid([0.24, 0.22, 0.22]), Form::Soft(0.06));
    pen.fill(
        &blob(&[
            (-half * 0.72, -height * 0.96),
            (0.0, -height),
            (half * 0.72, -height * 0.96),
            (half, -height * 0.68),
            (half * 1.06, -height * 0.22),
            (half * 0.86, -0.02),
            (0.0, 0.0),
            (-half * 0.86, -0.02),
            (-half * 1.06, -height * 0.22),
            (-half, -height * 0.68),
        ]),
        Fill::Main,
        Form::Soft(0.26),
    );
    let reach = -height * lerp(0.72, 0.56, flap);
    pen.fill(
        &blob(&[
            (-half * 0.78, -height * 0.94),
            (0.0, -height - 0.01),
            (half * 0.78, -height * 0.94),
            (half * 0.98, -height * 0.72),
            (half * 0.62, reach + 0.05),
            (0.0, reach + 0.10),
            (-half * 0.62, reach + 0.05),
            (-half * 0.98, -height * 0.72),
        ]),
        Fill::Trim,
        Form::Soft(0.16),
    );
    let (wide, high) = (lerp(0.34, 0.52, pocket), lerp(0.34, 0.56, pocket));
    pen.fill(&rounded(-wide, -0.12 - high, wide, -0.12, 0.14), Fill::Ground, Form::Soft(0.12));
    pen.fill(&rounded(-wide, -0.12 - high, wide, -0.02 - high, 0.05), Fill::Trim, Form::Soft(0.05));
    pen.fill(
        &rounded(-0.06, reach - 0.06, 0.06, reach + 0.18, 0.04),
        Fill::Solid([0.80, 0.72, 0.45]),
        Form::Soft(0.05),
    );
    Anchors {
        crown: (0.0, -height + 0.06),
        crown_width: 0.95,
        eyes: (0.0, -height * 0.80),
        eyes_width: 0.85,
    }
}

/// Genes: width of the shade, length of the stem, how much the shade narrows upwards.
pub fn lamp(pen: &mut Pen, [wide, tall, taper]: [f32; 3]) -> Anchors {
    pen.gloss = 0.3;
    let (bottom, stem) = (lerp(0.58, 0.92, wide), lerp(0.55, 1.00, tall));
    let top = bottom * lerp(0.80, 0.35, taper);
    let (low, high) = (-stem - 0.12, -stem - 0.98);
    pen.fill(&ellipse(0.0, -0.08, 0.44, 0.11), Fill::Trim, Form::Soft(0.12));
    pen.fill(&rounded(-0.065, low - 0.1, 0.065, -0.10, 0.05), Fill::Trim, Form::Tube);
    pen.fill(&ellipse(0.0, -0.24 - stem * 0.28, 0.19, 0.16 + stem * 0.16), Fill::Trim, Form::Ball);
    pen.fill(&ellipse(0.0, low, bottom * 0.96, 0.10), Fill::Solid([1.0, 0.92, 0.62]), Form::Glow);
    pen.fill(
        &polygon(&[
            (-top, high),
            (-bottom, low),
            (-bottom * 0.5, low + 0.055),
            (0.0, low + 0.075),
            (bottom * 0.5, low + 0.055),
            (bottom, low),
            (top, high),
        ]),
        Fill::Main,
        Form::Tube,
    );
    // The bulb shines through the shade.
    pen.opacity = 0.16;
    for size in [0.85, 0.6, 0.38] {
        pen.fill(
            &ellipse(0.0, low - 0.34, bottom * size * 0.75, 0.42 * size),
            Fill::Solid([1.0, 0.95, 0.72]),
            Form::Flat,
        );
    }
    pen.opacity = 1.0;
    pen.fill(&ellipse(0.0, high, top, 0.055), Fill::Solid([0.98, 0.90, 0.66]), Form::Glow);
    Anchors {
        crown: (0.0, high - 0.02),
        crown_width: (top * 1.8).max(0.6),
        eyes: (0.0, low - 0.46),
        eyes_width: bottom,
    }
}
