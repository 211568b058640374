//! How well a first stage finds pictures that it has not learnt.

use std::path::Path;

use models::params::Params;
use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::contrast::{Contrast, Retrieval};
use super::networks::Fusion;
use super::pairs::{PosePairs, batch};
use super::weights::PoseWeights;
use crate::error::guarded;
use crate::{DeviceChoice, Error};

/// Pairs that are looked at: few enough for a table of all with all.
const MOST: u64 = 256;
const BATCH: u64 = 32;

/// Where the fusions of a file's first stage stand among all fusions and all sources, for up to 256 of these pairs; and of
/// how many. With the sources among the candidates clothes alone do not find the target, the pose must be read.
pub fn retrieval(
    weights: &Path,
    pairs: &mut dyn PosePairs,
    device: DeviceChoice,
) -> Result<(u64, Retrieval), Error> {
    guarded("looking for held-out pictures", || {
        let weights = PoseWeights::open(weights)?;
        let tensors = weights.tensors(Kind::Float, device.resolve()?)?;
        let fusion = Fusion::load(&Params::root(&tensors), &weights.record.fusion);
        tensors.report()?.require_complete()?;
        let count = pairs.distinct().map_or(MOST, |distinct| (distinct / 2).min(MOST));
        let mut all = [const { Vec::new() }; 3];
        for first in (0..count).step_by(BATCH as usize) {
            let size = BATCH.min(count - first) as usize;
            let pairs = batch(pairs, first, size, 0.0, &Generator::cpu(0))?;
            tch::no_grad(|| {
                let output = fusion.forward(&pairs.source, &pairs.pose, None);
                all[0].push(output.source);
                all[1].push(fusion.embed(&pairs.target));
                all[2].push(output.fused);
            });
        }
        let [source, target, fused] = all.map(|parts| Tensor::cat(&parts, 0));
        Ok((count, Contrast::default().loss(&source, &target, &fused).retrieval))
    })
}
