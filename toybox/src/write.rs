//! The world on disk: pictures with captions, the held-out concepts.

use crate::Error;
use crate::rng::Rng;
use crate::scene::Scene;
use crate::world::World;
use image::RgbImage;
use std::fs;
use std::path::Path;

/// Writes a picture; the ending chooses the format.
pub fn save(picture: &RgbImage, path: &Path) -> Result<(), Error> {
    picture.save(path).map_err(|source| Error::Picture { path: path.to_owned(), source })
}

pub(crate) fn text(path: &Path, content: &str) -> Result<(), Error> {
    fs::write(path, content).map_err(|source| Error::File { path: path.to_owned(), source })
}

pub(crate) fn folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Sample number `index` of a world's data set: a scene and its caption. Samples can be drawn in any order.
pub fn sample(world: World, seed: u64, index: u64) -> (Scene, String) {
    let rng = &mut Rng::nth(seed, index);
    let scene = Scene::sample(world, rng);
    let caption = scene.caption(rng);
    (scene, caption)
}

/// Writes `000000.png`, `000000.txt` and so on.
pub fn dataset(directory: &Path, world: World, count: u64, seed: u64) -> Result<(), Error> {
    folder(directory)?;
    for index in 0..count {
        let (scene, caption) = sample(world, seed, index);
        save(&scene.draw(), &directory.join(format!("{index:06}.png")))?;
        text(&directory.join(format!("{index:06}.txt")), &format!("{caption}\n"))?;
    }
    Ok(())
}

/// Writes a folder for each held-out concept with five photos `0.png` to `4.png`, and beside it `NAME.toml` with class and
/// genes: in a folder to train on there are photos only.
pub fn concepts(directory: &Path, world: World) -> Result<(), Error> {
    for concept in world.concepts() {
        let photos = directory.join(concept.name);
        folder(&photos)?;
        for (k, scene) in concept.photos().iter().enumerate() {
            save(&scene.draw(), &photos.join(format!("{k}.png")))?;
        }
        let genes = toml::to_string(concept).expect("a concept has only strings and numbers");
        text(&directory.join(format!("{}.toml", concept.name)), &genes)?;
    }
    Ok(())
}
