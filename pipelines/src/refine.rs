//! Test-time optimisation: a copy of a concept is tuned to one prompt, so that none of its words is ignored.
//!
//! Only the two regularisers of CoRe are minimised, which need no photos. The concept's file is not touched.
//!
//! Source: Wu et al. 2024 (CoRe), section "Test-time Optimization". Of our own are: pure noise at late timesteps in
//! place of noised photos, the same for every step; a held norm; a bound on the move; an end as soon as nothing falls.

use std::ops::ControlFlow;

use embeddings::{Concept, Conditioner, PromptPair, PromptTokens, Slot, TextualInversion};
use models::tokenizer::Tokenizer;
use models::unet::UNet;
use serde::Serialize;
use tch::{Kind, Tensor};
use torch_ext::Generator;

use crate::Error;
use crate::config::{CoreConfig, LrShape, TrainConfig};
use crate::objective::{
    AttentionReduction, Batches, ContextAttention, ContextEmbedding, ContextPrompts, NormPolicy,
    Objective, StepInputs, norm,
};
use crate::trainer::{AdamW, LearningRate, Losses, StepRecord, Stop, TrainStep, Trainer, add};

/// The first timestep of which pure noise is a fair sample, as a share of all timesteps.
const LATE: f64 = 0.8;
/// Of its noises, whatever the picture's: a picture is drawn again from its own seed.
const SEED: u64 = 0;
/// Steps without a lower loss after which it ends.
const PATIENCE: u64 = 3;

/// What a refinement did to one prompt's concepts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refined {
    /// The prompt.
    pub prompt: String,
    /// Steps taken.
    pub steps: u64,
    /// How far the vectors moved to those of the lowest loss, which are kept, as a share of their norm; the farthest of
    /// several concepts. 0 where no step was of use and the concepts stay as they were.
    pub moved: f64,
    /// The terms with the concepts as they were.
    pub before: Vec<(&'static str, f64)>,
    /// The terms with those that are kept.
    pub after: Vec<(&'static str, f64)>,
}

/// For each concept its tuned copy; nothing where it stays as it is.
pub(crate) type Copies = Vec<Option<TextualInversion>>;

/// A checked refinement of a number of prompts.
pub(crate) struct RefinePlan {
    steps: u64,
    config: TrainConfig,
    core: CoreConfig,
    /// For each prompt the comparison with its concepts' classes; nothing where it holds no concept.
    pairs: Vec<Option<PromptPair>>,
}

impl RefinePlan {
    /// Takes learning rate, weights and bounds from the preset of CoRe. Each concept of a prompt needs token vectors of
    /// its own and a class.
    pub(crate) fn new(
        steps: u64,
        prompts: &[(&str, &PromptTokens)],
        concepts: &[&dyn Concept],
        classes: &[Option<String>],
        tokenizer: &Tokenizer,
    ) -> Result<Self, Error> {
        let config = TrainConfig::preset("core")?;
        let core = config.core.clone().expect("the preset of the method core has its table");
        let ids: Vec<Vec<i64>> = classes
            .iter()
            .map(|class| class.as_ref().map_or(Vec::new(), |class| tokenizer.encode(class)))
            .collect();
        let pair = |(prompt, tokens): &(&str, &PromptTokens)| {
            let without_vectors = |slot: &&Slot| concepts[slot.concept].token_vectors().is_none();
            if let Some(slot) = tokens.slots.iter().find(without_vectors) {
                return Err(Error::Usage(format!(
                    "'{prompt}' holds {}, but --refine tunes token vectors that are the same for all layers and timesteps (methods core and ti); leave out --refine",
                    concepts[slot.concept].placeholder()
                )));
            }
            if let Some(slot) = tokens.slots.iter().find(|slot| ids[slot.concept].is_empty()) {
                return Err(Error::Usage(format!(
                    "the file of {} names no class, which --refine compares the concept with; leave out --refine, or train the concept with --class",
                    concepts[slot.concept].placeholder()
                )));
            }
            let pair = (!tokens.slots.is_empty())
                .then(|| PromptPair::new((*tokens).clone(), prompt, &ids, tokenizer));
            Ok(pair.transpose()?)
        };
        let pairs = prompts.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { steps, config, core, pairs })
    }

    /// Whether prompt `index` holds a concept.
    pub(crate) fn concerns(&self, index: usize) -> bool {
        self.pairs[index].is_some()
    }
}

/// The networks, and the latents' shape `[1, channels, h, w]`, of a refinement.
pub(crate) struct Refiner<'a> {
    pub plan: &'a RefinePlan,
    pub conditioner: &'a Conditioner,
    pub unet: &'a UNet,
    pub timesteps: i64,
    pub shape: [i64; 4],
}

impl Refiner<'_> {
    /// Tunes copies of `concepts` to prompt `index`; nothing where it holds none of them, or `flow` stopped it. A
    /// concept that has no copy in the result stays as it is.
    pub(crate) fn refine(
        &self,
        index: usize,
        prompt: &str,
        concepts: &[&dyn Concept],
        flow: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<(Copies, Refined)>, Error> {
        let Some(pair) = self.plan.pairs[index].clone() else { return Ok(None) };
        tch::with_grad(|| self.tune(pair, prompt, concepts, flow))
    }

    fn tune(
        &self,
        pair: PromptPair,
        prompt: &str,
        concepts: &[&dyn Concept],
        flow: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<(Copies, Refined)>, Error> {
        let (core, steps) = (&self.plan.core, self.plan.steps);
        let device = self.unet.device();
        let stands = |i: usize| pair.object.slots.iter().any(|slot| slot.concept == i);
        let copy = |(i, concept): (usize, &&dyn Concept)| {
            let vectors = concept.token_vectors().filter(|_| stands(i))?.to_device(device).copy();
            Some(TextualInversion::new(concept.placeholder(), &vectors).trainable())
        };
        let tuned: Copies = concepts.iter().enumerate().map(copy).collect();
        let parameters: Vec<Tensor> =
            tuned.iter().flatten().map(|concept| concept.vectors().shallow_clone()).collect();
        let start = values(&parameters);

        let prompts =
            ContextPrompts::new(self.conditioner, with_copies(concepts, &tuned), vec![pair]);
        let samples = u64::from(core.refine_batch_size);
        let draw = Generator::cpu(SEED);
        let noises = LateNoise::draw(samples, self.shape, self.timesteps, self.unet, &draw);
        let objective = Objective::new(noises, NormPolicy::Hold { after: 0, until: steps })
            .with(core.lambda_emb, ContextEmbedding { prompts: &prompts, axis: core.emb_axis })
            .with(
                core.lambda_attn,
                ContextAttention {
                    prompts: &prompts,
                    unet: self.unet,
                    reduction: AttentionReduction::LayerMean,
                },
            );
        // A step's loss is that of the vectors it found, not of those it leaves.
        let mut found = values(&start);
        let mut near = Near { objective, start, largest: core.refine_largest_move };

        let mut trainer = self.trainer(parameters, samples, draw);
        let (mut before, mut lowest) = (None::<Terms>, None::<Lowest>);
        let mut stopped = false;
        let mut after_step = |trainer: &Trainer, record: &StepRecord| {
            let vectors = std::mem::replace(&mut found, values(&trainer.optimizer.parameters));
            let (step, loss, terms) = (record.step, record.loss, record.terms.clone());
            before.get_or_insert_with(|| terms.clone());
            let best = Lowest { step, loss, terms, vectors }.or(lowest.take());
            stopped = flow().is_break();
            let stalled = record.step >= best.step + PATIENCE;
            lowest = Some(best);
            let on =
                if stopped || stalled { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            Ok(on)
        };
        match trainer.fit(&mut near, &mut after_step) {
            Ok(_) => {}
            Err(Stop::NoBatch(error) | Stop::Failed(error)) => return Err(error),
            Err(Stop::Diverged { step }) => {
                let advice = "leave out --refine";
                return Err(Error::Diverged { step, saved: None, advice });
            }
        }
        let Some(before) = before.filter(|_| !stopped) else { return Ok(None) };

        let (loss, terms) = near.evaluate(samples, &trainer.draw)?;
        let Lowest { step, terms: after, vectors, .. } =
            Lowest { step: trainer.step + 1, loss, terms, vectors: found }.or(lowest);
        let moves = near.start.iter().zip(&vectors);
        let moved = moves.map(|(from, to)| distance(from, to)).fold(0.0, f64::max);
        for (parameter, best) in trainer.optimizer.parameters.iter_mut().zip(&vectors) {
            tch::no_grad(|| parameter.copy_(best));
        }
        let frozen = |concept: &TextualInversion| {
            let vectors = concept.vectors().detach().copy();
            TextualInversion::new(concept.placeholder(), &vectors)
        };
        // The first step found the concepts as they were.
        let kept: Copies =
            tuned.iter().map(|concept| concept.as_ref().filter(|_| step > 1).map(frozen)).collect();
        let (prompt, steps) = (prompt.to_owned(), trainer.step);
        Ok(Some((kept, Refined { prompt, steps, moved, before, after })))
    }

    fn trainer(&self, parameters: Vec<Tensor>, samples: u64, draw: Generator) -> Trainer {
        let (config, steps) = (&self.plan.config, self.plan.steps);
        let peak = self.plan.core.refine_learning_rate;
        Trainer {
            optimizer: AdamW::new(parameters, config.adam()),
            draw,
            step: 0,
            steps,
            // One noise at a time, so that it fits wherever the picture itself does.
            accumulation: samples,
            learning_rate: LearningRate {
                peak,
                shape: LrShape::Constant,
                end: 0.0,
                warmup: 0,
                steps,
            },
            max_grad_norm: config.max_grad_norm,
            average: None,
            loss_scale: if self.unet.kind() == Kind::Half { 1024.0 } else { 1.0 },
        }
    }
}

/// `concepts`, each by its copy where it has one.
pub(crate) fn with_copies<'a>(
    concepts: &[&'a dyn Concept],
    copies: &'a [Option<TextualInversion>],
) -> Vec<&'a dyn Concept> {
    let copy = |(own, copy): (&&'a dyn Concept, &'a Option<TextualInversion>)| match copy {
        Some(copy) => copy as &dyn Concept,
        None => *own,
    };
    concepts.iter().zip(copies).map(copy).collect()
}

/// The same few noises in every step, so that its losses can be compared with those of the step before.
struct LateNoise(Vec<(Tensor, Tensor)>);

impl LateNoise {
    fn draw(count: u64, shape: [i64; 4], timesteps: i64, unet: &UNet, draw: &Generator) -> Self {
        let first = (LATE * timesteps as f64) as i64;
        let sample = |_| {
            let noise = draw.randn(&shape).to_device(unet.device()); // [1, 4, h, w]
            (noise, draw.randint(first, timesteps, &[1]).to_device(unet.device()))
        };
        Self((0..count).map(sample).collect())
    }
}

impl Batches for LateNoise {
    fn next(&mut self, index: u64, _draw: &Generator) -> StepInputs {
        let (x_t, timesteps) = &self.0[index as usize % self.0.len()];
        StepInputs {
            index,
            x_t: x_t.shallow_clone(),
            timesteps: timesteps.shallow_clone(),
            photos: None,
            context_prompt: 0,
        }
    }
}

/// Terms of a loss by name.
type Terms = Vec<(&'static str, f64)>;

/// The vectors of the lowest loss so far.
struct Lowest {
    /// The step that found them.
    step: u64,
    loss: f64,
    terms: Terms,
    vectors: Vec<Tensor>,
}

impl Lowest {
    /// These, unless the earlier ones were as good.
    fn or(self, earlier: Option<Self>) -> Self {
        earlier.filter(|earlier| earlier.loss <= self.loss).unwrap_or(self)
    }
}

/// What tensors are now, apart from any graph.
fn values(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|tensor| tensor.detach().copy()).collect()
}

/// An objective whose parameters stay within a distance of where they started.
struct Near<'a> {
    objective: Objective<'a>,
    start: Vec<Tensor>,
    largest: f64,
}

impl Near<'_> {
    /// The weighted loss and its terms over all samples, as they are now.
    fn evaluate(&mut self, samples: u64, draw: &Generator) -> Result<(f64, Terms), Error> {
        let (mut sum, mut terms) = (0.0, Vec::new());
        let share = 1.0 / samples as f64;
        tch::no_grad(|| {
            for index in 0..samples {
                let mut part = Some(self.losses(index, draw)?);
                while let Some(Losses { total, terms: values }) = part {
                    sum += share * total.double_value(&[]);
                    for (name, value) in values {
                        add(&mut terms, name, share * value);
                    }
                    part = self.more_losses();
                }
            }
            Ok((sum, terms))
        })
    }
}

impl TrainStep for Near<'_> {
    fn losses(&mut self, index: u64, draw: &Generator) -> Result<Losses, Error> {
        self.objective.losses(index, draw)
    }

    fn more_losses(&mut self) -> Option<Losses> {
        self.objective.more_losses()
    }

    fn after_update(&mut self, step: u64, before: &[Tensor], parameters: &mut [Tensor]) {
        self.objective.after_update(step, before, parameters);
        for (start, parameter) in self.start.iter().zip(parameters) {
            keep_near(start, parameter, self.largest);
        }
    }
}

/// How far `to` is from `from`, as a share of the norm of `from`.
fn distance(from: &Tensor, to: &Tensor) -> f64 {
    tch::no_grad(|| norm(&(to - from)) / norm(from).max(f64::MIN_POSITIVE))
}

/// Turns `moved`, which has the norm of `start`, back towards it until their distance is at most `largest` of that norm.
fn keep_near(start: &Tensor, moved: &mut Tensor, largest: f64) {
    if distance(start, moved) <= largest {
        return;
    }
    tch::no_grad(|| {
        let radius = norm(start);
        let unit = start / radius;
        let along = (&*moved * &unit).sum(Kind::Float);
        let aside = &*moved - &unit * along;
        let aside = &aside / norm(&aside).max(f64::MIN_POSITIVE);
        let cos = 1.0 - largest * largest / 2.0; // of the angle whose chord is `largest`
        let sin = (1.0 - cos * cos).max(0.0).sqrt();
        moved.copy_(&((unit * cos + aside * sin) * radius));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_beyond_the_bound_ends_on_it_with_its_norm_and_its_direction() {
        let start = Tensor::from_slice(&[3f32, 0.0, 4.0]);
        let mut moved = Tensor::from_slice(&[0f32, 5.0, 0.0]);
        keep_near(&start, &mut moved, 0.3);
        assert!((distance(&start, &moved) - 0.3).abs() < 1e-6);
        assert!((norm(&moved) - 5.0).abs() < 1e-6);
        assert!(moved.double_value(&[1]) > 1.4, "towards where it was going");
        let mut little = Tensor::from_slice(&[3f32, 0.1, 4.0]);
        keep_near(&start, &mut little, 0.3);
        assert_eq!(Vec::<f32>::try_from(little).expect("numbers"), [3.0, 0.1, 4.0]);
    }
}
