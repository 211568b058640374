//! The loss of each method: its terms with their weights.

use super::batches::PhotoBatches;
use super::plan::TrainPlan;
use crate::objective::{
    ContextAttention, ContextEmbedding, ContextPrompts, NormPolicy, Objective, Reconstruction,
    SharedQueryAttention,
};

/// The reconstruction, and for CoRe its two regularisers at the prompts of `context`. The attention is compared in
/// passes of its own, unless the reconstruction shares its queries.
pub(super) fn objective<'a>(
    plan: &TrainPlan,
    batches: PhotoBatches<'a>,
    reconstruction: Reconstruction<'a>,
    context: Option<&'a ContextPrompts<'a>>,
) -> Objective<'a> {
    let (Some(core), Some(prompts)) = (&plan.config.core, context) else {
        return Objective::new(batches, NormPolicy::Free).with(1.0, reconstruction);
    };
    let (unet, queries) = (reconstruction.unet, reconstruction.queries);
    let objective = Objective::new(batches, core.norm_policy(plan.config.steps))
        .with(1.0, reconstruction)
        .with(core.lambda_emb, ContextEmbedding { prompts, axis: core.emb_axis });
    let (weight, reduction) = (core.lambda_attn, core.attn_reduce);
    match queries {
        None => objective.with(weight, ContextAttention { prompts, unet, reduction }),
        Some(queries) => objective.with(weight, SharedQueryAttention { queries, reduction }),
    }
}
