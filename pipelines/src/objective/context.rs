//! The prompts at which a concept is compared with its class.

use std::cell::OnceCell;

use embeddings::{Concept, Conditioner, PromptPair};
use models::unet::{CrossAttnContext, KeyValue};
use tch::Tensor;

/// Pairs of prompts with and without the concept, and the encodings of both. Shapes: S tokens, D width.
pub struct ContextPrompts<'a> {
    conditioner: &'a Conditioner,
    concepts: Vec<&'a dyn Concept>,
    pairs: Vec<PromptPair>,
    references: Vec<OnceCell<Tensor>>,
}

impl<'a> ContextPrompts<'a> {
    /// `pairs` hold `concepts` by their index; those are concepts of token vectors.
    pub fn new(
        conditioner: &'a Conditioner,
        concepts: Vec<&'a dyn Concept>,
        pairs: Vec<PromptPair>,
    ) -> Self {
        let references = pairs.iter().map(|_| OnceCell::new()).collect();
        Self { conditioner, concepts, pairs, references }
    }

    /// Pair `index`.
    pub fn pair(&self, index: usize) -> &PromptPair {
        &self.pairs[index]
    }

    /// E(y*): the encoding with the concepts as they are now, `[1, S, D]`, attached to their vectors.
    pub fn object(&self, index: usize) -> Tensor {
        let context = self.conditioner.encode(&[&self.pairs[index].object], &self.concepts);
        shared(context)
    }

    /// `E(y_cat)`, `[1, S, D]`: a constant of the run, encoded once and without a graph.
    pub fn reference(&self, index: usize) -> &Tensor {
        self.references[index].get_or_init(|| {
            let reference = &self.pairs[index].reference;
            tch::no_grad(|| shared(self.conditioner.encode(&[reference], &[])))
        })
    }
}

/// The one context of a concept that does not vary with the layer.
fn shared(context: CrossAttnContext) -> Tensor {
    match context {
        CrossAttnContext::Shared(KeyValue { key, .. }) => key,
        CrossAttnContext::PerLayer(_) => {
            unreachable!("token vectors are the same for all layers")
        }
    }
}
