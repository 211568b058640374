//! House, plant.

use super::Anchors;
use crate::colour::lerp;
use crate::paint::{Fill, Form, Pen};
use crate::shape::{blob, circle, ellipse, polygon, rectangle, rounded, tube};

/// Genes: height of the roof, width, place of the chimney.
pub fn house(pen: &mut Pen, [roof, wide, chimney]: [f32; 3]) -> Anchors {
    pen.gloss = 0.05;
    let (half, eaves) = (lerp(0.66, 0.92, wide), -0.92);
    let ridge = eaves - lerp(0.50, 0.95, roof);
    let x = half * lerp(-0.62, 0.62, chimney);
    let stack = lerp(eaves, ridge, 0.92) - 0.08;
    pen.fill(
        &rectangle(x - 0.12, stack, x + 0.12, eaves),
        Fill::Solid([0.62, 0.30, 0.24]),
        Form::Soft(0.06),
    );
    pen.fill(
        &rounded(x - 0.16, stack - 0.09, x + 0.16, stack + 0.02, 0.03),
        Fill::Solid([0.45, 0.24, 0.20]),
        Form::Soft(0.05),
    );
    pen.fill(&rectangle(-half, eaves - 0.05, half, 0.0), Fill::Main, Form::Soft(0.06));
    pen.fill(
        &polygon(&[(-half, eaves), (half, eaves), (0.0, ridge + 0.1)]),
        Fill::Main,
        Form::Flat,
    );
    // Overhanging roof: its two slopes differ in light.
    let over = half + 0.18;
    let (low, thick) = (eaves + 0.14, 0.17);
    pen.fill(
        &polygon(&[
            (0.0, ridge - 0.04),
            (0.0, ridge + thick),
            (over - 0.06, low + 0.04),
            (over + 0.02, low - 0.10),
        ]),
        Fill::Trim,
        Form::Soft(0.07),
    );
    pen.fill(
        &polygon(&[
            (0.03, ridge - 0.06),
            (0.03, ridge + thick),
            (-over + 0.06, low + 0.04),
            (-over - 0.02, low - 0.10),
        ]),
        Fill::Trim,
        Form::Soft(0.07),
    );
    let frame = Fill::Solid([0.95, 0.94, 0.90]);
    pen.fill(&circle(0.0, lerp(eaves, ridge, 0.42), 0.15), frame, Form::Soft(0.05));
    pen.fill(
        &circle(0.0, lerp(eaves, ridge, 0.42), 0.10),
        Fill::Solid([0.99, 0.88, 0.50]),
        Form::Glow,
    );
    pen.fill(&rounded(-0.20, -0.60, 0.20, 0.0, 0.05), frame, Form::Soft(0.04));
    pen.fill(
        &rounded(-0.15, -0.56, 0.15, 0.0, 0.04),
        Fill::Solid([0.42, 0.24, 0.13]),
        Form::Soft(0.05),
    );
    pen.fill(&circle(0.09, -0.27, 0.035), Fill::Solid([0.95, 0.80, 0.35]), Form::Flat);
    for side in [-1.0, 1.0] {
        let x = side * half * 0.66;
        let w = half * 0.21;
        pen.fill(&rectangle(x - w - 0.04, -0.74, x + w + 0.04, -0.32), frame, Form::Soft(0.04));
        pen.fill(
            &rectangle(x - w, -0.70, x + w, -0.36),
            Fill::Solid([0.99, 0.88, 0.50]),
            Form::Glow,
        );
        pen.fill(&rectangle(x - 0.02, -0.70, x + 0.02, -0.36), frame, Form::Flat);
        pen.fill(&rectangle(x - w, -0.55, x + w, -0.51), frame, Form::Flat);
    }
    Anchors {
        crown: (0.0, ridge + 0.10),
        crown_width: 0.72,
        eyes: (0.0, -0.54),
        eyes_width: half * 1.75,
    }
}

/// In a pot. Genes: size of the pot, height of the leaves, how far they hang.
pub fn plant(pen: &mut Pen, [pot, tall, droop]: [f32; 3]) -> Anchors {
    pen.gloss = 0.25;
    let (half, height) = (lerp(0.42, 0.64, pot), lerp(0.62, 0.82, pot));
    let reach = lerp(0.72, 1.18, tall);
    // (lean, length): the outer leaves first, so that the middle ones stand in front.
    let leaves = [
        (-1.0, 0.74),
        (1.0, 0.78),
        (-0.66, 0.92),
        (0.70, 0.90),
        (-0.34, 1.0),
        (0.36, 1.04),
        (0.02, 1.1),
    ];
    for (k, (lean, long)) in leaves.into_iter().enumerate() {
        let long = long * reach;
        let hang = droop * lean * lean * 0.75;
        let tip = (
            lean * long * (0.78 + 0.3 * droop),
            -height - long * (1.0 - 0.45 * lean * lean) + hang * long,
        );
        let bend = (lean * long * 0.42, -height - long * 0.62);
        let green = [[0.16, 0.47, 0.17], [0.24, 0.60, 0.22], [0.32, 0.68, 0.26]][k % 3];
        let (dx, dy) = (tip.0, tip.1 + height);
        let size = (dx * dx + dy * dy).sqrt().max(0.1);
        let (nx, ny) = (-dy / size * 0.15, dx / size * 0.15);
        pen.fill(
            &blob(&[
                (0.03 * lean, -height + 0.05),
                (bend.0 + nx, bend.1 + ny),
                (tip.0, tip.1),
                (bend.0 - nx, bend.1 - ny),
            ]),
            Fill::Solid(green),
            Form::Soft(0.09),
        );
        pen.fill(
            &tube(&[(0.03 * lean, -height), bend, (tip.0 * 0.93, tip.1 * 0.98)], 0.025),
            Fill::Solid([0.55, 0.80, 0.42]),
            Form::Flat,
        );
    }
    for (x, up) in [(-0.44, 0.72), (0.40, 0.82), (0.0, 1.0)] {
        let (x, y) = (x * reach * 0.9, -height - up * reach * 0.82);
        for (dx, dy) in [(-0.09, 0.0), (0.09, 0.0), (0.0, -0.09), (0.0, 0.09)] {
            pen.fill(&circle(x + dx, y + dy, 0.085), Fill::Trim, Form::Soft(0.04));
        }
        pen.fill(&circle(x, y, 0.06), Fill::Solid([0.98, 0.82, 0.25]), Form::Flat);
    }
    let foot = half * 0.68;
    pen.fill(
        &ellipse(0.0, -height + 0.03, half * 0.95, 0.08),
        Fill::Solid([0.26, 0.16, 0.10]),
        Form::Flat,
    );
    pen.fill(
        &polygon(&[
            (-half, -height + 0.06),
            (half, -height + 0.06),
            (foot, -0.03),
            (foot * 0.8, 0.0),
            (-foot * 0.8, 0.0),
            (-foot, -0.03),
        ]),
        Fill::Main,
        Form::Tube,
    );
    pen.fill(
        &rounded(-half - 0.06, -height - 0.02, half + 0.06, -height + 0.15, 0.05),
        Fill::Ground,
        Form::Tube,
    );
    Anchors {
        crown: (0.0, -height - reach * 0.92),
        crown_width: 0.66,
        eyes: (0.0, -height * 0.50),
        eyes_width: half * 1.5,
    }
}
