//! Scores of pictures against scikit-image (`scripts/fixtures/metrics.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use image::RgbImage;
use parity::Fixture;
use pipelines::pose::metrics::{l1, psnr, ssim_gaussian, ssim_uniform51};

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
    for name in ["other", "blurred", "pale", "corner"] {
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
