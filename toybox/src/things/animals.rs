//! Cat, dog, bear.

use super::Anchors;
use crate::colour::lerp;
use crate::paint::{Fill, Form, Pen};
use crate::shape::{Point, blob, circle, ellipse, limb, polygon, tube};

const DARK: [f32; 3] = [0.09, 0.08, 0.09];

/// Two eyes with a white, a pupil and a glint.
fn eyes(pen: &mut Pen, (x, y): Point, apart: f32, radius: f32) {
    let radius = radius * pen.look.eyes;
    for side in [-1.0, 1.0] {
        let x = x + side * apart;
        pen.fill(&circle(x, y, radius), Fill::Solid([0.97, 0.97, 0.95]), Form::Soft(0.03));
        pen.fill(&circle(x, y + radius * 0.05, radius * 0.66), Fill::Solid(DARK), Form::Flat);
        pen.fill(
            &circle(x - radius * 0.25, y - radius * 0.25, radius * 0.24),
            Fill::Solid([1.0; 3]),
            Form::Flat,
        );
    }
}

/// Sits and looks at you. Genes: size of the head, of the ears, girth.
pub fn cat(pen: &mut Pen, [head, ear, girth]: [f32; 3]) -> Anchors {
    pen.gloss = 0.06;
    let (radius, half) = (lerp(0.38, 0.52, head), lerp(0.44, 0.64, girth));
    let face = -1.12 - radius * 0.62;
    pen.fill(
        &tube(
            &[
                (half * 0.5, -0.12),
                (half + 0.26, -0.10),
                (half + 0.42, -0.42),
                (half + 0.30, -0.74),
                (half + 0.44, -0.98),
            ],
            0.17,
        ),
        Fill::Main,
        Form::Soft(0.1),
    );
    pen.fill(
        &blob(&[
            (-0.26, -1.24),
            (0.26, -1.24),
            (half * 0.84, -0.72),
            (half, -0.24),
            (half * 0.7, 0.0),
            (-half * 0.7, 0.0),
            (-half, -0.24),
            (-half * 0.84, -0.72),
        ]),
        Fill::Main,
        Form::Soft(0.26),
    );
    pen.fill(&ellipse(0.0, -0.74, 0.22, 0.34), Fill::Trim, Form::Soft(0.12));
    for side in [-1.0, 1.0] {
        pen.fill(
            &limb((side * 0.17, -0.62), (side * 0.17, -0.14), 0.12, 0.10),
            Fill::Main,
            Form::Soft(0.1),
        );
        pen.fill(&ellipse(side * 0.18, -0.09, 0.15, 0.10), Fill::Trim, Form::Soft(0.08));
        // Ears stand on the head's upper corners.
        let (root, tip) = (radius * 0.30, radius * lerp(1.35, 1.85, ear));
        let outer = [
            (side * root * 0.4, face - radius * 0.75),
            (side * radius * 0.98, face - radius * 0.30),
            (side * radius * 0.98, face - tip),
        ];
        pen.fill(&polygon(&outer), Fill::Main, Form::Soft(0.08));
        let inner = [
            (side * root * 1.2, face - radius * 0.78),
            (side * radius * 0.86, face - radius * 0.45),
            (side * radius * 0.90, face - tip * 0.88),
        ];
        pen.fill(&polygon(&inner), Fill::Solid([0.93, 0.62, 0.62]), Form::Flat);
    }
    pen.fill(&ellipse(0.0, face, radius * 1.12, radius), Fill::Main, Form::Ball);
    pen.fill(
        &ellipse(0.0, face + radius * 0.42, radius * 0.42, radius * 0.30),
        Fill::Trim,
        Form::Soft(0.06),
    );
    eyes(pen, (0.0, face - radius * 0.06), radius * 0.46, radius * 0.25);
    let nose = face + radius * 0.28;
    pen.fill(
        &polygon(&[(-0.055, nose - 0.03), (0.055, nose - 0.03), (0.0, nose + 0.04)]),
        Fill::Solid([0.88, 0.42, 0.45]),
        Form::Flat,
    );
    for side in [-1.0, 1.0] {
        pen.fill(
            &tube(
                &[(0.0, nose + 0.03), (side * 0.05, nose + 0.10), (side * 0.11, nose + 0.07)],
                0.025,
            ),
            Fill::Solid(DARK),
            Form::Flat,
        );
        for lift in [-0.05, 0.04] {
            pen.fill(
                &tube(
                    &[
                        (side * radius * 0.5, nose + 0.02 + lift * 0.5),
                        (side * radius * 1.32, nose + lift),
                    ],
                    0.018,
                ),
                Fill::Solid([0.95; 3]),
                Form::Flat,
            );
        }
    }
    Anchors {
        crown: (0.0, face - radius * 0.82),
        crown_width: radius * 1.5,
        eyes: (0.0, face - radius * 0.06),
        eyes_width: radius * 1.75,
    }
}

/// Stands, seen from its side, and looks ahead. Genes: length of the legs, of the snout, of the ears.
pub fn dog(pen: &mut Pen, [legs, snout, ear]: [f32; 3]) -> Anchors {
    pen.gloss = 0.06;
    let belly = -lerp(0.42, 0.72, legs);
    let back = belly - 0.56;
    let (head_x, head_y) = (0.66, back - 0.30);
    pen.fill(
        &tube(&[(-0.66, back + 0.14), (-0.92, back - 0.12), (-0.98, back - 0.42)], 0.15),
        Fill::Main,
        Form::Soft(0.1),
    );
    // The far legs are darker by the shadow of the near ones.
    for (x, lean) in [(-0.36, 0.06), (0.50, 0.06)] {
        pen.fill(
            &limb((x, belly - 0.1), (x + lean, -0.08), 0.14, 0.10),
            Fill::Trim,
            Form::Soft(0.1),
        );
    }
    pen.fill(
        &blob(&[
            (-0.74, back + 0.20),
            (-0.52, back - 0.02),
            (0.0, back + 0.02),
            (0.42, back - 0.06),
            (0.66, back + 0.14),
            (0.60, belly - 0.02),
            (0.30, belly + 0.10),
            (-0.20, belly + 0.02),
            (-0.62, belly + 0.06),
        ]),
        Fill::Main,
        Form::Soft(0.24),
    );
    for x in [-0.54, 0.32] {
        pen.fill(&limb((x, belly - 0.14), (x, -0.12), 0.19, 0.11), Fill::Main, Form::Soft(0.12));
        pen.fill(&ellipse(x + 0.05, -0.08, 0.17, 0.09), Fill::Trim, Form::Soft(0.07));
    }
    pen.fill(
        &limb((0.46, back + 0.16), (head_x, head_y + 0.06), 0.26, 0.22),
        Fill::Main,
        Form::Soft(0.14),
    );
    let collar = [(0.40, back - 0.10), (0.58, back + 0.04), (0.76, back + 0.02)];
    pen.fill(&tube(&collar, 0.09), Fill::Solid([0.20, 0.18, 0.20]), Form::Soft(0.05));
    pen.fill(&circle(0.72, back + 0.09, 0.06), Fill::Solid([0.92, 0.78, 0.30]), Form::Ball);
    let muzzle = head_x + 0.22 + lerp(0.14, 0.40, snout);
    pen.fill(
        &limb((head_x + 0.12, head_y + 0.08), (muzzle, head_y + 0.12), 0.22, 0.14),
        Fill::Trim,
        Form::Soft(0.12),
    );
    pen.fill(&ellipse(head_x, head_y, 0.36, 0.33), Fill::Main, Form::Ball);
    pen.fill(&circle(muzzle + 0.10, head_y + 0.06, 0.085), Fill::Solid(DARK), Form::Ball);
    pen.fill(
        &tube(
            &[
                (muzzle + 0.04, head_y + 0.20),
                (muzzle - 0.10, head_y + 0.24),
                (muzzle - 0.22, head_y + 0.20),
            ],
            0.03,
        ),
        Fill::Solid(DARK),
        Form::Flat,
    );
    eyes(pen, (head_x + 0.10, head_y - 0.07), 0.115, 0.085);
    let hang = lerp(0.30, 0.62, ear);
    pen.fill(
        &blob(&[
            (head_x - 0.10, head_y - 0.26),
            (head_x - 0.28, head_y - 0.24),
            (head_x - 0.42, head_y + hang * 0.35),
            (head_x - 0.36, head_y + hang),
            (head_x - 0.20, head_y + hang * 0.75),
            (head_x - 0.10, head_y + 0.02),
        ]),
        Fill::Trim,
        Form::Soft(0.1),
    );
    Anchors {
        crown: (head_x - 0.02, head_y - 0.26),
        crown_width: 0.56,
        eyes: (head_x + 0.12, head_y - 0.07),
        eyes_width: 0.56,
    }
}

/// A teddy that sits. Genes: size of the ears, girth, how high it lifts its arms.
pub fn bear(pen: &mut Pen, [ear, girth, arms]: [f32; 3]) -> Anchors {
    pen.gloss = 0.05;
    let half = lerp(0.46, 0.66, girth);
    let (face, radius) = (-1.40, 0.48);
    for side in [-1.0, 1.0] {
        let size = lerp(0.15, 0.27, ear);
        let (x, y) = (side * 0.36, face - 0.36);
        pen.fill(&circle(x, y, size), Fill::Main, Form::Soft(0.1));
        pen.fill(&circle(x, y + 0.02, size * 0.55), Fill::Trim, Form::Soft(0.05));
    }
    pen.fill(&ellipse(0.0, -0.58, half, 0.56), Fill::Main, Form::Ball);
    pen.fill(&ellipse(0.0, -0.54, half * 0.56, 0.36), Fill::Trim, Form::Soft(0.16));
    for side in [-1.0, 1.0] {
        let hand = (side * (half + 0.28), lerp(-0.42, -1.30, arms));
        pen.fill(
            &limb((side * half * 0.80, -0.88), hand, 0.17, 0.15),
            Fill::Main,
            Form::Soft(0.12),
        );
        pen.fill(
            &limb((side * half * 0.55, -0.22), (side * (half * 0.85 + 0.12), -0.20), 0.22, 0.22),
            Fill::Main,
            Form::Soft(0.14),
        );
        pen.fill(&circle(side * (half * 0.85 + 0.14), -0.22, 0.22), Fill::Main, Form::Soft(0.08));
        pen.fill(
            &ellipse(side * (half * 0.85 + 0.15), -0.21, 0.12, 0.14),
            Fill::Trim,
            Form::Soft(0.06),
        );
    }
    pen.fill(&ellipse(0.0, face, radius * 1.05, radius), Fill::Main, Form::Ball);
    pen.fill(&ellipse(0.0, face + 0.18, 0.25, 0.19), Fill::Trim, Form::Ball);
    eyes(pen, (0.0, face - 0.07), 0.19, 0.085);
    pen.fill(&ellipse(0.0, face + 0.10, 0.095, 0.065), Fill::Solid(DARK), Form::Ball);
    pen.fill(
        &tube(&[(-0.10, face + 0.22), (0.0, face + 0.27), (0.10, face + 0.22)], 0.03),
        Fill::Solid(DARK),
        Form::Flat,
    );
    Anchors {
        crown: (0.0, face - radius * 0.80),
        crown_width: 0.74,
        eyes: (0.0, face - 0.07),
        eyes_width: 0.80,
    }
}
