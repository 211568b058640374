//! The held-out concepts: twelve fixed things of each world that its base never sees, for personalisation and its
//! evaluation.

use crate::accessory::Accessory;
use crate::backgrounds::Background;
use crate::colour::Colour;
use crate::rng::Rng;
use crate::scene::{Placement, Scene, Subject};
use crate::skin::{Pattern, Skin};
use crate::style::Style;
use crate::things::{Class, Thing};
use crate::world::World;
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
    /// The world that it is held out of; files from when there was one do not say.
    #[serde(default)]
    pub world: World,
    /// Its class and genes.
    #[serde(flatten)]
    pub thing: Thing,
}

const fn concept(
    world: World,
    name: &'static str,
    class: Class,
    shape: [f32; 3],
    skin: (Colour, Colour, Pattern, f32),
) -> Concept {
    let (main, second, pattern, phase) = skin;
    Concept {
        name,
        world,
        thing: Thing { class, shape, skin: Skin { main, second, pattern, phase } },
    }
}

/// One of each class, of the fine world.
pub(crate) static FINE: [Concept; 12] = [
    concept(
        World::Fine,
        "teapot",
        Class::Teapot,
        [0.85, 0.25, 0.90],
        (Colour::Teal, Colour::White, Pattern::Dotted, 0.20),
    ),
    concept(
        World::Fine,
        "mug",
        Class::Mug,
        [0.30, 0.85, 0.90],
        (Colour::Blue, Colour::Yellow, Pattern::Striped, 0.10),
    ),
    concept(
        World::Fine,
        "backpack",
        Class::Backpack,
        [0.80, 0.85, 0.15],
        (Colour::Green, Colour::Orange, Pattern::Checkered, 0.00),
    ),
    concept(
        World::Fine,
        "robot",
        Class::Robot,
        [0.95, 0.15, 0.85],
        (Colour::Pink, Colour::Blue, Pattern::Plain, 0.00),
    ),
    concept(
        World::Fine,
        "cat",
        Class::Cat,
        [0.90, 0.80, 0.15],
        (Colour::Orange, Colour::White, Pattern::Striped, 0.35),
    ),
    concept(
        World::Fine,
        "dog",
        Class::Dog,
        [0.80, 0.30, 0.85],
        (Colour::White, Colour::Black, Pattern::Dotted, 0.60),
    ),
    concept(
        World::Fine,
        "bear",
        Class::Bear,
        [0.95, 0.85, 0.80],
        (Colour::Purple, Colour::Pink, Pattern::Plain, 0.00),
    ),
    concept(
        World::Fine,
        "car",
        Class::Car,
        [0.90, 0.10, 0.90],
        (Colour::Yellow, Colour::Black, Pattern::Checkered, 0.25),
    ),
    concept(
        World::Fine,
        "boat",
        Class::Boat,
        [0.20, 0.85, 0.90],
        (Colour::Red, Colour::Yellow, Pattern::Striped, 0.30),
    ),
    concept(
        World::Fine,
        "house",
        Class::House,
        [0.90, 0.15, 0.85],
        (Colour::Pink, Colour::Purple, Pattern::Dotted, 0.45),
    ),
    concept(
        World::Fine,
        "lamp",
        Class::Lamp,
        [0.85, 0.15, 0.80],
        (Colour::Red, Colour::White, Pattern::Checkered, 0.15),
    ),
    concept(
        World::Fine,
        "plant",
        Class::Plant,
        [0.85, 0.70, 0.20],
        (Colour::Blue, Colour::Red, Pattern::Striped, 0.55),
    ),
];

/// One of each class, of the bold world.
pub(crate) static BOLD: [Concept; 12] = [
    concept(
        World::Bold,
        "teapot",
        Class::Teapot,
        [0.85, 0.75, 0.80],
        (Colour::Teal, Colour::White, Pattern::Dotted, 0.20),
    ),
    concept(
        World::Bold,
        "mug",
        Class::Mug,
        [0.55, 0.85, 0.90],
        (Colour::Yellow, Colour::Blue, Pattern::Striped, 0.10),
    ),
    concept(
        World::Bold,
        "backpack",
        Class::Backpack,
        [0.80, 0.85, 0.15],
        (Colour::Red, Colour::White, Pattern::Checkered, 0.00),
    ),
    concept(
        World::Bold,
        "robot",
        Class::Robot,
        [0.95, 0.15, 0.85],
        (Colour::Orange, Colour::Purple, Pattern::Plain, 0.00),
    ),
    concept(
        World::Bold,
        "cat",
        Class::Cat,
        [0.90, 0.80, 0.15],
        (Colour::Orange, Colour::Black, Pattern::Striped, 0.35),
    ),
    concept(
        World::Bold,
        "dog",
        Class::Dog,
        [0.80, 0.30, 0.85],
        (Colour::White, Colour::Brown, Pattern::Dotted, 0.60),
    ),
    concept(
        World::Bold,
        "bear",
        Class::Bear,
        [0.95, 0.85, 0.80],
        (Colour::Pink, Colour::Teal, Pattern::Plain, 0.00),
    ),
    concept(
        World::Bold,
        "car",
        Class::Car,
        [0.90, 0.60, 0.90],
        (Colour::Green, Colour::Yellow, Pattern::Dotted, 0.25),
    ),
    concept(
        World::Bold,
        "boat",
        Class::Boat,
        [0.20, 0.85, 0.90],
        (Colour::Blue, Colour::White, Pattern::Striped, 0.80),
    ),
    concept(
        World::Bold,
        "house",
        Class::House,
        [0.90, 0.15, 0.85],
        (Colour::Yellow, Colour::Red, Pattern::Checkered, 0.45),
    ),
    concept(
        World::Bold,
        "lamp",
        Class::Lamp,
        [0.85, 0.15, 0.80],
        (Colour::Purple, Colour::Yellow, Pattern::Dotted, 0.15),
    ),
    concept(
        World::Bold,
        "plant",
        Class::Plant,
        [0.85, 0.70, 0.20],
        (Colour::Black, Colour::Pink, Pattern::Striped, 0.55),
    ),
];

impl Concept {
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
            world: self.world,
            subject: Subject::Thing(self.thing),
            background,
            background_seed: rng.bits(),
            style,
            accessory,
            placement: Placement::sample(self.world, rng),
        }
    }

    /// The five photos from which the concept is learnt: five places, sizes and slight turns.
    pub fn photos(&self) -> [Scene; PHOTOS] {
        let concepts = self.world.concepts();
        let index = concepts.iter().position(|other| other.name == self.name).unwrap_or(0);
        let rng = &mut Rng::nth(0x0070_7970, index as u64);
        let mut places = self.world.backgrounds().to_vec();
        std::array::from_fn(|k| {
            let other = k + rng.below(places.len() - k);
            places.swap(k, other);
            let mut scene = self.scene(places[k], Style::Photo, None, rng.bits());
            scene.placement.scale = self.world.look().photo_scales[k];
            scene.placement.angle = [0.0, -0.09, 0.06, 0.10, -0.05][k];
            scene
        })
    }
}
