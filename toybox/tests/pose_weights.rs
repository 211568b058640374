//! The pose weights that come with the program, on people that they have not learnt: they follow the pose and draw
//! somebody of about the right colours. Full figures are in docs/methods/fpdm.md; here is what must never break.

#![allow(clippy::unwrap_used)] // a test may panic

use std::ops::ControlFlow;
use std::path::Path;

use image::RgbImage;
use pipelines::Base;
use pipelines::photos::to_tensor;
use pipelines::pose::joints::{JointFinder, joint_error};
use pipelines::pose::metrics::{Mask, foreground_l1, ssim_gaussian};
use pipelines::pose::{Evidence, PoseGenerator, PoseSampling, PoseWeights, Skeleton, draw};
use tch::{Device, Kind, Tensor};
use toybox::{Pair, Place, SIZE, World, pair};

/// People of a seed that no training used.
const SEED: u64 = 77;
const COUNT: u64 = 6;

fn pose(pair: &Pair) -> Skeleton {
    let side = f64::from(SIZE);
    Skeleton(pair.target_joints.map(|(x, y)| Some((f64::from(x) / side, f64::from(y) / side))))
}

fn stacked(pictures: &[RgbImage]) -> Tensor {
    Tensor::cat(&pictures.iter().map(to_tensor).collect::<Vec<_>>(), 0)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn the_built_in_weights_follow_the_pose_and_draw_the_person() {
    let weights = PoseWeights::built_in().unwrap();
    assert!(std::fs::metadata(weights.path()).unwrap().len() <= 12_000_000);
    let mut base = Base::open(Path::new(""), None).unwrap();
    base.check_weights().unwrap();
    let generator = PoseGenerator::load(&weights, &base, None, Kind::Float, Device::Cpu).unwrap();
    let finder = JointFinder::load(None).unwrap();

    let pairs: Vec<Pair> =
        (0..COUNT).map(|index| pair(World::Fine, SEED, index, Place::Studio)).collect();
    let sources: Vec<RgbImage> = pairs.iter().map(|pair| pair.source.draw()).collect();
    let targets: Vec<RgbImage> = pairs.iter().map(|pair| pair.target.draw()).collect();
    let drawings: Vec<RgbImage> =
        pairs.iter().map(|pair| draw(&pose(pair), (SIZE, SIZE))).collect();
    let evidence = generator.look(&stacked(&sources), &stacked(&drawings)).unwrap();
    let sampling = PoseSampling { steps: 10, ..PoseSampling::default() };
    let seeds: Vec<u64> = (0..COUNT).collect();
    let drawn = |evidence: &Evidence| -> Vec<RgbImage> {
        let go_on = &mut |_, _| ControlFlow::Continue(());
        generator.draw_evidence(&sampling, evidence, &seeds, go_on).unwrap().unwrap()
    };
    let error = |pictures: &[RgbImage]| {
        mean(pictures.iter().zip(&pairs).map(|(picture, pair)| {
            let found = finder.find(picture).unwrap();
            joint_error(&found, &pose(pair), (SIZE, SIZE)).unwrap().0
        }))
    };
    let off = |pictures: &[RgbImage]| {
        mean(pictures.iter().zip(&targets).zip(&pairs).map(|((picture, target), pair)| {
            foreground_l1(target, picture, &Mask::light(&pair.target.silhouette())).unwrap()
        }))
    };
    let model = drawn(&evidence);
    let same = |x: &Tensor| x.shallow_clone();
    let swapped = drawn(&Evidence {
        tokens: same(&evidence.tokens),
        fused: same(&evidence.fused),
        drawings: evidence.drawings.roll([1], [0]),
    });
    let of_another = drawn(&Evidence {
        tokens: evidence.tokens.roll([1], [0]),
        fused: same(&evidence.fused),
        drawings: same(&evidence.drawings),
    });
    let (truth, ours, copied, other) =
        (error(&targets), error(&model), error(&sources), error(&swapped));
    let said = format!(
        "joint errors: truth {truth:.4}, ours {ours:.4}, copied {copied:.4}, swapped {other:.4}"
    );
    println!("{said}");
    assert!(truth < 0.03, "{said}");
    assert!(ours < 0.03 && ours < 0.4 * copied && ours < 0.4 * other, "{said}");
    // The person is nearer to the true one than the source copied.
    let deserted: Vec<RgbImage> = pairs.iter().map(|pair| pair.target.deserted()).collect();
    let (ours_off, copied_off) = (off(&model), off(&sources));
    println!("foreground L1: ours {ours_off:.4}, copied {copied_off:.4}");
    assert!(ours_off < 0.7 * copied_off, "{ours_off} is not below {copied_off}");
    // Who it is comes from the source's tokens.
    let other_off = off(&of_another);
    println!("foreground L1 with another's tokens: {other_off:.4}");
    assert!(other_off > 1.8 * ours_off, "{other_off} is hardly above {ours_off}");
    let alike = |pictures: &[RgbImage]| {
        mean(pictures.iter().zip(&targets).map(|(x, y)| ssim_gaussian(y, x).unwrap()))
    };
    let (ours_alike, copied_alike) = (alike(&model), alike(&sources));
    println!("SSIM: ours {ours_alike:.4}, copied {copied_alike:.4}");
    assert!(ours_alike > 0.85 && ours_alike > copied_alike && ours_alike > alike(&deserted));
}
