//! The U-Net as a judge of likeness, on concepts that the built-in base never saw.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::{Path, PathBuf};

use pipelines::Base;
use pipelines::evaluate::unet_likeness;
use toybox::{Concept, PHOTOS, Rng, Scene, Subject, World};

/// The same photo with another thing of the concept's class: one subject for all photos.
fn others(concept: &Concept) -> Vec<Scene> {
    let rng = &mut Rng::new(0x6c69_6b65);
    let other = loop {
        let scene = Scene::sample(World::Fine, rng);
        if let Subject::Thing(thing) = scene.subject
            && thing.class == concept.thing.class
            && !concept.is_near(&thing)
        {
            break scene.subject;
        }
    };
    concept.photos().iter().map(|photo| Scene { subject: other, ..*photo }).collect()
}

/// Two photos of one concept are more alike than one of them and the other place's photo with another thing of the
/// class: only the thing differs.
#[test]
fn photos_of_a_concept_are_more_alike_than_of_its_class() {
    let folder = tempfile::tempdir().unwrap();
    let mut files: Vec<PathBuf> = Vec::new();
    for concept in World::Fine.concepts() {
        for scene in concept.photos().into_iter().chain(others(concept)) {
            let path = folder.path().join(format!("{}.png", files.len()));
            scene.draw().save(&path).unwrap();
            files.push(path);
        }
    }
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/toybox");
    let likeness =
        unet_likeness(&Base::open(&base, None).unwrap(), &files, tch::Device::Cpu).unwrap();
    let at = |i: usize, j: usize| likeness.double_value(&[i as i64, j as i64]);
    let (mut right, mut asked, mut same, mut other) = (0, 0, 0.0, 0.0);
    for first in (0..files.len()).step_by(2 * PHOTOS) {
        for i in 0..PHOTOS {
            for j in (0..PHOTOS).filter(|&j| j != i) {
                let (own, class) = (at(first + i, first + j), at(first + i, first + PHOTOS + j));
                (same, other) = (same + own, other + class);
                right += u32::from(own > class);
                asked += 1;
            }
        }
    }
    let share = f64::from(right) / f64::from(asked);
    let (same, other) = (same / f64::from(asked), other / f64::from(asked));
    println!("{share:.2} of {asked} pairs; {same:.3} for the concept, {other:.3} for its class");
    assert!(share >= 0.7 && same > other, "{share:.2} of {asked}; {same:.3} and {other:.3}");
}
