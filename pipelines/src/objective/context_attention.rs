//! Context attention regularisation (CAR): the other words of a prompt are attended to as beside the class.
//!
//! Only the mass of attention on each word is matched, not where in the picture it lies.
//!
//! Source: Wu et al. 2024 (CoRe), equation 4.

use models::unet::{AttnProbe, Conditioning, CrossAttnContext, KeyValue, LayerId, UNet};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::{ContextPrompts, LossTerm, StepInputs, in_full_precision};

/// In which order layers and samples are averaged and gaps are squared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionReduction {
    /// Gaps are squared for each layer and sample, then averaged over all.
    LayerMean,
    /// Layers are averaged before the gap is squared, so that they may cancel: equation 4 as it is written.
    LayersFirst,
    /// As [`AttentionReduction::LayerMean`], summed over the batch: the authors' code.
    BatchSum,
}

/// The term for one prompt a step: the latents of the reconstruction pass once more through the U-Net, under the
/// prompt with the concept and, without a graph, under the prompt with the class.
pub struct ContextAttention<'a> {
    /// The prompts.
    pub prompts: &'a ContextPrompts<'a>,
    /// Frozen.
    pub unet: &'a UNet,
    /// Of the gaps.
    pub reduction: AttentionReduction,
}

impl ContextAttention<'_> {
    /// The attention on each token in every layer, `[layers, B, S]`, under a context `[B, S, D]`.
    fn means(&self, step: &StepInputs, context: &CrossAttnContext) -> Tensor {
        let cond = Conditioning::context(context.map(|c| c.to_kind(self.unet.kind())));
        let mut means = AttentionMeans::default();
        let _prediction = self.unet.forward_probed(&step.x_t, &step.timesteps, &cond, &mut means);
        means.stacked()
    }
}

impl LossTerm for ContextAttention<'_> {
    fn name(&self) -> &'static str {
        "context_attention"
    }

    fn loss(&mut self, step: &StepInputs, draw: &Generator) -> Tensor {
        let (prompts, index) = (self.prompts, step.context_prompt);
        let pair = prompts.pair(index);
        let reference = tch::no_grad(|| {
            let all = prompts.reference(index).repeat([step.x_t.size()[0], 1, 1]); // [B, S, D]
            self.means(step, &CrossAttnContext::Shared(KeyValue::same(all)))
        });
        let object = self.means(step, &prompts.object_at(index, &step.timesteps, draw));
        context_attention_loss(&object, &reference, pair.context(), self.reduction)
    }
}

/// Keeps of each layer the attention on each token, averaged over heads and pixels: `[B, S]` in place of
/// `[B, heads, P, S]`.
#[derive(Default)]
pub struct AttentionMeans(Vec<Tensor>);

impl AttentionMeans {
    /// `[layers, B, S]`, in the order of the layers.
    pub fn stacked(&self) -> Tensor {
        Tensor::stack(&self.0, 0)
    }
}

impl AttnProbe for AttentionMeans {
    fn observe(&mut self, _layer: LayerId, probs: &Tensor) {
        self.0.push(probs.mean_dim([1i64, 2].as_slice(), false, None::<Kind>)); // [B, S]
    }
}

/// The squared gaps between the mean attentions `[layers, B, S]` on the context, reduced to a scalar; `context` holds
/// its positions in either prompt.
pub fn context_attention_loss(
    object: &Tensor,
    reference: &Tensor,
    context: (&[i64], &[i64]),
    reduction: AttentionReduction,
) -> Tensor {
    let tokens = |means: &Tensor, positions: &[i64]| {
        let positions = Tensor::from_slice(positions).to_device(means.device());
        in_full_precision(&means.index_select(-1, &positions)) // [layers, B, n]
    };
    let gap = tokens(object, context.0) - tokens(reference, context.1);
    let batch = gap.size()[1] as f64;
    let mean = |gap: Tensor| gap.square().mean(None::<Kind>);
    match reduction {
        AttentionReduction::LayerMean => mean(gap),
        AttentionReduction::LayersFirst => mean(gap.mean_dim(0, false, None::<Kind>)),
        AttentionReduction::BatchSum => mean(gap) * batch,
    }
}
