//! How like the true picture a drawn one is: SSIM, PSNR, absolute error, silhouettes.
//!
//! All of pictures of one size. Levels count from 0 to 1.

use image::RgbImage;
use tch::{Kind, Tensor};

/// Side of the window of [`ssim_uniform51`].
const UNIFORM: u32 = 51;
/// Side of the Gaussian window, and its deviation in pixels.
const GAUSSIAN: (u32, f64) = (11, 1.5);
/// Levels of 255 by which a picture differs from its background where somebody stands.
const DIFFERENCE: u8 = 24;

/// `[3, 1, H, W]` f64 in [0, 1].
fn levels(picture: &RgbImage) -> Tensor {
    let (width, height) = picture.dimensions();
    let x = Tensor::from_slice(picture.as_raw()).view([i64::from(height), i64::from(width), 3]);
    x.permute([2, 0, 1]).unsqueeze(1).to_kind(Kind::Double) / 255.0 // [3, 1, H, W]
}

/// SSIM as FPDM's and CFLD's tables have it: scikit-image's with a Gaussian window (11 pixels, deviation 1.5), population
/// covariance and the range of the drawn picture's levels (1 where that is of one level).
///
/// Paper: Wang et al. 2004, equation 13. Nothing for a side below 11 pixels.
pub fn ssim_gaussian(truth: &RgbImage, drawn: &RgbImage) -> Option<f64> {
    let (side, deviation) = GAUSSIAN;
    let least = drawn.iter().min()?;
    let range = f64::from(drawn.iter().max()? - least) / 255.0;
    let middle = f64::from(side / 2);
    let weight = |k: u32| (-0.5 * ((f64::from(k) - middle) / deviation).powi(2)).exp();
    let weights: Vec<f64> = (0..side).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    let window: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
    ssim((truth, drawn), &window, 1.0, if range > 0.0 { range } else { 1.0 })
}

/// The second SSIM of the same scripts: a uniform window of 51 by 51 pixels, sample covariance, range 1. Lower; the two
/// do not compare.
///
/// Nothing for a side below 51 pixels.
pub fn ssim_uniform51(truth: &RgbImage, drawn: &RgbImage) -> Option<f64> {
    let side = UNIFORM as usize;
    let count = (side * side) as f64;
    ssim((truth, drawn), &vec![1.0 / side as f64; side], count / (count - 1.0), 1.0)
}

/// The mean over channels and over the windows that lie inside the picture.
fn ssim(
    (truth, drawn): (&RgbImage, &RgbImage),
    window: &[f64],
    unbiased: f64,
    range: f64,
) -> Option<f64> {
    let side = window.len() as i64;
    if i64::from(truth.width().min(truth.height())) < side {
        return None;
    }
    let (x, y) = (levels(truth), levels(drawn)); // [3, 1, H, W]
    let along = Tensor::from_slice(window);
    let mean = |t: &Tensor| {
        let none = None::<&Tensor>;
        let rows = t.conv2d(&along.view([1, 1, side, 1]), none, [1, 1], [0, 0], [1, 1], 1);
        rows.conv2d(&along.view([1, 1, 1, side]), none, [1, 1], [0, 0], [1, 1], 1) // [3, 1, H', W']
    };
    let (ux, uy) = (mean(&x), mean(&y));
    let vx = (mean(&(&x * &x)) - &ux * &ux) * unbiased;
    let vy = (mean(&(&y * &y)) - &uy * &uy) * unbiased;
    let vxy = (mean(&(&x * &y)) - &ux * &uy) * unbiased;
    let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
    let above = (&ux * &uy * 2.0 + c1) * (vxy * 2.0 + c2);
    let below = (ux.square() + uy.square() + c1) * (vx + vy + c2);
    Some((above / below).mean(Kind::Double).double_value(&[]))
}

/// Peak signal-to-noise ratio in decibels; infinite for equal pictures.
pub fn psnr(truth: &RgbImage, drawn: &RgbImage) -> f64 {
    let error = (levels(truth) - levels(drawn)).square().mean(Kind::Double).double_value(&[]);
    -10.0 * error.log10()
}

/// Mean absolute difference.
pub fn l1(truth: &RgbImage, drawn: &RgbImage) -> f64 {
    (levels(truth) - levels(drawn)).abs().mean(Kind::Double).double_value(&[])
}

/// A part of a picture, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(Vec<bool>);

impl Mask {
    /// Where a picture of a mask is light.
    pub fn light(picture: &RgbImage) -> Self {
        Self(picture.pixels().map(|pixel| pixel[0] > 127).collect())
    }

    /// Where a picture differs from its background.
    pub fn silhouette(picture: &RgbImage, background: &RgbImage) -> Self {
        let differs = |(a, b): (&image::Rgb<u8>, &image::Rgb<u8>)| {
            a.0.iter().zip(b.0).any(|(a, b)| a.abs_diff(b) > DIFFERENCE)
        };
        Self(picture.pixels().zip(background.pixels()).map(differs).collect())
    }

    /// What both cover of what either covers; nothing where neither covers anything.
    pub fn iou(&self, other: &Self) -> Option<f64> {
        let pairs = || self.0.iter().zip(&other.0);
        let either = pairs().filter(|(a, b)| **a || **b).count();
        (either > 0).then(|| pairs().filter(|(a, b)| **a && **b).count() as f64 / either as f64)
    }
}

/// [`l1`] inside the true silhouette only; nothing where that is empty.
pub fn foreground_l1(truth: &RgbImage, drawn: &RgbImage, mask: &Mask) -> Option<f64> {
    let (mut sum, mut count) = (0_u64, 0_u64);
    for ((a, b), inside) in truth.pixels().zip(drawn.pixels()).zip(&mask.0) {
        if *inside {
            sum += a.0.iter().zip(b.0).map(|(a, b)| u64::from(a.abs_diff(b))).sum::<u64>();
            count += 3;
        }
    }
    (count > 0).then(|| sum as f64 / (255 * count) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn picture(seed: u32) -> RgbImage {
        RgbImage::from_fn(64, 56, |x, y| {
            Rgb([x * seed, y * 3 + seed, (x * y + 7 * seed) / 3].map(|level| (level % 251) as u8))
        })
    }

    #[test]
    fn a_picture_is_perfectly_like_itself() {
        let a = picture(5);
        assert!((ssim_gaussian(&a, &a).unwrap() - 1.0).abs() < 1e-12);
        assert!((ssim_uniform51(&a, &a).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!((psnr(&a, &a), l1(&a, &a)), (f64::INFINITY, 0.0));
    }

    #[test]
    fn two_even_pictures_differ_in_their_means_alone() {
        // No variance: SSIM is (2 a b + C1) / (a² + b² + C1), C1 = 1e-4 of the range 1.
        let (a, b) = (
            RgbImage::from_pixel(60, 60, Rgb([51; 3])),
            RgbImage::from_pixel(60, 60, Rgb([102; 3])),
        );
        let expected = (2.0 * 0.2 * 0.4 + 1e-4) / (0.04 + 0.16 + 1e-4);
        for found in [ssim_gaussian(&a, &b), ssim_uniform51(&a, &b)] {
            assert!((found.unwrap() - expected).abs() < 1e-9, "{found:?}");
        }
        assert!((l1(&a, &b) - 0.2).abs() < 1e-12);
        assert!((psnr(&a, &b) - 10.0 * (1.0_f64 / 0.04).log10()).abs() < 1e-9);
    }

    #[test]
    fn pictures_below_the_window_have_no_ssim() {
        let at = |width, height| RgbImage::from_pixel(width, height, Rgb([9, 9, 9]));
        assert!(ssim_uniform51(&at(50, 80), &at(50, 80)).is_none());
        assert!(ssim_gaussian(&at(80, 10), &at(80, 10)).is_none());
        assert!(ssim_gaussian(&at(11, 11), &at(11, 11)).is_some());
    }

    #[test]
    fn the_foreground_is_measured_where_the_mask_is_light() {
        let a = RgbImage::new(4, 1);
        let b = RgbImage::from_fn(4, 1, |x, _| Rgb([if x < 2 { 255 } else { 0 }; 3]));
        let mask = |from: u32| {
            Mask::light(&RgbImage::from_fn(4, 1, |x, _| Rgb([if x >= from { 255 } else { 0 }; 3])))
        };
        assert_eq!(foreground_l1(&a, &b, &mask(0)), Some(0.5));
        assert_eq!(foreground_l1(&a, &b, &mask(1)), Some(1.0 / 3.0));
        assert_eq!(foreground_l1(&a, &b, &mask(4)), None);
        assert!((l1(&a, &b) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn silhouettes_are_compared_by_what_they_share() {
        let background = RgbImage::from_pixel(6, 1, Rgb([100; 3]));
        let with = |places: std::ops::Range<u32>| {
            RgbImage::from_fn(6, 1, |x, _| Rgb([if places.contains(&x) { 140 } else { 110 }; 3]))
        };
        let mask = |places| Mask::silhouette(&with(places), &background);
        assert_eq!(mask(0..3).iou(&mask(1..4)), Some(0.5));
        assert_eq!(mask(0..3).iou(&mask(3..6)), Some(0.0));
        assert_eq!(mask(0..0).iou(&mask(0..0)), None);
    }
}
