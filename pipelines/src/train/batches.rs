//! Micro-batches of a run: photos, noise, timesteps and prompts.

use embeddings::PromptTokens;
use models::schedule::NoiseSchedule;
use tch::Tensor;
use torch_ext::Generator;

use crate::latents::LatentCache;
use crate::objective::{Batches, PhotoBatch, StepInputs};

/// Which prompts go with which photo.
pub(crate) enum Prompts {
    /// Any with any.
    Templates(Vec<PromptTokens>),
    /// One for each photo.
    Captions(Vec<PromptTokens>),
}

/// Noised latents of photos with the prompts that go with them.
pub(crate) struct PhotoBatches<'a> {
    pub latents: LatentCache,
    pub prompts: Prompts,
    pub schedule: &'a NoiseSchedule,
    pub batch_size: usize,
    /// Micro-batches of an optimiser step.
    pub accumulation: u64,
    /// Whether the timesteps of an optimiser step lie in equal ranges, one in each.
    pub stratified: bool,
    /// How many context prompts there are; 0 where the method has none.
    pub context_prompts: usize,
    pub seed: u64,
}

impl PhotoBatches<'_> {
    /// The photo of sample `k`.
    fn photo(&self, k: u64) -> usize {
        in_epochs(self.seed, k, self.latents.len())
    }

    /// Of micro-batch `index`, `[B]`.
    fn timesteps(&self, index: u64, draw: &Generator) -> Tensor {
        let batch = self.batch_size as u64;
        if self.stratified {
            let ranges = ranges(self.seed, index, batch, self.accumulation);
            return self.schedule.timesteps_within(&ranges, batch * self.accumulation, draw);
        }
        self.schedule.uniform_timesteps(batch as i64, draw)
    }

    /// One prompt for all micro-batches of an optimiser step, so that accumulation does not mix references. Epochs
    /// over the prompts draw each kind of them in its share.
    fn context_prompt(&self, index: u64) -> usize {
        match self.context_prompts {
            0 => 0,
            n => in_epochs(!self.seed, index / self.accumulation, n),
        }
    }
}

/// Item `k` of a walk through `n` items: each epoch visits every one once, in an order of its own that depends on the
/// seed and the epoch only, so that a resumed run goes on with it.
fn in_epochs(seed: u64, k: u64, n: usize) -> usize {
    let (epoch, place) = (k / n as u64, k % n as u64);
    let order = Generator::cpu(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(epoch))
        .randperm(n as i64);
    order.int64_value(&[place as i64]) as usize
}

/// Which of the equal ranges of timesteps the samples of micro-batch `index` take, `[batch]`: over the `accumulation`
/// micro-batches of an optimiser step each range once, in an order of the step's own.
fn ranges(seed: u64, index: u64, batch: u64, accumulation: u64) -> Tensor {
    let samples = (batch * accumulation) as usize;
    let range = |i: u64| in_epochs(!seed, index * batch + i, samples) as i64;
    Tensor::from_slice(&(0..batch).map(range).collect::<Vec<_>>())
}

impl PhotoBatches<'_> {
    /// `count` samples that stand for the whole run, in batches: photos in turn, timesteps evenly spread, the first
    /// template.
    pub(crate) fn bank(&self, count: usize, draw: &Generator) -> Vec<StepInputs> {
        let last = self.schedule.alpha_bar().len();
        let batch = |start: usize| {
            let places = start..count.min(start + self.batch_size);
            let photo = |i: usize| i % self.latents.len();
            let x_0: Vec<_> = places.clone().map(|i| self.latents.sample(photo(i), draw)).collect();
            let prompts = places.clone().map(|i| match &self.prompts {
                Prompts::Captions(captions) => captions[photo(i)].clone(),
                Prompts::Templates(all) => all[0].clone(),
            });
            let timesteps: Vec<i64> =
                places.clone().map(|i| ((2 * i + 1) * last / (2 * count)) as i64).collect();
            let x_0 = Tensor::cat(&x_0, 0);
            let noise = draw.randn(&x_0.size());
            self.inputs(
                (start / self.batch_size) as u64,
                &x_0,
                &noise,
                &Tensor::from_slice(&timesteps),
                prompts.collect(),
            )
        };
        (0..count).step_by(self.batch_size).map(batch).collect()
    }

    /// Micro-batch `index`: latents and noise `[B, 4, h, w]`, timesteps `[B]` on any device.
    fn inputs(
        &self,
        index: u64,
        x_0: &Tensor,
        noise: &Tensor,
        timesteps: &Tensor,
        prompts: Vec<PromptTokens>,
    ) -> StepInputs {
        let (noise, timesteps) = (noise.to_device(x_0.device()), timesteps.to_device(x_0.device()));
        StepInputs {
            index,
            x_t: self.schedule.add_noise(x_0, &noise, &timesteps),
            photos: Some(PhotoBatch {
                target: self.schedule.target(x_0, &noise, &timesteps),
                prompts,
            }),
            timesteps,
            context_prompt: self.context_prompt(index),
        }
    }
}

impl Batches for PhotoBatches<'_> {
    fn next(&mut self, index: u64, draw: &Generator) -> StepInputs {
        let (mut x_0, mut prompts) = (Vec::new(), Vec::new());
        for i in 0..self.batch_size {
            let photo = self.photo(index * self.batch_size as u64 + i as u64);
            x_0.push(self.latents.sample(photo, draw));
            prompts.push(match &self.prompts {
                Prompts::Captions(captions) => captions[photo].clone(),
                Prompts::Templates(all) => {
                    all[draw.randint(0, all.len() as i64, &[1]).int64_value(&[0]) as usize].clone()
                }
            });
        }
        let x_0 = Tensor::cat(&x_0, 0); // [B, 4, h, w]
        let noise = draw.randn(&x_0.size());
        let timesteps = self.timesteps(index, draw);
        self.inputs(index, &x_0, &noise, &timesteps, prompts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::schedule::ScheduleConfig;

    #[test]
    fn a_step_has_a_timestep_in_each_of_its_ranges_and_steps_differ() {
        let draw = Generator::cpu(3);
        let schedule = NoiseSchedule::new(&ScheduleConfig::default()).expect("the common one");
        let step = |step: u64| -> Vec<i64> {
            let batch = |i| schedule.timesteps_within(&super::ranges(7, i, 2, 4), 8, &draw);
            let all: Vec<Tensor> = (4 * step..4 * step + 4).map(batch).collect();
            Vec::try_from(Tensor::cat(&all, 0)).expect("a flat tensor of numbers")
        };
        let ranges = |step: &[i64]| step.iter().map(|t| t / 125).collect::<Vec<_>>();
        let (first, second) = (step(0), step(1));
        for timesteps in [&first, &second] {
            let mut found = ranges(timesteps);
            found.sort_unstable();
            assert_eq!(found, (0..8).collect::<Vec<_>>(), "{timesteps:?}");
        }
        assert_ne!(ranges(&first), ranges(&second));
        assert!(first.iter().any(|t| t % 125 != 0), "{first:?} are the starts of their ranges");
    }

    #[test]
    fn an_epoch_visits_each_once_and_the_next_in_another_order() {
        let epoch = |e: u64| (0..50).map(|k| in_epochs(7, e * 50 + k, 50)).collect::<Vec<_>>();
        let (first, second) = (epoch(0), epoch(1));
        let sorted = |mut order: Vec<usize>| {
            order.sort_unstable();
            order
        };
        assert_eq!(sorted(first.clone()), (0..50).collect::<Vec<_>>());
        assert_eq!(sorted(second.clone()), (0..50).collect::<Vec<_>>());
        assert_ne!(first, second);
    }
}
