//! Our networks and samplers against the `diffusers` crate: the same mathematics, written in Rust by others.
//!
//! Weights are drawn under the crate's own parameter names and saved; each side loads the file in its own way.
//! Its VAE has the attention names of 2022, so the loading of those is tested along the way. Its resnets always
//! have 32 groups.

#![allow(clippy::unwrap_used)] // a test may panic

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use diffusers::models::unet_2d::{BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig};
use diffusers::models::vae::{AutoEncoderKL, AutoEncoderKLConfig};
use diffusers::schedulers;
use diffusers::schedulers::ddim::{DDIMScheduler, DDIMSchedulerConfig};
use diffusers::schedulers::dpmsolver_multistep::{
    DPMSolverMultistepScheduler, DPMSolverMultistepSchedulerConfig,
};
use diffusers::schedulers::euler_ancestral_discrete::{
    EulerAncestralDiscreteScheduler, EulerAncestralDiscreteSchedulerConfig,
};
use diffusers::transformers::clip::{self, ClipTextTransformer};
use models::clip::{ClipText, ClipTextConfig};
use models::params::{ParamSource, Params};
use models::samplers::{SamplerConfig, SamplerKind, build};
use models::schedule::{BetaSchedule, FinalSigmas, PredictionType, ScheduleConfig};
use models::seeded::{Seeded, uniform};
use models::unet::{Conditioning, CrossAttnContext, KeyValue, UNet, UNetConfig};
use models::vae::{Vae, VaeConfig};
use models::weights::Checkpoint;
use serde_json::json;
use tch::nn::{Module, VarStore};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// Share of the largest value by which the two sides may be apart.
const TOLERANCE: f64 = 1e-4;

/// The crate draws weights and noise from libtorch's one generator: a test has it for itself.
fn generator() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // Networks this small run no faster on more, and far slower where other programs want the cores too.
    tch::set_num_threads(1);
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same draws from now on, the crate's as well as those of [`normal`].
fn reseed() {
    tch::manual_seed(7);
}

fn normal(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu))
}

fn input(name: &str, shape: &[i64]) -> Tensor {
    uniform(&format!("input/oracle/{name}"), Seeded::BASE_SEED, shape)
}

fn agree(what: &str, ours: &Tensor, theirs: &Tensor) {
    assert_eq!(ours.size(), theirs.size(), "{what}");
    let gap = (ours - theirs).abs().max() / theirs.abs().max();
    let gap = gap.double_value(&[]);
    println!("{what}: {gap:.1e}");
    assert!(gap <= TOLERANCE, "{what} is {gap:.1e} of the largest value away");
}

/// Gives the crate's network seeded weights, by way of a file that ours can open too.
fn weigh(component: &str, theirs: &mut VarStore) -> TempDir {
    let source = Seeded::new(component, Seeded::BASE_SEED, Kind::Float, Device::Cpu);
    let drawn: Vec<(String, Tensor)> = theirs
        .variables()
        .into_iter()
        .map(|(name, variable)| (name.clone(), source.parameter(&name, &variable.size())))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("diffusion_pytorch_model.safetensors");
    Tensor::write_safetensors(&drawn, &file).unwrap();
    theirs.load(&file).unwrap();
    theirs.freeze();
    folder
}

/// Our network from that file, which must hold its parameters and no others.
fn load<N>(folder: &TempDir, new: impl FnOnce(&Params) -> N) -> N {
    let stem = "diffusion_pytorch_model";
    let file = Checkpoint::open(folder.path(), stem, None, Kind::Float, Device::Cpu).unwrap();
    let network = new(&Params::root(&file));
    let report = file.report().unwrap();
    assert_eq!(report.unused, Vec::<String>::new());
    report.require_complete().unwrap();
    network
}

#[test]
fn the_vae_with_attention_names_of_2022_encodes_and_decodes_alike() {
    let _generator = generator();
    let mut weights = VarStore::new(Device::Cpu);
    let config = AutoEncoderKLConfig {
        block_out_channels: vec![32, 64],
        layers_per_block: 2,
        latent_channels: 4,
        norm_num_groups: 32,
    };
    let theirs = AutoEncoderKL::new(weights.root(), 3, 3, config);
    let folder = weigh("vae", &mut weights);
    let config: VaeConfig =
        serde_json::from_value(json!({"block_out_channels": [32, 64], "layers_per_block": 2}))
            .unwrap();
    assert!(weights.variables().contains_key("encoder.mid_block.attentions.0.query.weight"));
    let ours = load(&folder, |params| Vae::new(params, &config));

    let picture = input("picture", &[2, 3, 24, 40]);
    let distribution = ours.encode(&picture);
    reseed();
    let sampled = theirs.encode(&picture).sample();
    reseed();
    // In the order in memory that the crate's had, which is the order of the draws.
    let noise = sampled.randn_like();
    agree("an encoded picture, sampled", &distribution.sample(&noise), &sampled);
    // The crate keeps the mean to itself; without the noise it is left.
    let deviation = (&distribution.logvar * 0.5).exp();
    agree("an encoded picture, mean", &distribution.mean, &(sampled - deviation * noise));

    let latents = input("latents", &[2, 4, 7, 5]);
    let decoded = ours.decode(&(&latents * ours.scaling_factor()));
    agree("decoded latents", &decoded, &theirs.decode(&latents));
}

#[test]
fn the_unets_of_sd1_and_of_sd2_predict_alike() {
    let _generator = generator();
    for (family, linear, heads) in [("SD 1", false, [4, 4, 4]), ("SD 2", true, [1, 2, 4])] {
        let channels = [32, 64, 64];
        let mut weights = VarStore::new(Device::Cpu);
        let blocks = (0..3).map(|i| BlockConfig {
            out_channels: channels[i],
            use_cross_attn: i < 2,
            attention_head_dim: heads[i],
        });
        let config = UNet2DConditionModelConfig {
            blocks: blocks.collect(),
            cross_attention_dim: 48,
            use_linear_projection: linear,
            ..UNet2DConditionModelConfig::default()
        };
        let theirs = UNet2DConditionModel::new(weights.root(), 4, 4, config);
        let folder = weigh("unet", &mut weights);
        let config: UNetConfig = serde_json::from_value(json!({
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": channels,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            "cross_attention_dim": 48,
            "attention_head_dim": heads,
            "use_linear_projection": linear,
        }))
        .unwrap();
        config.check().unwrap();
        let ours = load(&folder, |params| UNet::new(params, &config));

        let context = input("context", &[2, 77, 48]);
        let shared = CrossAttnContext::Shared(KeyValue::same(context.shallow_clone()));
        let conditioning = Conditioning::context(shared);
        for (height, width, timestep) in [(16, 16, 981.0), (10, 14, 0.0), (8, 8, 333.25)] {
            let latents = input("noisy latents", &[2, 4, height, width]);
            let prediction =
                ours.forward(&latents, &Tensor::from_slice(&[timestep]), &conditioning);
            let theirs = theirs.forward(&latents, timestep, &context);
            agree(
                &format!("{family}, {height}×{width} at timestep {timestep}"),
                &prediction,
                &theirs,
            );
        }
    }
}

/// The crate's own parameters, for a network of ours beside it.
struct Theirs(HashMap<String, Tensor>);

impl ParamSource for Theirs {
    fn parameter(&self, name: &str, shape: &[i64]) -> Tensor {
        let parameter = &self.0[name];
        assert_eq!(parameter.size(), shape, "{name}");
        parameter.shallow_clone()
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.0.get(name).map(Tensor::size)
    }

    fn kind(&self) -> Kind {
        Kind::Float
    }

    fn device(&self) -> Device {
        Device::Cpu
    }
}

#[test]
fn the_text_encoder_of_sd1_reads_alike() {
    let _generator = generator();
    reseed();
    let mut weights = VarStore::new(Device::Cpu);
    // There is no smaller one in the crate, so no file is written: both sides share the parameters.
    let theirs = ClipTextTransformer::new(weights.root(), &clip::Config::v1_5());
    weights.freeze();
    let config: ClipTextConfig = serde_json::from_value(json!({
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
    }))
    .unwrap();
    let parameters = Theirs(weights.variables());
    let ours = ClipText::new(&Params::root(&parameters), &config);
    let ids = Tensor::randint(49408, [2, 77], (Kind::Int64, Device::Cpu));
    agree("the text encoder of SD 1", &ours.forward(&ids), &theirs.forward(&ids));
}

/// What stands for a network: not linear in the latents, periodic in time.
fn predict(x: &Tensor, timestep: f64) -> Tensor {
    (x * 0.7 + 0.5 * (timestep / 100.0).cos()).tanh()
}

const SHAPE: [i64; 4] = [2, 4, 3, 5];

/// Walks one of our samplers from the first of `draws`; the others are for the noise it adds.
fn walk(kind: SamplerKind, prediction: PredictionType, draws: &[Tensor], steps: usize) -> Tensor {
    let schedule = ScheduleConfig {
        beta_start: Some(0.000_85),
        beta_end: Some(0.012),
        beta_schedule: BetaSchedule::ScaledLinear,
        prediction_type: prediction,
        steps_offset: Some(1),
        set_alpha_to_one: Some(false),
        clip_sample: Some(false),
        // As in the crate; Python's default is to end without noise.
        final_sigmas_type: Some(FinalSigmas::SigmaMin),
        ..ScheduleConfig::default()
    };
    let mut sampler = build(kind, &schedule, &SamplerConfig::default(), steps).unwrap();
    let mut noise = draws[1..].iter().map(Tensor::shallow_clone);
    let mut x = &draws[0] * sampler.initial_noise_scale();
    for timestep in sampler.timesteps().to_vec() {
        let prediction = predict(&sampler.model_input(&x), timestep);
        x = sampler.step(&prediction, &x, &mut || noise.next().unwrap());
    }
    x
}

/// One of the crate's schedulers, which share no trait: its timesteps, start, scaling and step.
macro_rules! walk_theirs {
    ($scheduler:expr, $start:expr) => {{
        #[allow(unused_mut)] // some steps change the scheduler
        let mut scheduler = $scheduler;
        let mut x = $start * scheduler.init_noise_sigma();
        for timestep in scheduler.timesteps().to_vec() {
            let scaled = scheduler.scale_model_input(x.shallow_clone(), timestep);
            x = scheduler.step(&predict(&scaled, timestep as f64), timestep, &x);
        }
        x
    }};
}

#[test]
fn ddim_euler_ancestral_and_dpm_plus_plus_walk_alike() {
    let _generator = generator();
    for steps in [10, 30] {
        for (ours, theirs) in [
            (PredictionType::Epsilon, schedulers::PredictionType::Epsilon),
            (PredictionType::VPrediction, schedulers::PredictionType::VPrediction),
        ] {
            reseed();
            let draws: Vec<Tensor> = (0..=steps).map(|_| normal(&SHAPE)).collect();
            let start = &draws[0];
            let walk = |kind| walk(kind, ours, &draws, steps);

            let config =
                DDIMSchedulerConfig { prediction_type: theirs, ..DDIMSchedulerConfig::default() };
            let walked = walk_theirs!(DDIMScheduler::new(steps, config), start);
            agree(&format!("DDIM, {steps} steps, {ours:?}"), &walk(SamplerKind::Ddim), &walked);

            let config = DPMSolverMultistepSchedulerConfig {
                prediction_type: theirs,
                ..DPMSolverMultistepSchedulerConfig::default()
            };
            let walked = walk_theirs!(DPMSolverMultistepScheduler::new(steps, config), start);
            let walk_ours = walk(SamplerKind::DpmPlusPlus2M);
            agree(&format!("DPM++ 2M, {steps} steps, {ours:?}"), &walk_ours, &walked);

            let config = EulerAncestralDiscreteSchedulerConfig {
                prediction_type: theirs,
                ..EulerAncestralDiscreteSchedulerConfig::default()
            };
            reseed();
            let start = normal(&SHAPE);
            let walked = walk_theirs!(EulerAncestralDiscreteScheduler::new(steps, config), start);
            let walk_ours = walk(SamplerKind::EulerAncestral);
            agree(&format!("Euler a, {steps} steps, {ours:?}"), &walk_ours, &walked);
        }
    }
}
