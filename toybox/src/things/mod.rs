//! The twelve classes of things, and the genes that make one of them.

mod animals;
mod household;
mod machines;
mod places;

use crate::paint::Pen;
use crate::rng::Rng;
use crate::shape::Point;
use crate::skin::Skin;
use serde::{Deserialize, Serialize};

/// What a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is its own name")]
pub enum Class {
    Teapot,
    Mug,
    Backpack,
    Robot,
    Cat,
    Dog,
    Bear,
    Car,
    Boat,
    House,
    Lamp,
    Plant,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Teapot,
        Self::Mug,
        Self::Backpack,
        Self::Robot,
        Self::Cat,
        Self::Dog,
        Self::Bear,
        Self::Car,
        Self::Boat,
        Self::House,
        Self::Lamp,
        Self::Plant,
    ];

    /// The word in a caption.
    pub fn name(self) -> &'static str {
        match self {
            Self::Teapot => "teapot",
            Self::Mug => "mug",
            Self::Backpack => "backpack",
            Self::Robot => "robot",
            Self::Cat => "cat",
            Self::Dog => "dog",
            Self::Bear => "bear",
            Self::Car => "car",
            Self::Boat => "boat",
            Self::House => "house",
            Self::Lamp => "lamp",
            Self::Plant => "plant",
        }
    }
}

/// The genes of one thing: two with equal genes look alike wherever they stand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Thing {
    /// What it is.
    pub class: Class,
    /// Three numbers in `[0, 1]` that move its parts; what each moves depends on the class.
    pub shape: [f32; 3],
    /// Its colours and pattern.
    #[serde(flatten)]
    pub skin: Skin,
}

/// Where accessories sit, in the thing's own frame.
#[derive(Debug, Clone, Copy)]
pub struct Anchors {
    /// Middle of the top edge that carries a hat.
    pub crown: Point,
    /// Width of the head at the hat's rim.
    pub crown_width: f32,
    /// Middle between the eyes, or of the place that stands for a face.
    pub eyes: Point,
    /// Width that sunglasses should span.
    pub eyes_width: f32,
}

impl Thing {
    /// One at random.
    pub fn sample(rng: &mut Rng) -> Self {
        Self {
            class: rng.pick(&Class::ALL),
            shape: [rng.unit(), rng.unit(), rng.unit()],
            skin: Skin::sample(rng),
        }
    }

    /// Draws the thing with its foot at the origin; it is about two units tall.
    pub(crate) fn draw(&self, pen: &mut Pen) -> Anchors {
        pen.wear(self.skin);
        let shape = self.shape;
        match self.class {
            Class::Teapot => household::teapot(pen, shape),
            Class::Mug => household::mug(pen, shape),
            Class::Backpack => household::backpack(pen, shape),
            Class::Lamp => household::lamp(pen, shape),
            Class::Robot => machines::robot(pen, shape),
            Class::Car => machines::car(pen, shape),
            Class::Boat => machines::boat(pen, shape),
            Class::Cat => animals::cat(pen, shape),
            Class::Dog => animals::dog(pen, shape),
            Class::Bear => animals::bear(pen, shape),
            Class::House => places::house(pen, shape),
            Class::Plant => places::plant(pen, shape),
        }
    }
}
