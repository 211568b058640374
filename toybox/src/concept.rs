//! The held-out concepts: twelve fixed things that the base never sees, for personalisation and its evaluation.

use crate::accessory::Accessory;
use crate::backgrounds::Background;
use crate::colour::Colour;
use crate::rng::Rng;
use crate::scene::{Placement, Scene, Subject};
use crate::skin::{Pattern, Skin};
use crate::style::Style;
use crate::things::{Class, Thing};
use serde::{Deserialize, Serialize};

/// A thing nearer than this to a concept is kept out of the base's training ([`Concept::distance`]).
pub const NEAR: f32 = 0.75;

/// Photos of each concept.
pub const PHOTOS: usize = 5;

/// A fixed thing with a name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Concept<Name = &'static str> {
    /// Its name, fit for a folder.
    pub name: Name,
    /// Its class and genes.
    #[serde(flatten)]
    pub thing: Thing,
}

const fn concept(
    name: &'static str,
    class: Class,
    shape: [f32; 3],
    skin: (Colour, Colour, Pattern, f32),
) -> Concept {
    let (main, second, pattern, phase) = skin;
    Concept { name, thing: Thing { class, shape, skin: Skin { main, second, pattern, phase } } }
}

/// One of each class.
static CONCEPTS: [Concept; 12] = [
    concept(
        "teapot",
        Class::Teapot,
        [0.85, 0.25, 0.90],
        (Colour::Teal, Colour::White, Pattern::Dotted, 0.20),
    ),
    concept(
        "mug",
        Class::Mug,
        [0.30, 0.85, 0.90],
        (Colour::Blue, Colour::Yellow, Pattern::Striped, 0.10),
    ),
    concept(
        "backpack",
        Class::Backpack,
        [0.80, 0.85, 0.15],
        (Colour::Green, Colour::Orange, Pattern::Checkered, 0.00),
    ),
    concept(
        "robot",
        Class::Robot,
        [0.95, 0.15, 0.85],
        (Colour::Pink, Colour::Blue, Pattern::Plain, 0.00),
    ),
    concept(
        "cat",
        Class::Cat,
        [0.90, 0.80, 0.15],
        (Colour::Orange, Colour::White, Pattern::Striped, 0.35),
    ),
    concept(
        "dog",
        Class::Dog,
        [0.80, 0.30, 0.85],
        (Colour::White, Colour::Black, Pattern::Dotted, 0.60),
    ),
    concept(
        "bear",
        Class::Bear,
        [0.95, 0.85, 0.80],
        (Colour::Purple, Colour::Pink, Pattern::Plain, 0.00),
    ),
    concept(
        "car",
        Class::Car,
        [0.90, 0.10, 0.90],
        (Colour::Yellow, Colour::Black, Pattern::Checkered, 0.25),
    ),
    concept(
        "boat",
        Class::Boat,
        [0.20, 0.85, 0.90],
        (Colour::Red, Colour::Yellow, Pattern::Striped, 0.30),
    ),
    concept(
        "house",
        Class::House,
        [0.90, 0.15, 0.85],
        (Colour::Pink, Colour::Purple, Pattern::Dotted, 0.45),
    ),
    concept(
        "lamp",
        Class::Lamp,
        [0.85, 0.15, 0.80],
        (Colour::Red, Colour::White, Pattern::Checkered, 0.15),
    ),
    concept(
        "plant",
        Class::Plant,
        [0.85, 0.70, 0.20],
        (Colour::Blue, Colour::Red, Pattern::Striped, 0.55),
    ),
];

impl Concept {
    /// All of them: one of each class.
    pub fn all() -> &'static [Self; 12] {
        &CONCEPTS
    }

    /// How far a thing is from this concept in the space of genes. Another class is infinitely far. Otherwise 1 for
    /// another main colour, 0.5 for another pattern, 0.25 for another second colour, and the Euclidean distance of the
    /// shapes are added. The phase counts for nothing: a shifted pattern looks the same.
    pub fn distance(&self, thing: &Thing) -> f32 {
        let own = &self.thing;
        if own.class != thing.class {
            return f32::INFINITY;
        }
        let apart = |differs: bool, weight: f32| if differs { weight } else { 0.0 };
        let squares: f32 = own.shape.iter().zip(&thing.shape).map(|(a, b)| (a - b) * (a - b)).sum();
        apart(own.skin.main != thing.skin.main, 1.0)
            + apart(own.skin.pattern != thing.skin.pattern, 0.5)
            + apart(own.skin.second != thing.skin.second, 0.25)
            + squares.sqrt()
    }

    /// Is the thing too near to be shown to the base? ([`NEAR`])
    pub fn is_near(&self, thing: &Thing) -> bool {
        self.distance(thing) < NEAR
    }

    /// The concept in any scene: the reference picture for a prompt. The seed chooses place, size and detail.
    pub fn scene(
        &self,
        background: Background,
        style: Style,
        accessory: Option<Accessory>,
        seed: u64,
    ) -> Scene {
        let rng = &mut Rng::new(seed);
        Scene {
            subject: Subject::Thing(self.thing),
            background,
            background_seed: rng.bits(),
            style,
            accessory,
            placement: Placement::sample(rng),
        }
    }

    /// The five photos from which the concept is learnt: five places, sizes and slight turns.
    pub fn photos(&self) -> [Scene; PHOTOS] {
        let index = CONCEPTS.iter().position(|other| other.name == self.name).unwrap_or(0);
        let rng = &mut Rng::nth(0x0070_7970, index as u64);
        let mut places = Background::ALL;
        std::array::from_fn(|k| {
            let other = k + rng.below(places.len() - k);
            places.swap(k, other);
            let mut scene = self.scene(places[k], Style::Photo, None, rng.bits());
            scene.placement.scale = [46.0, 38.0, 42.0, 35.0, 44.0][k];
            scene.placement.angle = [0.0, -0.09, 0.06, 0.10, -0.05][k];
            scene
        })
    }
}
