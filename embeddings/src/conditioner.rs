//! The only place where prompts, concepts and CLIP meet.

use models::clip::ClipText;
use models::tokenizer::Tokenizer;
use models::unet::{CrossAttnContext, KeyValue};
use tch::{Kind, Tensor};
use torch_ext::Generator;

use crate::{Concept, Initializer, Injection, Overflow, PromptError, PromptTokens, Site};

/// Turns prompts into what the U-Net attends to.
pub struct Conditioner {
    tokenizer: Tokenizer,
    clip: ClipText,
    skip_last: usize,
}

impl Conditioner {
    /// From a base's tokenizer and text encoder; `skip_last` blocks of it are left out ("clip skip" 2 is 1).
    pub fn new(tokenizer: Tokenizer, clip: ClipText, skip_last: usize) -> Self {
        Self { tokenizer, clip, skip_last }
    }

    /// Tokenises a prompt with `concepts` in it.
    pub fn tokenize(
        &self,
        prompt: &str,
        concepts: &[&dyn Concept],
        overflow: Overflow,
    ) -> Result<PromptTokens, PromptError> {
        PromptTokens::new(prompt, concepts, &self.tokenizer, overflow)
    }

    /// What a word or phrase starts a concept from; an empty phrase has no tokens.
    pub fn initializer(&self, phrase: &str) -> Initializer {
        Initializer::Tokens(self.tokenizer.encode(phrase))
    }

    /// The base's table of token vectors, `[rows, D]`.
    pub fn token_table(&self) -> &Tensor {
        self.clip.token_table()
    }

    /// [`Conditioner::encode_at`] for concepts that do not vary with time, drawn as they are.
    pub fn encode(&self, prompts: &[&PromptTokens], concepts: &[&dyn Concept]) -> CrossAttnContext {
        let any = Tensor::zeros([1], (Kind::Float, self.clip.device()));
        self.encode_at(prompts, concepts, &any, None)
    }

    /// B prompts at `timesteps` `[B]` or `[1]` to the context of the U-Net, `[B, S, D]` for each layer, or one
    /// for all where no concept of these prompts varies; in the text encoder's kind, differentiable with respect
    /// to the concepts' parameters. What is random in training comes from `draw`.
    ///
    /// CLIP runs once, on B prompts or on B for each layer.
    pub fn encode_at(
        &self,
        prompts: &[&PromptTokens],
        concepts: &[&dyn Concept],
        timesteps: &Tensor,
        draw: Option<&Generator>,
    ) -> CrossAttnContext {
        let device = self.clip.device();
        let batch = prompts.len() as i64;
        let used = |concept: usize| {
            prompts.iter().any(|p| p.slots.iter().any(|slot| slot.concept == concept))
        };
        let layers = (0..concepts.len())
            .filter(|&i| used(i))
            .filter_map(|i| concepts[i].varies().layers())
            .max();
        let timesteps = timesteps.to_device(device).expand([batch], false);
        let site = Site::new(&timesteps, layers.unwrap_or(1), draw);
        let entering: Vec<Entering> = (0..concepts.len())
            .filter(|&i| used(i))
            .map(|i| Entering::new(i, concepts[i].inject(&site), prompts, &site))
            .collect();

        let ids: Vec<Tensor> = prompts.iter().map(|p| Tensor::from_slice(&p.ids)).collect();
        let ids = Tensor::stack(&ids, 0).to_device(device); // [B, S]
        let mut words = self.clip.embed_tokens(&ids).repeat([site.layer_count, 1, 1]); // [N, S, D]
        for concept in &entering {
            words = concept.replace_words(&words);
        }
        let hidden = self.clip.blocks(&words, self.skip_last);
        let key = self.clip.final_norm(&hidden);
        let mut value = None;
        for concept in &entering {
            let norm = |rows: &Tensor| self.clip.final_norm(rows);
            value = concept.bypass(&hidden, value.as_ref().unwrap_or(&key), &norm).or(value);
        }
        let at = |layer: i64| {
            let part = |x: &Tensor| x.narrow(0, layer * batch, batch);
            match &value {
                None => KeyValue::same(part(&key)),
                Some(value) => KeyValue { key: part(&key), value: part(value) },
            }
        };
        match layers {
            None => CrossAttnContext::Shared(at(0)),
            Some(layers) => CrossAttnContext::PerLayer((0..layers).map(at).collect()),
        }
    }
}

/// A concept's injection with the places in the stacked prompts `[N, S, D]` that it goes to.
struct Entering {
    injection: Injection,
    /// Rows of `[N · S, D]`.
    places: Tensor,
    /// Rows of the injection, `[(1 or N) · n, D]`, one for each place.
    sources: Tensor,
    /// The same rows as numbers, for the gather that puts them in.
    rows: Vec<i64>,
}

impl Entering {
    fn new(
        concept: usize,
        injection: Injection,
        prompts: &[&PromptTokens],
        site: &Site<'_>,
    ) -> Self {
        let (Injection::Input(input) | Injection::InputWithBypass { input, .. }) = &injection;
        let size = input.size();
        let (copies, tokens) = (size[0], size[1]);
        let (mut rows, mut sources) = (Vec::new(), Vec::new());
        for n in 0..site.layers.size()[0] {
            let prompt = prompts[n as usize % prompts.len()];
            for slot in prompt.slots.iter().filter(|slot| slot.concept == concept) {
                rows.push(n * prompt.ids.len() as i64 + slot.position as i64);
                let copy = if copies == 1 { 0 } else { n };
                sources.push(copy * tokens + slot.vector as i64);
            }
        }
        let index = |rows: &[i64]| Tensor::from_slice(rows).to_device(input.device());
        Self { places: index(&rows), sources: index(&sources), rows, injection }
    }

    /// The rows of `tensor` `[1 or N, n, D]` that go to the places; `[places, D]`.
    fn pick(&self, tensor: &Tensor) -> Tensor {
        tensor.flatten(0, 1).index_select(0, &self.sources)
    }

    /// Puts the token vectors into their slots.
    fn replace_words(&self, words: &Tensor) -> Tensor {
        let (Injection::Input(input) | Injection::InputWithBypass { input, .. }) = &self.injection;
        self.replace(&words.to_kind(Kind::Float), &self.pick(input))
    }

    /// `value` with what only values see: at the concept's places the final norm of h + ‖h‖ b, where h is the
    /// last block's output; nothing where the concept has no bypass.
    fn bypass(
        &self,
        hidden: &Tensor,
        value: &Tensor,
        norm: &dyn Fn(&Tensor) -> Tensor,
    ) -> Option<Tensor> {
        let Injection::InputWithBypass { bypass, .. } = &self.injection else { return None };
        let h = hidden.flatten(0, 1).index_select(0, &self.places).to_kind(Kind::Float);
        let moved = bypassed(&h, &self.pick(bypass)).to_kind(hidden.kind());
        Some(self.replace(value, &norm(&moved)))
    }

    /// `stacked` `[N, S, D]` with `rows` `[places, D]` in the places, out of place: one gather from both.
    fn replace(&self, stacked: &Tensor, rows: &Tensor) -> Tensor {
        let size = stacked.size();
        let count = size[0] * size[1];
        let mut index: Vec<i64> = (0..count).collect();
        for (i, &place) in self.rows.iter().enumerate() {
            index[place as usize] = count + i as i64;
        }
        let index = Tensor::from_slice(&index).to_device(stacked.device());
        let both = [stacked.flatten(0, 1), rows.to_device(stacked.device())];
        Tensor::cat(&both, 0).index_select(0, &index).reshape(size)
    }
}

/// h + ‖h‖ b over the last axis.
fn bypassed(h: &Tensor, b: &Tensor) -> Tensor {
    h + h.norm_scalaropt_dim(2, [-1], true) * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bypass_adds_a_share_of_the_row_s_own_length() {
        let (h, b) = (Tensor::from_slice(&[3f32, 4.0]), Tensor::from_slice(&[0f32, 0.2]));
        let moved = Vec::<f32>::try_from(bypassed(&h, &b)).unwrap();
        assert!((moved[0] - 3.0).abs() < 1e-6 && (moved[1] - 5.0).abs() < 1e-6, "{moved:?}");
    }
}
