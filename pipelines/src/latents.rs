//! The photos as latents, encoded once; the VAE then leaves memory.

use image::RgbImage;
use models::vae::{LatentDistribution, Vae};
use tch::{Device, Tensor};
use torch_ext::Generator;

use crate::photos::to_tensor;

/// Mean and log-variance of every view of every photo.
pub(crate) struct LatentCache {
    photos: Vec<Vec<LatentDistribution>>,
    scaling_factor: f64,
}

impl LatentCache {
    /// Encodes the views of each photo, one at a time.
    pub(crate) fn encode(photos: &[Vec<RgbImage>], vae: &Vae, device: Device) -> Self {
        let encode = |pixels: &RgbImage| {
            let LatentDistribution { mean, logvar } = vae.encode(&to_tensor(pixels));
            LatentDistribution { mean: mean.to_device(device), logvar: logvar.to_device(device) }
        };
        let photos = tch::no_grad(|| {
            photos.iter().map(|views| views.iter().map(encode).collect()).collect()
        });
        Self { photos, scaling_factor: vae.scaling_factor() }
    }

    /// How many photos there are.
    pub(crate) fn len(&self) -> usize {
        self.photos.len()
    }

    /// A sample of photo `index`, scaled for the U-Net; `[1, 4, h, w]`, f32.
    pub(crate) fn sample(&self, index: usize, draw: &Generator) -> Tensor {
        let views = &self.photos[index];
        let view = match views.len() {
            1 => 0,
            n => draw.randint(0, n as i64, &[1]).int64_value(&[0]) as usize,
        };
        let latents = &views[view];
        let noise = draw.randn(&latents.mean.size()).to_device(latents.mean.device());
        latents.sample(&noise) * self.scaling_factor
    }
}
