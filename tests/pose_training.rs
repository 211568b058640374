//! Both stages of FPDM on a small base: from pairs to weights to pictures.

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use models::vit::VisionConfig;
use parity::base::with_weights;
use pipelines::config::Timesteps;
use pipelines::pose::{
    Contrast, FusionPlan, FusionShape, GeneratorPlan, GeneratorShape, PoseGenerator, PosePair,
    PosePairs, PoseRun, PoseSampling, PoseScales, PoseWeights, Tuning, train_fusion,
    train_generator,
};
use pipelines::train::{Event, Observer, Outcome, Start};
use pipelines::{Base, DeviceChoice, Error, FolderLock, Precision};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

/// Width and height; the latents, 5 by 8, halve to 3 by 4 and so on.
const SIZE: (i64, i64) = (40, 64);

/// Eight people of one colour each; a pose is a bright row, in the photo and in its drawing.
struct Rows {
    broken_at: Option<u64>,
}

impl PosePairs for Rows {
    fn pair(&mut self, index: u64, draw: &Generator) -> Result<PosePair, Error> {
        if self.broken_at == Some(index) {
            return Err(Error::Usage(format!("pair {index} is not there")));
        }
        let (width, height) = SIZE;
        let colour = Generator::cpu(index % 8).rand(&[3, 1, 1]) - 0.5;
        let rows = draw.randint(0, height - 8, &[2]);
        let pose = |i: i64| {
            let drawing = Tensor::full([3, height, width], -1.0, (Kind::Float, Device::Cpu));
            let _ = drawing.narrow(1, rows.int64_value(&[i]), 8).fill_(1.0);
            drawing
        };
        let (source_pose, target_pose) = (pose(0), pose(1));
        let photo = |pose: &Tensor| &colour + pose * 0.4;
        Ok(PosePair {
            source: photo(&source_pose),
            target: photo(&target_pose),
            source_pose: Some(source_pose),
            target_pose,
            key: 0,
        })
    }
}

fn rows() -> Rows {
    Rows { broken_at: None }
}

/// Remembers losses and stops after a step, where asked to.
#[derive(Default)]
struct Watcher {
    losses: Vec<f64>,
    terms: Vec<&'static str>,
    stop_after: Option<u64>,
}

impl Observer for Watcher {
    fn on(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        let Event::Step(record) = event else { return ControlFlow::Continue(()) };
        self.losses.push(record.loss);
        self.terms = record.terms.iter().map(|(name, _)| *name).collect();
        if self.stop_after == Some(record.step) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

fn on_the_cpu(run: PoseRun, steps: u64, learning_rate: f64) -> PoseRun {
    PoseRun {
        steps,
        batch_size: 4,
        accumulation: 1,
        learning_rate,
        warmup_steps: 0,
        device: DeviceChoice::Cpu,
        precision: Precision::F32,
        ..run
    }
}

fn encoder() -> VisionConfig {
    serde_json::from_value(serde_json::json!({
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "projection_dim": 24, "image_size": 32, "patch_size": 8, "hidden_act": "quick_gelu"
    }))
    .unwrap()
}

fn fusion_plan(output: &Path, steps: u64, start: Start) -> Result<FusionPlan, Error> {
    let run = PoseRun { start, ..PoseRun::fusion(output.to_owned()) };
    let mut shape = FusionShape::new(encoder());
    shape.combiner.dropout = 0.1;
    FusionPlan::new(on_the_cpu(run, steps, 1e-3), shape, None, Contrast::default())
}

fn fused(output: &Path, steps: u64, watcher: &mut Watcher) -> PathBuf {
    let plan = fusion_plan(output, steps, Start::New).unwrap();
    match train_fusion(&plan, &mut rows(), watcher).unwrap() {
        Outcome::Finished(path) | Outcome::Interrupted(Some(path)) => path,
        Outcome::Interrupted(None) => panic!("stopped before the first step"),
    }
}

fn opened(folder: &Path) -> Base {
    let mut base = Base::open(folder, None).unwrap();
    base.check_weights().unwrap();
    base
}

fn generator_plan(
    output: &Path,
    base: &Path,
    fusion: &Path,
    tuning: Tuning,
    steps: u64,
) -> GeneratorPlan {
    let run = on_the_cpu(PoseRun::generator(output.to_owned()), steps, 1e-3);
    let (base, fusion) = (opened(base), PoseWeights::open(fusion).unwrap());
    let shape = GeneratorShape::new(&base.folder, &fusion.record.fusion, None, tuning, SIZE);
    GeneratorPlan::new(run, base, fusion, None, shape).unwrap()
}

/// The quickest to train.
fn thin_plan(output: &Path, base: &Path, fusion: &Path, steps: u64) -> GeneratorPlan {
    generator_plan(output, base, fusion, Tuning::Light { rank: 2 }, steps)
}

fn trained(plan: &GeneratorPlan) -> (PathBuf, Vec<f64>) {
    let mut watcher = Watcher::default();
    match train_generator(plan, &mut rows(), &mut watcher).unwrap() {
        Outcome::Finished(path) => (path, watcher.losses),
        Outcome::Interrupted(_) => panic!("nothing stopped it"),
    }
}

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

#[test]
fn the_first_stage_learns_to_find_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let mut watcher = Watcher::default();
    let path = fused(folder.path(), 60, &mut watcher);
    let losses = &watcher.losses;
    let (before, after) = (mean(&losses[..5]), mean(&losses[losses.len() - 5..]));
    assert!(after < 0.8 * before, "from {before} to {after}");
    assert_eq!(watcher.terms, ["contrast", "l1", "top-1", "top-5", "mean rank"]);
    let record = PoseWeights::open(&path).unwrap().record;
    assert_eq!((record.steps, record.generator), (60, None));
    assert_eq!(record.fusion.encoder, encoder());
}

#[test]
fn a_stopped_run_goes_on_to_the_bit() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = fused(whole.path(), 6, &mut Watcher::default());
    fused(parts.path(), 6, &mut Watcher { stop_after: Some(2), ..Watcher::default() });
    let anew = fusion_plan(parts.path(), 6, Start::New).unwrap();
    assert!(train_fusion(&anew, &mut rows(), &mut Watcher::default()).is_err());
    let plan = fusion_plan(parts.path(), 6, Start::Resume).unwrap();
    let Outcome::Finished(found) =
        train_fusion(&plan, &mut rows(), &mut Watcher::default()).unwrap()
    else {
        panic!("nothing stopped it")
    };
    let (expected, found) = (tensors(&expected), tensors(&found));
    assert_eq!(expected.len(), found.len());
    for (name, tensor) in expected {
        assert_eq!(tensor, found[&name], "{name}");
    }
}

/// Puts a folder in the way of a file when the run begins.
struct Obstacle(PathBuf);

impl Observer for Obstacle {
    fn on(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        if matches!(event, Event::Start { .. }) {
            std::fs::create_dir(&self.0).unwrap();
        }
        ControlFlow::Continue(())
    }
}

/// Stops at once.
struct Never;

impl Observer for Never {
    fn on(&mut self, _: &Event<'_>) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

#[test]
fn a_run_whose_weights_could_not_be_written_has_its_state_and_goes_on_from_there() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = fused(whole.path(), 3, &mut Watcher::default());
    let file = parts.path().join("fusion.safetensors");
    let plan = fusion_plan(parts.path(), 3, Start::New).unwrap();
    let error = train_fusion(&plan, &mut rows(), &mut Obstacle(file.clone())).err().unwrap();
    assert_eq!(error.exit_code(), 1, "{error}");
    assert!(error.to_string().contains("fusion.safetensors"), "{error}");
    std::fs::remove_dir(&file).unwrap();
    let plan = fusion_plan(parts.path(), 3, Start::Resume).unwrap();
    let finished = train_fusion(&plan, &mut rows(), &mut Watcher::default()).unwrap();
    assert_eq!(finished, Outcome::Finished(file.clone()));
    assert_eq!(tensors(&expected), tensors(&file));
    // Stopped before it goes on, it still has what it had; and nothing was learnt that could be lost.
    let stopped = train_fusion(&plan, &mut rows(), &mut Never).unwrap();
    assert_eq!(stopped, Outcome::Interrupted(Some(file)));
}

#[test]
fn a_stage_in_a_folder_in_use_is_refused_and_force_forgets_the_state_of_the_run_before() {
    let folder = tempfile::tempdir().unwrap();
    let lock = FolderLock::take(folder.path()).unwrap();
    let plan = fusion_plan(folder.path(), 2, Start::New).unwrap();
    let error = train_fusion(&plan, &mut rows(), &mut Watcher::default()).err().unwrap();
    assert!(error.to_string().contains("in use"), "{error}");
    assert_eq!(error.exit_code(), 2);
    drop(lock);
    fused(folder.path(), 1, &mut Watcher::default());
    let anew = fusion_plan(folder.path(), 2, Start::Overwrite).unwrap();
    let mut broken = Rows { broken_at: Some(0) };
    train_fusion(&anew, &mut broken, &mut Watcher::default()).unwrap_err();
    assert!(!folder.path().join("state.safetensors").exists());
}

#[test]
fn a_missing_pair_ends_the_run_with_its_own_error() {
    let folder = tempfile::tempdir().unwrap();
    let plan = fusion_plan(folder.path(), 6, Start::New).unwrap();
    let mut pairs = Rows { broken_at: Some(9) };
    let error = train_fusion(&plan, &mut pairs, &mut Watcher::default()).err().unwrap();
    assert!(error.to_string().contains("pair 9 is not there"), "{error}");
    // What the last loss was of is kept: the second step's update was not judged any more.
    let weights = PoseWeights::open(&folder.path().join("fusion.safetensors")).unwrap();
    assert_eq!(weights.record.steps, 1);
}

#[test]
fn both_modes_start_alike_learn_and_draw() {
    let (base, folder) = (with_weights("sd2"), tempfile::tempdir().unwrap());
    let fusion = fused(&folder.path().join("fusion"), 2, &mut Watcher::default());
    let run = |name: &str, tuning| {
        let plan = generator_plan(&folder.path().join(name), base.path(), &fusion, tuning, 3);
        trained(&plan)
    };
    let (full, full_losses) = run("full", Tuning::Full);
    let (light, light_losses) = run("light", Tuning::Light { rank: 2 });
    // Nothing that is new adds anything at first but tokens and the bias, which both draw alike.
    let apart = (full_losses[0] - light_losses[0]).abs();
    assert!(apart < 1e-5 * full_losses[0], "{full_losses:?}, {light_losses:?}");
    assert!((full_losses[2] - light_losses[2]).abs() > 1e-5, "{full_losses:?}, {light_losses:?}");

    let (first, full_tensors, light_tensors) = (tensors(&fusion), tensors(&full), tensors(&light));
    for (name, tensor) in &first {
        assert_eq!(*tensor, full_tensors[name], "{name} was frozen");
    }
    let has = |tensors: &BTreeMap<String, Tensor>, prefix: &str| {
        tensors.keys().any(|name| name.starts_with(prefix))
    };
    assert!(has(&full_tensors, "unet.") && !has(&full_tensors, "unet_lora."));
    assert!(!has(&light_tensors, "unet.") && has(&light_tensors, "unet_lora."));
    let moved = |tensors: &BTreeMap<String, Tensor>, name: &str| {
        tensors[name].abs().max().double_value(&[]) > 0.0
    };
    assert!(moved(&full_tensors, "pose_stem.conv_out.weight"));
    let up = light_tensors.keys().find(|name| name.ends_with("lora_B.weight")).unwrap();
    assert!(moved(&light_tensors, up));

    let drawings = [&full, &light].map(|path| {
        let weights = PoseWeights::open(path).unwrap();
        let generator =
            PoseGenerator::load(&weights, &opened(base.path()), None, Kind::Float, Device::Cpu)
                .unwrap();
        assert_eq!(generator.size(), SIZE);
        draw(&generator, PoseScales::default())
    });
    assert_ne!(drawings[0], drawings[1]);
}

#[test]
fn a_warm_start_begins_with_the_weights_that_it_is_given() {
    let (base, folder) = (with_weights("sd2"), tempfile::tempdir().unwrap());
    let fusion = fused(&folder.path().join("fusion"), 2, &mut Watcher::default());
    let plan = |name: &str, first: &Path, rank: i64| {
        let tuning = Tuning::Light { rank };
        generator_plan(&folder.path().join(name), base.path(), first, tuning, 3)
    };
    let first = trained(&plan("first", &fusion, 2)).0;
    let mut on = plan("on", &first, 2);
    on.run.learning_rate = 1e-12; // weights stay where they are
    on.warm_start = Some(PoseWeights::open(&first).unwrap());
    let (before, after) = (tensors(&first), tensors(&trained(&on).0));
    assert_eq!(before.len(), after.len());
    for (name, tensor) in before {
        assert!((tensor - &after[&name]).abs().max().double_value(&[]) < 1e-10, "{name}");
    }
    let mut other = plan("other", &first, 3);
    other.warm_start = Some(PoseWeights::open(&first).unwrap());
    let error = train_generator(&other, &mut rows(), &mut Watcher::default()).err().unwrap();
    assert!(error.to_string().contains("another shape"), "{error}");
}

#[test]
fn the_average_is_what_is_written_and_it_goes_on_to_the_bit() {
    let (base, folder) = (with_weights("sd2"), tempfile::tempdir().unwrap());
    let fusion = fused(&folder.path().join("fusion"), 2, &mut Watcher::default());
    let plan = |name: &str, decay: f64, steps: u64, start: Start| {
        let mut plan = thin_plan(&folder.path().join(name), base.path(), &fusion, steps);
        plan.run.average_decay = decay;
        plan.run.start = start;
        plan
    };
    let values = |plan: GeneratorPlan| tensors(&trained(&plan).0);
    let name = "pose_stem.conv_out.bias";
    let plain = values(plan("plain", 0.0, 1, Start::New))[name].shallow_clone();
    let averaged = values(plan("averaged", 0.999, 1, Start::New))[name].shallow_clone();
    // After one step its decay is 2 / 11, and the bias began at 0.
    let expected = &plain * (9.0 / 11.0);
    assert!((averaged - expected).abs().max().double_value(&[]) < 1e-9, "{plain}");
    let whole = values(plan("whole", 0.999, 3, Start::New));
    values(plan("parts", 0.999, 2, Start::New));
    let refused = |plan: GeneratorPlan| {
        let ended = train_generator(&plan, &mut rows(), &mut Watcher::default());
        assert!(ended.is_err_and(|error| error.to_string().contains("began with")));
    };
    refused(plan("parts", 0.99, 3, Start::Resume));
    let mut other = plan("parts", 0.999, 3, Start::Resume);
    other.timesteps = Timesteps::Stratified;
    refused(other);
    for (name, tensor) in values(plan("parts", 0.999, 3, Start::Resume)) {
        assert_eq!(tensor, whole[&name], "{name}");
    }
    let mut without = plan("without", 0.999, 3, Start::New);
    without.run.average_decay = 1.5;
    let error = train_generator(&without, &mut rows(), &mut Watcher::default()).err().unwrap();
    assert!(error.to_string().contains("average_decay is 1.5"), "{error}");
}

#[test]
fn stratified_timesteps_are_others_and_what_fails_keeps_the_average_of_the_last_good_step() {
    let (base, folder) = (with_weights("sd2"), tempfile::tempdir().unwrap());
    let fusion = fused(&folder.path().join("fusion"), 2, &mut Watcher::default());
    let plan =
        |name: &str, steps: u64| thin_plan(&folder.path().join(name), base.path(), &fusion, steps);
    let uniform = trained(&plan("uniform", 1)).1;
    let mut spread = plan("spread", 1);
    spread.timesteps = Timesteps::Stratified;
    assert!((uniform[0] - trained(&spread).1[0]).abs() > 1e-6);

    let averaged = |name: &str, steps: u64| {
        let mut plan = plan(name, steps);
        plan.run.average_decay = 0.999;
        plan
    };
    let expected = tensors(&trained(&averaged("two", 2)).0);
    let mut pairs = Rows { broken_at: Some(13) }; // of the fourth step, when the third update was not judged
    let failing = averaged("failing", 4);
    train_generator(&failing, &mut pairs, &mut Watcher::default()).err().unwrap();
    let kept = PoseWeights::open(&folder.path().join("failing/pose.safetensors")).unwrap();
    assert_eq!(kept.record.steps, 2);
    for (name, tensor) in tensors(kept.path()) {
        assert_eq!(tensor, expected[&name], "{name}");
    }
}

/// Four pairs again and again, which say so or do not.
struct Four {
    known: bool,
}

impl PosePairs for Four {
    fn pair(&mut self, index: u64, _draw: &Generator) -> Result<PosePair, Error> {
        let key = index % 4;
        Ok(PosePair { key, ..rows().pair(key, &Generator::cpu(key))? })
    }

    fn distinct(&self) -> Option<u64> {
        self.known.then_some(4)
    }
}

#[test]
fn what_frozen_networks_saw_once_is_what_they_would_see_again() {
    let (base, folder) = (with_weights("sd1"), tempfile::tempdir().unwrap());
    let fusion = fused(&folder.path().join("fusion"), 2, &mut Watcher::default());
    let losses = |known: bool| {
        // Parameters stay where they are: AdamW's first steps make much of a gradient's last digit.
        let run = PoseRun::generator(folder.path().join(format!("{known}")));
        let run = on_the_cpu(run, 4, 1e-12);
        let (base, fusion) = (opened(base.path()), PoseWeights::open(&fusion).unwrap());
        let (tuning, first) = (Tuning::Light { rank: 2 }, &fusion.record.fusion);
        let shape = GeneratorShape::new(&base.folder, first, None, tuning, SIZE);
        let plan = GeneratorPlan::new(run, base, fusion, None, shape).unwrap();
        let mut watcher = Watcher::default();
        train_generator(&plan, &mut Four { known }, &mut watcher).unwrap();
        watcher.losses
    };
    for (kept, made_again) in losses(true).into_iter().zip(losses(false)) {
        assert!((kept - made_again).abs() < 1e-4 * made_again, "{kept} is not {made_again}");
    }
}

fn draw(generator: &PoseGenerator, scales: PoseScales) -> Vec<image::RgbImage> {
    let pairs: Vec<PosePair> =
        (0..2).map(|i| rows().pair(i, &Generator::cpu(i)).unwrap()).collect();
    let poses: Vec<&Tensor> = pairs.iter().map(|pair| &pair.target_pose).collect();
    let sampling = PoseSampling { steps: 3, scales, ..PoseSampling::default() };
    let source = pairs[0].source.unsqueeze(0);
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let poses = Tensor::stack(&poses, 0);
    let pictures = generator.draw(&sampling, &source, &poses, &[1, 2], go_on).unwrap().unwrap();
    assert_eq!(pictures.len(), 2);
    assert_eq!(pictures[0].dimensions(), (SIZE.0 as u32, SIZE.1 as u32));
    pictures
}

#[test]
fn the_spare_evaluation_changes_no_picture_and_the_fusion_does() {
    let (base, folder) = (with_weights("sd1"), tempfile::tempdir().unwrap());
    let fusion = fused(&folder.path().join("fusion"), 2, &mut Watcher::default());
    let plan = generator_plan(
        &folder.path().join("light"),
        base.path(),
        &fusion,
        Tuning::Light { rank: 2 },
        2,
    );
    let weights = PoseWeights::open(&trained(&plan).0).unwrap();
    let generator =
        PoseGenerator::load(&weights, &opened(base.path()), None, Kind::Float, Device::Cpu)
            .unwrap();
    let at = |source_pose, fusion| draw(&generator, PoseScales { source_pose, fusion });
    let levels = |a: &[image::RgbImage], b: &[image::RgbImage]| {
        let pairs = a.iter().zip(b).flat_map(|(a, b)| a.as_raw().iter().zip(b.as_raw()));
        pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    };
    let two = at(2.0, 2.0);
    assert!(levels(&two, &at(2.0, 2.0 + 1e-9)) <= 1, "three evaluations draw something else");
    assert!(levels(&two, &at(2.0, 0.0)) > 1, "the fusion embedding changes nothing");
}

#[test]
fn weights_are_refused_on_another_base_without_their_combiner_and_before_the_second_stage() {
    let (base, other) = (with_weights("sd2"), with_weights("sd1"));
    let folder = tempfile::tempdir().unwrap();
    let fusion = fused(&folder.path().join("fusion"), 1, &mut Watcher::default());
    let load = |weights: &PoseWeights, base: &Path| {
        let base = opened(base);
        PoseGenerator::load(weights, &base, None, Kind::Float, Device::Cpu).err().unwrap()
    };
    let first = PoseWeights::open(&fusion).unwrap();
    let error = load(&first, base.path()).to_string();
    assert!(error.contains("first stage") && error.contains("train-generator"), "{error}");

    let tuning = Tuning::Light { rank: 1 };
    let plan = generator_plan(&folder.path().join("light"), base.path(), &fusion, tuning, 1);
    let path = trained(&plan).0;
    let weights = PoseWeights::open(&path).unwrap();
    let error = load(&weights, other.path());
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("a context of width 96"), "{error}");

    // The same networks, but another prediction.
    let config = base.path().join("scheduler/scheduler_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("v_prediction", "epsilon")).unwrap();
    let error = load(&weights, base.path());
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("predicts v_prediction"), "{error}");

    let cut = folder.path().join("cut.safetensors");
    let kept = tensors(&path).into_iter().filter(|(name, _)| !name.starts_with("combiner."));
    weights.record.write(&cut, kept.collect()).unwrap();
    let error = PoseWeights::open(&cut).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("without the combiner"), "{error}");

    let mut later = weights.record.clone();
    later.format_version = 99;
    later.write(&cut, Vec::new()).unwrap();
    let error = PoseWeights::open(&cut).unwrap_err().to_string();
    assert!(error.contains("format 99"), "{error}");
    let concept = parity::path("sd2/concept.safetensors");
    let error = PoseWeights::open(&concept).unwrap_err().to_string();
    assert!(error.contains("without pose weights"), "{error}");
}
