//! Fréchet inception distance: how far a set of pictures is from another, by the normal distributions that Inception's
//! features of either would have.
//!
//! Source: Heusel et al. 2017 (arXiv 1706.08500), equation 6. As FPDM's and CFLD's tables have it, Inception-v3 is
//! torchvision's; other programs' weights and ways of resizing give other numbers.

use std::path::Path;

use image::RgbImage;
use models::inception::Inception;
use models::params::Params;
use models::weights::Checkpoint;
use tch::{Device, Kind, Tensor};

use crate::photos::to_tensor;
use crate::{Error, pose::Fault};

/// Of the square that the network was trained on.
const SIDE: i64 = 299;
/// Mean and deviation of each channel of the pictures that torchvision's weights were trained on.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// What looks at pictures.
pub struct FrechetJudge {
    network: Inception,
    device: Device,
}

impl FrechetJudge {
    /// Reads torchvision's or timm's weights.
    pub fn load(file: &Path, device: Device) -> Result<Self, Error> {
        let weights = Checkpoint::file(file, Kind::Float, device)?;
        let network = Inception::new(&Params::root(&weights));
        weights.report()?.require_complete()?;
        Ok(Self::new(network, device))
    }

    /// Looks through a network on this device.
    pub fn new(network: Inception, device: Device) -> Self {
        Self { network, device }
    }

    /// The network's features of a picture, `[1, 2048]` f64 on the CPU. Levels of 0 to 1 are resized bilinearly without
    /// smoothing, then multiplied and shifted as if they had been prepared for torchvision: so the tables were made.
    pub fn features(&self, picture: &RgbImage) -> Tensor {
        tch::no_grad(|| {
            let channels = |numbers: [f32; 3]| Tensor::from_slice(&numbers).view([1, 3, 1, 1]);
            let levels = to_tensor(picture) * 0.5 + 0.5; // [1, 3, H, W]
            let resized = levels.upsample_bilinear2d([SIDE, SIDE], false, None, None);
            let prepared = (resized * channels(DEVIATION) + channels(MEAN) - 0.5) / 0.5;
            let features = self.network.forward(&prepared.to_device(self.device));
            features.to_device(Device::Cpu).to_kind(Kind::Double)
        })
    }
}

/// The distance of two sets of features `[N, F]` and `[M, F]` f64, of two pictures at least:
/// `|m₁ - m₂|² + tr C₁ + tr C₂ - 2 tr √(C₁ C₂)`.
///
/// With `C = XᵀX` the last trace is the sum of the singular values of `X₁ X₂ᵀ`: no matrix has to be inverted or rooted,
/// and fewer pictures than features are no trouble.
pub fn distance(first: &Tensor, second: &Tensor) -> f64 {
    let [(mean_1, spread_1), (mean_2, spread_2)] = [first, second].map(spread);
    let squares = |x: &Tensor| x.square().sum(Kind::Double).double_value(&[]);
    let shared = spread_1.matmul(&spread_2.transpose(0, 1));
    let shared = shared.linalg_norm_ord_str("nuc", [0, 1].as_slice(), false, Kind::Double);
    squares(&(mean_1 - mean_2)) + squares(&spread_1) + squares(&spread_2)
        - 2.0 * shared.double_value(&[])
}

/// The mean `[F]` of features, and X `[min(N, F), F]` whose `XᵀX` is their sample covariance.
fn spread(features: &Tensor) -> (Tensor, Tensor) {
    let (count, width) = features.size2().expect("features of rank two");
    let mean = features.mean_dim([0].as_slice(), false, Kind::Double);
    let centred = (features - &mean) / ((count - 1) as f64).sqrt();
    let x = if count > width { Tensor::linalg_qr(&centred, "r").1 } else { centred };
    (mean, x)
}

/// Refuses a set that has no spread; `flag` is what asked for it.
pub(super) fn require_two(folder: &Path, count: usize, flag: &str) -> Result<(), Error> {
    if count >= 2 {
        return Ok(());
    }
    let what = format!(
        "holds {count} picture{}, but a Fréchet distance compares distributions and needs at least 2; give more, or leave \
         {flag} out",
        if count == 1 { "" } else { "s" }
    );
    Err(Fault::at(folder, None, what).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use torch_ext::Generator;

    #[test]
    fn uncorrelated_normal_features_have_the_textbook_s_distance() {
        // Covariances are diagonal (the set holds each row and its mirror images), so that
        // d = Σ (m₁ - m₂)² + (s₁ - s₂)².
        let set = |deviations: [f64; 2], shift: f64| {
            let [a, b] = deviations.map(|d| d * (3f64 / 4.0).sqrt()); // 4 rows, sample covariance
            let rows = [[a, b], [a, -b], [-a, b], [-a, -b]].concat();
            Tensor::from_slice(&rows).view([4, 2]) + shift
        };
        let found = distance(&set([1.0, 2.0], 0.0), &set([4.0, 0.5], 3.0));
        let expected = 2.0 * 9.0 + (1.0f64 - 4.0).powi(2) + (2.0f64 - 0.5).powi(2);
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn few_and_many_pictures_agree_and_a_set_is_at_no_distance_from_itself() {
        let draw = Generator::cpu(1);
        let (x, y) = (draw.randn(&[7, 5]), draw.randn(&[4, 5]) + 0.3);
        let (x, y) = (x.to_kind(Kind::Double), y.to_kind(Kind::Double));
        assert!(distance(&x, &x).abs() < 1e-9);
        // Each row twice, brought to the same covariance: 14 rows go through QR, 8 of the other do, too.
        let twice = |x: &Tensor| {
            let n = x.size()[0] as f64;
            let mean = x.mean_dim([0].as_slice(), true, Kind::Double);
            let both = Tensor::cat(&[x, x], 0);
            (both - &mean) * ((2.0 * n - 1.0) / (2.0 * (n - 1.0))).sqrt() + mean
        };
        let (once, doubled) = (distance(&x, &y), distance(&twice(&x), &twice(&y)));
        assert!((once - doubled).abs() < 1e-9, "{once} is not {doubled}");
    }
}
