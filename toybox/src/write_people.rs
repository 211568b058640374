//! Pairs of one person in two poses, in memory and in the folders that `personalize pose` reads.

use crate::people::{Looks, Person, Pose};
use crate::rng::Rng;
use crate::scene::{Placement, Scene, Subject};
use crate::style::Style;
use crate::world::World;
use crate::write::{folder, save, text};
use crate::{Background, Error};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One person in two poses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// Where people stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// At any of the world's places.
    Anywhere,
    /// Before a plain backdrop, as in photos of a shop.
    Studio,
}

/// Pair number `index` of a world and a seed.
pub fn pair(world: World, seed: u64, index: u64, place: Place) -> Pair {
    let rng = &mut Rng::nth(seed ^ 0x7061_6972, index);
    let looks = Looks::sample(rng);
    let (anywhere, background_seed) = (rng.pick(world.backgrounds()), rng.bits());
    let background = match place {
        Place::Anywhere => anywhere,
        Place::Studio => Background::Studio,
    };
    let placement = Placement { angle: 0.0, ..Placement::sample(world, rng).for_person(world) };
    let mut scene = || Scene {
        world,
        subject: Subject::Person(Person { looks, pose: Pose::sample(world, rng) }),
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

/// How poses and pairs are listed. Coordinates are pixels in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// FPDM's: `train_pairs_data.json`, and eighteen lines `x y` for each photo.
    Fpdm,
    /// DPTN's and CFLD's: `fasion-resize-pairs-train.csv`, and an annotation CSV of whole pixels.
    Csv,
}

/// Writes pairs to learn from, then pairs of other people to be judged by.
///
/// `img/source/0000.png`, `img/target/0000.png`, `masks/0000.png` and `backgrounds/0000.png` (of the target),
/// `genes/0000.json` (caption and joints, too), and poses and lists of pairs in the layout that is asked for.
pub fn people(
    directory: &Path,
    world: World,
    [train, test]: [u64; 2],
    seed: u64,
    place: Place,
    layout: Layout,
) -> Result<(), Error> {
    for name in ["img/source", "img/target", "masks", "backgrounds", "genes"] {
        folder(&directory.join(name))?;
    }
    let mut first = 0;
    for (split, count) in [("train", train), ("test", test)] {
        let numbered: Vec<(u64, Pair)> =
            (first..first + count).map(|index| (index, pair(world, seed, index, place))).collect();
        first += count;
        for (index, pair) in &numbered {
            let at = |name: &str| directory.join(name).join(format!("{index:04}.png"));
            save(&pair.source.draw(), &at("img/source"))?;
            save(&pair.target.draw(), &at("img/target"))?;
            save(&pair.target.silhouette(), &at("masks"))?;
            save(&pair.target.deserted(), &at("backgrounds"))?;
            let json = serde_json::to_string_pretty(pair)
                .expect("a pair has only strings and finite numbers");
            text(&at("genes").with_extension("json"), &json)?;
        }
        if count > 0 {
            match layout {
                Layout::Fpdm => fpdm(directory, split, &numbered)?,
                Layout::Csv => csv(directory, split, &numbered)?,
            }
        }
    }
    Ok(())
}

fn fpdm(directory: &Path, split: &str, numbered: &[(u64, Pair)]) -> Result<(), Error> {
    let mut lines = Vec::new();
    for (index, pair) in numbered {
        for (role, joints) in [("source", pair.source_joints), ("target", pair.target_joints)] {
            folder(&directory.join("pose").join(role))?;
            let pose: Vec<String> =
                joints.iter().map(|(x, y)| format!("{x:.3} {y:.3}\n")).collect();
            text(&directory.join(format!("pose/{role}/{index:04}.txt")), &pose.concat())?;
        }
        lines.push(format!(
            "  {{\"source_image\": \"./img/source/{index:04}.png\", \"target_image\": \"./img/target/{index:04}.png\"}}"
        ));
    }
    let list = directory.join(format!("{split}_pairs_data.json"));
    text(&list, &format!("[\n{}\n]\n", lines.join(",\n")))
}

fn csv(directory: &Path, split: &str, numbered: &[(u64, Pair)]) -> Result<(), Error> {
    let mut pairs = vec!["from,to\n".to_owned()];
    let mut annotations = vec!["name:keypoints_y:keypoints_x\n".to_owned()];
    for (index, pair) in numbered {
        let name = |role: &str| format!("fashion{role}{index:04}.png");
        pairs.push(format!("{},{}\n", name("source"), name("target")));
        for (role, joints) in [("source", pair.source_joints), ("target", pair.target_joints)] {
            let list = |numbers: [f32; 18]| numbers.map(|n| format!("{n:.0}")).join(", ");
            let (x, y) = (list(joints.map(|joint| joint.0)), list(joints.map(|joint| joint.1)));
            annotations.push(format!("{}:[{y}]:[{x}]\n", name(role)));
        }
    }
    text(&directory.join(format!("fasion-resize-pairs-{split}.csv")), &pairs.concat())?;
    text(&directory.join(format!("fasion-resize-annotation-{split}.csv")), &annotations.concat())
}
