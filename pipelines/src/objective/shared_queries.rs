//! Context attention regularisation without passes of its own: the queries of the training pass are held against the
//! keys of both prompts of a pair. An approximation of ours, since those queries come from another prompt.

use std::cell::RefCell;

use models::unet::{AttnProbe, CrossAttnContext, LayerId, UNet};
use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::{AttentionReduction, ContextPrompts, LossTerm, StepInputs, context_attention_loss};

/// What the training pass leaves for [`SharedQueryAttention`].
pub struct SharedQueries<'a> {
    prompts: &'a ContextPrompts<'a>,
    kind: Kind,
    levels: &'a [usize],
    /// The mean attention under the prompt with the concept and under that with the class, `[layers, B, S]` each.
    means: RefCell<Option<(Tensor, Tensor)>>,
}

impl<'a> SharedQueries<'a> {
    /// For passes through `unet`.
    pub fn new(prompts: &'a ContextPrompts<'a>, unet: &'a UNet) -> Self {
        let (kind, levels) = (unet.kind(), unet.layer_levels());
        Self { prompts, kind, levels, means: RefCell::default() }
    }

    /// Runs `pass` with a probe on one layer of each resolution, in turn from step to step. `draw` stands where it stood
    /// for the context of the pass, so that what is random in the concept is the same.
    pub(super) fn during<T>(
        &self,
        step: &StepInputs,
        draw: &Generator,
        pass: impl FnOnce(&mut dyn AttnProbe) -> T,
    ) -> T {
        let (index, batch) = (step.context_prompt, step.x_t.size()[0]);
        let object = self.prompts.object_at(index, &step.timesteps, draw);
        let mut probe = QueryProbe {
            object: object.map(|c| c.to_kind(self.kind)),
            reference: self.prompts.reference(index).to_kind(self.kind).repeat([batch, 1, 1]), // [B, S, D]
            layers: one_of_each_level(self.levels, step.index),
            means: Vec::new(),
        };
        let result = pass(&mut probe);
        let (objects, references): (Vec<_>, Vec<_>) = probe.means.into_iter().unzip();
        *self.means.borrow_mut() =
            Some((Tensor::stack(&objects, 0), Tensor::stack(&references, 0)));
        result
    }
}

/// The layer of each level whose turn it is at micro-batch `index`.
fn one_of_each_level(levels: &[usize], index: u64) -> Vec<usize> {
    let deepest = levels.iter().copied().max().unwrap_or(0);
    let of_level = |level| (0..levels.len()).filter(move |&layer| levels[layer] == level);
    (0..=deepest)
        .filter_map(|level| of_level(level).nth(index as usize % of_level(level).count().max(1)))
        .collect()
}

struct QueryProbe {
    object: CrossAttnContext,
    reference: Tensor,
    layers: Vec<usize>,
    means: Vec<(Tensor, Tensor)>,
}

impl AttnProbe for QueryProbe {
    fn observe(&mut self, _layer: LayerId, _probs: &Tensor) {}

    fn wants_probs(&self) -> bool {
        false
    }

    fn offer(&mut self, layer: LayerId, probs_over: &dyn Fn(&Tensor) -> Tensor) {
        if self.layers.contains(&layer.index()) {
            let mean = |context: &Tensor| {
                probs_over(context).mean_dim([1i64, 2].as_slice(), false, None::<Kind>) // [B, S]
            };
            let reference = tch::no_grad(|| mean(&self.reference));
            self.means.push((mean(&self.object.at(layer).key), reference));
        }
    }
}

/// The term over what [`SharedQueries`] kept of this micro-batch's reconstruction pass, which comes before it.
pub struct SharedQueryAttention<'a> {
    /// Shared with the reconstruction.
    pub queries: &'a SharedQueries<'a>,
    /// Of the gaps.
    pub reduction: AttentionReduction,
}

impl LossTerm for SharedQueryAttention<'_> {
    fn name(&self) -> &'static str {
        "context_attention"
    }

    fn loss(&mut self, step: &StepInputs, _draw: &Generator) -> Tensor {
        let kept = self.queries.means.borrow_mut().take();
        let (object, reference) = kept.expect("the reconstruction comes first");
        let pair = self.queries.prompts.pair(step.context_prompt);
        context_attention_loss(&object, &reference, pair.context(), self.reduction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_a_layer_of_every_resolution_and_five_steps_have_them_all() {
        let levels = [0, 0, 1, 1, 2, 2, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]; // Stable Diffusion's sixteen
        let steps: Vec<_> = (0..5).map(|index| one_of_each_level(&levels, index)).collect();
        for step in &steps {
            assert_eq!(step.iter().map(|&layer| levels[layer]).collect::<Vec<_>>(), [0, 1, 2, 3]);
        }
        let mut all = steps.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (0..16).collect::<Vec<_>>());
    }
}
