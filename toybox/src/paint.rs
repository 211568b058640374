//! Layers of pixels, and the pen that fills an outline with colour, form and light.

use crate::SIZE;
use crate::colour::Rgb;
use crate::shape::Point;
use crate::skin::Skin;
use crate::world::{Look, World};
use tiny_skia::{FillRule, Mask, Path, Transform};

const SIDE: usize = SIZE as usize;
/// Towards the light: from the upper left, in front of the picture. The same in every picture.
const LIGHT: [f32; 3] = [-0.45, -0.64, 0.62];
/// Half-way between the light and the eye, for highlights.
const HALF: [f32; 3] = [-0.25, -0.36, 0.90];

/// A square picture with coverage: `[r, g, b, alpha]`, colours multiplied by alpha.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Row by row, `SIZE * SIZE` of them.
    pub pixels: Vec<[f32; 4]>,
}

impl Layer {
    /// Nothing anywhere.
    pub fn transparent() -> Self {
        Self { pixels: vec![[0.0; 4]; SIDE * SIDE] }
    }

    /// Opaque, a colour for each pixel centre.
    pub fn painted(mut colour: impl FnMut(f32, f32) -> Rgb) -> Self {
        let mut pixels = Vec::with_capacity(SIDE * SIDE);
        for y in 0..SIDE {
            for x in 0..SIDE {
                let [r, g, b] = colour(x as f32 + 0.5, y as f32 + 0.5);
                pixels.push([r, g, b, 1.0]);
            }
        }
        Self { pixels }
    }

    /// Smooths the colours by a box of `2 radius + 1`, twice, as a lens does what is out of focus.
    pub fn soften(&mut self, radius: usize) {
        for channel in 0..3 {
            let mut plane: Vec<f32> = self.pixels.iter().map(|pixel| pixel[channel]).collect();
            for _ in 0..2 {
                blur(&mut plane, SIDE, SIDE, radius);
            }
            self.pixels.iter_mut().zip(plane).for_each(|(pixel, value)| pixel[channel] = value);
        }
    }

    /// Lays a colour over one pixel.
    pub fn over(&mut self, index: usize, colour: Rgb, alpha: f32) {
        let pixel = &mut self.pixels[index];
        for (channel, &value) in pixel.iter_mut().zip(&[colour[0], colour[1], colour[2], 1.0]) {
            *channel = *channel * (1.0 - alpha) + value * alpha;
        }
    }
}

/// What an outline is filled with.
#[derive(Debug, Clone, Copy)]
pub enum Fill {
    /// The pen's skin: main colour and pattern.
    Main,
    /// The main colour without its pattern.
    Ground,
    /// The second colour.
    Trim,
    /// A fixed colour.
    Solid(Rgb),
}

/// How an outline turns towards the light.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    /// A mark on what lies below: no shade of its own.
    Flat,
    /// Gives light itself.
    Glow,
    /// Round at its edge, over this many units, and flat in the middle.
    Soft(f32),
    /// A ball that fills the outline's box.
    Ball,
    /// An upright cylinder that fills the outline's box.
    Tube,
}

/// Where a pattern begins, which way its rows follow each other, and how much finer than usual it is.
#[derive(Debug, Clone, Copy)]
pub struct Cloth {
    /// Point of the frame that is the pattern's origin.
    pub origin: Point,
    /// Unit vector across the stripes.
    pub down: Point,
    /// 2 halves the period.
    pub fine: f32,
}

impl Cloth {
    /// Upright, as things wear it.
    pub const UPRIGHT: Self = Self { origin: (0.0, 0.0), down: (0.0, 1.0), fine: 1.0 };

    fn map(&self, x: f32, y: f32) -> Point {
        let (x, y) = ((x - self.origin.0) * self.fine, (y - self.origin.1) * self.fine);
        (x * self.down.1 - y * self.down.0, x * self.down.0 + y * self.down.1)
    }
}

/// Draws outlines in a frame of its own on a layer.
pub struct Pen<'a> {
    layer: &'a mut Layer,
    frame: Transform,
    skin: Skin,
    mask: Mask,
    /// The measures by which it draws.
    pub look: &'static Look,
    /// How the pattern lies on what is filled.
    pub cloth: Cloth,
    /// Strength of highlights; 0 is matt.
    pub gloss: f32,
    /// The coverage of what is drawn, 0 to 1.
    pub opacity: f32,
}

/// The affine map that scales, turns (radians, clockwise) and moves; trigonometry from `libm`, equal on every machine.
pub fn frame(origin: Point, scale: f32, mirrored: bool, angle: f32) -> Transform {
    let (sin, cos) = libm::sincosf(angle);
    let flip = if mirrored { -scale } else { scale };
    Transform::from_row(flip * cos, flip * sin, -scale * sin, scale * cos, origin.0, origin.1)
}

/// The part of the picture that one outline can touch.
struct Window {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl<'a> Pen<'a> {
    /// A pen on `layer`; points go through `frame` to pixels.
    pub fn new(layer: &'a mut Layer, frame: Transform, skin: Skin) -> Self {
        let mask = Mask::new(SIZE, SIZE).expect("the size is not zero");
        let (look, cloth) = (World::default().look(), Cloth::UPRIGHT);
        Self { layer, frame, skin, mask, look, cloth, gloss: 0.15, opacity: 1.0 }
    }

    /// Runs `draw` in a frame inside this one: moved, scaled, turned.
    pub fn within(&mut self, origin: Point, size: f32, angle: f32, draw: impl FnOnce(&mut Pen)) {
        let outer = self.frame;
        self.frame = outer.pre_concat(frame(origin, size, false, angle));
        draw(self);
        self.frame = outer;
    }

    /// Changes the skin, and returns the one before.
    pub fn wear(&mut self, skin: Skin) -> Skin {
        std::mem::replace(&mut self.skin, skin)
    }

    /// Pixels per unit.
    fn unit(&self) -> f32 {
        (self.frame.sx * self.frame.sx + self.frame.ky * self.frame.ky).sqrt()
    }

    /// Fills an outline. What lies below gets a soft dark edge, as if this part stood a little in front of it.
    pub fn fill(&mut self, path: &Path, fill: Fill, form: Form) {
        let local = path.bounds();
        let Some(path) = path.clone().transform(self.frame) else { return };
        let radius = match form {
            Form::Flat | Form::Glow => 0,
            Form::Soft(units) => ((units * self.unit()) as usize).clamp(1, 8),
            Form::Ball | Form::Tube => 2,
        };
        let bounds = path.bounds();
        let pad = (2 * radius + 2) as f32;
        let clip = |v: f32| v.clamp(0.0, SIDE as f32) as usize;
        let (left, top) = (clip(bounds.left() - pad), clip(bounds.top() - pad));
        let window = Window {
            left,
            top,
            width: clip(bounds.right() + pad + 1.0).saturating_sub(left),
            height: clip(bounds.bottom() + pad + 1.0).saturating_sub(top),
        };
        if window.width == 0 || window.height == 0 {
            return;
        }
        self.mask.clear();
        self.mask.fill_path(&path, FillRule::Winding, true, Transform::identity());
        let height = self.blurred(&window, radius);
        if radius > 0 && self.opacity > 0.9 {
            self.occlude(&window, &height);
        }
        let inverse = self.frame.invert().unwrap_or(Transform::identity());
        let soft = 1.0 / self.unit();
        let (centre_x, centre_y) =
            ((local.left() + local.right()) * 0.5, (local.top() + local.bottom()) * 0.5);
        let (half_x, half_y) = (local.width() * 0.5 + 1e-6, local.height() * 0.5 + 1e-6);
        for j in 0..window.height {
            for i in 0..window.width {
                let index = (window.top + j) * SIDE + window.left + i;
                let coverage = self.mask.data()[index];
                if coverage == 0 {
                    continue;
                }
                let (px, py) = ((window.left + i) as f32 + 0.5, (window.top + j) as f32 + 0.5);
                let x = inverse.sx * px + inverse.kx * py + inverse.tx;
                let y = inverse.ky * px + inverse.sy * py + inverse.ty;
                let (u, v) = ((x - centre_x) / half_x, (y - centre_y) / half_y);
                let round = matches!(form, Form::Ball | Form::Tube);
                // A pattern on a round thing bends down towards its sides.
                let bend = if round { 0.10 * half_x * u * u } else { 0.0 };
                let base = match fill {
                    Fill::Main => {
                        let at = self.cloth.map(x, y + bend);
                        self.skin.at(at, soft * self.cloth.fine, self.look.weave)
                    }
                    Fill::Ground => self.skin.main.rgb(),
                    Fill::Trim => self.skin.second.rgb(),
                    Fill::Solid(colour) => colour,
                };
                let colour = match form {
                    Form::Flat | Form::Glow => base,
                    Form::Soft(_) => lit(base, slope(&height, &window, i, j, radius), self.gloss),
                    Form::Ball => lit(base, self.turned(u * 0.92, v * 0.92), self.gloss),
                    Form::Tube => lit(base, self.turned(u * 0.92, v * 0.12), self.gloss),
                };
                self.layer.over(index, colour, f32::from(coverage) / 255.0 * self.opacity);
            }
        }
    }

    /// The normal of a round form at `(u, v)` of its box, in the picture's directions.
    fn turned(&self, u: f32, v: f32) -> [f32; 3] {
        let length = (u * u + v * v).sqrt().max(1e-6);
        let reach = length.min(0.98);
        let (u, v) = (u / length * reach, v / length * reach);
        let unit = self.unit();
        let x = (self.frame.sx * u + self.frame.kx * v) / unit;
        let y = (self.frame.ky * u + self.frame.sy * v) / unit;
        [x, y, (1.0 - reach * reach).sqrt()]
    }

    /// Darkens what is already there, around the new outline and away from the light.
    fn occlude(&mut self, window: &Window, height: &[f32]) {
        for j in 1..window.height {
            for i in 1..window.width {
                let cover = height[(j - 1) * window.width + i - 1];
                if cover == 0.0 {
                    continue;
                }
                let shade = 1.0 - 0.42 * cover;
                let pixel = &mut self.layer.pixels[(window.top + j) * SIDE + window.left + i];
                for channel in &mut pixel[..3] {
                    *channel *= shade;
                }
            }
        }
    }

    /// The mask inside the window, smoothed twice by a box of `2 radius + 1`.
    fn blurred(&self, window: &Window, radius: usize) -> Vec<f32> {
        if radius == 0 {
            return Vec::new();
        }
        let mut values = Vec::with_capacity(window.width * window.height);
        for j in 0..window.height {
            let start = (window.top + j) * SIDE + window.left;
            values.extend(
                self.mask.data()[start..start + window.width].iter().map(|&c| f32::from(c) / 255.0),
            );
        }
        for _ in 0..2 {
            blur(&mut values, window.width, window.height, radius);
        }
        values
    }
}

/// The normal of the blurred outline, read as a height.
fn slope(height: &[f32], window: &Window, i: usize, j: usize, radius: usize) -> [f32; 3] {
    let at = |i: usize, j: usize| height[j * window.width + i];
    let (west, east) = (at(i.saturating_sub(1), j), at((i + 1).min(window.width - 1), j));
    let (north, south) = (at(i, j.saturating_sub(1)), at(i, (j + 1).min(window.height - 1)));
    let k = radius as f32 * 1.5;
    let (x, y) = ((west - east) * k, (north - south) * k);
    let length = (x * x + y * y + 1.0).sqrt();
    [x / length, y / length, 1.0 / length]
}

/// Smooths by a square box of `2 radius + 1`; the edge repeats outwards.
pub fn blur(values: &mut [f32], width: usize, height: usize, radius: usize) {
    let mut line = Vec::with_capacity(width.max(height));
    for j in 0..height {
        line.clear();
        line.extend_from_slice(&values[j * width..(j + 1) * width]);
        average(&line, radius, |i, value| values[j * width + i] = value);
    }
    for i in 0..width {
        line.clear();
        line.extend((0..height).map(|j| values[j * width + i]));
        average(&line, radius, |j, value| values[j * width + i] = value);
    }
}

/// The running mean of a line.
fn average(line: &[f32], radius: usize, mut put: impl FnMut(usize, f32)) {
    let last = line.len() - 1;
    let norm = 1.0 / (2 * radius + 1) as f32;
    let mut sum = line[0] * radius as f32;
    for k in 0..=radius {
        sum += line[k.min(last)];
    }
    for i in 0..=last {
        put(i, sum * norm);
        sum += line[(i + radius + 1).min(last)] - line[i.saturating_sub(radius)];
    }
}

/// A colour under the light: warm where it falls, cool where it does not, with a highlight.
fn lit(base: Rgb, normal: [f32; 3], gloss: f32) -> Rgb {
    let dot = |a: [f32; 3]| (a[0] * normal[0] + a[1] * normal[1] + a[2] * normal[2]).max(0.0);
    let diffuse = dot(LIGHT);
    let mut shine = dot(HALF);
    for _ in 0..4 {
        shine *= shine; // the 16th power
    }
    let shade = [0.46 + 0.66 * diffuse, 0.47 + 0.64 * diffuse, 0.54 + 0.56 * diffuse];
    let lift = 0.03 * diffuse;
    let highlight = gloss * shine;
    let channel = |i: usize| base[i] * shade[i] * (1.0 - highlight) + lift + highlight;
    [channel(0), channel(1), channel(2)]
}
