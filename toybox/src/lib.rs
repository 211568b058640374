//! A small picture world whose truth is known: things, people and places, drawn from genes, with captions.
//!
//! A picture depends on its [`Scene`] alone, and a scene sampled from a seed is the same on every machine: random
//! numbers, noise, trigonometry and rasterising use only integers and exactly rounded arithmetic.
//!
//! ```
//! use toybox::{Rng, Scene, World};
//! let rng = &mut Rng::new(7);
//! let scene = Scene::sample(World::Fine, rng);
//! let (picture, caption) = (scene.draw(), scene.caption(rng));
//! assert_eq!(picture.dimensions(), (128, 128));
//! assert!(!caption.is_empty());
//! ```

mod accessory;
mod artist;
mod backgrounds;
pub mod bars;
mod caption;
mod choices;
mod clothes;
mod colour;
mod concept;
mod cores;
mod fit;
mod font;
mod joints;
mod paint;
mod people;
pub mod pretrain;
mod redraw;
mod rng;
mod scene;
mod shape;
mod sheet;
mod skin;
mod style;
mod things;
mod world;
mod write;
mod write_people;

pub use accessory::Accessory;
pub use backgrounds::Background;
pub use caption::VOCABULARY;
pub use clothes::{Clothes, clothes};
pub use colour::Colour;
pub use concept::{Concept, NEAR, PHOTOS};
pub use joints::joints;
pub use people::{Bottom, HairShape, Limb, Looks, Person, Pose};
pub use pipelines::pose::JOINTS;
pub use redraw::{Redraw, redraw};
pub use rng::Rng;
pub use scene::{Placement, Scene, Subject};
pub use sheet::contact_sheet;
pub use skin::{Pattern, Skin};
pub use style::Style;
pub use things::{Class, Thing};
pub use world::World;
pub use write::{concepts, dataset, sample, save};
pub use write_people::{Layout, Pair, Place, pair, people};

use std::path::PathBuf;

/// Width and height of every picture, in pixels.
pub const SIZE: u32 = 128;

/// What can go wrong: only writing can.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A picture could not be written.
    #[error("cannot write the picture {path}: {source}; is the folder there, and does the name end in .png?", path = path.display())]
    Picture {
        /// Where it should have gone.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// A file or folder could not be written.
    #[error("cannot write {path}: {source}; choose a folder that you may write to", path = path.display())]
    File {
        /// Where it should have gone.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
