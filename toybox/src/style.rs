//! Four ways to render the same scene.

use crate::SIZE;
use crate::colour::{Rgb, luma, mix, scale, smoothstep};
use crate::paint::blur;
use crate::rng::{Rng, cloud, floor, noise};
use crate::world::{Look, World};
use serde::{Deserialize, Serialize};

const SIDE: usize = SIZE as usize;

/// How a scene is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is its own name")]
pub enum Style {
    Photo,
    Sketch,
    Watercolor,
    Pixel,
}

impl Style {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Photo, Self::Sketch, Self::Watercolor, Self::Pixel];

    /// One of a world's at random, mostly a photo.
    pub fn sample(world: World, rng: &mut Rng) -> Self {
        if rng.chance(world.look().photos) { Self::Photo } else { rng.pick(&world.styles()[1..]) }
    }

    /// The phrase that begins a caption.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Photo => "a photo of",
            Self::Sketch => "a sketch of",
            Self::Watercolor => "a watercolor of",
            Self::Pixel => "pixel art of",
        }
    }

    /// Renders a picture; `outline` is the subject's coverage.
    pub(crate) fn render(
        self,
        picture: Vec<Rgb>,
        outline: &[f32],
        seed: u32,
        look: &Look,
    ) -> Vec<Rgb> {
        match self {
            Self::Photo => photo(picture),
            Self::Sketch => sketch(&picture, outline, seed),
            Self::Watercolor => watercolor(&picture, seed, look.wash),
            Self::Pixel => pixel(&picture, outline),
        }
    }
}

/// Corners a little darker, as a lens does.
fn photo(mut picture: Vec<Rgb>) -> Vec<Rgb> {
    for (index, colour) in picture.iter_mut().enumerate() {
        let (x, y) = (((index % SIDE) as f32 - 63.5) / 64.0, ((index / SIDE) as f32 - 63.5) / 64.0);
        *colour = scale(*colour, 1.0 - 0.10 * smoothstep(0.6, 2.0, x * x + y * y));
    }
    picture
}

/// How fast a field changes at each pixel (Sobel).
fn edges(field: &[f32]) -> Vec<f32> {
    let at = |x: usize, y: usize| field[y.min(SIDE - 1) * SIDE + x.min(SIDE - 1)];
    let mut strength = Vec::with_capacity(SIDE * SIDE);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (west, east, north, south) =
                (x.saturating_sub(1), x + 1, y.saturating_sub(1), y + 1);
            let gx = at(east, north) + 2.0 * at(east, y) + at(east, south)
                - at(west, north)
                - 2.0 * at(west, y)
                - at(west, south);
            let gy = at(west, south) + 2.0 * at(x, south) + at(east, south)
                - at(west, north)
                - 2.0 * at(x, north)
                - at(east, north);
            strength.push((gx * gx + gy * gy).sqrt() * 0.25);
        }
    }
    strength
}

/// Pencil: lines where the picture changes, hatching where it is dark.
fn sketch(picture: &[Rgb], outline: &[f32], seed: u32) -> Vec<Rgb> {
    let tone: Vec<f32> = picture.iter().map(|&p| luma(p)).collect();
    let mut smooth = tone.clone();
    blur(&mut smooth, SIDE, SIDE, 1);
    let lines = edges(&smooth);
    let contour = edges(outline);
    (0..SIDE * SIDE)
        .map(|index| {
            let (x, y) = ((index % SIDE) as f32, (index / SIDE) as f32);
            let own = outline[index];
            let paper = 0.965 + 0.03 * (noise(x * 0.9, y * 0.9, seed) - 0.5);
            let pressure = 0.75 + 0.5 * noise(x * 0.2, y * 0.2, seed ^ 1);
            let stroke = |t: f32| smoothstep(0.18, 0.34, (t - floor(t) - 0.5).abs());
            let wobble = 1.2 * noise(x * 0.08, y * 0.08, seed ^ 2);
            let first = stroke((x + y) * 0.22 + wobble) * smoothstep(0.66, 0.40, smooth[index]);
            let second = stroke((x - y) * 0.22 + wobble) * smoothstep(0.42, 0.22, smooth[index]);
            let hatch = (first * 0.30 + second * 0.30) * (0.45 + 0.55 * own);
            let wash = 0.10 * (1.0 - smooth[index]) * (0.4 + 0.6 * own);
            let line = smoothstep(0.05, 0.26, lines[index]) * (0.45 + 0.40 * own)
                + smoothstep(0.2, 0.8, contour[index]) * 0.75;
            let value = (paper - (line.min(0.9) + hatch) * pressure * 0.85 - wash).max(0.10);
            [value, value * 0.99, value * 0.965]
        })
        .collect()
}

/// Watercolour: flat patches with dark rims that bleed into white paper, up to `wash` of which shows through.
fn watercolor(picture: &[Rgb], seed: u32, wash: f32) -> Vec<Rgb> {
    // The brush wanders a little.
    let moved: Vec<Rgb> = (0..SIDE * SIDE)
        .map(|index| {
            let (x, y) = ((index % SIDE) as f32, (index / SIDE) as f32);
            let shift = |salt: u32| (noise(x * 0.11, y * 0.11, seed ^ salt) - 0.5) * 2.6;
            let sx = (x + shift(0x11) + 0.5).clamp(0.0, SIDE as f32 - 1.0) as usize;
            let sy = (y + shift(0x12) + 0.5).clamp(0.0, SIDE as f32 - 1.0) as usize;
            picture[sy * SIDE + sx]
        })
        .collect();
    let flat = patches(&moved);
    let tone: Vec<f32> = flat.iter().map(|&p| luma(p)).collect();
    let rims = edges(&tone);
    (0..SIDE * SIDE)
        .map(|index| {
            let (x, y) = ((index % SIDE) as f32, (index / SIDE) as f32);
            let pigment = cloud(x * 0.07, y * 0.07, seed ^ 0x21);
            let grain = noise(x * 0.8, y * 0.8, seed ^ 0x22);
            let base = flat[index];
            let gray = luma(base);
            let vivid = mix([gray, gray, gray], base, 1.25);
            let water = 0.10 + wash * pigment + 0.06 * grain;
            let washed = mix(vivid, [0.985, 0.975, 0.95], water);
            let rim = smoothstep(0.08, 0.40, rims[index]) * 0.22;
            let border = x.min(y).min(127.0 - x).min(127.0 - y)
                - 7.0 * noise(x * 0.06, y * 0.06, seed ^ 0x23);
            mix([0.985, 0.975, 0.95], scale(washed, 1.0 - rim), smoothstep(0.5, 2.5, border))
        })
        .collect()
}

/// The Kuwahara filter: each pixel takes the mean of the calmest of the four squares that have it as a corner.
fn patches(picture: &[Rgb]) -> Vec<Rgb> {
    const REACH: usize = 2;
    const WIDE: usize = SIDE + REACH;
    let sum = |a: [f32; 4], b: [f32; 4]| [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];
    let with_square = |p: &Rgb| [p[0], p[1], p[2], luma(*p) * luma(*p)];
    // Square (i, j) covers the columns i - REACH ..= i and the rows j - REACH ..= j, kept inside the picture.
    let inside = |k: usize| k.saturating_sub(REACH).min(SIDE - 1);
    let pixels: Vec<[f32; 4]> = picture.iter().map(with_square).collect();
    let rows: Vec<[f32; 4]> = (0..SIDE * WIDE)
        .map(|k| {
            let (row, i) = (&pixels[k / WIDE * SIDE..][..SIDE], k % WIDE);
            (1..=REACH).fold(row[inside(i)], |total, step| sum(total, row[inside(i + step)]))
        })
        .collect();
    let squares: Vec<(f32, Rgb)> = (0..WIDE * WIDE)
        .map(|k| {
            let (j, i) = (k / WIDE, k % WIDE);
            let total = (1..=REACH).fold(rows[inside(j) * WIDE + i], |total, step| {
                sum(total, rows[inside(j + step) * WIDE + i])
            });
            let mean = total.map(|value| value / ((REACH + 1) * (REACH + 1)) as f32);
            let colour = [mean[0], mean[1], mean[2]];
            (mean[3] - luma(colour) * luma(colour), colour)
        })
        .collect();
    (0..SIDE * SIDE)
        .map(|index| {
            let corner = index / SIDE * WIDE + index % SIDE;
            let calmer = |a: (f32, Rgb), k: usize| if squares[k].0 < a.0 { squares[k] } else { a };
            [corner + REACH, corner + REACH * WIDE, corner + REACH * WIDE + REACH]
                .into_iter()
                .fold(squares[corner], calmer)
                .1
        })
        .collect()
}

/// Blocks of four pixels, few tones, and a dark outline around the subject.
fn pixel(picture: &[Rgb], outline: &[f32]) -> Vec<Rgb> {
    const BLOCK: usize = 4;
    const CELLS: usize = SIDE / BLOCK;
    let mut cells = Vec::with_capacity(CELLS * CELLS);
    let mut inside = Vec::with_capacity(CELLS * CELLS);
    for row in 0..CELLS {
        for column in 0..CELLS {
            let (mut sum, mut cover) = ([0.0_f32; 3], 0.0);
            for index in (0..BLOCK * BLOCK)
                .map(|k| (row * BLOCK + k / BLOCK) * SIDE + column * BLOCK + k % BLOCK)
            {
                for (total, value) in sum.iter_mut().zip(picture[index]) {
                    *total += value;
                }
                cover += outline[index];
            }
            let mean = scale(sum, 1.0 / (BLOCK * BLOCK) as f32);
            let gray = luma(mean);
            let vivid = mix([gray, gray, gray], mean, 1.3);
            cells.push(vivid.map(|c| ((c.clamp(0.0, 1.0) * 6.0 + 0.5).floor()) / 6.0));
            inside.push(cover > 0.5 * (BLOCK * BLOCK) as f32);
        }
    }
    let is_inside =
        |column: usize, row: usize| column < CELLS && row < CELLS && inside[row * CELLS + column];
    for row in 0..CELLS {
        for column in 0..CELLS {
            let touches = is_inside(column.wrapping_sub(1), row)
                || is_inside(column + 1, row)
                || is_inside(column, row.wrapping_sub(1))
                || is_inside(column, row + 1);
            if touches && !inside[row * CELLS + column] {
                cells[row * CELLS + column] = [0.10, 0.08, 0.14];
            }
        }
    }
    (0..SIDE * SIDE)
        .map(|index| cells[index / SIDE / BLOCK * CELLS + index % SIDE / BLOCK])
        .collect()
}
