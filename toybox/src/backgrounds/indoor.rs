//! Kitchen, wooden floor.

use super::{Setting, ground_noise, noise_seed, pixel_pen};
use crate::colour::{mix, scale, smoothstep};
use crate::paint::{Fill, Form, Layer};
use crate::rng::{Rng, floor as whole, noise};
use crate::shape::{circle, ellipse, limb, rectangle, rounded};

/// Tiles, a window or shelves, a worktop.
pub fn kitchen(rng: &mut Rng) -> Setting {
    let edge = rng.range(82.0, 90.0);
    let seed = noise_seed(rng);
    let tile =
        rng.pick(&[[0.90, 0.92, 0.90], [0.80, 0.90, 0.90], [0.95, 0.90, 0.80], [0.84, 0.90, 0.82]]);
    let top = rng.pick(&[[0.78, 0.62, 0.44], [0.86, 0.84, 0.80], [0.60, 0.44, 0.30]]);
    let size = rng.range(11.0, 14.0);
    let mut layer = Layer::painted(|x, y| {
        if y < edge {
            let (u, v) = (x / size, (edge - y) / size);
            let (fu, fv) = (u - whole(u) - 0.5, v - whole(v) - 0.5);
            let seam = smoothstep(0.42, 0.48, fu.abs().max(fv.abs()));
            let tone = 0.95 + 0.08 * noise(whole(u) * 7.3, whole(v) * 5.1, seed) + 0.05 * (fv - fu);
            let fade = 0.84 + 0.16 * (y / edge);
            return mix(scale(tile, tone * fade), scale(tile, 0.74 * fade), seam);
        }
        let grain = ground_noise(x * 0.3, y * 2.0 - edge, edge - 30.0, 0.08, seed);
        let shade = 0.86 + 0.14 * smoothstep(edge, edge + 12.0, y);
        scale(top, shade * (0.90 + 0.18 * grain))
    });
    let pen = &mut pixel_pen(&mut layer);
    let left = rng.chance(0.5);
    let (window, shelf) = if left { (8.0, 74.0) } else { (74.0, 6.0) };
    pen.fill(
        &rounded(window, 10.0, window + 44.0, 56.0, 2.0),
        Fill::Solid([0.97, 0.97, 0.95]),
        Form::Soft(2.0),
    );
    pen.fill(
        &rectangle(window + 4.0, 14.0, window + 40.0, 52.0),
        Fill::Solid([0.66, 0.85, 0.98]),
        Form::Glow,
    );
    pen.fill(&ellipse(window + 22.0, 52.0, 18.0, 8.0), Fill::Solid([0.52, 0.76, 0.46]), Form::Glow);
    pen.fill(
        &rectangle(window, 52.0, window + 44.0, 60.0),
        Fill::Solid([0.97, 0.97, 0.95]),
        Form::Flat,
    );
    pen.fill(
        &rectangle(window + 20.5, 14.0, window + 23.5, 52.0),
        Fill::Solid([0.97, 0.97, 0.95]),
        Form::Flat,
    );
    pen.fill(
        &rectangle(window - 3.0, 56.0, window + 47.0, 60.0),
        Fill::Solid([0.93, 0.92, 0.90]),
        Form::Soft(1.5),
    );
    let wood = [0.56, 0.38, 0.24];
    pen.fill(&rectangle(shelf, 36.0, shelf + 48.0, 40.0), Fill::Solid(wood), Form::Soft(1.5));
    let mut x = shelf + 6.0;
    while x < shelf + 44.0 {
        let tone = rng.pick(&[
            [0.86, 0.50, 0.36],
            [0.93, 0.88, 0.72],
            [0.44, 0.60, 0.66],
            [0.60, 0.68, 0.40],
        ]);
        let (w, h) = (rng.range(3.0, 5.0), rng.range(9.0, 18.0));
        match rng.below(3) {
            0 => {
                pen.fill(
                    &rounded(x - w, 36.0 - h, x + w, 36.0, 1.5),
                    Fill::Solid(tone),
                    Form::Tube,
                );
                pen.fill(
                    &rectangle(x - w, 34.0 - h, x + w, 37.0 - h),
                    Fill::Solid(scale(tone, 0.7)),
                    Form::Tube,
                );
            }
            1 => pen.fill(
                &ellipse(x, 36.0 - h * 0.5, w * 0.9, h * 0.5),
                Fill::Solid(tone),
                Form::Ball,
            ),
            _ => pen.fill(&circle(x, 36.0 - w * 1.2, w * 1.2), Fill::Solid(tone), Form::Ball),
        }
        x += w * 2.0 + rng.range(4.0, 8.0);
    }
    if rng.chance(0.6) {
        for k in 0..3 {
            let x = shelf + 10.0 + 13.0 * k as f32;
            pen.fill(
                &limb((x, 46.0), (x, 57.0), 0.8, 0.8),
                Fill::Solid([0.55, 0.56, 0.60]),
                Form::Flat,
            );
            pen.fill(&ellipse(x, 60.0, 3.0, 4.0), Fill::Solid([0.62, 0.63, 0.67]), Form::Ball);
        }
    }
    pen.opacity = 0.35;
    pen.fill(&rectangle(0.0, edge, 128.0, edge + 2.0), Fill::Solid([0.25, 0.18, 0.12]), Form::Flat);
    Setting { layer, tint: [1.02, 1.0, 0.97], shadow: ([0.20, 0.13, 0.09], 0.55), mirrors: false }
}

/// Planks that run towards a wall with a skirting board.
pub fn floor(rng: &mut Rng) -> Setting {
    let edge = rng.range(48.0, 64.0);
    let seed = noise_seed(rng);
    let wall = rng.pick(&[
        [0.84, 0.80, 0.74],
        [0.72, 0.80, 0.84],
        [0.80, 0.84, 0.74],
        [0.86, 0.76, 0.72],
        [0.78, 0.74, 0.84],
    ]);
    let wood = rng.pick(&[[0.72, 0.48, 0.26], [0.60, 0.38, 0.20], [0.80, 0.60, 0.38]]);
    let (vanish, shift) = (rng.range(40.0, 88.0), rng.unit());
    let mut layer = Layer::painted(|x, y| {
        if y < edge {
            let glow = 1.06 - 0.0022 * (x + y);
            return scale(wall, glow);
        }
        let depth = 1.0 / (y - edge + 24.0);
        let plank = (x - vanish) * depth * 4.6 + shift + 40.0;
        let along = depth * 220.0;
        let index = whole(plank);
        let joint = along * 0.35 + noise(index * 3.7, 0.5, seed) * 5.0;
        let seam_across = smoothstep(0.44, 0.495, (plank - index - 0.5).abs());
        let seam_along = 1.0 - smoothstep(0.0, 0.05, (joint - whole(joint) - 0.5).abs());
        let tone = 0.86 + 0.24 * noise(index * 5.3, whole(joint + 0.5) * 2.9, seed ^ 2);
        let grain = noise(plank * 7.0, along * 0.6, seed ^ 3) - 0.5;
        let shade = 0.88 + 0.20 * smoothstep(edge, 128.0, y);
        mix(
            scale(wood, tone * shade * (1.0 + 0.12 * grain)),
            scale(wood, 0.45),
            seam_across.max(seam_along) * 0.75,
        )
    });
    let pen = &mut pixel_pen(&mut layer);
    match rng.below(3) {
        0 => {
            let x = rng.range(8.0, 76.0);
            pen.fill(
                &rectangle(x, 6.0, x + 40.0, 36.0),
                Fill::Solid([0.42, 0.28, 0.18]),
                Form::Soft(1.5),
            );
            let tone = rng.pick(&[[0.86, 0.60, 0.42], [0.44, 0.62, 0.70], [0.62, 0.70, 0.48]]);
            pen.fill(
                &rectangle(x + 3.0, 9.0, x + 37.0, 33.0),
                Fill::Solid(mix(tone, [1.0; 3], 0.4)),
                Form::Flat,
            );
            pen.fill(&rectangle(x + 3.0, 24.0, x + 37.0, 33.0), Fill::Solid(tone), Form::Flat);
            pen.fill(&ellipse(x + 14.0, 25.0, 9.0, 5.0), Fill::Solid(tone), Form::Flat);
        }
        1 => {
            // Sunlight through a window lies on the wall.
            pen.opacity = 0.30;
            let x = rng.range(10.0, 70.0);
            for (dx, dy) in [(0.0, 0.0), (20.0, 3.0)] {
                pen.fill(
                    &crate::shape::polygon(&[
                        (x + dx, 4.0 + dy),
                        (x + dx + 17.0, 7.0 + dy),
                        (x + dx + 27.0, 36.0 + dy),
                        (x + dx + 10.0, 33.0 + dy),
                    ]),
                    Fill::Solid([1.0, 0.97, 0.82]),
                    Form::Glow,
                );
            }
            pen.opacity = 1.0;
        }
        _ => {}
    }
    pen.fill(
        &rectangle(0.0, edge - 7.0, 128.0, edge),
        Fill::Solid([0.95, 0.94, 0.91]),
        Form::Soft(1.5),
    );
    pen.opacity = 0.30;
    pen.fill(&rectangle(0.0, edge, 128.0, edge + 2.5), Fill::Solid([0.15, 0.08, 0.04]), Form::Flat);
    Setting { layer, tint: [1.02, 1.0, 0.97], shadow: ([0.16, 0.09, 0.05], 0.58), mirrors: false }
}
