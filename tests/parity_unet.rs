//! The U-Net against diffusers (`scripts/fixtures/unet.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use models::folder::ModelFolder;
use models::params::Params;
use models::unet::{AttnProbe, Conditioning, CrossAttnContext, KeyValue, LayerId, UNet};
use parity::{
    FAMILIES, Fixture, GRADIENTS, OUTPUTS, base, gradients, input, leaf, seeded, shared, unet,
};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

struct Case {
    fixture: Fixture,
    unet: UNet,
    latents: Tensor,
    timesteps: Tensor,
    context: Tensor,
}

fn cases() -> impl Iterator<Item = Case> {
    FAMILIES.into_iter().map(|family| {
        let fixture = Fixture::open(&format!("{family}/unet.safetensors"));
        let width = fixture.tensor("context_gradient").size()[2];
        Case {
            timesteps: Tensor::from_slice(&fixture.setting::<Vec<i64>>("timesteps")),
            unet: unet(family),
            latents: input("unet/x", &[2, 4, 16, 16]),
            context: leaf("unet/context", &[2, 77, width]),
            fixture,
        }
    })
}

fn cotangent() -> Tensor {
    input("unet/cotangent", &[2, 4, 16, 16])
}

#[test]
fn each_sample_has_its_timestep_and_the_context_its_gradient() {
    for Case { fixture, unet, latents, timesteps, context } in cases() {
        let output = unet.forward(&latents, &timesteps, &shared(&context));
        fixture.agrees("output", &output, OUTPUTS);
        let gradient = &gradients(&output, &cotangent(), &[&context])[0];
        fixture.agrees("context_gradient", gradient, GRADIENTS);
    }
}

/// A family's U-Net with keys of its `config.json` at other values, which are read as those of a base are.
fn changed(family: &str, changes: &Value) -> UNet {
    let folder = base::changed(family, "unet/config.json", changes);
    UNet::new(&Params::root(&seeded("unet")), &ModelFolder::open(folder.path(), None).unwrap().unet)
}

#[test]
fn other_values_of_a_key_do_what_they_do_in_python() {
    let _no_grad = tch::no_grad_guard();
    let fixture = Fixture::open("sd1/unet_options.safetensors");
    let timesteps = Tensor::from_slice(&fixture.setting::<Vec<i64>>("timesteps"));
    let options: Map<String, Value> = fixture.setting("options");
    assert_eq!(options.len(), 7);
    for (name, changes) in options {
        let unet = changed("sd1", &changes);
        let context = input("unet/context", &[2, 77, 64]);
        let latents = input("unet/x", &[2, 4, 16, 16]);
        let guidance = Some(fixture.setting("guidance"));
        let told = Conditioning { guidance, ..shared(&context) };
        fixture.agrees(&name, &unet.forward(&latents, &timesteps, &told), OUTPUTS);
        if fixture.has(&format!("{name}.untold")) {
            let untold = unet.forward(&latents, &timesteps, &shared(&context));
            fixture.agrees(&format!("{name}.untold"), &untold, OUTPUTS);
        }
    }
}

#[test]
fn a_network_without_a_middle_counts_the_layers_that_it_has() {
    let unet = changed("sd1", &serde_json::json!({ "mid_block_type": null }));
    assert_eq!(unet.layer_count(), 15);
    assert_eq!(unet.config().cross_attention_layers(), 15);
}

#[test]
fn gradient_checkpointing_changes_nothing() {
    for Case { fixture, unet, latents, timesteps, context } in cases() {
        let unet = unet.with_gradient_checkpointing(true);
        let output = unet.forward(&latents, &timesteps, &shared(&context));
        fixture.agrees("output", &output, OUTPUTS);
        let gradient = &gradients(&output, &cotangent(), &[&context])[0];
        fixture.agrees("context_gradient", gradient, GRADIENTS);
    }
}

#[test]
fn timesteps_may_be_fractions_or_one_for_all() {
    for Case { fixture, unet, latents, context, .. } in cases() {
        let (context, _no_grad) = (shared(&context), tch::no_grad_guard());
        let fractions: Vec<f32> = fixture.setting("float_timesteps");
        let output = unet.forward(&latents, &Tensor::from_slice(&fractions), &context);
        fixture.agrees("output_float_timesteps", &output, OUTPUTS);
        let one: i64 = fixture.setting("scalar_timestep");
        let output = unet.forward(&latents, &Tensor::from_slice(&[one]), &context);
        fixture.agrees("output_scalar_timestep", &output, OUTPUTS);
    }
}

#[test]
fn sizes_that_do_not_halve_evenly_come_back_whole() {
    for Case { fixture, unet, context, .. } in cases() {
        let (context, _no_grad) = (shared(&context.narrow(0, 0, 1)), tch::no_grad_guard());
        let timestep = Tensor::from_slice(&[fixture.setting::<i64>("awkward_timestep")]);
        for (height, width) in [(18, 20), (20, 12)] {
            let latents = input(&format!("unet/x_{height}x{width}"), &[1, 4, height, width]);
            let output = unet.forward(&latents, &timestep, &context);
            fixture.agrees(&format!("output_{height}x{width}"), &output, OUTPUTS);
        }
    }
}

/// Checkpointed or not: a block that is computed again must find the keys and values of its own layers.
#[test]
fn every_layer_reads_its_own_keys_and_values() {
    for Case { fixture, mut unet, latents, timesteps, context } in cases() {
        let draw = |what: &str| -> Vec<Tensor> {
            let name = |i| format!("unet/{what}/{i}");
            (0..unet.layer_count()).map(|i| leaf(&name(i), &context.size())).collect()
        };
        let (keys, values) = (draw("key"), draw("value"));
        let layers = keys.iter().zip(&values).map(|(key, value)| KeyValue {
            key: key.shallow_clone(),
            value: value.shallow_clone(),
        });
        let layers = Conditioning::context(CrossAttnContext::PerLayer(layers.collect()));
        let rows = Tensor::from_slice(&fixture.setting::<Vec<i64>>("gradient_rows"));
        for checkpointing in [false, true] {
            unet = unet.with_gradient_checkpointing(checkpointing);
            let output = unet.forward(&latents, &timesteps, &layers);
            fixture.agrees("per_layer.output", &output, OUTPUTS);
            for (what, leaves) in [("key", &keys), ("value", &values)] {
                let leaves: Vec<&Tensor> = leaves.iter().collect();
                let gradient = Tensor::stack(&gradients(&output, &cotangent(), &leaves), 0); // [16, B, S, D]
                let name = format!("per_layer.{what}_gradient_rows");
                fixture.agrees(&name, &gradient.index_select(2, &rows), GRADIENTS);
            }
        }
    }
}

/// Keeps each layer's attention to each token, averaged over heads and pixels.
#[derive(Default)]
struct Means(Vec<(usize, Tensor)>);

impl AttnProbe for Means {
    fn observe(&mut self, layer: LayerId, probs: &Tensor) {
        self.0.push((layer.index(), probs.mean_dim([1i64, 2].as_slice(), false, Kind::Float)));
    }
}

#[test]
fn a_probe_sees_the_attention_of_every_layer_and_its_gradient() {
    for Case { fixture, unet, latents, timesteps, context } in cases() {
        let mut means = Means::default();
        let output = unet.forward_probed(&latents, &timesteps, &shared(&context), &mut means);
        fixture.agrees("output", &output, OUTPUTS);
        assert!(means.0.iter().map(|(layer, _)| *layer).eq(0..unet.layer_count()));
        let means: Vec<Tensor> = means.0.into_iter().map(|(_, mean)| mean).collect();
        let means = Tensor::stack(&means, 0); // [16, B, S]
        fixture.agrees("attention_means", &means, OUTPUTS);
        let cotangent = input("unet/means_cotangent", &means.size());
        let gradient = &gradients(&means, &cotangent, &[&context])[0];
        fixture.agrees("attention_means_gradient", gradient, GRADIENTS);
    }
}
