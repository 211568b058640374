//! The two regularisers on small tables whose losses were computed apart, in double precision.

use tch::{Kind, Tensor};

use super::{AttentionReduction, CosineAxis, context_attention_loss, context_embedding_loss};

/// Positions of the context in the prompt with the concept and in that with the class: both with a slot of one token
/// at 2 and the end at 5; the class of two tokens; the concept of two.
const ONE_ONE: (&[i64], &[i64]) = (&[0, 1, 3, 4, 5], &[0, 1, 3, 4, 5]);
const ONE_TWO: (&[i64], &[i64]) = (&[0, 1, 3, 4, 5], &[0, 1, 4, 5, 6]);
const TWO_ONE: (&[i64], &[i64]) = (&[0, 1, 4, 5, 6], &[0, 1, 3, 4, 5]);

#[test]
fn the_embedding_loss_has_the_values_of_the_test_vectors() {
    let table = |f: &dyn Fn(f64, f64) -> f64| {
        let values: Vec<f64> = (0..32).map(|k| f(f64::from(k / 4), f64::from(k % 4))).collect();
        Tensor::from_slice(&values).reshape([8, 4]).to_kind(Kind::Float)
    };
    let x = |i: f64, d: f64| (1.0 + 0.7 * i + 1.3 * d).sin();
    let object = table(&x);
    let reference = table(&|i, d| x(i, d) + 0.1 * (i * d + 0.5).cos());
    for (context, feature, token) in [
        (ONE_ONE, 0.004_418_89, 0.005_725_56),
        (ONE_TWO, 0.119_287_17, 0.120_728_98),
        (TWO_ONE, 0.128_670_80, 0.118_284_47),
    ] {
        for (axis, expected) in [(CosineAxis::Feature, feature), (CosineAxis::Token, token)] {
            let loss = context_embedding_loss(&object, &reference, context, axis);
            let apart = (loss.double_value(&[]) - expected).abs();
            assert!(apart < 1e-6, "{axis:?}: {apart:e} from {expected}");
        }
    }
}

/// The mean attention `[2, 2, 8]` of two layers with 3 and 6 queries, two samples and two heads.
fn means(seed: f64) -> Tensor {
    let layer = |l: i64| {
        let queries = 3 * (l + 1);
        let mut logits = Vec::new();
        for (b, h) in [(0., 0.), (0., 1.), (1., 0.), (1., 1.)] {
            for p in 0..queries {
                for t in 0..8 {
                    let (l, p, t) = (l as f64, p as f64, f64::from(t));
                    let phase = 0.3 * seed + 0.5 * l + 0.9 * b + 1.1 * h + 0.7 * p + 1.7 * t;
                    logits.push(phase.sin());
                }
            }
        }
        let probs = Tensor::from_slice(&logits).reshape([2, 2, queries, 8]).softmax(-1, None);
        probs.mean_dim([1i64, 2].as_slice(), false, Kind::Float) // [2, 8]
    };
    Tensor::stack(&[layer(0), layer(1)], 0)
}

#[test]
fn the_attention_loss_has_the_values_of_the_test_vectors() {
    let (object, reference) = (means(1.0), means(2.0));
    for (context, sum, mean, layers_first) in [
        (ONE_ONE, 3.420_206e-4, 1.710_103e-4, 8.097_34e-5),
        (ONE_TWO, 5.988_173_0e-3, 2.994_086_5e-3, 1.635_866_4e-3),
    ] {
        for (reduction, expected) in [
            (AttentionReduction::BatchSum, sum),
            (AttentionReduction::LayerMean, mean),
            (AttentionReduction::LayersFirst, layers_first),
        ] {
            let loss = context_attention_loss(&object, &reference, context, reduction);
            let apart = (loss.double_value(&[]) - expected).abs();
            assert!(apart < 1e-9, "{reduction:?}: {apart:e} from {expected}");
        }
    }
}

#[test]
fn gaps_that_f16_cannot_hold_are_squared_in_f32() {
    let means = |on: f64| Tensor::from_slice(&[0.01 + on, 0.01]).reshape([1, 1, 2]);
    let (object, reference) = (means(1e-4), means(0.0));
    let context: (&[i64], &[i64]) = (&[0, 1], &[0, 1]);
    let loss = |kind| {
        let (a, b) = (object.to_kind(kind), reference.to_kind(kind));
        context_attention_loss(&a, &b, context, AttentionReduction::LayerMean)
    };
    let half = loss(Kind::Half);
    assert_eq!(half.kind(), Kind::Float);
    // The gap of 1e-4 squares to half of 1e-8, below f16's smallest number.
    assert!((half.double_value(&[]) - 5e-9).abs() < 1e-9, "{}", half.double_value(&[]));
}
