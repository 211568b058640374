//! The two stages, from a plan to their files.

use std::path::PathBuf;

use embeddings::fpdm::{Combiner, PoseStem};
use models::fresh::Fresh;
use models::low_rank::{LowRank, cross_attention_keys_and_values};
use models::params::{ParamSource as _, Params};
use models::schedule::NoiseSchedule;
use models::unet::UNet;
use models::vit::{VisionConfig, VisionEncoder};
use models::weights::Checkpoint;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::contrast::Contrast;
use super::fusion::FusionStep;
use super::generator::{Dropping, GeneratorStep, Known};
use super::networks::{Fusion, Routes};
use super::pairs::PosePairs;
use super::run::{self, PoseRun, Stage};
use super::shape::{FusionShape, GeneratorShape, Tuning};
use super::weights::{PoseRecord, PoseWeights, TrainedOn, encoder_hash};
use crate::config::Timesteps;
use crate::error::guarded;
use crate::train::{Observer, Outcome, Start};
use crate::{Base, DeviceChoice, Error, FolderLock, Precision};

/// The file of the first stage in the folder of its run.
const FUSION_FILE: &str = "fusion.safetensors";
/// The file of the second.
const GENERATOR_FILE: &str = "pose.safetensors";

/// What is trained, by name.
type Leaves = Vec<(String, Tensor)>;

/// The first stage, checked.
pub struct FusionPlan {
    run: PoseRun,
    shape: FusionShape,
    encoder: Option<PathBuf>,
    contrast: Contrast,
}

impl FusionPlan {
    /// Trains the encoder in this folder, or its first blocks, with a new Combiner, or without a folder an encoder of this
    /// shape from nothing.
    pub fn new(
        run: PoseRun,
        shape: FusionShape,
        encoder: Option<PathBuf>,
        contrast: Contrast,
    ) -> Result<Self, Error> {
        if let Some(folder) = &encoder
            && VisionConfig::read(folder)?.ending_after(shape.encoder.blocks()).as_ref()
                != Some(&shape.encoder)
        {
            return Err(Error::Usage(format!(
                "the encoder in {} is of another shape than the plan's; take the shape from its config.json",
                folder.display()
            )));
        }
        Ok(Self { run, shape, encoder, contrast })
    }

    /// Where it computes.
    pub fn device(&self) -> DeviceChoice {
        self.run.device
    }

    fn identity(&self, pairs: &dyn PosePairs) -> String {
        let Contrast { temperature, l1_weight, source_enhanced } = self.contrast;
        let besides = json!({
            "shape": self.shape,
            "temperature": temperature,
            "l1_weight": l1_weight,
            "source_enhanced": source_enhanced,
            "pairs": pairs.identity(),
        });
        self.run.identity("fusion", besides)
    }
}

/// Trains the first stage.
pub fn train_fusion(
    plan: &FusionPlan,
    pairs: &mut dyn PosePairs,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    guarded("training the fusion embedding", || fusion(plan, pairs, observer))
}

fn fusion(
    plan: &FusionPlan,
    pairs: &mut dyn PosePairs,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let FusionPlan { run, shape, encoder, contrast } = plan;
    let identity = plan.identity(pairs);
    let _lock = run.check(FUSION_FILE, &identity)?;
    let (device, kind) = run.place()?;
    let encoder_source = |seed: u64| match encoder {
        Some(folder) => {
            let start = Checkpoint::open(folder, "model", None, Kind::Float, device)?;
            Ok::<_, Error>(Fresh::starting_from(start, kind, |_| true))
        }
        None => Ok(Fresh::new(seed, kind, device)),
    };
    let mut leaves = Leaves::new();
    let mut build_encoder = |prefix: &str, seed: u64| {
        let source = encoder_source(seed)?;
        let network = VisionEncoder::new(&Params::root(&source), &shape.encoder);
        source.require_complete()?;
        let named = source.parameters().into_iter();
        leaves.extend(named.map(|(name, leaf)| (format!("{prefix}.{name}"), leaf)));
        Ok::<_, Error>(network)
    };
    let image_encoder = build_encoder("image_encoder", run.seed)?;
    let pose_encoder = if shape.separate_pose_encoder {
        Some(build_encoder("pose_encoder", run.seed.wrapping_add(1))?)
    } else {
        None
    };
    let source = Fresh::new(run.seed.wrapping_add(2), Kind::Float, device);
    let combiner = Combiner::new(&Params::root(&source).pp("combiner"), &shape.combiner);
    leaves.extend(source.parameters());
    let fusion = Fusion::new(image_encoder, pose_encoder, combiner);

    let record = PoseRecord {
        learning_rate: run.learning_rate,
        seed: run.seed,
        ..PoseRecord::new(shape.clone(), None)
    };
    let write = |steps: u64, trained: Leaves| {
        PoseRecord { steps, ..record.clone() }.write(&run.output.join(FUSION_FILE), trained)
    };
    let mut step =
        FusionStep { fusion: &fusion, pairs, contrast: *contrast, batch_size: run.batch_size };
    let stage =
        Stage { run, identity: &identity, leaves: &leaves, file: FUSION_FILE, write: &write };
    run::fit(&stage, &mut step, observer)
}

/// The second stage, checked.
pub struct GeneratorPlan {
    /// How long and where.
    pub run: PoseRun,
    base: Base,
    fusion: PoseWeights,
    source_encoder: Option<PathBuf>,
    shape: GeneratorShape,
    /// The file of a second stage of the same shapes that training begins with; its first stage may be another.
    pub warm_start: Option<PoseWeights>,
    /// How often conditions are left out.
    pub dropping: Dropping,
    /// How the timesteps of a micro-batch are drawn.
    pub timesteps: Timesteps,
    /// Share of a constant in the noise of each channel; FPDM has 0.1.
    pub offset_noise: f64,
    /// Share of pairs of the same picture twice; FPDM has 0.05.
    pub identity_pairs: f64,
    /// How many times as much the loss counts near the skeleton as elsewhere; FPDM has 1.
    pub figure_weight: f64,
    /// Of the numbers in the file; the state that a run goes on from is f32 all the same.
    pub file_precision: Precision,
}

impl GeneratorPlan {
    /// On a base and a first stage, with networks of this shape; `source_encoder` is the folder of the encoder that the
    /// shape names, where it names one. Conditions, noise and pairs are FPDM's.
    pub fn new(
        run: PoseRun,
        mut base: Base,
        fusion: PoseWeights,
        source_encoder: Option<PathBuf>,
        shape: GeneratorShape,
    ) -> Result<Self, Error> {
        shape.check()?;
        shape.check_base(&base.folder)?;
        base.check_size(&[("width", shape.width), ("height", shape.height)])?;
        base.check_weights()?;
        Ok(Self {
            run,
            base,
            fusion,
            source_encoder,
            shape,
            warm_start: None,
            dropping: Dropping::default(),
            timesteps: Timesteps::Uniform,
            offset_noise: 0.1,
            identity_pairs: 0.05,
            figure_weight: 1.0,
            file_precision: Precision::F32,
        })
    }

    /// `encoder` is the hash of the source encoder, where it has a folder of its own.
    fn identity(&self, encoder: Option<&str>, pairs: &dyn PosePairs) -> Result<String, Error> {
        let besides = json!({
            "shape": self.shape,
            "base": self.base.record.sketch,
            "first_stage": self.fusion.first_stage_hash()?,
            "source_encoder": encoder,
            "dropping": [self.dropping.all, self.dropping.each],
            "timesteps": self.timesteps,
            "offset_noise": self.offset_noise,
            "identity_pairs": self.identity_pairs,
            "figure_weight": self.figure_weight,
            "pairs": pairs.identity(),
        });
        Ok(self.run.identity("generator", besides))
    }

    /// Refuses a folder that cannot be used, and to go on with another run than that of `identity`.
    fn check(&self, identity: &str) -> Result<Option<FolderLock>, Error> {
        if let Some(start) = &self.warm_start {
            start.check_base(&self.base)?;
            let prediction =
                |tuning: &Tuning| tuning.schedule(&self.base.folder).prediction_type.name();
            let theirs = prediction(&start.generator()?.shape.tuning);
            let ours = prediction(&self.shape.tuning);
            if theirs != ours {
                return Err(Error::Incompatible(format!(
                    "{} predicts {theirs}, but {ours} is to be trained; give weights of the same prediction, or train without \
                     a warm start",
                    start.path().display()
                )));
            }
        }
        self.run.check(GENERATOR_FILE, identity)
    }
}

/// Trains the second stage.
pub fn train_generator(
    plan: &GeneratorPlan,
    pairs: &mut dyn PosePairs,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    guarded("training the generator of poses", || generator(plan, pairs, observer))
}

fn generator(
    plan: &GeneratorPlan,
    pairs: &mut dyn PosePairs,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let GeneratorPlan { run, base, shape, .. } = plan;
    let encoder = plan.source_encoder.as_deref().map(encoder_hash).transpose()?;
    let identity = plan.identity(encoder.as_deref(), pairs)?;
    let _lock = plan.check(&identity)?;
    let (device, kind) = run.place()?;
    let tensors = plan.fusion.tensors(Kind::Float, device)?;
    let fusion = Fusion::load(&Params::root(&tensors), &plan.fusion.record.fusion);
    tensors.report()?.require_complete()?;
    let source_encoder = match (&plan.source_encoder, &shape.source_encoder) {
        (Some(folder), Some(config)) => Some(VisionEncoder::load(folder, config, kind, device)?),
        _ => None,
    };
    let vae = base.folder.load_vae(kind, device)?;
    let schedule = NoiseSchedule::new(&shape.tuning.schedule(&base.folder))?;

    let added = Fresh::new(run.seed, Kind::Float, device);
    let routes = Routes::new(&Params::root(&added), shape);
    start_at_zero(&added.parameters(), PoseStem::starts_at_zero);
    let mut leaves = added.parameters();
    let unet = match &shape.tuning {
        Tuning::Full | Tuning::New { .. } => {
            let source = if matches!(shape.tuning, Tuning::New { .. }) {
                Fresh::new(run.seed.wrapping_add(1), kind, device)
            } else {
                let weights = base.folder.unet_weights(Kind::Float, device)?;
                Fresh::starting_from(weights, kind, |_| true)
            };
            let unet = UNet::new(&Params::root(&source), shape.tuning.unet(&base.folder));
            source.require_complete()?;
            let named = source.parameters().into_iter();
            leaves.extend(named.map(|(name, leaf)| (format!("unet.{name}"), leaf)));
            unet
        }
        Tuning::Light { rank } => {
            let weights = base.folder.unet_weights(kind, device)?;
            let thin = Fresh::new(run.seed.wrapping_add(1), kind, device);
            let beside = Params::root(&thin).pp("unet_lora");
            let source = LowRank::new(&weights, beside, *rank, cross_attention_keys_and_values);
            let unet = UNet::new(&Params::root(&source), &base.folder.unet);
            weights.report()?.require_complete()?;
            start_at_zero(&thin.parameters(), |name| name.ends_with("lora_B.weight"));
            leaves.extend(thin.parameters());
            unet
        }
    };

    if let Some(start) = &plan.warm_start
        && run.start != Start::Resume
    {
        let start = start.tensors(Kind::Float, device)?;
        for (name, leaf) in &leaves {
            tch::no_grad(|| leaf.shallow_clone().copy_(&start.parameter(name, &leaf.size())));
        }
        start.report()?.require_complete()?;
    }
    let trained_on =
        TrainedOn { shape: shape.clone(), base: base.record.clone(), source_encoder: encoder };
    let record = PoseRecord {
        learning_rate: run.learning_rate,
        seed: run.seed,
        ..PoseRecord::new(plan.fusion.record.fusion.clone(), Some(trained_on))
    };
    let write = |steps: u64, trained: Leaves| {
        let mut tensors = plan.fusion.first_stage()?;
        tensors.extend(trained);
        let kind = plan.file_precision.resolve(Device::Cpu);
        let tensors = tensors.into_iter().map(|(name, x)| (name, x.to_kind(kind))).collect();
        PoseRecord { steps, ..record.clone() }.write(&run.output.join(GENERATOR_FILE), tensors)
    };
    let mut step = GeneratorStep {
        fusion: &fusion,
        source_encoder: source_encoder.as_ref(),
        shape,
        routes: &routes,
        unet: &unet,
        vae: &vae,
        schedule: &schedule,
        pairs,
        dropping: plan.dropping,
        stratified: plan.timesteps == Timesteps::Stratified,
        offset_noise: plan.offset_noise,
        identity: plan.identity_pairs,
        figure_weight: plan.figure_weight,
        batch_size: run.batch_size,
        known: Known::default(),
    };
    let stage =
        Stage { run, identity: &identity, leaves: &leaves, file: GENERATOR_FILE, write: &write };
    run::fit(&stage, &mut step, observer)
}

fn start_at_zero(parameters: &[(String, Tensor)], zero: fn(&str) -> bool) {
    for (_, leaf) in parameters.iter().filter(|(name, _)| zero(name)) {
        let _ = tch::no_grad(|| leaf.shallow_clone().zero_());
    }
}
