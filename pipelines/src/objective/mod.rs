//! What is minimised: a weighted sum of terms, each a function of one micro-batch.
//!
//! ```text
//! Batches ─► StepInputs ─► LossTerm … ─► weight · loss ─► Trainer
//! ```
//!
//! Each term builds a graph of its own, and the trainer walks it before the next term is computed: the gradients
//! add up, and memory holds one pass through the U-Net instead of all.

mod context;
mod context_attention;
mod context_embedding;
mod norms;
mod reconstruction;
mod shared_queries;
#[cfg(test)]
mod vectors;

pub use context::ContextPrompts;
pub use context_attention::{
    AttentionMeans, AttentionReduction, ContextAttention, context_attention_loss,
};
pub use context_embedding::{ContextEmbedding, CosineAxis, context_embedding_loss};
pub use norms::NormPolicy;
pub(crate) use norms::norm;
pub use reconstruction::Reconstruction;
pub use shared_queries::{SharedQueries, SharedQueryAttention};

use embeddings::PromptTokens;
use tch::{Kind, Tensor};
use torch_ext::Generator;

use crate::Error;
use crate::trainer::{Losses, TrainStep};

/// What every term of a micro-batch sees. Shapes: B samples, `[B, 4, h, w]` latents.
pub struct StepInputs {
    /// Its number since the start of the run.
    pub index: u64,
    /// Noised latents, `x_t`.
    pub x_t: Tensor,
    /// t, i64 `[B]`.
    pub timesteps: Tensor,
    /// The photos' share; nothing where a concept is refined without them.
    pub photos: Option<PhotoBatch>,
    /// Which of the context prompts the step compares; without meaning where there are none.
    pub context_prompt: usize,
}

/// What the U-Net should predict from `x_t`, and under which prompts.
pub struct PhotoBatch {
    /// The noise (or velocity), `[B, 4, h, w]`.
    pub target: Tensor,
    /// One for each sample.
    pub prompts: Vec<PromptTokens>,
}

/// One term of a loss.
pub trait LossTerm {
    /// Its name in logs.
    fn name(&self) -> &'static str;

    /// Its value at this micro-batch: a scalar, f32, attached to the concept's parameters. What is random in it is
    /// drawn from `draw`, which stands at the same place for every term: where they look at the same timesteps, they see
    /// the same concept.
    fn loss(&mut self, step: &StepInputs, draw: &Generator) -> Tensor;
}

/// Where micro-batches come from.
pub trait Batches {
    /// Micro-batch number `index` since the start of the run; what is random is drawn from `draw`.
    fn next(&mut self, index: u64, draw: &Generator) -> StepInputs;
}

/// Terms and their weights over a source of micro-batches.
pub struct Objective<'a> {
    batches: Box<dyn Batches + 'a>,
    terms: Vec<(f64, Box<dyn LossTerm + 'a>)>,
    norm: NormPolicy,
    measures: Vec<(&'static str, Measure<'a>)>,
    /// The micro-batch in work, the term that comes next, and the place in the draws at which each term starts.
    current: Option<(StepInputs, usize, Generator)>,
}

/// A number that the log holds after each step.
type Measure<'a> = Box<dyn Fn() -> f64 + 'a>;

impl<'a> Objective<'a> {
    /// An objective without terms.
    pub fn new(batches: impl Batches + 'a, norm: NormPolicy) -> Self {
        Self {
            batches: Box::new(batches),
            terms: Vec::new(),
            norm,
            measures: Vec::new(),
            current: None,
        }
    }

    /// Adds a term; one of weight 0 is left out, and costs nothing.
    #[must_use]
    pub fn with(mut self, weight: f64, term: impl LossTerm + 'a) -> Self {
        if weight > 0.0 {
            self.terms.push((weight, Box::new(term)));
        }
        self
    }

    /// Adds a number to the log of each step.
    #[must_use]
    pub fn measuring(mut self, name: &'static str, measure: impl Fn() -> f64 + 'a) -> Self {
        self.measures.push((name, Box::new(measure)));
        self
    }
}

impl TrainStep for Objective<'_> {
    fn losses(&mut self, index: u64, draw: &Generator) -> Result<Losses, Error> {
        let step = self.batches.next(index, draw);
        let (weight, term) = self.terms.first_mut().expect("an objective has a term");
        let start = draw.twin();
        let losses = weighted(*weight, &mut **term, &step, draw);
        self.current = Some((step, 1, start));
        Ok(losses)
    }

    fn more_losses(&mut self) -> Option<Losses> {
        let (step, next, start) = self.current.as_mut()?;
        let Some((weight, term)) = self.terms.get_mut(*next) else {
            self.current = None;
            return None;
        };
        *next += 1;
        // A twin, so that a further term leaves the run's own sequence as it is.
        Some(weighted(*weight, &mut **term, step, &start.twin()))
    }

    fn after_update(&mut self, step: u64, before: &[Tensor], parameters: &mut [Tensor]) {
        self.norm.after_update(step, before, parameters);
    }

    fn measures(&self) -> Vec<(&'static str, f64)> {
        self.measures.iter().map(|(name, measure)| (*name, measure())).collect()
    }
}

fn weighted(weight: f64, term: &mut dyn LossTerm, step: &StepInputs, draw: &Generator) -> Losses {
    let loss = term.loss(step, draw);
    let terms = vec![(term.name(), loss.double_value(&[]))];
    Losses { total: loss * weight, terms }
}

/// Losses are computed in f32, whatever the networks' kind: the gaps that they square are far below what half
/// precision resolves. f64 stays, for tests by finite differences.
fn in_full_precision(tensor: &Tensor) -> Tensor {
    if tensor.kind() == Kind::Double { tensor.shallow_clone() } else { tensor.to_kind(Kind::Float) }
}
