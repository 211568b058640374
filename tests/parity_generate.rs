//! Whole pictures against `StableDiffusionPipeline` (`scripts/fixtures/generation.py`).

#![allow(clippy::unwrap_used)] // a test that panics says so

mod parity;

use std::ops::ControlFlow;
use std::path::Path;

use parity::{FAMILIES, Fixture, base};
use pipelines::generate::{GeneratePlan, GenerateRequest, generate};
use pipelines::{DeviceChoice, Precision};
use tch::Kind;

fn request(base: &Path, output: &Path, fixture: &Fixture, sampler: &str) -> GenerateRequest {
    let size = Some(fixture.setting("size"));
    GenerateRequest {
        base: base.to_owned(),
        variant: None,
        concepts: Vec::new(),
        prompts: vec![fixture.text("prompt")],
        negative_prompt: String::new(),
        count: 1,
        batch_size: 1,
        seed: 7,
        refine: 0,
        steps: fixture.setting("steps"),
        guidance: fixture.setting("guidance"),
        guidance_rescale: 0.0,
        sampler: sampler.to_owned(),
        spacing: None,
        karras: false,
        width: size,
        height: size,
        clip_skip: 1,
        truncate: false,
        grid: false,
        no_metadata: false,
        force: false,
        device: DeviceChoice::Cpu,
        precision: Precision::F32,
        output: output.to_owned(),
    }
}

/// Every pixel within 2 of 255 of Python's.
fn draws_python_s_pictures(family: &str, case: &str, fixture: &Fixture, request: GenerateRequest) {
    let plan = GeneratePlan::new(request).unwrap();
    // A concept of another program does not say what it was padded with, and SD 2.x as published says it twice.
    let unexpected = |warning: &&String| !warning.contains("what its prompts were padded with");
    assert_eq!(plan.warnings().iter().find(unexpected), None);
    let drawn = generate(&plan, &mut |_| ControlFlow::Continue(())).unwrap();
    let theirs = fixture.tensor(&format!("{case}.pictures")); // [B, H, W, 3]
    assert_eq!(drawn.paths.len() as i64, theirs.size()[0]);
    for (i, path) in drawn.paths.iter().enumerate() {
        let theirs = theirs.get(i as i64).to_kind(Kind::Int64);
        let ours = image::open(path).unwrap().to_rgb8();
        let size = [i64::from(ours.height()), i64::from(ours.width()), 3];
        assert_eq!(size.as_slice(), theirs.size());
        let ours = torch_ext::from_bytes(ours.as_raw(), Kind::Uint8, &size).unwrap();
        let gap = (ours.to_kind(Kind::Int64) - theirs).abs();
        let (largest, mean) = (gap.max().int64_value(&[]), gap.mean(Kind::Float).double_value(&[]));
        println!("{family} {case} {i}: largest {largest}, mean {mean:.4}");
        assert!(largest <= 2, "{family} {case}, picture {i}: {largest} of 255 away from Python's");
    }
}

#[test]
fn a_network_that_is_told_the_guidance_draws_python_s_picture() {
    let fixture = Fixture::open("sd1/generate_told.safetensors");
    let changed = base::changed("sd1", "unet/config.json", &fixture.setting("unet"));
    let (base, output) = (base::filled(changed), tempfile::tempdir().unwrap());
    let request = request(base.path(), &output.path().join("told"), &fixture, "pndm");
    draws_python_s_pictures("sd1", "told", &fixture, request);
}

#[test]
fn a_seed_gives_python_s_picture_with_each_sampler_concept_and_batch() {
    for family in FAMILIES {
        let fixture = Fixture::open(&format!("{family}/generate.safetensors"));
        let (base, output) = (base::with_weights(family), tempfile::tempdir().unwrap());
        let own_sampler = if family == "sd1" { "pndm" } else { "ddim" };
        let request = |case: &str, sampler: &str| {
            request(base.path(), &output.path().join(case), &fixture, sampler)
        };
        let draws = |case: &str, request| draws_python_s_pictures(family, case, &fixture, request);

        draws("default", request("default", own_sampler));
        draws("dpm++2m", request("dpm++2m", "dpm++2m"));
        let two = request("two_seeds", own_sampler);
        draws("two_seeds", GenerateRequest { count: 2, batch_size: 2, ..two });
        let with_concept = GenerateRequest {
            concepts: vec![(
                Some("<cat>".to_owned()),
                parity::path(&format!("{family}/concept.safetensors")),
            )],
            prompts: vec![fixture.text("concept_prompt")],
            ..request("concept", own_sampler)
        };
        draws("concept", with_concept);
    }
}
