//! FPDM's own sizes on random weights: SD 2.1 at 512×352, tokens of DINOv2-large, CLIP ViT-L/14.
//!
//! It takes minutes and gigabytes: `PERSONALIZE_FULL_SIZE=1 cargo test --release --test pose_full_size -- --nocapture`.

#![allow(clippy::unwrap_used)] // a test may panic

use models::folder::ModelFolder;
use models::fresh::Fresh;
use models::params::Params;
use models::unet::UNet;
use models::vit::VisionEncoder;
use pipelines::pose::{Evidence, Fusion, FusionShape, GeneratorShape, Kept, Routes, Tuning};
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// Weights and gradients of the U-Net are 7 of them, activations and the encoders the rest.
const GIB: f64 = 15.0;

/// Whether to run, said on stderr where not.
fn wanted() -> bool {
    if std::env::var_os("PERSONALIZE_FULL_SIZE").is_none() {
        eprintln!("skipped: set PERSONALIZE_FULL_SIZE=1 to run it; it needs {GIB} GiB and minutes");
        return false;
    }
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let free = kib.map_or(f64::INFINITY, |kib| kib / f64::from(1 << 20));
    if free < GIB {
        eprintln!("skipped: {free:.1} GiB of memory are free, but {GIB} are needed");
    }
    free >= GIB
}

/// The folder of the small likeness of SD 2.1, with the sizes of the real one.
fn base() -> ModelFolder {
    let small = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sd2");
    let mut base = ModelFolder::open(std::path::Path::new(small), None).unwrap();
    base.unet = serde_json::from_value(json!({
        "in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": true
    }))
    .unwrap();
    base.unet.check().unwrap();
    base
}

#[test]
fn full_size_networks_run_forward_and_backward() {
    if !wanted() {
        return;
    }
    let options = (Kind::Float, Device::Cpu);
    let clip = serde_json::from_value(json!({
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "projection_dim": 768, "image_size": 224, "patch_size": 14, "hidden_act": "quick_gelu"
    }));
    let dinov2 = serde_json::from_value(json!({
        "model_type": "dinov2", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": 518, "patch_size": 14, "hidden_act": "gelu"
    }));
    let (base, fusion_shape) = (base(), FusionShape::new(clip.unwrap()));
    let (size, dinov2) = ((352, 512), dinov2.unwrap());
    let shape = GeneratorShape::new(&base, &fusion_shape, Some(dinov2), Tuning::Full, size);
    shape.check_base(&base).unwrap();

    let evidence = tch::no_grad(|| {
        let photo = Tensor::rand([1, 3, 1101, 750], options) * 2.0 - 1.0;
        let pose = Tensor::rand([1, 3, 512, 352], options) * 2.0 - 1.0;
        let weights = Fresh::new(1, Kind::Float, Device::Cpu);
        let fusion = Fusion::load(&Params::root(&weights), &fusion_shape);
        let weights = Fresh::new(2, Kind::Float, Device::Cpu);
        let config = shape.source_encoder.as_ref().unwrap();
        let encoder = VisionEncoder::new(&Params::root(&weights), config);
        Evidence::gather(&fusion, Some(&encoder), &shape, &photo, &pose)
    });
    assert_eq!(evidence.tokens.size(), [1, 1297, 1024]);
    assert_eq!(evidence.fused.size(), [1, 768]);
    eprintln!("encoders: done");

    let weights = Fresh::new(3, Kind::Float, Device::Cpu);
    let routes = Routes::new(&Params::root(&weights), &shape);
    let unet = UNet::new(&Params::root(&weights), &base.unet);
    let told = routes.conditioning(&evidence, &Kept::all(1, [true; 3]), None);
    assert_eq!(told.time_bias.as_ref().unwrap().size(), [1, 1280]);
    assert_eq!(told.stem_residual.as_ref().unwrap().size(), [1, 320, 64, 44]);
    let latents = Tensor::randn([1, 4, 64, 44], options);
    let output = unet.forward(&latents, &Tensor::from_slice(&[500i64]), &told);
    assert_eq!(output.size(), [1, 4, 64, 44]);
    eprintln!("forward: done");

    let named = weights.parameters();
    let count: usize = named.iter().map(|(_, leaf)| leaf.numel()).sum();
    eprintln!("{:.1} million parameters are trained", count as f64 / 1e6);
    let leaves: Vec<&Tensor> = named.iter().map(|(_, leaf)| leaf).collect();
    let gradients =
        Tensor::run_backward(&[output.square().mean(Kind::Float)], &leaves, false, false);
    for ((name, _), gradient) in named.iter().zip(gradients) {
        let largest = gradient.abs().max().double_value(&[]);
        assert!(largest.is_finite() && largest > 0.0, "the gradient of {name} is {largest}");
    }
}
