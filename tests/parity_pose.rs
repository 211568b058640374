//! Scores of pictures against scikit-image (`scripts/fixtures/metrics.py`), LPIPS's own code and torchvision (`scripts/fixtures/perceptual.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use image::{Rgb, RgbImage};
use models::inception::Inception;
use models::lpips::Lpips;
use models::params::Params;
use parity::Fixture;
use pipelines::photos::to_tensor;
use pipelines::pose::frechet::{FrechetJudge, distance};
use pipelines::pose::metrics::{l1, psnr, ssim_gaussian, ssim_uniform51};
use tch::{Device, Kind};

fn picture(fixture: &Fixture, name: &str) -> RgbImage {
    let pixels = fixture.tensor(name); // [H, W, 3]
    let size = pixels.size();
    let bytes = Vec::<u8>::try_from(pixels.flatten(0, -1)).unwrap();
    RgbImage::from_raw(size[1] as u32, size[0] as u32, bytes).unwrap()
}

#[test]
fn both_kinds_of_ssim_psnr_and_l1_agree() {
    let fixture = Fixture::open("metrics.safetensors");
    let truth = picture(&fixture, "truth");
    for name in DRAWN {
        let drawn = picture(&fixture, &format!("{name}/picture"));
        let found = [
            ssim_gaussian(&truth, &drawn).unwrap(),
            ssim_uniform51(&truth, &drawn).unwrap(),
            psnr(&truth, &drawn),
            l1(&truth, &drawn),
        ];
        let expected = fixture.tensor(&format!("{name}/scores"));
        for (k, found) in found.into_iter().enumerate() {
            // Python's are stored as f32: half a unit in the last place is 6e-8 of a value.
            let gap = (found / expected.double_value(&[k as i64]) - 1.0).abs();
            assert!(gap < 1e-6, "{name}, score {k}: {found} is {gap:.1e} away");
        }
    }
}

/// Each pixel a square of `side` pixels, but for every other one, which is black.
fn checkered(picture: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    RgbImage::from_fn(width * side, height * side, |x, y| {
        if (x + y) % 2 == 0 { *picture.get_pixel(x / side, y / side) } else { Rgb([0; 3]) }
    })
}

const DRAWN: [&str; 4] = ["other", "blurred", "pale", "corner"];

#[test]
fn lpips_agrees_with_its_authors_code() {
    let (fixture, pictures) =
        (Fixture::open("perceptual.safetensors"), Fixture::open("metrics.safetensors"));
    let lpips = Lpips::new(&Params::root(&parity::seeded("lpips")));
    let truth = to_tensor(&picture(&pictures, "truth"));
    for name in DRAWN {
        let drawn = to_tensor(&picture(&pictures, &format!("{name}/picture")));
        fixture.agrees(&format!("{name}/lpips"), &lpips.distance(&truth, &drawn), 2e-5);
    }
}

#[test]
fn inception_s_features_agree_with_torchvision_s() {
    let (fixture, pictures) =
        (Fixture::open("perceptual.safetensors"), Fixture::open("metrics.safetensors"));
    let network = Inception::new(&Params::root(&parity::seeded("inception")));
    let judge = FrechetJudge::new(network, Device::Cpu);
    let truth = judge.features(&picture(&pictures, "truth"));
    fixture.agrees("truth/features", &truth, 2e-5);
    for name in DRAWN {
        let found = judge.features(&picture(&pictures, &format!("{name}/picture")));
        fixture.agrees(&format!("{name}/features"), &found, 2e-5);
        // The network sees what it is shown: no two pictures have the same features.
        let apart = (found - &truth).abs().max().double_value(&[]);
        assert!(apart > 1e-3 * truth.abs().max().double_value(&[]), "{name}: {apart:.1e}");
    }
    // Larger than what the network reads, where smoothing would make a difference.
    let wide = checkered(&picture(&pictures, "truth"), 8);
    fixture.agrees("wide/features", &judge.features(&wide), 2e-5);
}

#[test]
fn the_frechet_distance_agrees_with_a_matrix_root() {
    let x = parity::input("frechet/x", &[12, 6]).to_kind(Kind::Double);
    let y = parity::input("frechet/y", &[9, 6]) * 0.7 + 0.4;
    let found = distance(&x, &y.to_kind(Kind::Double));
    let expected = Fixture::open("perceptual.safetensors").tensor("frechet").double_value(&[0]);
    // The inputs of the other side are f32 numbers too, but 0.7 y + 0.4 is rounded on either.
    assert!((found / expected - 1.0).abs() < 1e-6, "{found} is not {expected}");
}
