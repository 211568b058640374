//! Beach, water, desert.

use super::{Setting, ground_noise, hills, nearness, noise_seed, pixel_pen, sky, sun};
use crate::colour::{Colour, mix, scale, smoothstep};
use crate::paint::{Fill, Form, Layer};
use crate::rng::{Rng, noise};
use crate::shape::{blob, circle, ellipse, limb, polygon, tube};

/// Sky, sea with foam, sand; a palm, a parasol or shells.
pub fn beach(rng: &mut Rng) -> Setting {
    let (horizon, shore) = (rng.range(34.0, 46.0), rng.range(64.0, 78.0));
    let (seed, slope, clouds) = (noise_seed(rng), rng.range(-0.10, 0.10), rng.range(0.3, 1.0));
    let sand = mix([0.93, 0.82, 0.58], [0.88, 0.76, 0.56], rng.unit());
    let mut layer = Layer::painted(|x, y| {
        if y < horizon {
            return sky(x, y, horizon, ([0.28, 0.60, 0.92], [0.76, 0.90, 0.98]), clouds, seed);
        }
        let edge = shore + (x - 64.0) * slope + 5.0 * (noise(x * 0.05, 3.0, seed) - 0.5);
        let t = smoothstep(horizon, shore, y);
        let swell = noise(x * 0.05, (y - horizon) * (0.9 - 0.5 * t), seed ^ 0x9) - 0.5;
        let sea = scale(mix([0.07, 0.38, 0.66], [0.28, 0.74, 0.78], t), 1.0 + 0.22 * swell);
        let near = nearness(y, horizon);
        let grain = ground_noise(x, y, horizon, 0.09, seed) - 0.5;
        let dry = scale(mix(scale(sand, 0.94), scale(sand, 1.05), near), 1.0 + 0.13 * grain);
        let wet = mix(scale(sand, 0.70), dry, smoothstep(edge + 1.0, edge + 10.0, y));
        let ground = mix(sea, wet, smoothstep(edge - 1.0, edge + 1.0, y));
        let foam = 1.0 - smoothstep(0.8, 2.4, (y - edge).abs());
        let second = 0.5 * (1.0 - smoothstep(0.5, 1.6, (y - edge + 9.0 + 4.0 * swell).abs()));
        mix(ground, [0.97, 0.99, 1.0], foam.max(second))
    });
    let pen = &mut pixel_pen(&mut layer);
    let side = if rng.chance(0.5) { 1.0 } else { -1.0 };
    match rng.below(3) {
        0 => {
            let (x, y) = (64.0 + side * 52.0, shore + 18.0);
            let top = (x - side * 10.0, y - 62.0);
            pen.fill(
                &tube(&[(x, y), (x - side * 2.0, y - 30.0), top], 5.0),
                Fill::Solid([0.52, 0.36, 0.20]),
                Form::Soft(2.0),
            );
            for (dx, dy) in
                [(-24.0, 6.0), (24.0, 6.0), (-20.0, -9.0), (20.0, -9.0), (-8.0, 16.0), (9.0, 16.0)]
            {
                let tip = (top.0 + dx, top.1 + dy);
                let arch = (top.0 + dx * 0.5, top.1 + dy * 0.5 - 6.0);
                pen.fill(
                    &blob(&[top, (arch.0, arch.1 - 2.5), tip, (arch.0, arch.1 + 3.0)]),
                    Fill::Solid([0.16, 0.52, 0.22]),
                    Form::Soft(2.0),
                );
            }
        }
        1 => {
            let (x, y) = (64.0 + side * 46.0, shore + 14.0);
            let colour = rng.pick(&Colour::ALL[..8]).rgb();
            pen.fill(
                &limb((x, y), (x, y - 40.0), 1.0, 1.0),
                Fill::Solid([0.90, 0.88, 0.84]),
                Form::Soft(1.0),
            );
            pen.fill(
                &blob(&[
                    (x - 22.0, y - 32.0),
                    (x - 14.0, y - 43.0),
                    (x, y - 48.0),
                    (x + 14.0, y - 43.0),
                    (x + 22.0, y - 32.0),
                    (x, y - 35.0),
                ]),
                Fill::Solid(colour),
                Form::Soft(4.0),
            );
            pen.fill(
                &blob(&[
                    (x - 8.0, y - 34.5),
                    (x - 5.0, y - 43.0),
                    (x, y - 47.0),
                    (x + 5.0, y - 43.0),
                    (x + 8.0, y - 34.5),
                ]),
                Fill::Solid([0.96, 0.95, 0.92]),
                Form::Soft(3.0),
            );
        }
        _ => {
            let x = 64.0 + side * rng.range(20.0, 50.0);
            sun(pen, (x, rng.range(10.0, 20.0)), 6.0, [1.0, 0.97, 0.80]);
        }
    }
    for _ in 0..rng.below(6) {
        let (x, y) = (rng.range(4.0, 124.0), rng.range(shore + 16.0, 126.0));
        let tone = rng.pick(&[[0.98, 0.93, 0.88], [0.90, 0.55, 0.45], [0.72, 0.62, 0.50]]);
        pen.fill(&ellipse(x, y, 1.6, 1.1), Fill::Solid(tone), Form::Soft(1.0));
    }
    Setting::outdoors(layer, [0.36, 0.27, 0.20])
}

/// Open water up to the horizon, with an island or sails far away.
pub fn water(rng: &mut Rng) -> Setting {
    let horizon = rng.range(44.0, 58.0);
    let (seed, clouds) = (noise_seed(rng), rng.range(0.2, 1.0));
    let deep = mix([0.05, 0.27, 0.50], [0.04, 0.36, 0.52], rng.unit());
    let mut layer = Layer::painted(|x, y| {
        if y < horizon {
            return sky(x, y, horizon, ([0.36, 0.62, 0.90], [0.86, 0.92, 0.95]), clouds, seed);
        }
        let near = nearness(y, horizon);
        let depth = 1.0 / (near + 0.12);
        let wave = noise((x - 64.0) * depth * 0.035, depth * 9.0 + x * 0.01, seed ^ 0x77);
        let fine = noise((x - 64.0) * depth * 0.09, depth * 22.0, seed ^ 5);
        let base = mix([0.42, 0.66, 0.80], deep, smoothstep(0.0, 0.55, near));
        let lit = smoothstep(0.50, 0.86, wave * 0.65 + fine * 0.35);
        mix(scale(base, 0.92 + 0.2 * (wave - 0.5)), [0.66, 0.84, 0.92], lit * 0.65)
    });
    let pen = &mut pixel_pen(&mut layer);
    match rng.below(3) {
        0 => {
            let x = rng.range(10.0, 118.0);
            pen.fill(
                &blob(&[
                    (x - 26.0, horizon + 1.0),
                    (x - 10.0, horizon - 9.0),
                    (x + 6.0, horizon - 6.0),
                    (x + 24.0, horizon + 1.0),
                    (x, horizon + 1.5),
                ]),
                Fill::Solid([0.36, 0.50, 0.48]),
                Form::Soft(2.0),
            );
        }
        1 => sun(
            pen,
            (rng.range(12.0, 116.0), horizon - rng.range(14.0, 30.0)),
            6.0,
            [1.0, 0.95, 0.80],
        ),
        _ => {
            for _ in 0..2 {
                let x = rng.range(8.0, 120.0);
                pen.fill(
                    &polygon(&[(x, horizon - 10.0), (x, horizon - 1.0), (x + 6.0, horizon - 1.0)]),
                    Fill::Solid([0.96; 3]),
                    Form::Flat,
                );
                pen.fill(
                    &polygon(&[
                        (x - 4.0, horizon),
                        (x + 7.0, horizon),
                        (x + 5.0, horizon + 2.0),
                        (x - 2.0, horizon + 2.0),
                    ]),
                    Fill::Solid([0.45, 0.26, 0.20]),
                    Form::Flat,
                );
            }
        }
    }
    Setting { layer, tint: [0.97, 1.0, 1.03], shadow: ([0.02, 0.14, 0.26], 0.40), mirrors: true }
}

/// Dunes, a mesa, cactuses, an orange sky.
pub fn desert(rng: &mut Rng) -> Setting {
    let horizon = rng.range(52.0, 64.0);
    let (seed, warm) = (noise_seed(rng), rng.unit());
    let top = mix([0.92, 0.56, 0.30], [0.45, 0.62, 0.80], warm);
    let mut layer = Layer::painted(|x, y| sky(x, y, horizon, (top, [1.0, 0.86, 0.62]), 0.0, seed));
    {
        let pen = &mut pixel_pen(&mut layer);
        sun(
            pen,
            (rng.range(14.0, 114.0), rng.range(14.0, 34.0)),
            rng.range(6.0, 9.0),
            [1.0, 0.95, 0.72],
        );
        if rng.chance(0.6) {
            let (x, w, h) = (rng.range(6.0, 122.0), rng.range(12.0, 24.0), rng.range(14.0, 26.0));
            pen.fill(
                &polygon(&[
                    (x - w, horizon + 4.0),
                    (x - w * 0.72, horizon - h),
                    (x + w * 0.66, horizon - h - 1.0),
                    (x + w, horizon + 4.0),
                ]),
                Fill::Solid([0.74, 0.42, 0.28]),
                Form::Soft(5.0),
            );
        }
        pen.fill(
            &hills(rng, horizon + 1.0, 9.0, 90.0),
            Fill::Solid([0.88, 0.60, 0.34]),
            Form::Soft(6.0),
        );
    }
    let sand = [0.93, 0.68, 0.38];
    for y in horizon as usize + 6..128 {
        for x in 0..128 {
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            let near = nearness(py, horizon);
            let dune = ground_noise(px, py, horizon, 0.035, seed);
            let ripple =
                noise(px * 0.03 + dune, (1.0 / (near + 0.12)) * 12.0 + dune * 5.0, seed ^ 3) - 0.5;
            let colour = scale(sand, 0.86 + 0.26 * dune + 0.10 * ripple * near);
            layer.over(
                y * 128 + x,
                colour,
                smoothstep(horizon + 5.0, horizon + 14.0, py + 4.0 * (dune - 0.5)),
            );
        }
    }
    let pen = &mut pixel_pen(&mut layer);
    for _ in 0..=rng.below(3) {
        let left = rng.chance(0.5);
        let x = if left { rng.range(6.0, 30.0) } else { rng.range(98.0, 122.0) };
        let y = rng.range(horizon + 12.0, horizon + 28.0);
        let size = (y - horizon) * 1.5;
        let green = Fill::Solid([0.25, 0.50, 0.26]);
        pen.fill(&limb((x, y), (x, y - size), size * 0.10, size * 0.09), green, Form::Soft(2.0));
        for (side, low) in [(-1.0, 0.38), (1.0, 0.52)] {
            let out = x + side * size * 0.26;
            pen.fill(
                &tube(
                    &[(x, y - size * low), (out, y - size * low), (out, y - size * (low + 0.30))],
                    size * 0.13,
                ),
                green,
                Form::Soft(1.5),
            );
        }
    }
    for _ in 0..rng.below(4) {
        pen.fill(
            &circle(rng.range(2.0, 126.0), rng.range(100.0, 126.0), rng.range(1.0, 2.4)),
            Fill::Solid([0.62, 0.40, 0.26]),
            Form::Ball,
        );
    }
    let mut setting = Setting::outdoors(layer, [0.42, 0.22, 0.14]);
    setting.tint = [1.04, 0.98, 0.92];
    setting
}
