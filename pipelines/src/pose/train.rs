//! The two stages, from a plan to their files.

use std::path::{Path, PathBuf};

use embeddings::fpdm::{Combiner, PoseStem};
use models::fresh::Fresh;
use models::low_rank::{LowRank, cross_attention_keys_and_values};
use models::params::Params;
use models::schedule::NoiseSchedule;
use models::unet::UNet;
use models::vit::{VisionConfig, VisionEncoder};
use models::weights::Checkpoint;
use tch::{Kind, Tensor};

use super::contrast::Contrast;
use super::fusion::FusionStep;
use super::generator::{Dropping, GeneratorStep};
use super::networks::{Fusion, Routes};
use super::pairs::PosePairs;
use super::run::{self, PoseRun};
use super::shape::{FusionShape, GeneratorShape, Tuning};
use super::weights::{PoseRecord, PoseWeights, TrainedOn};
use crate::error::guarded;
use crate::train::{Observer, Outcome};
use crate::{Base, Error};

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
    /// Trains the encoder in this folder with a new Combiner, or without a folder an encoder of this shape from nothing.
    pub fn new(
        run: PoseRun,
        shape: FusionShape,
        encoder: Option<PathBuf>,
        contrast: Contrast,
    ) -> Result<Self, Error> {
        if let Some(folder) = &encoder
            && VisionConfig::read(folder)? != shape.encoder
        {
            return Err(Error::Usage(format!(
                "the encoder in {} is of another shape than the plan's; take the shape from its config.json",
                folder.display()
            )));
        }
        let plan = Self { run, shape, encoder, contrast };
        plan.run.check(FUSION_FILE, &plan.identity())?;
        Ok(plan)
    }

    fn identity(&self) -> String {
        let shape = serde_json::to_string(&self.shape).expect("a shape is plain data");
        let Contrast { temperature, l1_weight, source_enhanced } = self.contrast;
        let besides = format!("{shape} {temperature} {l1_weight} {source_enhanced}");
        self.run.identity("fusion", &besides)
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
    let write = |steps: u64| {
        let path = run.output.join(FUSION_FILE);
        PoseRecord { steps, ..record.clone() }.write(&path, copies(&leaves))?;
        Ok(path)
    };
    let mut step = FusionStep {
        fusion: &fusion,
        pairs,
        contrast: *contrast,
        batch_size: run.batch_size,
        leaves: &leaves,
        failure: None,
    };
    run::fit(run, &plan.identity(), &leaves, &mut step, &write, observer)
}

/// The second stage, checked.
pub struct GeneratorPlan {
    run: PoseRun,
    base: Base,
    fusion: PoseWeights,
    source_encoder: Option<PathBuf>,
    shape: GeneratorShape,
    /// How often conditions are left out.
    pub dropping: Dropping,
    /// Share of a constant in the noise of each channel; FPDM has 0.1.
    pub offset_noise: f64,
    /// Share of pairs of the same picture twice; FPDM has 0.05.
    pub identity_pairs: f64,
}

impl GeneratorPlan {
    /// On a base and the file of a first stage; tokens of the source are those of the encoder in `source_encoder` or,
    /// without one, the first stage's. Pictures of `size`, width and height.
    pub fn new(
        run: PoseRun,
        mut base: Base,
        fusion: &Path,
        source_encoder: Option<PathBuf>,
        tuning: Tuning,
        size: (i64, i64),
    ) -> Result<Self, Error> {
        let fusion = PoseWeights::open(fusion)?;
        if let Tuning::Light { rank } = tuning
            && rank < 1
        {
            return Err(Error::Usage(format!(
                "the rank is {rank}, but at least 1 is needed; use 16"
            )));
        }
        base.check_size(&[("width", size.0), ("height", size.1)])?;
        base.check_weights()?;
        let encoder = source_encoder.as_deref().map(VisionConfig::read).transpose()?;
        let shape = GeneratorShape::new(&base.folder, &fusion.record.fusion, encoder, tuning, size);
        let plan = Self {
            run,
            base,
            fusion,
            source_encoder,
            shape,
            dropping: Dropping::default(),
            offset_noise: 0.1,
            identity_pairs: 0.05,
        };
        plan.run.check(GENERATOR_FILE, &plan.identity())?;
        Ok(plan)
    }

    fn identity(&self) -> String {
        let shape = serde_json::to_string(&self.shape).expect("a shape is plain data");
        self.run.identity("generator", &format!("{shape} {:?}", self.base.record.sketch))
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
    let (device, kind) = run.place()?;
    let tensors = plan.fusion.tensors(Kind::Float, device)?;
    let fusion = Fusion::load(&Params::root(&tensors), &plan.fusion.record.fusion);
    tensors.report()?.require_complete()?;
    let source_encoder = match (&plan.source_encoder, &shape.source_encoder) {
        (Some(folder), Some(config)) => Some(VisionEncoder::load(folder, config, kind, device)?),
        _ => None,
    };
    let vae = base.folder.load_vae(kind, device)?;
    let schedule = NoiseSchedule::new(&base.folder.scheduler)?;

    let added = Fresh::new(run.seed, Kind::Float, device);
    let routes = Routes::new(&Params::root(&added), shape);
    start_at_zero(&added.parameters(), PoseStem::starts_at_zero);
    let mut leaves = added.parameters();
    let unet = match shape.tuning {
        Tuning::Full => {
            let weights = base.folder.unet_weights(Kind::Float, device)?;
            let source = Fresh::starting_from(weights, kind, |_| true);
            let unet = UNet::new(&Params::root(&source), &base.folder.unet);
            source.require_complete()?;
            let named = source.parameters().into_iter();
            leaves.extend(named.map(|(name, leaf)| (format!("unet.{name}"), leaf)));
            unet
        }
        Tuning::Light { rank } => {
            let weights = base.folder.unet_weights(kind, device)?;
            let thin = Fresh::new(run.seed.wrapping_add(1), kind, device);
            let beside = Params::root(&thin).pp("unet_lora");
            let source = LowRank::new(&weights, beside, rank, cross_attention_keys_and_values);
            let unet = UNet::new(&Params::root(&source), &base.folder.unet);
            weights.report()?.require_complete()?;
            start_at_zero(&thin.parameters(), |name| name.ends_with("lora_B.weight"));
            leaves.extend(thin.parameters());
            unet
        }
    };

    let trained_on = TrainedOn { shape: shape.clone(), base: base.record.clone() };
    let record = PoseRecord {
        learning_rate: run.learning_rate,
        seed: run.seed,
        ..PoseRecord::new(plan.fusion.record.fusion.clone(), Some(trained_on))
    };
    let write = |steps: u64| {
        let path = run.output.join(GENERATOR_FILE);
        let mut tensors = plan.fusion.first_stage()?;
        tensors.extend(copies(&leaves));
        PoseRecord { steps, ..record.clone() }.write(&path, tensors)?;
        Ok(path)
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
        offset_noise: plan.offset_noise,
        identity: plan.identity_pairs,
        batch_size: run.batch_size,
        leaves: &leaves,
        failure: None,
    };
    run::fit(run, &plan.identity(), &leaves, &mut step, &write, observer)
}

fn start_at_zero(parameters: &[(String, Tensor)], zero: fn(&str) -> bool) {
    for (_, leaf) in parameters.iter().filter(|(name, _)| zero(name)) {
        let _ = tch::no_grad(|| leaf.shallow_clone().zero_());
    }
}

/// Parameters without their graph, for a file.
fn copies(leaves: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    leaves.iter().map(|(name, leaf)| (name.clone(), leaf.detach())).collect()
}
