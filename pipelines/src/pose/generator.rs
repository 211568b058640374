//! A step of the second stage.

use std::collections::HashMap;

use models::schedule::NoiseSchedule;
use models::unet::UNet;
use models::vae::{LatentDistribution, Vae};
use models::vit::VisionEncoder;
use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::networks::{Evidence, Fusion, Kept, Routes, of_kind};
use super::pairs::{PairBatch, PosePairs, batch};
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

/// What each place of the latents counts in the loss, 1 on average: `weight` near a limb against 1 elsewhere. `drawings` are
/// skeletons on black `[B, 3, H, W]` in [0, 1]; near is 1/16 of the height. `[B, 1, h, w]`.
///
/// Ours: a figure covers a small part of its picture, and clothes a part of that.
fn figure_weights(drawings: &Tensor, (h, w): (i64, i64), weight: f64) -> Tensor {
    let (height, width) = (drawings.size()[2], drawings.size()[3]);
    let (cell, reach) = ([height / h, width / w], height / 16);
    let lit = drawings.amax([1].as_slice(), true).ge(0.1).to_kind(Kind::Float);
    let window = cell.map(|side| side + 2 * reach);
    let near = lit.max_pool2d(window, cell, [reach, reach], [1, 1], false);
    let weights = near * (weight - 1.0) + 1.0;
    &weights / weights.mean(Kind::Float)
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
    /// A timestep in each of as many equal ranges as there are samples, instead of each by itself.
    pub stratified: bool,
    pub offset_noise: f64,
    pub identity: f64,
    pub figure_weight: f64,
    pub batch_size: usize,
    pub known: Known,
}

/// What frozen networks see in a batch, or in one pair.
struct Seen {
    mean: Tensor,   // [B, C, h, w]
    logvar: Tensor, // [B, C, h, w]
    tokens: Tensor, // [B, 1 + N, T]
    fused: Tensor,  // [B, d]
}

impl Seen {
    fn cat(all: &[&Self]) -> Self {
        let cat = |of: fn(&Self) -> &Tensor| {
            Tensor::cat(&all.iter().map(|seen| of(seen)).collect::<Vec<_>>(), 0)
        };
        Self {
            mean: cat(|seen| &seen.mean),
            logvar: cat(|seen| &seen.logvar),
            tokens: cat(|seen| &seen.tokens),
            fused: cat(|seen| &seen.fused),
        }
    }

    fn bytes(&self) -> usize {
        let numbers = [&self.mean, &self.logvar, &self.tokens, &self.fused]
            .map(Tensor::numel)
            .iter()
            .sum::<usize>();
        numbers * 4
    }
}

/// What was seen in pairs, by their keys.
#[derive(Default)]
pub(super) struct Known {
    of: HashMap<u64, Seen>,
    /// Whether all pairs fit; unknown before the first was seen.
    fits: Option<bool>,
}

impl Known {
    /// Memory for what was seen, in bytes: that of some 20,000 small pairs, and far from what DeepFashion would need.
    const LIMIT: usize = 4 << 30;
}

impl GeneratorStep<'_> {
    /// What the frozen networks see in pairs `[B, ...]`.
    fn look(&self, source: &Tensor, target: &Tensor, pose: &Tensor) -> Seen {
        tch::no_grad(|| {
            let latents = self.vae.encode(target);
            let evidence =
                Evidence::gather(self.fusion, self.source_encoder, self.shape, source, pose);
            let Evidence { tokens, fused, .. } = evidence;
            Seen { mean: latents.mean, logvar: latents.logvar, tokens, fused }
        })
    }

    /// The same for a batch; each pair is looked at once, where all of them fit into memory. Each then by itself, so that
    /// what is seen in it does not depend on the others, and a resumed run goes on to the bit.
    fn seen(&mut self, pairs: &PairBatch) -> Seen {
        let distinct = self.pairs.distinct();
        if self.known.fits == Some(false) || distinct.is_none() {
            return self.look(&pairs.source, &pairs.target, &pairs.pose);
        }
        let one = |i: usize| {
            let at = |x: &Tensor| x.narrow(0, i as i64, 1);
            self.look(&at(&pairs.source), &at(&pairs.target), &at(&pairs.pose))
        };
        let fresh: Vec<(usize, Seen)> = pairs
            .keys
            .iter()
            .enumerate()
            .filter(|(_, key)| key.is_none_or(|key| !self.known.of.contains_key(&key)))
            .map(|(i, _)| (i, one(i)))
            .collect();
        let mut fresh: HashMap<usize, Seen> = fresh.into_iter().collect();
        if self.known.fits.is_none()
            && let Some(seen) = fresh.values().next()
        {
            let needed = seen.bytes().saturating_mul(distinct.unwrap_or_default() as usize);
            self.known.fits = Some(needed <= Known::LIMIT);
        }
        for (i, key) in pairs.keys.iter().enumerate() {
            if let Some(key) = key
                && let Some(seen) = fresh.remove(&i)
            {
                self.known.of.insert(*key, seen);
            }
        }
        let of = |(i, key): (usize, &Option<u64>)| match key {
            Some(key) => &self.known.of[key],
            None => &fresh[&i],
        };
        Seen::cat(&pairs.keys.iter().enumerate().map(of).collect::<Vec<_>>())
    }
}

impl TrainStep for GeneratorStep<'_> {
    fn losses(&mut self, index: u64, draw: &Generator) -> Result<Losses, Error> {
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
        let Seen { mean, logvar, tokens, fused } = self.seen(&pairs);
        let drawings = (&pairs.pose * 0.5 + 0.5).to_device(device);
        let evidence = Evidence { tokens, fused, drawings };
        let latents = LatentDistribution { mean, logvar };
        let noise = draw.randn(&latents.mean.size()).to_device(latents.mean.device());
        let x_0 = (latents.sample(&noise) * self.vae.scaling_factor()).to_device(device); // [B, C, h, w]
        let noise = offset_noise(&x_0.size(), self.offset_noise, draw).to_device(device);
        let size = self.batch_size as i64;
        let timesteps = if self.stratified {
            self.schedule.spread_timesteps(size, draw)
        } else {
            self.schedule.uniform_timesteps(size, draw)
        };
        let timesteps = timesteps.to_device(device);
        let x_t = self.schedule.add_noise(&x_0, &noise, &timesteps);

        let kept = self.dropping.draw(self.batch_size as i64, draw);
        let told = self.routes.conditioning(&evidence, &kept, Some(draw));
        let told = of_kind(told, self.unet.kind());
        let prediction = self.unet.forward(&x_t, &timesteps, &told).to_kind(Kind::Float);
        let target = self.schedule.target(&x_0, &noise, &timesteps);
        let missed = (prediction - target).square();
        let reconstruction = missed.mean(Kind::Float).double_value(&[]);
        let place = (missed.size()[2], missed.size()[3]);
        let weights = figure_weights(&evidence.drawings, place, self.figure_weight);
        let total = (missed * weights).mean(Kind::Float);
        Ok(Losses { terms: vec![("reconstruction", reconstruction)], total })
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
    fn a_figure_weighs_more_within_a_sixteenth_of_the_height() {
        let drawings = Tensor::zeros([2, 3, 64, 32], (Kind::Float, tch::Device::Cpu));
        // One pixel of a limb, in the cell of row 4 and column 1; cells are 8 pixels wide, and 4 are near.
        let _ = drawings.get(1).get(2).get(33).narrow(0, 12, 1).fill_(0.6);
        let weights = figure_weights(&drawings, (8, 4), 5.0);
        assert_eq!(weights.size(), [2, 1, 8, 4]);
        assert!((weights.mean(Kind::Double).double_value(&[]) - 1.0).abs() < 1e-6);
        let least = weights.min().double_value(&[]);
        let near: Vec<(i64, i64)> = (0..64)
            .map(|place| (place / 4, place % 4))
            .filter(|(row, column)| {
                let ratio = weights.view([16, 4]).double_value(&[*row, *column]) / least;
                assert!((ratio - 1.0).abs() < 1e-5 || (ratio - 5.0).abs() < 1e-5, "{ratio}");
                ratio > 2.0
            })
            .collect();
        // Rows 3 and 4 of the second sample: its other neighbours end 5 pixels away.
        assert_eq!(near, [(11, 1), (11, 2), (12, 1), (12, 2)]);
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
