//! FPDM's two ways into the U-Net besides the context, by what they must equal: what is added after `conv_in` or to the time
//! embedding is, where it is the same everywhere, that layer's bias. The network itself is held to diffusers in
//! `parity_unet.rs`.

#![allow(clippy::unwrap_used)] // a test may panic

use models::fresh::Fresh;
use models::params::Params;
use models::unet::{Conditioning, CrossAttnContext, KeyValue, UNet, UNetConfig};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

const CHANNELS: i64 = 16;

fn config() -> UNetConfig {
    serde_json::from_value(serde_json::json!({
        "in_channels": 4, "out_channels": 4, "block_out_channels": [CHANNELS, 32], "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 24, "attention_head_dim": 2, "norm_num_groups": 8
    }))
    .unwrap()
}

fn furthest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn a_constant_residual_and_a_time_bias_are_biases_of_their_layers() {
    let source = Fresh::new(1, Kind::Float, Device::Cpu);
    let unet = UNet::new(&Params::root(&source), &config());
    let leaves = source.parameters();
    let leaf = |key: &str| leaves.iter().find(|(name, _)| name == key).unwrap().1.shallow_clone();
    let (stem, time) = (leaf("conv_in.bias"), leaf("time_embedding.linear_2.bias"));

    let draw = Generator::cpu(2);
    let latents = draw.randn(&[2, 4, 8, 8]);
    let context = draw.randn(&[2, 5, 24]);
    let added_stem = draw.randn(&[CHANNELS]).set_requires_grad(true);
    let added_time = draw.randn(&[4 * CHANNELS]).set_requires_grad(true);
    let conditioning = |stem: Option<&Tensor>, time: Option<&Tensor>| Conditioning {
        context: CrossAttnContext::Shared(KeyValue::same(context.shallow_clone())),
        time_bias: time.map(|time| time.expand([2, -1], false)),
        stem_residual: stem.map(|stem| stem.view([1, -1, 1, 1]).expand([2, -1, 8, 8], false)),
        guidance: None,
    };
    let timesteps = Tensor::from_slice(&[7i64, 640]);
    let forward = |conditioning: &Conditioning| unet.forward(&latents, &timesteps, conditioning);
    let gradients = |output: &Tensor, of: [&Tensor; 2]| {
        Tensor::run_backward(&[output.square().mean(Kind::Float)], &of, false, false)
    };

    let plain = forward(&conditioning(None, None));
    let told = forward(&conditioning(Some(&added_stem), Some(&added_time)));
    assert!(furthest(&plain, &told) > 0.01, "neither changed anything");
    let by_route = gradients(&told, [&added_stem, &added_time]);

    tch::no_grad(|| {
        let _ = stem.shallow_clone().g_add_(&added_stem);
        let _ = time.shallow_clone().g_add_(&added_time);
    });
    let biased = forward(&conditioning(None, None));
    assert!(furthest(&biased, &told) < 1e-5, "{}", furthest(&biased, &told));
    for (route, bias) in by_route.iter().zip(gradients(&biased, [&stem, &time])) {
        let scale = bias.abs().max().double_value(&[]);
        assert!(scale > 0.0 && furthest(route, &bias) < 1e-4 * scale, "{}", furthest(route, &bias));
    }
}
