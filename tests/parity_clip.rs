//! CLIP against transformers (`scripts/fixtures/clip.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use models::clip::{ClipVision, ClipVisionConfig};
use models::params::Params;
use parity::{FAMILIES, Fixture, GRADIENTS, OUTPUTS, clip_text, gradients, input, leaf};
use tch::Tensor;

/// Where the injected vector stands.
const AT: i64 = 5;

fn agrees_in_every_stage(fixture: &Fixture, case: &str, clip: &models::clip::ClipText, x: &Tensor) {
    let agrees = |stage: &str, ours: &Tensor| {
        fixture.agrees(&format!("{case}.{stage}"), ours, OUTPUTS);
    };
    agrees("last_hidden_state", &clip.final_norm(&clip.blocks(x, 0)));
    let penultimate = clip.blocks(x, 1);
    agrees("penultimate", &penultimate);
    agrees("penultimate_normed", &clip.final_norm(&penultimate));
}

#[test]
fn the_text_encoder_agrees_in_every_stage() {
    for family in FAMILIES {
        let (fixture, clip) =
            (Fixture::open(&format!("{family}/clip_text.safetensors")), clip_text(family));
        let ids = fixture.tensor("ids");
        agrees_in_every_stage(&fixture, "plain", &clip, &clip.embed_tokens(&ids));
        fixture.agrees("plain.last_hidden_state", &clip.forward(&ids), OUTPUTS);
    }
}

#[test]
fn an_injected_vector_passes_as_a_token_s_and_gets_its_gradient() {
    for family in FAMILIES {
        let (fixture, clip) =
            (Fixture::open(&format!("{family}/clip_text.safetensors")), clip_text(family));
        let words = clip.embed_tokens(&fixture.tensor("ids"));
        let vector = leaf("clip_text/injected", &[2, 1, clip.width()]);
        let (before, after) = (words.narrow(1, 0, AT), words.narrow(1, AT + 1, 76 - AT));
        let x = Tensor::cat(&[&before, &vector, &after], 1); // [2, 77, D]
        agrees_in_every_stage(&fixture, "injected", &clip, &x);

        let last = clip.final_norm(&clip.blocks(&x, 0));
        let cotangent = input("clip_text/cotangent", &last.size());
        let gradient = &gradients(&last, &cotangent, &[&vector])[0];
        fixture.agrees("injected.gradient", gradient, GRADIENTS);
    }
}

#[test]
fn the_vision_encoder_agrees_down_to_its_projection() {
    let json = std::fs::read_to_string(parity::path("vision_encoder/config.json")).unwrap();
    let config: ClipVisionConfig = serde_json::from_str(&json).unwrap();
    let weights = parity::seeded("vision_encoder");
    let vision = ClipVision::new(&Params::root(&weights), &config);
    let ours = vision.forward(&input("clip_vision/pixels", &[2, 3, 32, 32]));
    let fixture = Fixture::open("vision_encoder/clip_vision.safetensors");
    fixture.agrees("last_hidden_state", &ours.last_hidden_state, OUTPUTS);
    fixture.agrees("pooled", &ours.pooled, OUTPUTS);
    fixture.agrees("image_embeds", &ours.image_embeds, OUTPUTS);
}
