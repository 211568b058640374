//! A step of the second stage.

use models::schedule::NoiseSchedule;
use models::unet::UNet;
use models::vae::Vae;
use models::vit::VisionEncoder;
use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::networks::{Evidence, Fusion, Kept, Routes, of_kind};
use super::pairs::{PosePairs, batch};
use super::run::{PoseStep, no_batch};
use super::shape::GeneratorShape;
use crate::Error;
use crate::trainer::{Losses, TrainStep};

/// How often the samples of a batch lack conditions, each by coins of its own.
///
/// FPDM's code tosses one coin for a whole micro-batch and each condition at 0.2, which leaves guidance's branch without
/// any condition 0.8 % of the training; here it has a share of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropping {
    /// Share of samples without any condition.
    pub all: f64,
    /// Share of the others without each of the three.
    pub each: f64,
}

impl Default for Dropping {
    fn default() -> Self {
        Self { all: 0.1, each: 0.1 }
    }
}

impl Dropping {
    /// What each of `batch` samples keeps.
    fn draw(self, batch: i64, draw: &Generator) -> Kept {
        let coins = draw.rand(&[4, batch]);
        let any = coins.get(0).ge(self.all);
        let kept = |row: i64| coins.get(row).ge(self.each).logical_and(&any).to_kind(Kind::Float);
        Kept { source: kept(1), pose: kept(2), fusion: kept(3) }
    }
}

/// Standard normal noise, to which each channel of each sample has as much of a constant as `offset` says (Guttenberg
/// 2023): pictures then learn their brightness too.
pub(super) fn offset_noise(size: &[i64], offset: f64, draw: &Generator) -> Tensor {
    let noise = draw.randn(size);
    if offset == 0.0 {
        return noise;
    }
    noise + draw.randn(&[size[0], size[1], 1, 1]) * offset
}

/// Draws pairs, noises the targets and predicts noise or velocity, as the scheduler of the base says.
pub(super) struct GeneratorStep<'a> {
    pub fusion: &'a Fusion,
    pub source_encoder: Option<&'a VisionEncoder>,
    pub shape: &'a GeneratorShape,
    pub routes: &'a Routes,
    pub unet: &'a UNet,
    pub vae: &'a Vae,
    pub schedule: &'a NoiseSchedule,
    pub pairs: &'a mut dyn PosePairs,
    pub dropping: Dropping,
    pub offset_noise: f64,
    pub identity: f64,
    pub batch_size: usize,
    pub leaves: &'a [(String, Tensor)],
    pub failure: Option<Error>,
}

impl GeneratorStep<'_> {
    fn loss(&mut self, index: u64, draw: &Generator) -> Result<Losses, Error> {
        let first = index * self.batch_size as u64;
        let pairs = batch(self.pairs, first, self.batch_size, self.identity, draw)?;
        let (found, expected) =
            (pairs.target.size(), [self.batch_size as i64, 3, self.shape.height, self.shape.width]);
        if found != expected || pairs.pose.size() != expected {
            return Err(Error::Usage(format!(
                "targets and poses of a batch are {found:?} and {:?}, but {expected:?} was to be learnt; bring all of them to that size",
                pairs.pose.size()
            )));
        }
        let device = self.unet.device();
        let latents = tch::no_grad(|| self.vae.encode(&pairs.target));
        let x_0 =
            latents.sample(&draw.randn(&latents.mean.size()).to_device(latents.mean.device()));
        let x_0 = (x_0 * self.vae.scaling_factor()).to_device(device); // [B, C, h, w]
        let noise = offset_noise(&x_0.size(), self.offset_noise, draw).to_device(device);
        let last = self.schedule.alpha_bar().len() as i64;
        let timesteps = draw.randint(0, last, &[self.batch_size as i64]).to_device(device);
        let x_t = self.schedule.add_noise(&x_0, &noise, &timesteps);

        let evidence = Evidence::gather(
            self.fusion,
            self.source_encoder,
            self.shape,
            &pairs.source,
            &pairs.pose,
        );
        let kept = self.dropping.draw(self.batch_size as i64, draw);
        let told = self.routes.conditioning(&evidence, &kept, Some(draw));
        let told = of_kind(told, self.unet.kind());
        let prediction = self.unet.forward(&x_t, &timesteps, &told).to_kind(Kind::Float);
        let target = self.schedule.target(&x_0, &noise, &timesteps);
        let total = (prediction - target).square().mean(Kind::Float);
        Ok(Losses { terms: vec![("reconstruction", total.double_value(&[]))], total })
    }
}

impl TrainStep for GeneratorStep<'_> {
    fn losses(&mut self, index: u64, draw: &Generator) -> Losses {
        self.loss(index, draw).unwrap_or_else(|error| {
            self.failure = Some(error);
            no_batch(self.leaves)
        })
    }
}

impl PoseStep for GeneratorStep<'_> {
    fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_tosses_its_own_coins() {
        let dropping = Dropping { all: 0.25, each: 0.5 };
        let kept = dropping.draw(20_000, &Generator::cpu(5));
        let share = |x: &Tensor| x.mean(Kind::Double).double_value(&[]);
        for condition in [&kept.source, &kept.pose, &kept.fusion] {
            assert!((share(condition) - 0.75 * 0.5).abs() < 0.02);
        }
        let none = (&kept.source + &kept.pose + &kept.fusion).eq(0.0).to_kind(Kind::Float);
        assert!((share(&none) - (0.25 + 0.75 * 0.125)).abs() < 0.02);
        let never = Dropping { all: 0.0, each: 0.0 }.draw(100, &Generator::cpu(5));
        assert!((share(&never.pose) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_offset_is_one_number_for_a_channel_of_a_sample() {
        let size = [2, 3, 4, 5];
        let plain = offset_noise(&size, 0.0, &Generator::cpu(9));
        let shift = offset_noise(&size, 0.1, &Generator::cpu(9)) - plain;
        let constants = shift.mean_dim([2, 3].as_slice(), true, Kind::Float); // [2, 3, 1, 1]
        assert!((&shift - &constants).abs().max().double_value(&[]) < 1e-6);
        let draw = Generator::cpu(9);
        let _ = draw.randn(&size);
        let expected = draw.randn(&[2, 3, 1, 1]) * 0.1;
        assert!((constants - expected).abs().max().double_value(&[]) < 1e-6);
    }
}
