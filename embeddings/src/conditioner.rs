//! The only place where prompts, concepts and CLIP meet.

use models::clip::ClipText;
use models::tokenizer::Tokenizer;
use models::unet::{CrossAttnContext, KeyValue};
use tch::{Kind, Tensor};

use crate::{Initializer, Overflow, PromptError, PromptPair, PromptTokens, TextualInversion};

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
        concepts: &[&TextualInversion],
        overflow: Overflow,
    ) -> Result<PromptTokens, PromptError> {
        PromptTokens::new(prompt, concepts, &self.tokenizer, overflow)
    }

    /// What a word or phrase starts a concept from; an empty phrase has no tokens.
    pub fn initializer(&self, phrase: &str) -> Initializer {
        Initializer::Tokens(self.word_ids(phrase))
    }

    /// The ids of a word or phrase alone.
    pub fn word_ids(&self, phrase: &str) -> Vec<i64> {
        self.tokenizer.encode(phrase)
    }

    /// A prompt with `concepts` in it, beside the same prompt with `classes[i]` in place of concept i.
    pub fn pair(
        &self,
        prompt: &str,
        concepts: &[&TextualInversion],
        classes: &[&str],
    ) -> Result<PromptPair, PromptError> {
        let object = self.tokenize(prompt, concepts, Overflow::Refuse)?;
        let classes: Vec<Vec<i64>> = classes.iter().map(|class| self.word_ids(class)).collect();
        PromptPair::new(object, prompt, &classes, &self.tokenizer)
    }

    /// The base's table of token vectors, `[rows, D]`.
    pub fn token_table(&self) -> &Tensor {
        self.clip.token_table()
    }

    /// B prompts to one context for all layers, `[B, S, D]`, in the text encoder's kind; differentiable
    /// with respect to the concepts' vectors.
    pub fn encode(
        &self,
        prompts: &[&PromptTokens],
        concepts: &[&TextualInversion],
    ) -> CrossAttnContext {
        let device = self.clip.device();
        let ids: Vec<Tensor> = prompts.iter().map(|p| Tensor::from_slice(&p.ids)).collect();
        let ids = Tensor::stack(&ids, 0).to_device(device); // [B, S]
        let words = self.clip.embed_tokens(&ids); // [B, S, D]
        let embeddings = splice(&words, prompts, concepts);
        let hidden = self.clip.blocks(&embeddings, self.skip_last);
        CrossAttnContext::Shared(KeyValue::same(self.clip.final_norm(&hidden)))
    }
}

/// Puts the concepts' vectors into their slots, out of place: one gather from words and vectors together.
fn splice(words: &Tensor, prompts: &[&PromptTokens], concepts: &[&TextualInversion]) -> Tensor {
    if prompts.iter().all(|prompt| prompt.slots.is_empty()) {
        return words.shallow_clone();
    }
    let size = words.size();
    let (batch, length, width) = (size[0], size[1], size[2]);
    let mut rows = vec![words.to_kind(Kind::Float).reshape([batch * length, width])];
    let mut first_row = Vec::new(); // of each concept
    let mut count = batch * length;
    for concept in concepts {
        first_row.push(count);
        count += concept.num_tokens() as i64;
        rows.push(concept.vectors().to_device(words.device()));
    }
    let mut index: Vec<i64> = (0..batch * length).collect();
    for (b, prompt) in prompts.iter().enumerate() {
        for slot in &prompt.slots {
            index[b * length as usize + slot.position] =
                first_row[slot.concept] + slot.vector as i64;
        }
    }
    let index = Tensor::from_slice(&index).to_device(words.device());
    Tensor::cat(&rows, 0).index_select(0, &index).reshape([batch, length, width])
}
