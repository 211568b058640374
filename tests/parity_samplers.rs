//! The noise schedule and every sampler against Python diffusers (`scripts/fixtures/samplers.py`).

#![allow(clippy::unwrap_used)] // a test that panics says so

use models::samplers::{SamplerConfig, SamplerKind, build};
use models::schedule::{NoiseSchedule, PredictionType, ScheduleConfig, TimestepSpacing};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;

#[derive(Deserialize)]
struct Told {
    configs: BTreeMap<String, ScheduleConfig>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    config: String,
    sampler: String,
    steps: usize,
    karras: Option<bool>,
    spacing: Option<TimestepSpacing>,
    eta: Option<f64>,
    timesteps: Vec<f64>,
    scale: f64,
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn told() -> Told {
    serde_json::from_slice(&fixture("samplers.json")).unwrap()
}

fn tensor(file: &SafeTensors, name: &str) -> Tensor {
    let view = file.tensor(name).unwrap();
    let kind = match view.dtype() {
        Dtype::F32 => tch::Kind::Float,
        Dtype::I64 => tch::Kind::Int64,
        other => panic!("{name} is {other:?}"),
    };
    let shape: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
    Tensor::from_data_size(view.data(), &shape, kind)
}

/// The largest difference as a share of the largest value.
fn apart(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.size(), theirs.size());
    (ours - theirs).abs().max().double_value(&[]) / theirs.abs().max().double_value(&[])
}

/// The network that both sides have.
fn model(x: &Tensor, t: f64) -> Tensor {
    (x * 0.7 + 0.5 * (t / 100.0).cos()).tanh()
}

fn walk(case: &Case, schedule: &ScheduleConfig, draws: &Tensor) -> (Tensor, Vec<f64>, f64) {
    let kind: SamplerKind = case.sampler.parse().unwrap();
    let config =
        SamplerConfig { spacing: case.spacing, karras: case.karras, eta: case.eta.unwrap_or(0.0) };
    let mut sampler = build(kind, schedule, &config, case.steps).unwrap();
    let mut drawn = 0;
    let mut noise = || {
        drawn += 1;
        draws.get(drawn)
    };
    let timesteps = sampler.timesteps().to_vec();
    let scale = sampler.initial_noise_scale();
    let mut x = draws.get(0) * scale;
    let mut walked = Vec::new();
    for t in &timesteps {
        x = sampler.step(&model(&sampler.model_input(&x), *t), &x, &mut noise);
        walked.push(x.shallow_clone());
    }
    (Tensor::stack(&walked, 0), timesteps, scale)
}

#[test]
fn every_trajectory_is_python_s() {
    let bytes = fixture("samplers.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let draws = tensor(&file, "draws");
    let told = told();
    let mut worst: BTreeMap<&str, (f64, String)> = BTreeMap::new();
    let mut failures = Vec::new();
    for (i, case) in told.cases.iter().enumerate() {
        let (walked, timesteps, scale) = walk(case, &told.configs[&case.config], &draws);
        let what = format!(
            "{} {} {} steps, karras {:?}, spacing {:?}, eta {:?}",
            case.config, case.sampler, case.steps, case.karras, case.spacing, case.eta
        );
        assert_eq!(timesteps.len(), case.timesteps.len(), "{what}");
        for (ours, theirs) in timesteps.iter().zip(&case.timesteps) {
            assert!((ours - theirs).abs() <= 1e-3, "{what}: timestep {ours} for {theirs}");
        }
        assert!(
            (scale / case.scale - 1.0).abs() < 1e-6,
            "{what}: scale {scale} for {}",
            case.scale
        );
        // Each step by its own largest value, since some start at 4096 and end at 1.
        let theirs = tensor(&file, &format!("case{i}"));
        let apart = (0..theirs.size()[0])
            .map(|step| apart(&walked.get(step), &theirs.get(step)))
            .fold(0.0, f64::max);
        if apart.is_nan() || apart > 1e-5 {
            failures.push(format!("{what}: {apart:.1e}"));
        }
        let entry = worst.entry(&case.sampler).or_default();
        if apart > entry.0 {
            *entry = (apart, what);
        }
    }
    println!("{} trajectories; the farthest of each sampler: {worst:#?}", told.cases.len());
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_sampler_has_trajectories() {
    let told = told();
    let walked: BTreeSet<_> = told.cases.iter().map(|case| case.sampler.as_str()).collect();
    assert_eq!(walked, SamplerKind::all().map(SamplerKind::name).collect());
}

#[test]
fn the_noise_schedule_and_its_targets_are_python_s() {
    let bytes = fixture("samplers.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let [x0, noise, timesteps] =
        ["x0", "noise", "timesteps"].map(|name| tensor(&file, &format!("schedule.{name}")));
    let configs = told().configs;
    for name in ["sd1", "sd2_v", "zero_snr", "bare", "cosine"] {
        let schedule = NoiseSchedule::new(&configs[name]).unwrap();
        let velocity = ScheduleConfig {
            prediction_type: PredictionType::VPrediction,
            ..configs[name].clone()
        };
        let velocity = NoiseSchedule::new(&velocity).unwrap();
        let alpha_bar: Vec<f32> = schedule.alpha_bar().iter().map(|a| *a as f32).collect();
        for (key, ours) in [
            ("alpha_bar", Tensor::from_slice(&alpha_bar)),
            ("noisy", schedule.add_noise(&x0, &noise, &timesteps)),
            ("velocity", velocity.target(&x0, &noise, &timesteps)),
            ("snr", schedule.signal_to_noise(&timesteps)),
            ("min_snr", schedule.min_snr_weight(&timesteps, 5.0)),
        ] {
            let apart = apart(&ours, &tensor(&file, &format!("schedule.{name}.{key}")));
            assert!(apart <= 1e-6, "{name}.{key}: {apart:.1e}");
        }
    }
}
