//! City, night.

use super::{Setting, ground_noise, hills, nearness, noise_seed, pixel_pen, sky, tree};
use crate::colour::{Rgb, mix, scale, smoothstep};
use crate::paint::{Fill, Form, Layer, Pen};
use crate::rng::Rng;
use crate::shape::{circle, polygon, rectangle};

/// A block with rows of windows.
fn tower(
    pen: &mut Pen,
    rng: &mut Rng,
    (left, right): (f32, f32),
    (top, foot): (f32, f32),
    wall: Rgb,
    glass: Rgb,
) {
    pen.fill(&rectangle(left, top, right, foot), Fill::Solid(wall), Form::Soft(1.5));
    let (step_x, step_y) = (rng.range(4.5, 6.0), rng.range(5.5, 7.5));
    let mut y = top + 3.5;
    while y + 3.0 < foot - 3.0 {
        let mut x = left + 2.5;
        while x + 2.6 < right - 1.5 {
            let tone = if rng.chance(0.25) { scale(glass, 0.72) } else { glass };
            pen.fill(&rectangle(x, y, x + 2.4, y + 3.2), Fill::Solid(tone), Form::Flat);
            x += step_x;
        }
        y += step_y;
    }
}

/// Two rows of buildings behind a street.
pub fn city(rng: &mut Rng) -> Setting {
    let kerb = rng.range(74.0, 82.0);
    let (seed, clouds) = (noise_seed(rng), rng.range(0.2, 0.9));
    let mut layer = Layer::painted(|x, y| {
        if y < kerb {
            return sky(x, y, kerb, ([0.42, 0.66, 0.92], [0.90, 0.93, 0.95]), clouds, seed);
        }
        let grain = ground_noise(x, y, kerb - 14.0, 0.12, seed);
        if y < kerb + 8.0 {
            return scale([0.70, 0.69, 0.67], 0.94 + 0.12 * grain);
        }
        scale(mix([0.40, 0.41, 0.44], [0.34, 0.35, 0.38], nearness(y, kerb)), 0.92 + 0.16 * grain)
    });
    let pen = &mut pixel_pen(&mut layer);
    let mut x = -rng.unit() * 10.0;
    while x < 128.0 {
        let width = rng.range(14.0, 26.0);
        let top = rng.range(10.0, 40.0);
        tower(pen, rng, (x, x + width), (top, kerb), [0.66, 0.73, 0.82], [0.76, 0.84, 0.91]);
        x += width + rng.range(-2.0, 4.0);
    }
    let mut x = -rng.unit() * 16.0;
    while x < 128.0 {
        let width = rng.range(20.0, 34.0);
        let top = rng.range(24.0, 52.0);
        let wall = rng.pick(&[
            [0.72, 0.42, 0.33],
            [0.80, 0.70, 0.56],
            [0.55, 0.58, 0.64],
            [0.62, 0.50, 0.44],
            [0.78, 0.76, 0.72],
        ]);
        tower(pen, rng, (x, x + width), (top, kerb), wall, [0.36, 0.50, 0.62]);
        pen.fill(
            &rectangle(x, kerb - 7.0, x + width, kerb),
            Fill::Solid(scale(wall, 0.7)),
            Form::Flat,
        );
        x += width + rng.range(0.0, 8.0);
    }
    if rng.chance(0.6) {
        let x = if rng.chance(0.5) { rng.range(4.0, 24.0) } else { rng.range(104.0, 124.0) };
        tree(pen, rng, (x, kerb + 4.0), 30.0, [0.28, 0.52, 0.26]);
    }
    pen.fill(
        &rectangle(0.0, kerb + 7.0, 128.0, kerb + 9.5),
        Fill::Solid([0.80, 0.79, 0.76]),
        Form::Flat,
    );
    // A dashed line in perspective.
    let (line, shift) = (kerb + 34.0, rng.range(0.0, 30.0));
    for k in -1..5 {
        let x = k as f32 * 34.0 + shift;
        pen.fill(
            &polygon(&[(x, line), (x + 18.0, line), (x + 19.5, line + 3.5), (x + 0.5, line + 3.5)]),
            Fill::Solid([0.92, 0.90, 0.82]),
            Form::Flat,
        );
    }
    Setting::outdoors(layer, [0.12, 0.12, 0.16])
}

/// Stars and a moon above dark hills, windows far away.
pub fn night(rng: &mut Rng) -> Setting {
    let horizon = rng.range(58.0, 70.0);
    let seed = noise_seed(rng);
    let mut layer = Layer::painted(|x, y| {
        if y < horizon + 6.0 {
            return sky(x, y, horizon, ([0.03, 0.05, 0.17], [0.18, 0.22, 0.45]), 0.0, seed);
        }
        [0.10, 0.15, 0.24] // drawn below, over the foot of the hills
    });
    let pen = &mut pixel_pen(&mut layer);
    for _ in 0..rng.below(40) + 40 {
        let bright = rng.range(0.45, 1.0);
        let radius = if rng.chance(0.15) { 1.1 } else { 0.6 };
        pen.opacity = bright;
        pen.fill(
            &circle(rng.range(0.0, 128.0), rng.range(0.0, horizon), radius),
            Fill::Solid([1.0, 0.98, 0.90]),
            Form::Glow,
        );
    }
    let (x, y, radius) = (rng.range(14.0, 114.0), rng.range(14.0, 30.0), rng.range(7.0, 10.0));
    for (grow, opacity) in [(2.2, 0.10), (1.6, 0.14), (1.0, 1.0)] {
        pen.opacity = opacity;
        pen.fill(&circle(x, y, radius * grow), Fill::Solid([0.96, 0.95, 0.84]), Form::Glow);
    }
    if rng.chance(0.5) {
        let dark = sky(x, y, horizon, ([0.03, 0.05, 0.17], [0.18, 0.22, 0.45]), 0.0, seed);
        pen.fill(
            &circle(x + radius * 0.55, y - radius * 0.25, radius * 0.88),
            Fill::Solid(mix(dark, [0.3, 0.32, 0.45], 0.15)),
            Form::Glow,
        );
    } else {
        pen.opacity = 0.35;
        for (dx, dy, r) in [(-0.3, -0.2, 0.22), (0.3, 0.25, 0.18), (0.2, -0.4, 0.12)] {
            pen.fill(
                &circle(x + dx * radius, y + dy * radius, r * radius),
                Fill::Solid([0.68, 0.67, 0.62]),
                Form::Flat,
            );
        }
    }
    pen.opacity = 1.0;
    pen.fill(
        &hills(rng, horizon + 2.0, 16.0, horizon + 8.0),
        Fill::Solid([0.09, 0.12, 0.25]),
        Form::Soft(3.0),
    );
    for _ in 0..rng.below(8) {
        let (x, y) = (rng.range(4.0, 124.0), horizon + rng.range(-1.0, 4.0));
        pen.fill(&rectangle(x, y, x + 1.6, y + 1.6), Fill::Solid([1.0, 0.82, 0.42]), Form::Glow);
    }
    for y in horizon as usize..128 {
        for x in 0..128 {
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            let grain = ground_noise(px, py, horizon, 0.06, seed);
            let pool = 1.0
                - smoothstep(
                    0.0,
                    1.0,
                    ((px - 64.0) * (px - 64.0) / 3600.0 + (py - 108.0) * (py - 108.0) / 900.0)
                        .min(1.0),
                );
            let base = mix([0.11, 0.16, 0.28], [0.15, 0.25, 0.30], nearness(py, horizon));
            layer.over(
                y * 128 + x,
                scale(base, 0.72 + 0.4 * grain + 0.35 * pool),
                smoothstep(horizon + 3.0, horizon + 10.0, py),
            );
        }
    }
    Setting { layer, tint: [0.78, 0.80, 0.94], shadow: ([0.02, 0.03, 0.08], 0.62), mirrors: false }
}
