//! The loss of each method: its terms with their weights.

use embeddings::Conditioner;
use tch::{Kind, Tensor};

use super::batches::PhotoBatches;
use super::plan::TrainPlan;
use crate::objective::{
    ContextAttention, ContextEmbedding, ContextPrompts, NormPolicy, Objective, Reconstruction,
    SharedQueryAttention,
};

/// The reconstruction, and with CoRe its two regularisers at the prompts of `context`. The attention is compared in
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
    let (vectors, class) =
        (reconstruction.concept.token_vectors(), class_vector(plan, reconstruction.conditioner));
    let mut objective = Objective::new(batches, core.norm_policy(plan.config.steps))
        .with(1.0, reconstruction)
        .with(core.lambda_emb, ContextEmbedding { prompts, axis: core.emb_axis });
    if let Some(vectors) = vectors {
        objective =
            objective.measuring("cosine_to_class", move || cosine(&mean_row(vectors), &class));
    }
    let (weight, reduction) = (core.lambda_attn, core.attn_reduce);
    match queries {
        None => objective.with(weight, ContextAttention { prompts, unet, reduction }),
        Some(queries) => objective.with(weight, SharedQueryAttention { queries, reduction }),
    }
}

/// The mean of the class's token vectors, `[D]`.
fn class_vector(plan: &TrainPlan, conditioner: &Conditioner) -> Tensor {
    let class = plan.context.as_ref().map_or("", |context| &context.class);
    let ids = Tensor::from_slice(&conditioner.words(class));
    let table = conditioner.token_table();
    mean_row(&table.index_select(0, &ids.to_device(table.device())))
}

fn mean_row(rows: &Tensor) -> Tensor {
    rows.detach().mean_dim(0, false, Kind::Float) // [D]
}

fn cosine(a: &Tensor, b: &Tensor) -> f64 {
    Tensor::cosine_similarity(a, &b.to_device(a.device()), -1, 1e-8).double_value(&[])
}
