//! Robot, car, boat.

use super::Anchors;
use crate::colour::lerp;
use crate::paint::{Fill, Form, Pen};
use crate::shape::{blob, circle, ellipse, limb, polygon, rectangle, rounded, tube};

const STEEL: Fill = Fill::Solid([0.62, 0.65, 0.70]);
const TYRE: Fill = Fill::Solid([0.12, 0.12, 0.13]);
const GLASS: Fill = Fill::Solid([0.66, 0.84, 0.93]);

/// Genes: width of the head, height of the body, how high it lifts its arms.
pub fn robot(pen: &mut Pen, [head, body, arms]: [f32; 3]) -> Anchors {
    pen.gloss = 0.35;
    let (half, tall) = (lerp(0.34, 0.56, head), lerp(0.60, 0.86, body));
    let (hip, shoulder) = (-0.44, -0.44 - tall);
    for side in [-1.0, 1.0] {
        pen.fill(
            &rounded(side * 0.24 - 0.09, hip - 0.05, side * 0.24 + 0.09, -0.10, 0.04),
            STEEL,
            Form::Tube,
        );
        pen.fill(
            &rounded(side * 0.26 - 0.20, -0.18, side * 0.26 + 0.20, 0.0, 0.08),
            Fill::Trim,
            Form::Soft(0.1),
        );
        let elbow = (side * 0.80, shoulder + lerp(0.42, 0.12, arms));
        let hand = (side * lerp(0.76, 1.00, arms), shoulder + lerp(0.80, -0.36, arms));
        pen.fill(
            &tube(&[(side * 0.46, shoulder + 0.14), elbow, hand], 0.13),
            STEEL,
            Form::Soft(0.08),
        );
        pen.fill(&circle(hand.0, hand.1, 0.15), Fill::Trim, Form::Ball);
    }
    pen.fill(&rounded(-0.12, shoulder - 0.14, 0.12, shoulder + 0.05, 0.02), STEEL, Form::Tube);
    pen.fill(&rounded(-0.52, shoulder, 0.52, hip + 0.03, 0.12), Fill::Main, Form::Soft(0.16));
    let panel = (shoulder + hip) * 0.5;
    pen.fill(
        &rounded(-0.27, panel - 0.16, 0.27, panel + 0.16, 0.05),
        Fill::Solid([0.18, 0.20, 0.25]),
        Form::Soft(0.05),
    );
    for (x, light) in
        [(-0.15, [0.96, 0.30, 0.25]), (0.0, [0.98, 0.85, 0.25]), (0.15, [0.35, 0.90, 0.45])]
    {
        pen.fill(&circle(x, panel, 0.055), Fill::Solid(light), Form::Glow);
    }
    let (chin, top) = (shoulder - 0.10, shoulder - 0.66);
    pen.fill(&rounded(-0.025, top - 0.24, 0.025, top + 0.05, 0.01), STEEL, Form::Tube);
    pen.fill(&circle(0.0, top - 0.27, 0.085), Fill::Solid([0.95, 0.25, 0.22]), Form::Ball);
    for side in [-1.0, 1.0] {
        pen.fill(
            &rounded(
                side * (half + 0.03) - 0.07,
                top + 0.18,
                side * (half + 0.03) + 0.07,
                top + 0.40,
                0.04,
            ),
            STEEL,
            Form::Soft(0.06),
        );
    }
    pen.fill(&rounded(-half, top, half, chin, 0.12), Fill::Ground, Form::Soft(0.16));
    pen.fill(
        &rounded(-half * 0.82, top + 0.11, half * 0.82, top + 0.33, 0.08),
        Fill::Solid([0.10, 0.12, 0.18]),
        Form::Flat,
    );
    for side in [-1.0, 1.0] {
        pen.fill(
            &circle(side * half * 0.42, top + 0.22, 0.085),
            Fill::Solid([0.45, 0.95, 1.0]),
            Form::Glow,
        );
    }
    pen.fill(
        &rounded(-half * 0.45, top + 0.41, half * 0.45, top + 0.47, 0.03),
        Fill::Solid([0.20, 0.20, 0.24]),
        Form::Flat,
    );
    Anchors {
        crown: (0.0, top + 0.06),
        crown_width: half * 1.7,
        eyes: (0.0, top + 0.22),
        eyes_width: half * 1.8,
    }
}

/// Seen from its side. Genes: height of the cabin, length, size of the wheels.
pub fn car(pen: &mut Pen, [cabin, length, wheel]: [f32; 3]) -> Anchors {
    pen.gloss = 0.5;
    let (half, radius) = (lerp(0.92, 1.18, length), lerp(0.20, 0.29, wheel));
    let sill = -radius * 0.75;
    let belt = sill - 0.42;
    let roof = belt - lerp(0.34, 0.58, cabin);
    pen.fill(
        &blob(&[
            (-half * 0.74, belt + 0.06),
            (-half * 0.56, roof + 0.10),
            (-half * 0.36, roof),
            (half * 0.18, roof),
            (half * 0.38, roof + 0.12),
            (half * 0.62, belt + 0.06),
            (0.0, belt + 0.16),
        ]),
        Fill::Main,
        Form::Soft(0.12),
    );
    let window = |left: f32, top_left: f32, top_right: f32, right: f32| {
        polygon(&[
            (left, belt - 0.01),
            (top_left, roof + 0.10),
            (top_right, roof + 0.10),
            (right, belt - 0.01),
        ])
    };
    pen.fill(
        &window(-half * 0.60, -half * 0.46, -half * 0.12, -half * 0.12),
        GLASS,
        Form::Soft(0.04),
    );
    pen.fill(
        &window(-half * 0.04, -half * 0.04, half * 0.18, half * 0.42),
        GLASS,
        Form::Soft(0.04),
    );
    pen.fill(
        &blob(&[
            (-half, belt + 0.16),
            (-half * 0.90, belt),
            (-half * 0.4, belt - 0.03),
            (half * 0.5, belt - 0.02),
            (half * 0.86, belt + 0.08),
            (half, belt + 0.22),
            (half * 1.01, sill - 0.04),
            (half * 0.9, sill + 0.04),
            (-half * 0.9, sill + 0.04),
            (-half * 1.02, sill - 0.04),
        ]),
        Fill::Main,
        Form::Soft(0.15),
    );
    pen.fill(
        &rounded(-half * 0.98, sill - 0.09, half * 0.98, sill + 0.03, 0.05),
        Fill::Trim,
        Form::Soft(0.05),
    );
    pen.fill(
        &ellipse(half * 0.93, belt + 0.19, 0.09, 0.075),
        Fill::Solid([1.0, 0.96, 0.75]),
        Form::Soft(0.03),
    );
    pen.fill(
        &ellipse(-half * 0.96, belt + 0.19, 0.05, 0.075),
        Fill::Solid([0.85, 0.12, 0.10]),
        Form::Soft(0.03),
    );
    pen.fill(
        &rounded(-half * 0.02, belt + 0.10, half * 0.12, belt + 0.14, 0.02),
        STEEL,
        Form::Flat,
    );
    for x in [-half * 0.58, half * 0.58] {
        pen.fill(&circle(x, -radius, radius), TYRE, Form::Soft(0.08));
        pen.fill(&circle(x, -radius, radius * 0.55), STEEL, Form::Ball);
        pen.fill(&circle(x, -radius, radius * 0.18), Fill::Trim, Form::Flat);
    }
    Anchors {
        crown: (-half * 0.08, roof + 0.05),
        crown_width: 0.8,
        eyes: (half * 0.02, (belt + roof) * 0.5 + 0.06),
        eyes_width: half * 0.95,
    }
}

/// A sailing boat. Genes: length of the hull, height of the mast, how full the sail is.
pub fn boat(pen: &mut Pen, [length, mast, full]: [f32; 3]) -> Anchors {
    pen.gloss = 0.2;
    let (half, top) = (lerp(0.78, 1.08, length), -0.62 - lerp(1.0, 1.45, mast));
    let deck = -0.46;
    pen.fill(
        &limb((0.0, deck + 0.1), (0.0, top), 0.05, 0.035),
        Fill::Solid([0.50, 0.33, 0.18]),
        Form::Soft(0.04),
    );
    let belly = lerp(0.0, 0.22, full);
    pen.fill(
        &blob(&[
            (0.07, top + 0.12),
            (0.34 + belly, top * 0.62),
            (half * 0.82 + belly * 0.5, deck - 0.20),
            (half * 0.40, deck - 0.14),
            (0.07, deck - 0.16),
            (0.07, top * 0.6),
        ]),
        Fill::Trim,
        Form::Soft(0.14),
    );
    pen.fill(
        &blob(&[
            (-0.07, top + 0.22),
            (-0.07, top * 0.55),
            (-0.07, deck - 0.16),
            (-half * 0.35, deck - 0.18),
            (-half * 0.66, deck - 0.20),
            (-0.28 - belly * 0.4, top * 0.64),
        ]),
        Fill::Solid([0.95, 0.94, 0.90]),
        Form::Soft(0.12),
    );
    pen.fill(
        &polygon(&[(0.02, top - 0.02), (0.02, top + 0.20), (-0.34, top + 0.09)]),
        Fill::Ground,
        Form::Soft(0.04),
    );
    pen.fill(
        &blob(&[
            (-half, deck - 0.04),
            (-half * 0.5, deck + 0.02),
            (half * 0.5, deck + 0.0),
            (half * 1.12, deck - 0.14),
            (half * 0.86, -0.12),
            (half * 0.60, 0.0),
            (-half * 0.62, 0.0),
            (-half * 0.90, -0.16),
        ]),
        Fill::Main,
        Form::Soft(0.16),
    );
    let rail = [
        (-half * 0.98, deck - 0.03),
        (-half * 0.4, deck + 0.03),
        (half * 0.4, deck + 0.02),
        (half * 1.06, deck - 0.10),
    ];
    pen.fill(&tube(&rail, 0.08), Fill::Trim, Form::Soft(0.05));
    pen.fill(&rectangle(-0.05, deck - 0.02, 0.05, deck + 0.02), Fill::Trim, Form::Flat);
    Anchors {
        crown: (0.0, top + 0.10),
        crown_width: 0.52,
        eyes: (half * 0.30, top * 0.42 - 0.22),
        eyes_width: 0.62,
    }
}
