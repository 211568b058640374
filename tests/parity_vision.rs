//! Vision encoders against transformers (`scripts/fixtures/vision.py`), at their own size and at others.

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use std::collections::BTreeMap;

use models::clip::{ClipVision, ClipVisionConfig};
use models::params::Params;
use models::vit::{Dino, DinoConfig, Dinov2, VisionConfig};
use parity::{Fixture, GRADIENTS, Leaves, OUTPUTS, input, leaf};
use tch::{Kind, Tensor};

/// The gradients of every output times its cotangent.
fn gradients(outputs: &[(&str, &Tensor)], inputs: &[&Tensor]) -> Vec<Tensor> {
    let part = |(name, x): &(&str, &Tensor)| {
        (*x * input(&format!("vision/cotangent.{name}"), &x.size())).sum(Kind::Float)
    };
    let total = outputs.iter().map(part).reduce(|a, b| a + b).unwrap();
    Tensor::run_backward(&[total], inputs, true, false)
}

/// Holds each gradient to Python's. A softmax does not see what is added to all of its keys alike, so the gradient of a
/// key's bias is rounding alone, on both sides: it is held against that of the query's bias instead.
fn agree(fixture: &Fixture, case: &str, named: &[(String, Tensor)], gradients: &[Tensor]) {
    for ((name, _), ours) in named.iter().zip(gradients) {
        let stored = |name: &str| format!("{case}.gradient.{name}");
        let Some(block) = name.strip_suffix("key.bias") else {
            fixture.agrees(&stored(name), ours, GRADIENTS);
            continue;
        };
        let largest = |x: &Tensor| x.abs().max().double_value(&[]);
        let scale = largest(&fixture.tensor(&stored(&format!("{block}query.bias"))));
        for noise in [ours, &fixture.tensor(&stored(name))] {
            assert!(largest(noise) <= 1e-5 * scale, "{name}: {:e} of {scale:e}", largest(noise));
        }
    }
}

#[test]
fn dinov2_and_every_gradient_agree_at_two_sizes() {
    let VisionConfig::Dinov2(config) = VisionConfig::read(&parity::path("dinov2")).unwrap() else {
        panic!("the folder says otherwise")
    };
    let fixture = Fixture::open("dinov2/dinov2.safetensors");
    for (case, [height, width]) in fixture.setting::<BTreeMap<String, [i64; 2]>>("sizes") {
        let source = Leaves::new("dinov2");
        let dinov2 = Dinov2::new(&Params::root(&source), &config);
        let pixels = leaf(&format!("dinov2/{case}"), &[2, 3, height, width]);
        let tokens = dinov2.forward(&pixels);
        fixture.agrees(&format!("{case}.tokens"), &tokens, OUTPUTS);
        let mut named = source.into_leaves();
        named.push(("pixels".to_owned(), pixels));
        let inputs: Vec<&Tensor> = named.iter().map(|(_, leaf)| leaf).collect();
        agree(&fixture, &case, &named, &gradients(&[("tokens", &tokens)], &inputs));
    }
}

#[test]
fn dino_and_every_gradient_agree() {
    let config = DinoConfig::read(&parity::path("dino")).unwrap();
    let fixture = Fixture::open("dino/dino.safetensors");
    let source = Leaves::new("dino");
    let dino = Dino::new(&Params::root(&source), &config);
    let pixels = leaf("dino/own", &[2, 3, 32, 32]);
    let tokens = dino.forward(&pixels);
    fixture.agrees("own.tokens", &tokens, OUTPUTS);
    let lengths = dino.embed_pictures(&pixels).norm_scalaropt_dim(2, [-1], false);
    assert!((lengths - 1.0).abs().max().double_value(&[]) < 1e-6);
    let mut named = source.into_leaves();
    assert_eq!(named.len(), 4 + 2 * 16 + 2);
    named.push(("pixels".to_owned(), pixels));
    let inputs: Vec<&Tensor> = named.iter().map(|(_, leaf)| leaf).collect();
    agree(&fixture, "own", &named, &gradients(&[("tokens", &tokens)], &inputs));
}

#[test]
fn clip_s_tower_and_its_gradients_agree_at_two_sizes() {
    let json = std::fs::read_to_string(parity::path("vision_encoder/config.json")).unwrap();
    let config: ClipVisionConfig = serde_json::from_str(&json).unwrap();
    let fixture = Fixture::open("vision_encoder/clip_vision_sizes.safetensors");
    for (case, [height, width]) in fixture.setting::<BTreeMap<String, [i64; 2]>>("sizes") {
        let source = Leaves::new("vision_encoder");
        let vision = ClipVision::new(&Params::root(&source), &config);
        let pixels = leaf(&format!("clip_vision/{case}"), &[2, 3, height, width]);
        let ours = vision.forward(&pixels);
        let outputs =
            [("last_hidden_state", &ours.last_hidden_state), ("image_embeds", &ours.image_embeds)];
        for (name, output) in outputs {
            fixture.agrees(&format!("{case}.{name}"), output, OUTPUTS);
        }
        let mut named = source.into_leaves();
        named.push(("pixels".to_owned(), pixels));
        let stored = |name: &str| fixture.has(&format!("{case}.gradient.{name}"));
        let named: Vec<_> = named.into_iter().filter(|(name, _)| stored(name)).collect();
        assert_eq!(named.len(), 8);
        let inputs: Vec<&Tensor> = named.iter().map(|(_, leaf)| leaf).collect();
        agree(&fixture, &case, &named, &gradients(&outputs, &inputs));
    }
}
