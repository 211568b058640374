//! Pictures and captions to train on; sample `k` of a seed is always the same.

use pipelines::photos::to_tensor;
use tch::{Kind, Tensor};

use crate::cores::on_all_cores;
use crate::{Rng, Scene, World, choices};

/// One sample.
pub(super) struct Sample {
    pub scene: Scene,
    pub caption: String,
}

/// Samples `first..first + count` of a world and a seed, each a scene of its own.
pub(super) fn samples(world: World, seed: u64, first: u64, count: usize) -> Vec<Sample> {
    (first..first + count as u64)
        .map(|k| {
            let (scene, caption) = crate::sample(world, seed, k);
            Sample { scene, caption }
        })
        .collect()
}

/// Their pictures, `[B, 3, 128, 128]` in [-1, 1].
pub(super) fn pictures(samples: &[Sample]) -> Tensor {
    let scenes: Vec<Scene> = samples.iter().map(|sample| sample.scene).collect();
    Tensor::cat(&on_all_cores(&scenes, |scene| to_tensor(&scene.draw())), 0)
}

/// Scenes that are drawn once and shown many times, since drawing and encoding cost as much as a step on
/// them does; each time with a caption of its own.
pub(super) struct Gallery {
    seed: u64,
    scenes: Vec<Scene>,
}

impl Gallery {
    /// The first `count` scenes of a world and a seed.
    pub(super) fn new(world: World, seed: u64, count: usize) -> Self {
        let scenes =
            samples(world, seed, 0, count).into_iter().map(|sample| sample.scene).collect();
        Self { seed, scenes }
    }

    /// `work` on the pictures of all scenes, `[B, 3, 128, 128]` in [-1, 1], a batch at a time; its results
    /// `[B, ...]` joined to `[N, ...]`.
    pub(super) fn map(&self, mut work: impl FnMut(&Tensor) -> Tensor) -> Tensor {
        let batches: Vec<Tensor> = self
            .scenes
            .chunks(64)
            .map(|scenes| work(&Tensor::cat(&on_all_cores(scenes, |s| to_tensor(&s.draw())), 0)))
            .collect();
        Tensor::cat(&batches, 0)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.scenes.len()
    }

    /// The same in parts of `size`.
    pub(super) fn parts(&self, size: usize) -> Vec<Self> {
        let part = |scenes: &[Scene]| Self { seed: self.seed, scenes: scenes.to_vec() };
        self.scenes.chunks(size).map(part).collect()
    }

    /// Samples `first..first + count` of the first `among` pictures: places in the gallery, and captions.
    pub(super) fn pick(&self, first: u64, count: usize, among: usize) -> (Vec<usize>, Vec<String>) {
        (first..first + count as u64)
            .map(|k| {
                let rng = &mut Rng::nth(!self.seed, k);
                let place = rng.below(among);
                (place, self.scenes[place].caption(rng))
            })
            .unzip()
    }

    /// The same for a judge. Half of the captions name everything, and each of those has `near` others beside it, which
    /// name everything of a scene that differs in one attribute: wrong of the picture, whatever is said.
    pub(super) fn pick_with_near(
        &self,
        first: u64,
        count: usize,
        near: usize,
    ) -> (Tensor, Vec<String>, Vec<String>) {
        let (mut places, mut captions, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for k in first..first + count as u64 {
            let rng = &mut Rng::nth(!self.seed, k);
            let place = rng.below(self.scenes.len());
            let scene = &self.scenes[place];
            places.push(place as i64);
            if rng.chance(0.5) {
                captions.push(scene.full_caption());
                others.extend((0..near).map(|_| choices::other(scene, rng).full_caption()));
            } else {
                captions.push(scene.caption(rng));
            }
        }
        (Tensor::from_slice(&places), captions, others)
    }
}

/// Pictures in [-1, 1] as bytes, for keeping.
pub(super) fn to_bytes(pictures: &Tensor) -> Tensor {
    ((pictures + 1.0) * 127.5).round().to_kind(Kind::Uint8)
}

/// And back; exact for what came from bytes.
pub(super) fn from_bytes(bytes: &Tensor) -> Tensor {
    bytes.to_kind(Kind::Float) / 127.5 - 1.0
}
