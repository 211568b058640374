//! The modules and losses of FPDM against its specification in plain torch (`scripts/fixtures/fpdm.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use embeddings::fpdm::{
    Combiner, CombinerConfig, FusionProjection, PoseStem, PoseStemConfig, ProjectionConfig,
    SourceProjection,
};
use models::params::Params;
use parity::{Fixture, GRADIENTS, Leaves, OUTPUTS, gradients, input, leaf};
use pipelines::pose::{Contrast, ContrastLoss};
use serde_json::{Value, json};
use tch::Tensor;

const BATCH: i64 = 3;

fn fixture() -> Fixture {
    Fixture::open("fpdm/modules.safetensors")
}

/// The settings of a module with this dropout, which is off where nothing is trained.
fn config<T: serde::de::DeserializeOwned>(fixture: &Fixture, name: &str) -> T {
    let mut sizes: Value = fixture.setting(name);
    sizes["dropout"] = json!(0.5);
    serde_json::from_value(sizes).unwrap()
}

/// Holds an output and the gradients of inputs and parameters against Python's.
fn agrees(name: &str, output: &Tensor, inputs: Vec<(&str, Tensor)>, source: Leaves) {
    let fixture = fixture();
    fixture.agrees(&format!("{name}.output"), output, OUTPUTS);
    let inputs = inputs.into_iter().map(|(name, x)| (name.to_owned(), x));
    let named: Vec<_> = inputs.chain(source.into_leaves()).collect();
    let leaves: Vec<&Tensor> = named.iter().map(|(_, leaf)| leaf).collect();
    let cotangent = input(&format!("fpdm/{name}.cotangent"), &output.size());
    for ((key, _), ours) in named.iter().zip(gradients(output, &cotangent, &leaves)) {
        fixture.agrees(&format!("{name}.gradient.{key}"), &ours, GRADIENTS);
    }
}

#[test]
fn the_combiner_agrees() {
    let config: CombinerConfig = config(&fixture(), "combiner");
    let source = Leaves::new("fpdm");
    let combiner = Combiner::new(&Params::root(&source).pp("combiner"), &config);
    let (photo, pose) =
        (leaf("fpdm/source", &[BATCH, config.width]), leaf("fpdm/pose", &[BATCH, config.width]));
    let output = combiner.forward(&photo, &pose, None);
    agrees("combiner", &output, vec![("source", photo), ("pose", pose)], source);
}

#[test]
fn the_projection_of_source_tokens_agrees() {
    let config: ProjectionConfig = config(&fixture(), "source");
    let source = Leaves::new("fpdm");
    let projection = SourceProjection::new(&Params::root(&source).pp("source_projection"), &config);
    let tokens = leaf("fpdm/tokens", &[BATCH, 7, config.inputs]);
    let output = projection.forward(&tokens, None);
    agrees("source_projection", &output, vec![("tokens", tokens)], source);
}

#[test]
fn the_projection_of_the_fusion_embedding_agrees() {
    let config: ProjectionConfig = config(&fixture(), "time");
    let source = Leaves::new("fpdm");
    let projection = FusionProjection::new(&Params::root(&source).pp("fusion_projection"), &config);
    let fused = leaf("fpdm/fused", &[BATCH, config.inputs]);
    let output = projection.forward(&fused, None);
    agrees("fusion_projection", &output, vec![("fused", fused)], source);
}

#[test]
fn the_pose_stem_agrees() {
    let config: PoseStemConfig = config(&fixture(), "stem");
    let source = Leaves::new("fpdm");
    let stem = PoseStem::new(&Params::root(&source).pp("pose_stem"), &config);
    let drawing = leaf("fpdm/drawing", &[BATCH, 3, 24, 16]);
    let output = stem.forward(&drawing);
    assert_eq!(config.downscale(), 4);
    agrees("pose_stem", &output, vec![("drawing", drawing)], source);
}

#[test]
fn the_losses_of_the_first_stage_agree() {
    let fixture = fixture();
    let config: CombinerConfig = config(&fixture, "combiner");
    let shape = [BATCH, config.width];
    let [source, target, fused] =
        ["source", "target", "fused"].map(|name| leaf(&format!("fpdm/{name}"), &shape));
    let unit = &fused / fused.norm_scalaropt_dim(2, [-1], true);
    for (case, source_enhanced) in [("extended", true), ("plain", false)] {
        let contrast = Contrast { source_enhanced, ..Contrast::default() };
        let ContrastLoss { nce, l1, retrieval } = contrast.loss(&source, &target, &unit);
        fixture.agrees(&format!("{case}.nce"), &nce, OUTPUTS);
        fixture.agrees(&format!("{case}.l1"), &l1, OUTPUTS);
        let ranks = Vec::<i64>::try_from(fixture.tensor(&format!("{case}.ranks"))).unwrap();
        let ranks = &ranks[..BATCH as usize]; // those of the targets
        let mean = 1.0 + ranks.iter().sum::<i64>() as f64 / ranks.len() as f64;
        let first = ranks.iter().filter(|rank| **rank == 0).count() as f64 / ranks.len() as f64;
        assert!((retrieval.mean_rank - mean).abs() < 1e-9, "{retrieval:?}, {ranks:?}");
        assert!((retrieval.top1 - first).abs() < 1e-9, "{retrieval:?}, {ranks:?}");
        let total = nce + l1 * contrast.l1_weight;
        let one = Tensor::from(1.0f32);
        let ours = gradients(&total, &one, &[&source, &target, &fused]);
        for (name, ours) in ["source", "target", "fused"].iter().zip(ours) {
            fixture.agrees(&format!("{case}.gradient.{name}"), &ours, GRADIENTS);
        }
    }
}
