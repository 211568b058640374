//! Draws a person from the far parts to the near ones.

use super::pose::Skeleton;
use super::{Bottom, HairShape, Looks, Person};
use crate::colour::{Rgb, scale};
use crate::paint::{Cloth, Fill, Form, Pen};
use crate::shape::{Point, blob, circle, ellipse, limb, polygon, tube};
use crate::things::Anchors;
use crate::world::Build;

fn between(a: Point, b: Point, t: f32) -> Point {
    (a.0 + (b.0 - a.0) * t, a.1 + (b.1 - a.1) * t)
}

impl Person {
    /// Draws the person with the feet about the origin; standing, two units tall.
    pub(crate) fn draw(&self, pen: &mut Pen) -> Anchors {
        let build = &pen.look.build;
        let (looks, bones) = (&self.looks, self.pose.skeleton(build));
        pen.gloss = 0.06;
        let turned = bones.depth(5) - bones.depth(2); // positive: the left shoulder is nearer
        let (far, near) = if turned > 0.0 { (0, 1) } else { (1, 0) };
        if looks.hair_shape == HairShape::Long {
            back_hair(pen, looks, &bones);
        }
        // An arm that reaches back stays behind the trunk.
        let behind = |side: usize| bones.depth(4 + 3 * side) < bones.depth(2 + 3 * side) - 0.10;
        for side in [far, near] {
            if behind(side) {
                arm(pen, looks, &bones, side);
            }
        }
        let order = if bones.depth(9) > bones.depth(12) { [1, 0] } else { [0, 1] };
        for side in order {
            leg(pen, looks, &bones, side);
        }
        trunk(pen, looks, &bones);
        head(pen, looks, &bones);
        for side in [far, near] {
            if !behind(side) {
                arm(pen, looks, &bones, side);
            }
        }
        let (right, left) = (bones.seen(14), bones.seen(15));
        Anchors {
            crown: (bones.crown[0], bones.crown[1] + 0.07 * build.head),
            crown_width: 0.40 * build.head,
            eyes: between(right, left, 0.5),
            eyes_width: 0.34 * build.head,
        }
    }
}

/// A sleeve or trouser leg: its pattern follows the limb, so that it stays with it in every pose.
fn sleeve(pen: &mut Pen, a: Point, b: Point, (radius_a, radius_b): (f32, f32), soft: f32) {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let length = (dx * dx + dy * dy).sqrt();
    let down = if length > 1e-3 { (dx / length, dy / length) } else { (0.0, 1.0) };
    pen.cloth = Cloth { origin: a, down, fine: pen.look.weave.clothes };
    let thick = pen.look.build.girth;
    let outline = limb(a, b, radius_a * thick, radius_b * thick);
    pen.fill(&outline, Fill::Main, Form::Soft(soft));
}

fn arm(pen: &mut Pen, looks: &Looks, bones: &Skeleton, side: usize) {
    let thick = pen.look.build.girth;
    let (shoulder, elbow, wrist) =
        (bones.seen(2 + 3 * side), bones.seen(3 + 3 * side), bones.seen(4 + 3 * side));
    let bare = Fill::Solid(looks.tone());
    let hand = between(elbow, wrist, 1.18);
    pen.fill(&limb(elbow, wrist, 0.066 * thick, 0.050 * thick), bare, Form::Soft(0.06));
    pen.fill(&circle(hand.0, hand.1, 0.068 * thick), bare, Form::Soft(0.06));
    pen.wear(looks.top);
    if looks.long_sleeves {
        sleeve(pen, elbow, between(elbow, wrist, 0.86), (0.078, 0.066), 0.07);
        sleeve(pen, shoulder, elbow, (0.092, 0.078), 0.07);
    } else {
        pen.fill(&limb(shoulder, elbow, 0.080 * thick, 0.068 * thick), bare, Form::Soft(0.06));
        sleeve(pen, shoulder, between(shoulder, elbow, 0.55), (0.094, 0.094), 0.07);
    }
}

fn leg(pen: &mut Pen, looks: &Looks, bones: &Skeleton, side: usize) {
    let thick = pen.look.build.girth;
    let (hip, knee, ankle) =
        (bones.seen(8 + 3 * side), bones.seen(9 + 3 * side), bones.seen(10 + 3 * side));
    let bare = Fill::Solid(looks.tone());
    let facing = bones.seen(0).0 - bones.skull[0]; // where the nose points is where the toes point
    let toe = (ankle.0 + facing * 0.55 + if side == 0 { -0.03 } else { 0.03 }, ankle.1 + 0.02);
    pen.wear(looks.bottom);
    match looks.bottom_shape {
        Bottom::Trousers => {
            sleeve(pen, knee, ankle, (0.092, 0.078), 0.08);
            sleeve(pen, hip, knee, (0.125, 0.094), 0.08);
        }
        Bottom::Shorts => {
            pen.fill(&limb(knee, ankle, 0.080 * thick, 0.056 * thick), bare, Form::Soft(0.06));
            pen.fill(&limb(hip, knee, 0.100 * thick, 0.080 * thick), bare, Form::Soft(0.06));
            sleeve(pen, hip, between(hip, knee, 0.72), (0.130, 0.125), 0.08);
        }
        Bottom::Skirt => {
            pen.fill(&limb(knee, ankle, 0.078 * thick, 0.056 * thick), bare, Form::Soft(0.06));
            pen.fill(&limb(hip, knee, 0.100 * thick, 0.078 * thick), bare, Form::Soft(0.06));
        }
    }
    pen.fill(
        &limb((ankle.0, ankle.1 + 0.01), toe, 0.075 * thick, 0.07 * thick),
        Fill::Solid(looks.shoes.rgb()),
        Form::Soft(0.06),
    );
}

fn trunk(pen: &mut Pen, looks: &Looks, bones: &Skeleton) {
    let [right, left, right_hip, left_hip] = [2, 5, 8, 11].map(|joint| bones.seen(joint));
    let neck = bones.seen(1);
    let Build { girth: thick, head: size, .. } = pen.look.build;
    // Seen from the side a trunk is not thinner than it is deep.
    let wide = |a: Point, b: Point, half: f32| {
        let middle = between(a, b, 0.5);
        let reach = ((b.0 - a.0).abs() * 0.5).max(half);
        [(middle.0 - reach, a.1.min(b.1)), (middle.0 + reach, a.1.min(b.1))]
    };
    let [shoulder_a, shoulder_b] = wide(right, left, 0.15 * thick);
    let [hip_a, hip_b] = wide(right_hip, left_hip, 0.12 * thick);
    let waist = between(right_hip, left_hip, 0.5);
    let (dx, dy) = (waist.0 - neck.0, waist.1 - neck.1);
    let length = (dx * dx + dy * dy).sqrt().max(1e-3);
    pen.cloth =
        Cloth { origin: waist, down: (dx / length, dy / length), fine: pen.look.weave.clothes };
    if looks.bottom_shape == Bottom::Skirt {
        pen.wear(looks.bottom);
        let (knee_a, knee_b) = (bones.seen(9), bones.seen(12));
        let (left_edge, right_edge) =
            (knee_a.0.min(knee_b.0).min(hip_a.0), knee_a.0.max(knee_b.0).max(hip_b.0));
        let hem = hip_a.1 + 0.40;
        pen.fill(
            &polygon(&[
                (hip_a.0 - 0.10, hip_a.1),
                (hip_a.0 - 0.04, hip_a.1 - 0.10),
                (hip_b.0 + 0.04, hip_b.1 - 0.10),
                (hip_b.0 + 0.10, hip_b.1),
                (right_edge + 0.12, hem),
                ((left_edge + right_edge) * 0.5, hem + 0.04),
                (left_edge - 0.12, hem),
            ]),
            Fill::Main,
            Form::Soft(0.10),
        );
    } else {
        pen.wear(looks.bottom);
        pen.fill(
            &limb((hip_a.0 + 0.05, hip_a.1), (hip_b.0 - 0.05, hip_b.1), 0.12 * thick, 0.12 * thick),
            Fill::Main,
            Form::Soft(0.08),
        );
    }
    pen.fill(
        &limb(
            neck,
            between(neck, (bones.skull[0], bones.skull[1]), 0.5),
            0.075 * size,
            0.07 * size,
        ),
        Fill::Solid(scale(looks.tone(), 0.9)),
        Form::Soft(0.05),
    );
    pen.wear(looks.top);
    pen.fill(
        &blob(&[
            (shoulder_a.0 - 0.02, shoulder_a.1 - 0.02),
            (neck.0 - 0.09, neck.1 - 0.06),
            (neck.0, neck.1 - 0.02),
            (neck.0 + 0.09, neck.1 - 0.06),
            (shoulder_b.0 + 0.02, shoulder_b.1 - 0.02),
            (shoulder_b.0 - 0.03, shoulder_b.1 + 0.28),
            (hip_b.0 + 0.04, hip_b.1 - 0.02),
            ((hip_a.0 + hip_b.0) * 0.5, hip_a.1 + 0.05),
            (hip_a.0 - 0.04, hip_a.1 - 0.02),
            (shoulder_a.0 + 0.03, shoulder_a.1 + 0.28),
        ]),
        Fill::Main,
        Form::Soft(0.14),
    );
}

fn back_hair(pen: &mut Pen, looks: &Looks, bones: &Skeleton) {
    let (x, y) = (bones.skull[0], bones.skull[1]);
    let neck = bones.seen(1);
    let size = pen.look.build.head;
    let skull = |dx: f32, dy: f32| (x + dx * size, y + dy * size);
    let nape = |dx: f32, dy: f32| (neck.0 + dx * size, neck.1 + dy);
    pen.fill(
        &blob(&[
            skull(-0.24, -0.08),
            skull(0.0, -0.26),
            skull(0.24, -0.08),
            nape(0.27, 0.02),
            nape(0.17, 0.24),
            nape(-0.17, 0.24),
            nape(-0.27, 0.02),
        ]),
        Fill::Solid(scale(looks.hair.rgb(), 0.85)),
        Form::Soft(0.10),
    );
}

fn head(pen: &mut Pen, looks: &Looks, bones: &Skeleton) {
    let (x, y) = (bones.skull[0], bones.skull[1]);
    let hair = Fill::Solid(looks.hair.rgb());
    let bare = Fill::Solid(looks.tone());
    let nose = bones.seen(0);
    let facing = nose.0 - x;
    let size = pen.look.build.head;
    match looks.hair_shape {
        HairShape::Curly => {
            for (dx, dy) in [
                (-0.20, 0.02),
                (0.20, 0.02),
                (-0.19, -0.13),
                (0.19, -0.13),
                (-0.09, -0.23),
                (0.09, -0.23),
            ] {
                pen.fill(
                    &circle(x + dx * size - facing * 0.15, y + dy * size, 0.125 * size),
                    hair,
                    Form::Soft(0.06),
                );
            }
        }
        HairShape::Bun => pen.fill(
            &circle(bones.crown[0] - facing * 0.3, bones.crown[1] - 0.12 * size, 0.12 * size),
            hair,
            Form::Ball,
        ),
        HairShape::Short | HairShape::Long => {}
    }
    for joint in [16, 17] {
        if bones.depth(joint) > bones.skull[2] - 0.12 * size {
            let ear = bones.seen(joint);
            pen.fill(&circle(ear.0, ear.1, 0.05 * size), bare, Form::Soft(0.03));
        }
    }
    pen.fill(&ellipse(x, y, 0.215 * size, 0.235 * size), bare, Form::Ball);
    cap(pen, looks, (x, y), facing);
    face(pen, looks.tone(), bones);
}

/// The hair over the forehead; it slides back where the face turns away.
fn cap(pen: &mut Pen, looks: &Looks, (x, y): Point, facing: f32) {
    // How far the hair at each side comes forward: the side that the face turns away from shows the back of the head.
    let (left, right) = (facing.max(0.0), facing.min(0.0));
    let size = pen.look.build.head;
    let (side, up) =
        (|dx: f32, more: f32| x + dx * size + more, |dy: f32, more: f32| y + dy * size + more);
    pen.fill(
        &blob(&[
            (side(-0.225, 0.0), up(0.04, left * 0.6)),
            (side(-0.230, 0.0), up(-0.12, 0.0)),
            (side(-0.11, 0.0), up(-0.245, 0.0)),
            (side(0.11, 0.0), up(-0.245, 0.0)),
            (side(0.230, 0.0), up(-0.12, 0.0)),
            (side(0.225, 0.0), up(0.04, -right * 0.6)),
            (side(0.20, right * 0.9), up(0.04, -right * 0.5)),
            (side(0.155, right * 0.95), up(-0.11, 0.0)),
            (side(0.0, facing * 0.8), up(-0.14, 0.0)),
            (side(-0.155, left * 0.95), up(-0.11, 0.0)),
            (side(-0.20, left * 0.9), up(0.04, left * 0.5)),
        ]),
        Fill::Solid(looks.hair.rgb()),
        Form::Soft(0.07),
    );
}

fn face(pen: &mut Pen, tone: Rgb, bones: &Skeleton) {
    let nose = bones.seen(0);
    let Build { head: size, face, .. } = pen.look.build;
    let mark = size * face;
    for joint in [14, 15] {
        let eye = bones.seen(joint);
        let white = ellipse(eye.0, eye.1, 0.042 * mark, 0.048 * mark);
        pen.fill(&white, Fill::Solid([0.97; 3]), Form::Flat);
        let pupil = circle(eye.0, eye.1 + 0.005 * size, 0.030 * mark);
        pen.fill(&pupil, Fill::Solid([0.10, 0.08, 0.09]), Form::Flat);
    }
    pen.fill(
        &ellipse(nose.0, nose.1 + 0.012 * size, 0.026 * size, 0.022 * size),
        Fill::Solid(scale(tone, 0.78)),
        Form::Flat,
    );
    let mouth = (nose.0 * 0.94 + bones.skull[0] * 0.06, nose.1 + 0.095 * size);
    pen.fill(
        &tube(
            &[
                (mouth.0 - 0.05 * mark, mouth.1 - 0.01 * mark),
                (mouth.0, mouth.1 + 0.012 * mark),
                (mouth.0 + 0.05 * mark, mouth.1 - 0.01 * mark),
            ],
            0.024 * mark,
        ),
        Fill::Solid([0.66, 0.22, 0.22]),
        Form::Flat,
    );
}
