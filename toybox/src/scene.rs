//! A scene: everything that one picture shows.

use crate::SIZE;
use crate::accessory::Accessory;
use crate::backgrounds::{Background, Setting};
use crate::colour::{Rgb, mix};
use crate::paint::{Layer, Pen, blur, frame};
use crate::people::Person;
use crate::rng::{Rng, noise};
use crate::shape::Point;
use crate::skin::{Pattern, Skin};
use crate::style::Style;
use crate::things::Thing;
use crate::world::{Stand, World};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use tiny_skia::Transform;

const SIDE: usize = SIZE as usize;

/// What a scene is about.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// One of the twelve classes.
    Thing(Thing),
    /// Somebody.
    Person(Person),
}

/// How large the subject is and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// Foot of the subject, pixels.
    pub x: f32,
    /// Foot of the subject, pixels.
    pub y: f32,
    /// Pixels per unit; a thing is about two units tall.
    pub scale: f32,
    /// Clockwise turn about the foot, radians.
    pub angle: f32,
    /// Left and right exchanged. A person is mirrored by its pose instead ([`crate::Pose::mirrored`]).
    pub mirrored: bool,
}

impl Placement {
    /// Somewhere near the middle.
    pub fn sample(world: World, rng: &mut Rng) -> Self {
        let Stand { scale: (least, most), foot, play, x, .. } = world.look().stand;
        let scale = rng.range(least, most);
        // A large subject stands lower, as it is nearer.
        let y = foot.0 + (scale - least) * foot.1 + rng.range(play.0, play.1);
        Self {
            x: rng.range(x.0, x.1),
            y,
            scale,
            angle: rng.range(-0.05, 0.05),
            mirrored: rng.chance(0.5),
        }
    }
}

impl Placement {
    /// The same for a person, whose units are others.
    #[must_use]
    pub fn for_person(self, world: World) -> Self {
        let Stand { scale: (thing, _), person: (least, share, lower, lowest), .. } =
            world.look().stand;
        let scale = least + (self.scale - thing) * share;
        Self { scale, y: (self.y + lower).min(lowest), ..self }
    }
}

/// Everything that one picture shows; equal scenes draw equal pixels, on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// By whose measures it is drawn; files from when there was one world do not say.
    #[serde(default)]
    pub world: World,
    /// Who or what.
    pub subject: Subject,
    /// Where.
    pub background: Background,
    /// The background's own detail.
    pub background_seed: u64,
    /// How it is rendered.
    pub style: Style,
    /// Worn by the subject.
    pub accessory: Option<Accessory>,
    /// Size and place of the subject.
    pub placement: Placement,
}

impl Scene {
    /// A scene for training the base: any thing or person anywhere, but nothing near a held-out concept.
    pub fn sample(world: World, rng: &mut Rng) -> Self {
        let subject = if rng.chance(world.look().people) {
            Subject::Person(Person::sample(world, rng))
        } else {
            loop {
                let thing = Thing::sample(rng);
                if !world.concepts().iter().any(|concept| concept.is_near(&thing)) {
                    break Subject::Thing(thing);
                }
            }
        };
        let mut placement = Placement::sample(world, rng);
        if matches!(subject, Subject::Person(_)) {
            placement = placement.for_person(world);
        }
        Self {
            world,
            subject,
            background: rng.pick(world.backgrounds()),
            background_seed: rng.bits(),
            style: Style::sample(world, rng),
            accessory: rng.chance(0.35).then(|| Accessory::sample(rng)),
            placement,
        }
    }

    /// The eighteen joints of a person in pixels, `OpenPose` order ([`crate::JOINTS`]); `None` for a thing.
    pub fn joints(&self) -> Option<[(f32, f32); 18]> {
        let Subject::Person(person) = self.subject else { return None };
        let to_pixels = self.frame();
        let bones = person.pose.skeleton(&self.world.look().build);
        Some(std::array::from_fn(|k| map(to_pixels, bones.seen(k))))
    }

    /// From the subject's units to pixels.
    fn frame(&self) -> Transform {
        let Placement { x, y, scale, angle, mirrored } = self.placement;
        match &self.subject {
            Subject::Thing(thing) => {
                frame((x, y), scale * (self.world.look().fit)(thing.class), mirrored, angle)
            }
            Subject::Person(_) => frame((x, y), scale, false, angle),
        }
    }

    /// Draws the scene, 128 by 128.
    pub fn draw(&self) -> RgbImage {
        self.compose(&self.figure())
    }

    /// The scene without its subject, and so without shadow and reflection.
    pub fn deserted(&self) -> RgbImage {
        self.compose(&Layer::transparent())
    }

    /// Where the subject is: white, on black; the edge is grey.
    pub fn silhouette(&self) -> RgbImage {
        let bytes = self.figure().pixels.iter().flat_map(|p| [level(p[3]); 3]).collect();
        RgbImage::from_raw(SIZE, SIZE, bytes).expect("three bytes for each pixel")
    }

    /// The subject with what it wears, and nothing around it.
    pub(crate) fn figure(&self) -> Layer {
        let mut subject = Layer::transparent();
        let plain = Skin {
            main: crate::Colour::Gray,
            second: crate::Colour::White,
            pattern: Pattern::Plain,
            phase: 0.0,
        };
        let mut pen = Pen::new(&mut subject, self.frame(), plain);
        pen.look = self.world.look();
        let anchors = match &self.subject {
            Subject::Thing(thing) => thing.draw(&mut pen),
            Subject::Person(person) => person.draw(&mut pen),
        };
        if let Some(accessory) = self.accessory {
            accessory.draw(&mut pen, anchors);
        }
        subject
    }

    fn compose(&self, subject: &Layer) -> RgbImage {
        let mut setting = self.background.draw(self.background_seed);
        if self.world.look().blur > 0 {
            setting.layer.soften(self.world.look().blur);
        }
        if setting.mirrors {
            reflect(&mut setting.layer, subject, self.placement.y, self.background_seed as u32);
        }
        cast_shadow(&mut setting, subject, &self.placement);
        for (below, above) in setting.layer.pixels.iter_mut().zip(&subject.pixels) {
            let rest = 1.0 - above[3];
            for (k, tint) in setting.tint.iter().enumerate() {
                below[k] = below[k] * rest + above[k] * tint;
            }
        }
        let picture: Vec<Rgb> = setting.layer.pixels.iter().map(|p| [p[0], p[1], p[2]]).collect();
        let outline: Vec<f32> = subject.pixels.iter().map(|p| p[3]).collect();
        let picture =
            self.style.render(picture, &outline, self.background_seed as u32, self.world.look());
        let bytes = picture.iter().flat_map(|p| p.map(level)).collect();
        RgbImage::from_raw(SIZE, SIZE, bytes).expect("three bytes for each pixel")
    }
}

fn level(share: f32) -> u8 {
    (share.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
}

fn map(frame: Transform, (x, y): Point) -> Point {
    (frame.sx * x + frame.kx * y + frame.tx, frame.ky * x + frame.sy * y + frame.ty)
}

/// Darkens the ground: the subject's outline laid down to the right and back, soft, and a dark contact below the foot.
fn cast_shadow(setting: &mut Setting, subject: &Layer, placement: &Placement) {
    const FLATTEN: f32 = 0.26;
    const SHEAR: f32 = 0.62;
    let foot = placement.y;
    // Only these rows can lie in shadow.
    let top = ((foot - 120.0 * FLATTEN - 4.0).max(0.0) as usize).min(SIDE - 1);
    let rows = ((foot + 10.0) as usize).clamp(top + 1, SIDE) - top;
    let mut dark = vec![0.0_f32; SIDE * rows];
    for row in 0..rows {
        for x in 0..SIDE {
            let (px, py) = (x as f32 + 0.5, (top + row) as f32 + 0.5);
            let height = (foot - py) / FLATTEN;
            let (sx, sy) = (px - SHEAR * height.max(0.0), foot - 2.0 - height);
            if sx >= 0.0 && sy >= 0.0 && sy < SIDE as f32 {
                dark[row * SIDE + x] =
                    subject.pixels[sy as usize * SIDE + (sx as usize).min(SIDE - 1)][3];
            }
        }
    }
    blur(&mut dark, SIDE, rows, 2);
    // Contact: the lowest rows of the outline, spread.
    let mut contact = vec![0.0_f32; SIDE * rows];
    let low = (foot - 7.0).max(0.0) as usize;
    for x in 0..SIDE {
        let touches = (low..SIDE).map(|y| subject.pixels[y * SIDE + x][3]).fold(0.0, f32::max);
        for y in (foot - 3.0).max(0.0) as usize..((foot + 3.0) as usize).min(top + rows) {
            contact[(y - top) * SIDE + x] = touches;
        }
    }
    blur(&mut contact, SIDE, rows, 2);
    let (colour, strength) = setting.shadow;
    for (k, pixel) in setting.layer.pixels[top * SIDE..(top + rows) * SIDE].iter_mut().enumerate() {
        let shade = (dark[k] * strength).max(contact[k] * (strength + 0.15).min(0.8));
        let shaded = mix([pixel[0], pixel[1], pixel[2]], colour, shade);
        pixel[..3].copy_from_slice(&shaded);
    }
}

/// Mirrors the subject in rippled water below its foot.
fn reflect(ground: &mut Layer, subject: &Layer, foot: f32, seed: u32) {
    for y in (foot.max(0.0) as usize).min(SIDE)..SIDE {
        for x in 0..SIDE {
            let down = y as f32 + 0.5 - foot;
            let wave = (noise(x as f32 * 0.06, y as f32 * 0.45, seed) - 0.5) * (2.0 + down * 0.35);
            let (sx, sy) = (x as f32 + 0.5 + wave, foot - 3.0 - down * 1.1);
            if sx < 0.0 || sy < 0.0 || sx >= SIDE as f32 {
                continue;
            }
            let [r, g, b, alpha] = subject.pixels[sy as usize * SIDE + sx as usize];
            if alpha > 0.0 {
                let strength = 0.5 * alpha * (1.0 - down / 40.0).max(0.0);
                ground.over(y * SIDE + x, [r / alpha, g / alpha, b / alpha], strength);
            }
        }
    }
}
