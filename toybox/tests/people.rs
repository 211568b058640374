//! Toybox people on disk are what `personalize pose` reads.

#![allow(clippy::unwrap_used)] // a test may panic

use image::RgbImage;
use pipelines::pose::data::{PoseData, survey};
use pipelines::pose::metrics::Mask;
use pipelines::pose::{Fault, Frame};
use toybox::{Layout, Place, World, pair, people};

fn open(path: &std::path::Path) -> RgbImage {
    image::open(path).unwrap().into_rgb8()
}

#[test]
fn ten_pairs_are_read_without_a_fault_in_both_layouts() {
    for (layout, pixels) in [(Layout::Fpdm, 5.1e-4), (Layout::Csv, 0.501)] {
        let folder = tempfile::tempdir().unwrap();
        people(folder.path(), World::Fine, [8, 2], 3, Place::Anywhere, layout).unwrap();
        let found = survey(folder.path(), Frame::Pixels).unwrap();
        assert_eq!(found.faults, Vec::<Fault>::new());
        assert_eq!((found.pairs, found.photos, found.poses), (10, 20, 10));
        let data = PoseData::read(folder.path(), Frame::Pixels).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (8, 2));
        for (index, read) in (0..).zip(data.train.iter().chain(&data.test)) {
            let drawn = pair(World::Fine, 3, index, Place::Anywhere);
            assert_eq!(open(&read.source), drawn.source.draw());
            assert_eq!(open(&read.target), drawn.target.draw());
            let joints = read.pose.at((128, 128)).map(Option::unwrap);
            for ((x, y), joint) in joints.into_iter().zip(drawn.target_joints) {
                let gap = (x - f64::from(joint.0)).abs().max((y - f64::from(joint.1)).abs());
                assert!(gap < pixels, "{layout:?} {index}: {gap}");
            }
        }
        // The frames of DeepFashion are not taken for pixels.
        let other = survey(folder.path(), Frame::Margin40).unwrap();
        assert!(!other.faults.is_empty() && other.faults[0].line.is_some(), "{:?}", other.faults);
    }
}

#[test]
fn the_silhouette_is_where_the_picture_is_not_its_background() {
    let mut sum = 0.0;
    for index in 0..20 {
        let scene = pair(World::Fine, 5, index, Place::Anywhere).target;
        let mask = Mask::light(&scene.silhouette());
        let seen = Mask::silhouette(&scene.draw(), &scene.deserted());
        let iou = mask.iou(&seen).unwrap();
        assert!(iou > 0.3, "{index}: {iou}");
        sum += iou / 20.0;
    }
    println!("mean {sum:.3}");
    assert!(sum > 0.6, "{sum}"); // shadows and reflections differ from the background, too
}
