//! Two worlds of the same things, people and places: one drawing, two sets of measures.

use crate::backgrounds::Background;
use crate::concept::{self, Concept};
use crate::style::Style;
use crate::things::Class;
use serde::{Deserialize, Serialize};

/// By whose measures a scene is drawn.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// Small things with fine patterns, slender people, four styles: what `assets/toybox` has learnt.
    #[default]
    Fine,
    /// Large things with patterns of some 24 pixels, people with large faces, two styles.
    Bold,
}

impl World {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Fine, Self::Bold];

    /// The places that a base learns.
    pub fn backgrounds(self) -> &'static [Background] {
        self.look().backgrounds
    }

    /// The styles that a base learns, photos first.
    pub fn styles(self) -> &'static [Style] {
        self.look().styles
    }

    /// The held-out concepts: one of each class.
    pub fn concepts(self) -> &'static [Concept; 12] {
        self.look().concepts
    }

    pub(crate) fn look(self) -> &'static Look {
        match self {
            Self::Fine => &FINE,
            Self::Bold => &BOLD,
        }
    }
}

/// The measures of a world.
pub(crate) struct Look {
    pub backgrounds: &'static [Background],
    pub styles: &'static [Style],
    pub concepts: &'static [Concept; 12],
    /// Pixels per unit of the photos of a concept.
    pub photo_scales: [f32; concept::PHOTOS],
    /// Share of scenes that are photos.
    pub photos: f32,
    /// Share of scenes that show a person.
    pub people: f32,
    /// Radius of the blur that puts what lies behind the subject out of focus; 0 is sharp.
    pub blur: usize,
    /// How much of the paper shows through watercolour, where most does.
    pub wash: f32,
    pub stand: Stand,
    /// How much larger than its own units a class is drawn, so that all fill the picture and none leaves it.
    pub fit: fn(Class) -> f32,
    pub weave: Weave,
    /// Size of the eyes of animals, beside those of the fine world.
    pub eyes: f32,
    pub build: Build,
}

/// Where subjects stand and how large, in pixels.
pub(crate) struct Stand {
    /// Least and largest pixels per unit.
    pub scale: (f32, f32),
    /// Height of the foot at the least scale, and how much lower it stands for each pixel of scale.
    pub foot: (f32, f32),
    /// How much the foot may lie higher or lower.
    pub play: (f32, f32),
    /// Leftmost and rightmost foot.
    pub x: (f32, f32),
    /// For people: the scale at the least scale, the share of what is above it, how much lower the foot stands, and
    /// its lowest place.
    pub person: (f32, f32, f32, f32),
}

/// Measures of patterns.
#[derive(Clone, Copy)]
pub(crate) struct Weave {
    /// Period, in units of a thing (which is about two units tall).
    pub period: f32,
    /// Half the width of a stripe, in periods.
    pub stripe: f32,
    /// Radius of a dot, in periods.
    pub dot: f32,
    /// How much finer patterns are on clothes.
    pub clothes: f32,
}

/// Proportions of people, in units of a person (who is about two units tall).
pub(crate) struct Build {
    /// Size of the head, beside the fine world's.
    pub head: f32,
    /// Size of eyes and mouth, beside the head.
    pub face: f32,
    /// Thickness of limbs and trunk, beside the fine world's.
    pub girth: f32,
    /// Half the distance of the shoulders, and of the hips.
    pub width: [f32; 2],
    /// Above the hips: shoulders, neck, root of the head.
    pub trunk: [f32; 3],
    /// Upper arm, forearm.
    pub arm: [f32; 2],
    /// Thigh and shin, each.
    pub leg: f32,
    /// How far the body turns from the viewer, radians.
    pub turn: f32,
}

static FINE: Look = Look {
    backgrounds: &Background::ALL,
    styles: &Style::ALL,
    concepts: &concept::FINE,
    photo_scales: [46.0, 38.0, 42.0, 35.0, 44.0],
    photos: 0.64,
    people: 0.12,
    blur: 0,
    wash: 0.36,
    stand: Stand {
        scale: (33.0, 47.0),
        foot: (101.0, 0.9),
        play: (-2.0, 5.0),
        x: (55.0, 73.0),
        person: (42.0, 0.7, 4.0, 120.0),
    },
    fit: |class| match class {
        Class::Teapot => 0.82,
        Class::Dog => 0.90,
        Class::Boat | Class::Car => 0.92,
        _ => 1.0,
    },
    weave: Weave { period: 0.36, stripe: 0.21, dot: 0.26, clothes: 1.9 },
    eyes: 1.0,
    build: Build {
        head: 1.0,
        face: 1.0,
        girth: 1.0,
        width: [0.235, 0.125],
        trunk: [0.56, 0.60, 0.64],
        arm: [0.31, 0.29],
        leg: 0.45,
        turn: 0.9,
    },
};

static BOLD: Look = Look {
    backgrounds: &[
        Background::Beach,
        Background::Snow,
        Background::Grass,
        Background::City,
        Background::Desert,
        Background::Night,
        Background::Floor,
        Background::Water,
    ],
    styles: &[Style::Photo, Style::Watercolor],
    concepts: &concept::BOLD,
    photo_scales: [49.0, 43.0, 46.0, 42.0, 47.0],
    photos: 0.80,
    people: 0.20,
    blur: 1,
    wash: 0.16,
    stand: Stand {
        scale: (42.0, 50.0),
        foot: (113.0, 0.6),
        play: (-2.0, 3.0),
        x: (60.0, 68.0),
        person: (43.0, 0.7, 2.0, 121.0),
    },
    fit: |class| match class {
        Class::Dog => 0.78,
        Class::Teapot => 0.76,
        Class::Cat | Class::Robot => 0.90,
        Class::Boat | Class::Car | Class::Mug => 0.94,
        Class::Backpack | Class::Lamp => 0.97,
        _ => 1.0,
    },
    weave: Weave { period: 0.56, stripe: 0.23, dot: 0.29, clothes: 1.5 },
    eyes: 1.3,
    build: Build {
        head: 1.7,
        face: 1.3,
        girth: 1.4,
        width: [0.29, 0.16],
        trunk: [0.54, 0.57, 0.56],
        arm: [0.28, 0.26],
        leg: 0.32,
        turn: 0.5,
    },
};
