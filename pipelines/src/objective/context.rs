//! The prompts at which a concept is compared with its class.

use std::cell::OnceCell;

use embeddings::{Concept, Conditioner, PromptPair, PromptTokens};
use models::unet::{CrossAttnContext, KeyValue};
use tch::{Kind, Tensor};
use torch_ext::Generator;

/// The timesteps that an encoding which varies with them is drawn from; those that `NeTI`'s mapper spreads over.
const TIMESTEPS: f64 = 1000.0;

/// Pairs of prompts with and without the concept, and the encodings of both. Shapes: S tokens, D width, L layers.
pub struct ContextPrompts<'a> {
    conditioner: &'a Conditioner,
    concepts: Vec<&'a dyn Concept>,
    pairs: Vec<PromptPair>,
    references: Vec<OnceCell<Tensor>>,
}

impl<'a> ContextPrompts<'a> {
    /// `pairs` hold `concepts` by their index; those enter before the text encoder.
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

    /// E(y*): encodings with the concepts as they are now, attached to their parameters. `[1, S, D]`; where a concept
    /// varies `[L, S, D]`, each layer once, at a timestep of its own share of all timesteps.
    pub fn object(&self, index: usize, draw: &Generator) -> Tensor {
        let layers = self.layers();
        let timesteps = match layers {
            Some(layers) if self.varies_with_time() => stratified(layers, draw),
            layers => Tensor::zeros([layers.unwrap_or(1)], (Kind::Float, tch::Device::Cpu)),
        };
        let object = &self.pairs[index].object;
        let context =
            self.conditioner.encode_layers(object, &self.concepts, &timesteps, Some(draw));
        match context {
            CrossAttnContext::Shared(KeyValue { key, .. }) => key,
            // What only values see stands in the concept's places, which are not compared.
            CrossAttnContext::PerLayer(layers) => {
                let keys: Vec<&Tensor> = layers.iter().map(|layer| &layer.key).collect();
                Tensor::cat(&keys, 0) // [L, S, D]
            }
        }
    }

    /// What the U-Net reads under y* at `timesteps` `[B]`, `[B, S, D]`, attached to the concepts' parameters but for
    /// what only values see: that is left to the photos, which know the concept.
    pub fn object_at(
        &self,
        index: usize,
        timesteps: &Tensor,
        draw: &Generator,
    ) -> CrossAttnContext {
        let batch = timesteps.size()[0];
        let object = &self.pairs[index].object;
        if self.layers().is_none() {
            let context = self.conditioner.encode(&[object], &self.concepts);
            return context.map(|c| c.repeat([batch, 1, 1])); // [B, S, D]
        }
        let objects: Vec<&PromptTokens> = vec![object; batch as usize];
        self.conditioner.encode_words_at(&objects, &self.concepts, timesteps, Some(draw))
    }

    /// `E(y_cat)`, `[1, S, D]`: a constant of the run, encoded once and without a graph.
    pub fn reference(&self, index: usize) -> &Tensor {
        self.references[index].get_or_init(|| {
            let reference = &self.pairs[index].reference;
            match tch::no_grad(|| self.conditioner.encode(&[reference], &[])) {
                CrossAttnContext::Shared(KeyValue { key, .. }) => key,
                CrossAttnContext::PerLayer(_) => unreachable!("nothing varies without concepts"),
            }
        })
    }

    fn layers(&self) -> Option<i64> {
        self.concepts.iter().filter_map(|concept| concept.varies().layers()).max()
    }

    fn varies_with_time(&self) -> bool {
        self.concepts.iter().any(|concept| concept.varies().with_time())
    }
}

/// A timestep for each of `layers`, `[L]`: one from each of as many equal shares of all timesteps, in random order.
fn stratified(layers: i64, draw: &Generator) -> Tensor {
    let share = draw.randperm(layers).to_kind(Kind::Float) + draw.rand(&[layers]);
    (share * (TIMESTEPS / layers as f64)).floor()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_of_the_layers_come_one_from_each_share() {
        let draw = Generator::cpu(3);
        for _ in 0..20 {
            let mut timesteps = Vec::<f64>::try_from(stratified(16, &draw)).expect("numbers");
            timesteps.sort_by(f64::total_cmp);
            for (i, t) in timesteps.iter().enumerate() {
                let (from, to) = ((62.5 * i as f64).floor(), 62.5 * (i + 1) as f64);
                assert!((from..to).contains(t), "{t} is not in share {i}");
            }
        }
    }
}
