//! The pairs of a folder as training reads them: photos and drawings of poses as tensors, shuffled, mirrored.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use embeddings::file::hex;
use image::RgbImage;
use models::clip::resize;
use sha2::{Digest as _, Sha256};
use tch::Tensor;
use torch_ext::Generator;

use super::data::Pair;
use super::pairs::{PosePair, PosePairs};
use super::{Skeleton, check_size, draw, mirrored};
use crate::Error;
use crate::photos::{self, to_tensor};

/// Memory for decoded photos, in bytes; what does not fit is decoded again each time.
const LIMIT: usize = 2 << 30;

/// Pairs of a folder in an order of each epoch's own.
pub struct FolderPairs {
    pairs: Vec<Pair>,
    size: (u32, u32),
    mirror: bool,
    seed: u64,
    /// The order of the epoch that was asked for last.
    order: (u64, Vec<i64>),
    /// By file and size: a photo is a source in one pair and a target in another.
    photos: HashMap<(PathBuf, (u32, u32)), RgbImage>,
    kept: usize,
}

impl FolderPairs {
    /// Pictures of `size`, width and height; with `mirror` every second pair is seen in a mirror.
    pub fn new(pairs: Vec<Pair>, size: (u32, u32), mirror: bool, seed: u64) -> Result<Self, Error> {
        check_size(size)?;
        if pairs.is_empty() {
            return Err(Error::Usage(
                "there is no pair to learn from; put train_pairs_data.json into the folder, or fasion-resize-pairs-train.csv".into(),
            ));
        }
        let order = (u64::MAX, Vec::new());
        Ok(Self { pairs, size, mirror, seed, order, photos: HashMap::new(), kept: 0 })
    }

    /// The place in the list of pair number `index` of the run: each epoch has all of them, in an order of its own.
    fn place(&mut self, index: u64) -> usize {
        let count = self.pairs.len() as u64;
        let (epoch, within) = (index / count, index % count);
        if self.order.0 != epoch {
            let order = Generator::cpu(self.seed.wrapping_add(epoch)).randperm(count as i64);
            self.order = (epoch, Vec::try_from(order).expect("whole numbers"));
        }
        self.order.1[within as usize] as usize
    }

    /// A photo brought to a size, from memory where it was read before.
    fn photo(&mut self, file: &Path, size: (u32, u32)) -> Result<RgbImage, Error> {
        let key = (file.to_owned(), size);
        if let Some(known) = self.photos.get(&key) {
            return Ok(known.clone());
        }
        let photo = squashed(photos::read(file)?, size);
        if self.kept + photo.len() <= LIMIT {
            self.kept += photo.len();
            self.photos.insert(key, photo.clone());
        }
        Ok(photo)
    }
}

impl PosePairs for FolderPairs {
    fn pair(&mut self, index: u64, draw: &Generator) -> Result<PosePair, Error> {
        let place = self.place(index);
        let Pair { source, target, pose } = self.pairs[place].clone();
        let source = self.photo(&source, source_size(self.size))?;
        let target = self.photo(&target, self.size)?;
        let mirror = self.mirror && draw.rand(&[1]).double_value(&[0]) < 0.5;
        let (source, (target, pose)) = if mirror {
            (photos::mirrored(&source), mirrored(&target, &pose))
        } else {
            (source, (target, pose))
        };
        let tensor = |picture: &RgbImage| to_tensor(picture).squeeze_dim(0);
        Ok(PosePair {
            source: tensor(&source),
            target: tensor(&target),
            source_pose: None,
            target_pose: drawing(&pose, self.size),
            key: 2 * place as u64 + u64::from(mirror),
        })
    }

    fn distinct(&self) -> Option<u64> {
        Some(2 * self.pairs.len() as u64)
    }

    /// Of names, poses and the sizes of the photos' files; the folder itself may move.
    fn identity(&self) -> String {
        let mut hasher = Sha256::new();
        for Pair { source, target, pose } in &self.pairs {
            for file in [source, target] {
                let bytes = file.metadata().map_or(0, |metadata| metadata.len());
                hasher.update(format!("{:?} {bytes} ", file.file_name()));
            }
            hasher.update(format!("{pose:?} "));
        }
        format!("{:?} {} {}", self.size, self.mirror, hex(&hasher.finalize()))
    }
}

/// The square that sources are brought to beside pictures of this size.
pub(super) fn source_size((width, height): (u32, u32)) -> (u32, u32) {
    (width.max(height), width.max(height))
}

/// A picture at another size, bicubically; nothing is cut.
pub(super) fn squashed(picture: RgbImage, size: (u32, u32)) -> RgbImage {
    if picture.dimensions() == size {
        return picture;
    }
    let sides = |(width, height): (u32, u32)| (width as usize, height as usize);
    let pixels = resize(picture.as_raw(), sides(picture.dimensions()), sides(size));
    RgbImage::from_raw(size.0, size.1, pixels).expect("as many pixels as the size has")
}

/// The drawing of a pose, `[3, H, W]` in [-1, 1].
fn drawing(pose: &Skeleton, size: (u32, u32)) -> Tensor {
    to_tensor(&draw(pose, size)).squeeze_dim(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// Two pairs of photos of one level each, and a forearm to the left.
    fn pairs(folder: &Path) -> Vec<Pair> {
        let of = |i: u8| {
            let file = |role: &str, level: u8| {
                let file = folder.join(format!("{role}{i}.png"));
                let picture =
                    RgbImage::from_fn(32, 16, |x, _| image::Rgb([level, x as u8 * 8, i * 100]));
                picture.save(&file).unwrap();
                file
            };
            let mut pose = Skeleton([None; 18]);
            (pose.0[3], pose.0[4]) = (Some((0.1, 0.1)), Some((0.1, 0.9))); // the right forearm
            Pair { source: file("s", 10), target: file("t", 200), pose }
        };
        vec![of(0), of(1)]
    }

    fn blue(pair: &PosePair) -> i64 {
        ((pair.target.double_value(&[2, 0, 0]) + 1.0) * 127.5).round() as i64
    }

    #[test]
    fn an_epoch_has_every_pair_once_and_a_resumed_run_asks_for_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = FolderPairs::new(pairs(folder.path()), (16, 16), false, 3).unwrap();
        let draw = Generator::cpu(1);
        let mut seen = |index| blue(&all.pair(index, &draw).unwrap());
        let first: Vec<i64> = (0..8).map(&mut seen).collect();
        for epoch in first.chunks(2) {
            assert!(epoch.contains(&0) && epoch.contains(&100), "{first:?}");
        }
        assert_eq!((5..8).map(&mut seen).collect::<Vec<_>>(), first[5..]);
    }

    #[test]
    fn other_pairs_and_other_settings_of_them_are_told_apart_but_not_another_place() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let all = pairs(here.path());
        let of = |pairs: &[Pair], side, mirror| {
            FolderPairs::new(pairs.to_vec(), (side, side), mirror, 3).unwrap().identity()
        };
        let known = of(&all, 16, false);
        assert_eq!(of(&pairs(there.path()), 16, false), known);
        let mut moved = all.clone();
        moved[1].pose.0[3] = Some((0.2, 0.1));
        for other in [
            of(&all[..1], 16, false),
            of(&all, 24, false),
            of(&all, 16, true),
            of(&moved, 16, false),
        ] {
            assert_ne!(other, known);
        }
    }

    #[test]
    fn a_mirror_turns_photos_and_pose_and_has_a_key_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = FolderPairs::new(pairs(folder.path()), (16, 16), true, 3).unwrap();
        let draw = Generator::cpu(2);
        let mut by_key = HashMap::new();
        for index in 0..40 {
            let pair = all.pair(index, &draw).unwrap();
            assert!(pair.key < all.distinct().unwrap());
            let rises = |x: &Tensor| x.double_value(&[1, 8, 15]) > x.double_value(&[1, 8, 0]);
            let half = |first: i64| pair.target_pose.narrow(2, first, 8).sum(Kind::Double);
            let arm_left = half(0).double_value(&[]) > half(8).double_value(&[]);
            assert_eq!(rises(&pair.source), pair.key % 2 == 0);
            assert_eq!(rises(&pair.target), pair.key % 2 == 0);
            assert_eq!(arm_left, pair.key % 2 == 0);
            let other = by_key.insert(pair.key, pair.target.copy());
            assert!(other.is_none_or(|other| other == pair.target));
        }
        assert_eq!(by_key.len(), 4);
    }
}
