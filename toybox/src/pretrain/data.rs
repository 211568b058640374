//! Batches of pictures and captions, drawn as they are needed; sample `k` of a seed is always the same.

use pipelines::photos::to_tensor;
use tch::Tensor;

use crate::{Rng, Scene};

/// One sample.
pub(super) struct Sample {
    pub scene: Scene,
    pub caption: String,
}

/// Samples `first..first + count` of a seed.
pub(super) fn samples(seed: u64, first: u64, count: usize) -> Vec<Sample> {
    (first..first + count as u64)
        .map(|k| {
            let rng = &mut Rng::nth(seed, k);
            let scene = Scene::sample(rng);
            let caption = scene.caption(rng);
            Sample { scene, caption }
        })
        .collect()
}

/// Their pictures, `[B, 3, 128, 128]` in [-1, 1], drawn on two threads.
pub(super) fn pictures(samples: &[Sample]) -> Tensor {
    let draw = |part: &[Sample]| -> Vec<Tensor> {
        part.iter().map(|sample| to_tensor(&sample.scene.draw())).collect()
    };
    let (left, right) = samples.split_at(samples.len() / 2);
    let mut all = Vec::with_capacity(samples.len());
    std::thread::scope(|scope| {
        let other = scope.spawn(|| draw(right));
        all.extend(draw(left));
        all.extend(other.join().expect("drawing does not panic"));
    });
    Tensor::cat(&all, 0)
}
