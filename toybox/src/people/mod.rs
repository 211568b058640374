//! People: genes of looks, a pose, and an articulated figure with known joints.

mod draw;
mod pose;

pub use pose::{Limb, Pose};

use crate::colour::{Colour, Rgb};
use crate::rng::Rng;
use crate::skin::{Pattern, Skin};
use crate::world::World;
use serde::{Deserialize, Serialize};

/// How the hair falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is its own name")]
pub enum HairShape {
    Short,
    Long,
    Curly,
    Bun,
}

impl HairShape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Short, Self::Long, Self::Curly, Self::Bun];

    /// The word before the hair's colour in a caption; none for a bun.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Short => Some("short"),
            Self::Long => Some("long"),
            Self::Curly => Some("curly"),
            Self::Bun => None,
        }
    }
}

/// What covers the legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is its own name")]
pub enum Bottom {
    Trousers,
    Shorts,
    Skirt,
}

impl Bottom {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Trousers, Self::Shorts, Self::Skirt];

    /// The words in a caption, without an article for what is plural.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trousers => "trousers",
            Self::Shorts => "shorts",
            Self::Skirt => "skirt",
        }
    }
}

/// The genes of one person's looks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Looks {
    /// Tone of the skin, an index into six from light to dark.
    pub tone: usize,
    /// Colour of the hair: brown, black, yellow, red, gray.
    pub hair: Colour,
    /// How the hair falls.
    pub hair_shape: HairShape,
    /// The shirt.
    pub top: Skin,
    /// Do its sleeves reach the wrists?
    pub long_sleeves: bool,
    /// Colours of what covers the legs.
    pub bottom: Skin,
    /// And its kind.
    pub bottom_shape: Bottom,
    /// The shoes.
    pub shoes: Colour,
}

const TONES: [Rgb; 6] = [
    [0.98, 0.84, 0.73],
    [0.94, 0.76, 0.62],
    [0.86, 0.65, 0.48],
    [0.72, 0.50, 0.34],
    [0.54, 0.36, 0.24],
    [0.38, 0.25, 0.17],
];

impl Looks {
    /// Somebody.
    pub fn sample(rng: &mut Rng) -> Self {
        let top = Skin::sample(rng);
        let mut bottom = Skin::sample(rng);
        if rng.chance(0.6) {
            bottom.pattern = Pattern::Plain;
        }
        Self {
            tone: rng.below(TONES.len()),
            hair: rng.pick(&[
                Colour::Brown,
                Colour::Black,
                Colour::Yellow,
                Colour::Red,
                Colour::Gray,
            ]),
            hair_shape: rng.pick(&HairShape::ALL),
            top,
            long_sleeves: rng.chance(0.5),
            bottom,
            bottom_shape: rng.pick(&[
                Bottom::Trousers,
                Bottom::Trousers,
                Bottom::Shorts,
                Bottom::Skirt,
            ]),
            shoes: rng.pick(&Colour::ALL),
        }
    }

    fn tone(&self) -> Rgb {
        TONES[self.tone.min(TONES.len() - 1)]
    }
}

/// A person in a pose.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// What stays when the pose changes.
    pub looks: Looks,
    /// What changes.
    pub pose: Pose,
}

impl Person {
    /// Somebody in some pose.
    pub fn sample(world: World, rng: &mut Rng) -> Self {
        Self { looks: Looks::sample(rng), pose: Pose::sample(world, rng) }
    }
}
