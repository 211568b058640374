//! A prompt with a concept, and the same prompt with ordinary words in the concept's place.
//!
//! What of the two should be equal is their *context*: start, words and end without the slots. Both are spliced
//! from the same pieces, so the ids of the context are equal by construction, whatever the lengths.

use models::tokenizer::Tokenizer;

use crate::prompt::{Token, start_of};
use crate::{PromptError, PromptTokens, Slot};

/// Two prompts that differ in the concepts' places only.
///
/// Source: Wu et al. 2024 (CoRe), section "Context Regularization"; which positions count is the authors' code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptPair {
    /// With the concepts in their slots, y*.
    pub object: PromptTokens,
    /// With their classes in the slots, `y_cat`.
    pub reference: PromptTokens,
    /// The context's positions in `object`, in order: start, words, the first end token; no slot, no padding.
    pub object_context: Vec<i64>,
    /// Those in `reference`; as many, and at each the same id.
    pub reference_context: Vec<i64>,
}

impl PromptPair {
    /// The context's positions in `object` and in `reference`.
    pub fn context(&self) -> (&[i64], &[i64]) {
        (&self.object_context, &self.reference_context)
    }

    /// Puts `classes[i]`, the ids of a word or phrase, where concept `i` stands in `object`, the tokens of `prompt`.
    ///
    /// Fails where the classes are so much longer than the concepts that the reference does not fit.
    pub fn new(
        object: PromptTokens,
        prompt: &str,
        classes: &[Vec<i64>],
        tokenizer: &Tokenizer,
    ) -> Result<Self, PromptError> {
        let mut tokens = Vec::new(); // of the reference
        let mut reference_context = vec![0];
        let mut object_context = vec![0];
        for position in 1..object.end {
            match object.slots.iter().find(|slot| slot.position == position) {
                None => {
                    tokens.push(Token::Word(object.ids[position]));
                    object_context.push(position as i64);
                    reference_context.push(tokens.len() as i64);
                }
                Some(Slot { concept, vector: 0, .. }) => {
                    tokens.extend(classes[*concept].iter().map(|&id| Token::Word(id)));
                }
                Some(_) => {} // the class stands for all vectors of a concept
            }
        }
        let limit = tokenizer.length() - 2;
        if tokens.len() > limit {
            let (prompt, found) = (start_of(prompt), tokens.len());
            return Err(PromptError::ReferenceTooLong { prompt, found, limit });
        }
        let reference = PromptTokens::framed(tokens.into_iter(), tokenizer);
        object_context.push(object.end as i64);
        reference_context.push(reference.end as i64);
        Ok(Self { object, reference, object_context, reference_context })
    }
}
