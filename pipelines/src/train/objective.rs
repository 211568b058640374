//! The loss of each method: its terms with their weights.

use embeddings::{Concept, Site};
use tch::{Device, Kind, Tensor};

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
    let norm = plan.config.core.as_ref().map(|core| core.norm_policy(plan.config.steps));
    let mut objective = Objective::new(batches, norm.unwrap_or(NormPolicy::Free));
    if let Some(cosine) = cosine_to_class(plan, &reconstruction) {
        objective = objective.measuring("cosine_to_class", cosine);
    }
    let (unet, queries) = (reconstruction.unet, reconstruction.queries);
    let objective = objective.with(1.0, reconstruction);
    let (Some(core), Some(prompts)) = (&plan.config.core, context) else { return objective };
    let objective =
        objective.with(core.lambda_emb, ContextEmbedding { prompts, axis: core.emb_axis });
    let (weight, reduction) = (core.lambda_attn, core.attn_reduce);
    match queries {
        None => objective.with(weight, ContextAttention { prompts, unet, reduction }),
        Some(queries) => objective.with(weight, SharedQueryAttention { queries, reduction }),
    }
}

/// The cosine of what is learnt to the token vectors of the class, of both the mean; of what varies, over the layers at
/// the middle timestep. Nothing where there is no class, or what is learnt is no token vector.
fn cosine_to_class<'a>(
    plan: &TrainPlan,
    reconstruction: &Reconstruction<'a>,
) -> Option<impl Fn() -> f64 + 'a> {
    let (concept, conditioner) = (reconstruction.concept, reconstruction.conditioner);
    let middle = reconstruction.schedule.alpha_bar().len() as i64 / 2;
    let vectors = move || {
        let timestep = Tensor::from_slice(&[middle]).to_device(place(concept));
        let site = Site::new(&timestep, concept.varies().layers().unwrap_or(1), None);
        let injection = tch::no_grad(|| concept.inject(&site));
        let input = injection.input()?;
        Some(input.detach().flatten(0, 1).mean_dim(0, false, Kind::Float)) // [D]
    };
    let device = vectors()?.device();
    let ids = conditioner.words(&plan.config.class);
    if ids.is_empty() {
        return None;
    }
    let table = conditioner.token_table();
    let rows = table.index_select(0, &Tensor::from_slice(&ids).to_device(table.device()));
    let class = rows.detach().mean_dim(0, false, Kind::Float).to_device(device); // [D]
    Some(move || {
        let vectors = vectors().expect("it had one before");
        Tensor::cosine_similarity(&vectors, &class, -1, 1e-8).double_value(&[])
    })
}

/// Where what a concept learns lies.
fn place(concept: &dyn Concept) -> Device {
    concept.parameters().first().map_or(Device::Cpu, Tensor::device)
}
