//! Context embedding regularisation (CER): the other words of a prompt are encoded as beside the class.
//!
//! Source: Wu et al. 2024 (CoRe), equation 3.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::{ContextPrompts, LossTerm, StepInputs, in_full_precision};

/// Along which axis the cosine is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CosineAxis {
    /// Over the D features of each token, as equation 3 says.
    Feature,
    /// Over the tokens, for each feature: what the authors' code computes.
    Token,
}

/// The term for one prompt a step; a single sequence through the text encoder, or one for each layer where the concept
/// varies, and no U-Net.
pub struct ContextEmbedding<'a> {
    /// The prompts.
    pub prompts: &'a ContextPrompts<'a>,
    /// Of the cosine.
    pub axis: CosineAxis,
}

impl LossTerm for ContextEmbedding<'_> {
    fn name(&self) -> &'static str {
        "context_embedding"
    }

    fn loss(&mut self, step: &StepInputs, draw: &Generator) -> Tensor {
        let (prompts, index) = (self.prompts, step.context_prompt);
        let pair = prompts.pair(index);
        let object = prompts.object(index, draw); // [1 or L, S, D]
        context_embedding_loss(&object, prompts.reference(index), pair.context(), self.axis)
    }
}

/// `1/|C| Σ_{i ∈ C} (1 − cos(E_i(y*), E_i(y_cat)))` from both encodings, `[S, D]` or several of them, and the context's
/// positions in either; for [`CosineAxis::Token`] the mean is over the D features.
pub fn context_embedding_loss(
    object: &Tensor,
    reference: &Tensor,
    context: (&[i64], &[i64]),
    axis: CosineAxis,
) -> Tensor {
    let rows = |encoding: &Tensor, positions: &[i64]| {
        let positions = Tensor::from_slice(positions).to_device(encoding.device());
        in_full_precision(&encoding.index_select(-2, &positions)) // [.., n, D]
    };
    let (object, reference) = (rows(object, context.0), rows(reference, context.1));
    let dim = match axis {
        CosineAxis::Feature => -1,
        CosineAxis::Token => -2,
    };
    let distance: Tensor = 1.0 - Tensor::cosine_similarity(&object, &reference, dim, 1e-8);
    distance.mean(None::<Kind>)
}
