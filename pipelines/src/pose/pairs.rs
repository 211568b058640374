//! What training learns from: one person twice, in two poses.

use tch::Tensor;
use torch_ext::Generator;

use crate::Error;

/// Two pictures of one person in one outfit, and drawings of the poses. All `[3, H, W]`, f32 in [-1, 1], a drawing black
/// where nothing is drawn; those of the target have the size that is learnt.
#[derive(Debug)]
pub struct PosePair {
    /// The photo that is given.
    pub source: Tensor,
    /// The photo that is to be drawn.
    pub target: Tensor,
    /// The source's pose, where it is known; of the target's size.
    pub source_pose: Option<Tensor>,
    /// The target's pose.
    pub target_pose: Tensor,
    /// Pairs of equal keys are equal to the bit, so that what frozen networks see in them can be kept; below
    /// [`PosePairs::distinct`].
    pub key: u64,
}

/// A source of pairs without end.
pub trait PosePairs {
    /// Pair number `index` since the start of a run, which a resumed run asks for again; what it does at random it
    /// draws from `draw`.
    fn pair(&mut self, index: u64, draw: &Generator) -> Result<PosePair, Error>;

    /// How many different pairs there are; nothing where they never end, and keys then mean nothing.
    fn distinct(&self) -> Option<u64> {
        None
    }

    /// What tells these pairs from others, so that a run does not go on with others unnoticed; nothing where there is
    /// nothing to tell.
    fn identity(&self) -> String {
        String::new()
    }
}

/// Pairs of a micro-batch, B of them.
pub(super) struct PairBatch {
    pub source: Tensor,         // [B, 3, H', W']
    pub target: Tensor,         // [B, 3, H, W]
    pub pose: Tensor,           // [B, 3, H, W]
    pub keys: Vec<Option<u64>>, // B; nothing for a pair that was made another here
}

/// Pairs `first..first + size`. A share `identity` of them are made the same picture twice, half of those its source,
/// where its pose is known, half its target (FPDM's release; it says nothing of why).
pub(super) fn batch(
    pairs: &mut dyn PosePairs,
    first: u64,
    size: usize,
    identity: f64,
    draw: &Generator,
) -> Result<PairBatch, Error> {
    let (mut sources, mut targets, mut poses) = (Vec::new(), Vec::new(), Vec::new());
    let mut keys = Vec::new();
    for index in first..first + size as u64 {
        let pair = pairs.pair(index, draw)?;
        let coins = draw.rand(&[2]);
        let same = coins.double_value(&[0]) < identity;
        keys.push((!same).then_some(pair.key));
        let pair = match (coins, pair.source_pose.as_ref()) {
            _ if !same => pair,
            (coins, Some(pose)) if coins.double_value(&[1]) < 0.5 => PosePair {
                target: resized(&pair.source, &pair.target),
                target_pose: pose.shallow_clone(),
                ..pair
            },
            (_, _) => PosePair { source: resized(&pair.target, &pair.source), ..pair },
        };
        sources.push(pair.source);
        targets.push(pair.target);
        poses.push(pair.target_pose);
    }
    Ok(PairBatch {
        source: stack("source", &sources)?,
        target: stack("target", &targets)?,
        pose: stack("target pose", &poses)?,
        keys,
    })
}

/// `picture` at the size of `like`.
fn resized(picture: &Tensor, like: &Tensor) -> Tensor {
    let (from, to) = (picture.size(), like.size());
    if from == to {
        return picture.shallow_clone();
    }
    let size = [to[1], to[2]];
    let wide = picture.unsqueeze(0).internal_upsample_bicubic2d_aa(size, false, None, None);
    wide.squeeze_dim(0).clamp(-1.0, 1.0)
}

fn stack(what: &str, pictures: &[Tensor]) -> Result<Tensor, Error> {
    let expected = pictures.first().map(Tensor::size).unwrap_or_default();
    match pictures.iter().find(|picture| picture.size() != expected || expected.len() != 3) {
        None => Ok(Tensor::stack(pictures, 0)),
        Some(odd) => Err(Error::Usage(format!(
            "a {what} picture is {:?}, but another of its batch is {expected:?}; bring all of them to one size [3, H, W]",
            odd.size()
        ))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// Coloured noise of one colour a pair, which both of its pictures share; poses are noise of the same place.
    pub(in crate::pose) struct Noise {
        pub size: [i64; 2],
    }

    impl PosePairs for Noise {
        fn pair(&mut self, index: u64, _draw: &Generator) -> Result<PosePair, Error> {
            let draw = Generator::cpu(index % 8);
            let [height, width] = self.size;
            let colour = draw.rand(&[3, 1, 1]) * 2.0 - 1.0;
            let picture = || (&colour + draw.randn(&[3, height, width]) * 0.1).clamp(-1.0, 1.0);
            let (source, target) = (picture(), picture());
            Ok(PosePair {
                source,
                source_pose: Some(picture()),
                target_pose: &target * 0.5,
                target,
                key: 0,
            })
        }
    }

    #[test]
    fn an_identity_pair_has_its_own_picture_and_pose_on_both_sides() {
        let draw = Generator::cpu(1);
        let plain = batch(&mut Noise { size: [8, 8] }, 0, 8, 0.0, &draw).unwrap();
        assert_ne!(plain.source, plain.target);
        let same = batch(&mut Noise { size: [8, 8] }, 0, 8, 1.0, &draw).unwrap();
        assert_eq!(same.source, same.target);
        let kept: Vec<bool> = (0..8).map(|i| same.pose.get(i) == plain.pose.get(i)).collect();
        assert!(kept.contains(&true) && kept.contains(&false), "{kept:?}");
        for (i, kept) in (0..8).zip(kept) {
            assert_eq!(same.target.get(i) == plain.target.get(i), kept);
        }
    }

    #[test]
    fn pictures_of_two_sizes_make_no_batch() {
        let of = |side| Tensor::zeros([3, side, side], (Kind::Float, Device::Cpu));
        let error = stack("source", &[of(8), of(4)]).unwrap_err().to_string();
        assert!(error.contains("a source picture is [3, 4, 4]"), "{error}");
    }
}
