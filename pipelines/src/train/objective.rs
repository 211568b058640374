//! The objective of all methods: predict the noise in a photo under prompts that hold the concept.
//!
//! Source: Gal et al. 2022, equation 2.

use embeddings::{Concept, Conditioner, PromptTokens};
use models::schedule::NoiseSchedule;
use models::unet::{Conditioning, UNet};
use tch::{Kind, Tensor};
use torch_ext::Generator;

use crate::latents::LatentCache;
use crate::trainer::{Losses, TrainStep};

/// Which prompts go with which photo.
pub(crate) enum Prompts {
    /// Any with any.
    Templates(Vec<PromptTokens>),
    /// One for each photo.
    Captions(Vec<PromptTokens>),
}

/// A micro-batch: noised latents, prompts, and the U-Net's error.
pub(crate) struct Reconstruction<'a> {
    pub latents: LatentCache,
    pub prompts: Prompts,
    pub schedule: NoiseSchedule,
    pub conditioner: &'a Conditioner,
    pub unet: &'a UNet,
    pub concept: &'a dyn Concept,
    pub batch_size: usize,
    pub min_snr_gamma: f64,
    pub seed: u64,
}

impl Reconstruction<'_> {
    /// The photo of sample `k`: each epoch visits every photo once, in an order of its own that depends on
    /// the seed and the epoch only, so that a resumed run goes on with it.
    fn photo(&self, k: u64) -> usize {
        let n = self.latents.len() as u64;
        let (epoch, place) = (k / n, k % n);
        let order =
            Generator::cpu(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(epoch))
                .randperm(n as i64);
        order.int64_value(&[place as i64]) as usize
    }
}

impl TrainStep for Reconstruction<'_> {
    fn losses(&mut self, index: u64, draw: &Generator) -> Losses {
        let (mut x_0, mut prompts) = (Vec::new(), Vec::new());
        for i in 0..self.batch_size {
            let photo = self.photo(index * self.batch_size as u64 + i as u64);
            x_0.push(self.latents.sample(photo, draw));
            prompts.push(match &self.prompts {
                Prompts::Captions(captions) => &captions[photo],
                Prompts::Templates(all) => {
                    &all[draw.randint(0, all.len() as i64, &[1]).int64_value(&[0]) as usize]
                }
            });
        }
        let x_0 = Tensor::cat(&x_0, 0); // [B, 4, h, w]
        let noise = draw.randn(&x_0.size()).to_device(x_0.device());
        let last = self.schedule.alpha_bar().len() as i64;
        let timesteps = draw.randint(0, last, &[self.batch_size as i64]).to_device(x_0.device());

        let x_t = self.schedule.add_noise(&x_0, &noise, &timesteps);
        let context = self.conditioner.encode_at(&prompts, &[self.concept], &timesteps, Some(draw));
        let cond = Conditioning::context(context.map(|c| c.to_kind(self.unet.kind())));
        let prediction = self.unet.forward(&x_t, &timesteps, &cond).to_kind(Kind::Float);

        let target = self.schedule.target(&x_0, &noise, &timesteps);
        let error =
            (prediction - target).square().mean_dim([1, 2, 3].as_slice(), false, Kind::Float); // [B]
        let weighted = if self.min_snr_gamma > 0.0 {
            error * self.schedule.min_snr_weight(&timesteps, self.min_snr_gamma)
        } else {
            error
        };
        let total = weighted.mean(Kind::Float);
        Losses { terms: vec![("reconstruction", total.double_value(&[]))], total }
    }
}
