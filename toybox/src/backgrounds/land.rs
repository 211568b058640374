//! Snow, grass, forest.

use super::{Setting, fir, ground_noise, hills, nearness, noise_seed, pixel_pen, sky, sun, tree};
use crate::colour::{mix, scale, smoothstep};
use crate::paint::{Fill, Form, Layer};
use crate::rng::{Rng, noise};
use crate::shape::{circle, limb, polygon, tube};

/// White hills, frosted firs, falling flakes.
pub fn snow(rng: &mut Rng) -> Setting {
    let horizon = rng.range(48.0, 60.0);
    let seed = noise_seed(rng);
    let top = mix([0.56, 0.68, 0.82], [0.66, 0.80, 0.95], rng.unit());
    let mut layer = Layer::painted(|x, y| {
        if y < horizon + 4.0 {
            return sky(x, y, horizon, (top, [0.90, 0.94, 0.98]), 0.5, seed);
        }
        [0.86, 0.91, 0.97] // drawn below, over the foot of the hills
    });
    let pen = &mut pixel_pen(&mut layer);
    pen.fill(
        &hills(rng, horizon - 6.0, 16.0, horizon + 14.0),
        Fill::Solid([0.74, 0.82, 0.92]),
        Form::Soft(6.0),
    );
    for k in 0..rng.below(4) + 3 {
        let x = (k as f32 * 47.0 + rng.range(-14.0, 14.0) + 8.0) % 134.0;
        let y = rng.range(horizon + 2.0, horizon + 13.0);
        fir(pen, (x, y), 16.0 + (y - horizon) * 1.6, [0.20, 0.38, 0.34], true);
    }
    pen.fill(
        &hills(rng, horizon + 14.0, 7.0, horizon + 24.0),
        Fill::Solid([0.93, 0.96, 1.0]),
        Form::Soft(5.0),
    );
    // The near ground comes back over the foot of the last hill.
    for y in horizon as usize + 12..128 {
        for x in 0..128 {
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            let drift = ground_noise(px, py, horizon, 0.035, seed);
            let colour = mix([0.80, 0.87, 0.96], [0.97, 0.98, 1.0], smoothstep(0.30, 0.66, drift));
            layer.over(y * 128 + x, colour, smoothstep(horizon + 13.0, horizon + 26.0, py));
        }
    }
    let pen = &mut pixel_pen(&mut layer);
    pen.opacity = 0.9;
    for _ in 0..rng.below(40) + 15 {
        pen.fill(
            &circle(rng.range(0.0, 128.0), rng.range(0.0, 100.0), rng.range(0.5, 1.3)),
            Fill::Solid([1.0; 3]),
            Form::Flat,
        );
    }
    let mut setting = Setting::outdoors(layer, [0.38, 0.46, 0.64]);
    setting.tint = [0.98, 1.0, 1.04];
    setting
}

/// Meadow with hills, trees, tufts, flowers.
pub fn grass(rng: &mut Rng) -> Setting {
    let horizon = rng.range(46.0, 60.0);
    let (seed, clouds) = (noise_seed(rng), rng.range(0.3, 1.0));
    let green = mix([0.38, 0.66, 0.22], [0.30, 0.60, 0.26], rng.unit());
    let mut layer = Layer::painted(|x, y| {
        if y < horizon + 4.0 {
            return sky(x, y, horizon, ([0.33, 0.63, 0.94], [0.80, 0.91, 0.98]), clouds, seed);
        }
        green // drawn below, over the foot of the hills
    });
    let pen = &mut pixel_pen(&mut layer);
    if rng.chance(0.4) {
        sun(pen, (rng.range(10.0, 118.0), rng.range(8.0, 20.0)), 6.0, [1.0, 0.96, 0.75]);
    }
    pen.fill(
        &hills(rng, horizon - 2.0, 12.0, horizon + 2.0),
        Fill::Solid([0.50, 0.70, 0.52]),
        Form::Soft(6.0),
    );
    pen.fill(
        &hills(rng, horizon + 4.0, 6.0, horizon + 4.0),
        Fill::Solid([0.48, 0.70, 0.34]),
        Form::Soft(5.0),
    );
    for y in horizon as usize + 2..128 {
        for x in 0..128 {
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            let near = nearness(py, horizon);
            let patch = ground_noise(px, py, horizon, 0.05, seed);
            let blades = ground_noise(px * 3.0, py, horizon, 0.10, seed ^ 8);
            let far = mix(green, [0.66, 0.78, 0.38], 0.45);
            let colour = scale(
                mix(far, green, smoothstep(0.0, 0.5, near)),
                0.80 + 0.26 * patch + 0.16 * blades,
            );
            layer.over(y * 128 + x, colour, smoothstep(horizon + 3.0, horizon + 9.0, py));
        }
    }
    let pen = &mut pixel_pen(&mut layer);
    for _ in 0..=rng.below(3) {
        let x = if rng.chance(0.5) { rng.range(2.0, 34.0) } else { rng.range(94.0, 126.0) };
        let y = rng.range(horizon + 6.0, horizon + 16.0);
        tree(pen, rng, (x, y), 18.0 + (y - horizon) * 1.5, [0.22, 0.50, 0.20]);
    }
    let mut tufts: Vec<(f32, f32)> = (0..22)
        .map(|_| (rng.unit() * 128.0, horizon + 14.0 + rng.unit() * (112.0 - horizon)))
        .collect();
    tufts.sort_by(|a, b| a.1.total_cmp(&b.1));
    let petals =
        rng.pick(&[[0.98, 0.96, 0.95], [0.98, 0.82, 0.25], [0.90, 0.35, 0.45], [0.72, 0.52, 0.90]]);
    for (k, (x, y)) in tufts.into_iter().enumerate() {
        let size = 2.0 + nearness(y, horizon) * 5.0;
        if k % 3 == 0 {
            pen.fill(
                &tube(&[(x, y), (x + 0.5, y - size)], 0.8),
                Fill::Solid(scale(green, 0.7)),
                Form::Flat,
            );
            pen.fill(&circle(x + 0.5, y - size, size * 0.30), Fill::Solid(petals), Form::Flat);
        } else {
            for lean in [-0.5, 0.0, 0.5] {
                let tip = (x + lean * size, y - size * (1.0 - lean * lean));
                pen.fill(
                    &polygon(&[(x - 0.7, y), (x + 0.7, y), tip]),
                    Fill::Solid(scale(green, 0.78)),
                    Form::Flat,
                );
            }
        }
    }
    Setting::outdoors(layer, [0.10, 0.22, 0.08])
}

/// Trunks row behind row in green haze, leaves on the ground.
pub fn forest(rng: &mut Rng) -> Setting {
    let horizon = rng.range(62.0, 74.0);
    let seed = noise_seed(rng);
    let haze = mix([0.62, 0.76, 0.52], [0.52, 0.70, 0.58], rng.unit());
    let mut layer = Layer::painted(|x, y| {
        if y < horizon {
            let leaf = ground_noise(x, 128.0 - y * 0.5, 30.0, 0.10, seed);
            return mix(
                mix([0.20, 0.38, 0.20], haze, (y / horizon).min(1.0)),
                [0.80, 0.90, 0.62],
                0.35 * smoothstep(0.55, 0.85, leaf),
            );
        }
        let litter = ground_noise(x, y, horizon, 0.11, seed ^ 4);
        let moss = noise(x * 0.05, y * 0.09, seed ^ 6);
        let soil = mix([0.42, 0.32, 0.18], [0.28, 0.40, 0.16], smoothstep(0.40, 0.65, moss));
        scale(mix(haze, soil, smoothstep(0.0, 0.35, nearness(y, horizon))), 0.80 + 0.40 * litter)
    });
    let pen = &mut pixel_pen(&mut layer);
    for (row, count) in [(0.0, 11), (0.5, 7), (1.0, 4)] {
        for k in 0..count {
            let spread = 128.0 / count as f32;
            let mut x = spread * (k as f32 + rng.unit());
            if row > 0.9 {
                // The nearest trunks leave the middle free.
                x = if k % 2 == 0 { rng.range(-2.0, 26.0) } else { rng.range(102.0, 130.0) };
            }
            let foot = horizon + 2.0 + row * 20.0 + rng.unit() * 3.0;
            let width = 1.6 + row * 5.0 + rng.unit() * 1.5;
            let bark = mix(haze, [0.30, 0.21, 0.13], 0.45 + 0.5 * row);
            pen.fill(
                &limb((x, foot), (x + rng.range(-3.0, 3.0), -8.0), width * 1.15, width * 0.8),
                Fill::Solid(bark),
                Form::Soft(1.0 + width * 0.5),
            );
        }
        for _ in 0..7 {
            let leaf = mix(haze, [0.12, 0.34, 0.12], 0.35 + 0.55 * row);
            pen.fill(
                &circle(
                    rng.range(0.0, 128.0),
                    rng.range(-6.0, 14.0 - row * 6.0),
                    rng.range(8.0, 14.0),
                ),
                Fill::Solid(leaf),
                Form::Soft(4.0),
            );
        }
    }
    for _ in 0..rng.below(4) + 2 {
        let x = if rng.chance(0.5) { rng.range(0.0, 30.0) } else { rng.range(98.0, 128.0) };
        let y = rng.range(horizon + 10.0, horizon + 30.0);
        for lean in [-0.9, -0.45, 0.0, 0.45, 0.9] {
            let tip = (x + lean * 9.0, y - 9.0 * (1.0 - 0.5 * lean * lean));
            pen.fill(
                &polygon(&[(x - 1.0, y), (x + 1.0, y), tip]),
                Fill::Solid([0.20, 0.46, 0.16]),
                Form::Soft(1.0),
            );
        }
    }
    let mut setting = Setting::outdoors(layer, [0.08, 0.12, 0.05]);
    setting.tint = [0.95, 1.0, 0.92];
    setting
}
