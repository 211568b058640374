//! The world on disk: pictures with captions, the held-out concepts, pairs of poses.

use crate::concept::Concept;
use crate::people::{Looks, Person, Pose};
use crate::rng::Rng;
use crate::scene::{Placement, Scene, Subject};
use crate::style::Style;
use crate::{Background, Error};
use image::RgbImage;
use serde::Serialize;
use std::fs;
use std::path::Path;

/// Writes a picture; the ending chooses the format.
pub fn save(picture: &RgbImage, path: &Path) -> Result<(), Error> {
    picture.save(path).map_err(|source| Error::Picture { path: path.to_owned(), source })
}

fn text(path: &Path, content: &str) -> Result<(), Error> {
    fs::write(path, content).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Sample number `index` of a data set: a scene and its caption. Samples can be drawn in any order.
pub fn sample(seed: u64, index: u64) -> (Scene, String) {
    let rng = &mut Rng::nth(seed, index);
    let scene = Scene::sample(rng);
    let caption = scene.caption(rng);
    (scene, caption)
}

/// Writes `000000.png`, `000000.txt` and so on.
pub fn dataset(directory: &Path, count: u64, seed: u64) -> Result<(), Error> {
    folder(directory)?;
    for index in 0..count {
        let (scene, caption) = sample(seed, index);
        save(&scene.draw(), &directory.join(format!("{index:06}.png")))?;
        text(&directory.join(format!("{index:06}.txt")), &format!("{caption}\n"))?;
    }
    Ok(())
}

/// Writes a folder for each held-out concept: five photos `0.png` to `4.png`, and `concept.toml` with class and genes.
pub fn concepts(directory: &Path) -> Result<(), Error> {
    for concept in Concept::all() {
        let directory = directory.join(concept.name);
        folder(&directory)?;
        for (k, scene) in concept.photos().iter().enumerate() {
            save(&scene.draw(), &directory.join(format!("{k}.png")))?;
        }
        let genes = toml::to_string(concept).expect("a concept has only strings and numbers");
        text(&directory.join("concept.toml"), &genes)?;
    }
    Ok(())
}

/// One person in two poses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The first picture.
    pub source: Scene,
    /// The same person at the same place, in another pose.
    pub target: Scene,
    /// Names everything.
    pub caption: String,
    /// Joints of the first picture, pixels.
    pub source_joints: [(f32, f32); 18],
    /// Joints of the second.
    pub target_joints: [(f32, f32); 18],
}

/// Pair number `index` of a seed.
pub fn pair(seed: u64, index: u64) -> Pair {
    let rng = &mut Rng::nth(seed ^ 0x7061_6972, index);
    let looks = Looks::sample(rng);
    let (background, background_seed) = (rng.pick(&Background::ALL), rng.bits());
    let placement = Placement { angle: 0.0, ..Placement::sample(rng).for_person() };
    let mut scene = || Scene {
        subject: Subject::Person(Person { looks, pose: Pose::sample(rng) }),
        background,
        background_seed,
        style: Style::Photo,
        accessory: None,
        placement,
    };
    let (source, target) = (scene(), scene());
    let joints = |scene: &Scene| scene.joints().expect("the subject is a person");
    Pair {
        source,
        target,
        caption: source.full_caption(),
        source_joints: joints(&source),
        target_joints: joints(&target),
    }
}

/// Writes `0000_source.png`, `0000_target.png` and `0000.json` (genes, caption, joints) for each pair.
pub fn people(directory: &Path, pairs: u64, seed: u64) -> Result<(), Error> {
    folder(directory)?;
    for index in 0..pairs {
        let pair = pair(seed, index);
        save(&pair.source.draw(), &directory.join(format!("{index:04}_source.png")))?;
        save(&pair.target.draw(), &directory.join(format!("{index:04}_target.png")))?;
        let json = serde_json::to_string_pretty(&pair)
            .expect("a pair has only strings and finite numbers");
        text(&directory.join(format!("{index:04}.json")), &json)?;
    }
    Ok(())
}
