//! The configurations of both stages: preset, its variant, a file, flags; each over the one before.

use std::path::{Path, PathBuf};

use models::vit::VisionConfig;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::contrast::Contrast;
use super::data::PoseData;
use super::folder::FolderPairs;
use super::generator::Dropping;
use super::run::PoseRun;
use super::shape::{FusionShape, GeneratorShape, Tuning};
use super::train::{FusionPlan, GeneratorPlan};
use super::weights::PoseWeights;
use super::{check_size, parse_size};
use crate::config::{LrShape, MOST_STEPS, Table, Timesteps, layered};
use crate::evaluate::clip_folder;
use crate::limits::{counts, not_negative, positive, shares, sizes};
use crate::train::Start;
use crate::{Base, DeviceChoice, Error, Precision, base};

const FUSION: &str = include_str!("../../../configs/pose/fusion.toml");
const GENERATOR: &str = include_str!("../../../configs/pose/generator.toml");
/// The variants: a name, and the keys that differ in each stage.
const VARIANTS: [(&str, &str, &str); 1] = [(
    "toybox",
    include_str!("../../../configs/pose/fusion-toybox.toml"),
    include_str!("../../../configs/pose/generator-toybox.toml"),
)];

/// Names the vision tower of the built-in base's CLIP.
const BUILT_IN_ENCODER: &str = "built-in";

/// A path of a configuration, where it is not empty.
fn given(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

/// What both stages read; `configs/pose/` explains each key and holds its default.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RunConfig {
    data: PathBuf,
    frame: String,
    size: String,
    pairs: usize,
    mirror: bool,
    output: PathBuf,
    steps: u64,
    batch_size: usize,
    gradient_accumulation: u64,
    learning_rate: f64,
    lr_schedule: LrShape,
    warmup_steps: u64,
    weight_decay: f64,
    max_grad_norm: f64,
    average_decay: f64,
    #[serde(with = "crate::config::seed")]
    seed: u64,
    save_every: u64,
    device: DeviceChoice,
    precision: Precision,
}

/// A plan, and the pairs of its folder: to learn from, and to be judged by.
pub struct Ready<P> {
    /// What is to be done, checked.
    pub plan: P,
    /// What is learnt from.
    pub train: FolderPairs,
    /// What is held out, where the folder has a list of it.
    pub test: Option<FolderPairs>,
}

impl RunConfig {
    fn size(&self) -> Result<(u32, u32), Error> {
        let size = parse_size(&self.size)?;
        check_size(size)?;
        Ok(size)
    }

    /// The pairs of the folder; a folder with a fault is refused.
    fn pairs(&self) -> Result<(FolderPairs, Option<FolderPairs>), Error> {
        for (key, empty, flag) in [
            ("data", self.data.as_os_str().is_empty(), "--data DIR"),
            ("frame", self.frame.is_empty(), "--frame FRAME"),
        ] {
            if empty {
                return Err(Error::Usage(format!("{key} is not given; pass {flag}")));
            }
        }
        let size = self.size()?;
        let PoseData { mut train, test } = PoseData::read(&self.data, self.frame.parse()?)?;
        if self.pairs > 0 {
            train.truncate(self.pairs);
        }
        let test = (!test.is_empty()).then(|| FolderPairs::new(test, size, false, self.seed));
        Ok((FolderPairs::new(train, size, self.mirror, self.seed)?, test.transpose()?))
    }

    /// The run, with all of its configuration to be written down.
    fn run(&self, start: Start, all: &impl Serialize) -> Result<PoseRun, Error> {
        if self.output.as_os_str().is_empty() {
            return Err(Error::Usage("output is not given; pass --output DIR".into()));
        }
        counts(1, 4096, &[("batch_size", self.batch_size as u64)])?;
        counts(1, 1_000_000, &[("gradient_accumulation", self.gradient_accumulation)])?;
        counts(
            0,
            MOST_STEPS,
            &[("warmup_steps", self.warmup_steps), ("save_every", self.save_every)],
        )?;
        counts(1, MOST_STEPS, &[("steps", self.steps)])?;
        Ok(PoseRun {
            output: self.output.clone(),
            config: toml::to_string(all).expect("strings, numbers and lists are TOML"),
            steps: self.steps,
            batch_size: self.batch_size,
            accumulation: self.gradient_accumulation,
            learning_rate: self.learning_rate,
            schedule: self.lr_schedule,
            warmup_steps: self.warmup_steps,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            average_decay: self.average_decay,
            seed: self.seed,
            save_every: self.save_every,
            start,
            device: self.device,
            precision: self.precision,
        })
    }
}

/// The first stage's configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FusionConfig {
    #[serde(flatten)]
    run: RunConfig,
    encoder: PathBuf,
    encoder_blocks: i64,
    separate_pose_encoder: bool,
    dropout: f64,
    temperature: f64,
    l1_weight: f64,
    source_enhanced: bool,
    new_encoder: NewEncoder,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct NewEncoder {
    blocks: i64,
    width: i64,
    heads: i64,
    image_size: i64,
    patch_size: i64,
    embedding: i64,
}

impl NewEncoder {
    fn shape(&self) -> Result<VisionConfig, Error> {
        sizes(&[
            ("new_encoder.blocks", self.blocks),
            ("new_encoder.width", self.width),
            ("new_encoder.heads", self.heads),
            ("new_encoder.image_size", self.image_size),
            ("new_encoder.patch_size", self.patch_size),
            ("new_encoder.embedding", self.embedding),
        ])?;
        let shape = json!({
            "model_type": "clip_vision_model", "hidden_act": "quick_gelu",
            "hidden_size": self.width, "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.blocks, "num_attention_heads": self.heads,
            "image_size": self.image_size, "patch_size": self.patch_size,
            "projection_dim": self.embedding,
        });
        let shape: VisionConfig = serde_json::from_value(shape).expect("every key is there");
        shape.check().map_err(|what| Error::Usage(format!("new_encoder: {what}")))?;
        Ok(shape)
    }
}

impl FusionConfig {
    /// FPDM's, with the keys of a variant, a file and flags laid over it.
    pub fn resolve(
        variant: Option<&str>,
        file: Option<&Path>,
        overrides: Table,
    ) -> Result<Self, Error> {
        layered(FUSION, variant_of(variant, |(_, fusion, _)| *fusion)?, file, overrides)
    }

    /// The folder of the encoder that is trained on, none where it starts from nothing, and its shape.
    fn encoder(&self) -> Result<(Option<PathBuf>, VisionConfig), Error> {
        let folder = match (given(&self.encoder), self.new_encoder.blocks != 0) {
            (None, false) => {
                return Err(Error::Usage(
                    "encoder is not given; pass --encoder DIR with the folder of CLIP or DINOv2, or --preset toybox for a small one".into(),
                ));
            }
            (Some(_), true) => {
                return Err(Error::Usage(
                    "encoder and new_encoder.blocks are both given, but one is trained; leave one out, the encoder of a preset by --set encoder="
                        .into(),
                ));
            }
            (None, true) => return Ok((None, self.new_encoder.shape()?)),
            (Some(word), false) if word.as_os_str() == BUILT_IN_ENCODER => {
                clip_folder(None, &base::built_in()?)?
            }
            (Some(folder), false) => folder.to_owned(),
        };
        let whole = VisionConfig::read(&folder)?;
        let (all, first) = (whole.blocks(), self.encoder_blocks);
        let shape = whole.ending_after(if first == 0 { all } else { first }).ok_or_else(|| {
            Error::Usage(format!(
                "encoder_blocks is {first}, but the encoder in {} has {all}; give 1 to {all}, or 0 for all",
                folder.display()
            ))
        })?;
        Ok((Some(folder), shape))
    }

    /// Everything that the run needs, checked, and its pairs.
    pub fn ready(&self, start: Start) -> Result<Ready<FusionPlan>, Error> {
        let (encoder, config) = self.encoder()?;
        shares(&[("dropout", self.dropout)])?;
        not_negative(&[("l1_weight", self.l1_weight)])?;
        positive("temperature", self.temperature, "0.07")?;
        let mut shape = FusionShape::new(config);
        shape.separate_pose_encoder = self.separate_pose_encoder;
        shape.combiner.dropout = self.dropout;
        let contrast = Contrast {
            temperature: self.temperature,
            l1_weight: self.l1_weight,
            source_enhanced: self.source_enhanced,
        };
        let (train, test) = self.run.pairs()?;
        let plan = FusionPlan::new(self.run.run(start, self)?, shape, encoder, contrast)?;
        Ok(Ready { plan, train, test })
    }
}

/// The second stage's configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GeneratorConfig {
    #[serde(flatten)]
    run: RunConfig,
    base: PathBuf,
    variant: String,
    fusion: PathBuf,
    warm_start: PathBuf,
    source_encoder: PathBuf,
    source_side: i64,
    mode: Mode,
    rank: i64,
    dropout: f64,
    stem_channels: Vec<i64>,
    drop_all: f64,
    drop_each: f64,
    timesteps: Timesteps,
    offset_noise: f64,
    identity_pairs: f64,
    figure_weight: f64,
    file_precision: Precision,
    new_unet: NewUNet,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Full,
    Light,
    New,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct NewUNet {
    channels: Vec<i64>,
    attention: Vec<bool>,
    layers: i64,
    heads: i64,
    norm_groups: i64,
    context: i64,
    prediction: models::schedule::PredictionType,
}

impl NewUNet {
    fn tuning(&self, base: &Base) -> Result<Tuning, Error> {
        if self.channels.is_empty() || self.channels.len() != self.attention.len() {
            return Err(Error::Usage(format!(
                "new_unet has {} channels and {} attentions, but one of each is needed for a level",
                self.channels.len(),
                self.attention.len()
            )));
        }
        sizes(&[
            ("new_unet.layers", self.layers),
            ("new_unet.heads", self.heads),
            ("new_unet.norm_groups", self.norm_groups),
            ("new_unet.context", self.context),
        ])?;
        for channels in &self.channels {
            sizes(&[("new_unet.channels", *channels)])?;
        }
        let types = |side: &str| -> Vec<String> {
            let kind = |attends: &bool| {
                let attention = if *attends { "CrossAttn" } else { "" };
                format!("{attention}{side}Block2D")
            };
            self.attention.iter().map(kind).collect()
        };
        let mut up = types("Up");
        up.reverse();
        let latents = base.folder.vae.latent_channels;
        let shape = json!({
            "in_channels": latents, "out_channels": latents, "block_out_channels": self.channels,
            "layers_per_block": self.layers, "down_block_types": types("Down"), "up_block_types": up,
            "cross_attention_dim": self.context, "attention_head_dim": self.heads,
            "norm_num_groups": self.norm_groups, "use_linear_projection": true,
        });
        let unet = serde_json::from_value(shape).expect("every key is there");
        Ok(Tuning::New { unet: Box::new(unet), prediction: self.prediction })
    }
}

impl GeneratorConfig {
    /// FPDM's, with the keys of a variant, a file and flags laid over it.
    pub fn resolve(
        variant: Option<&str>,
        file: Option<&Path>,
        overrides: Table,
    ) -> Result<Self, Error> {
        layered(GENERATOR, variant_of(variant, |(.., generator)| *generator)?, file, overrides)
    }

    /// Everything that the run needs, checked, and its pairs.
    pub fn ready(&self, start: Start) -> Result<Ready<GeneratorPlan>, Error> {
        let warm_start = given(&self.warm_start).map(PoseWeights::open).transpose()?;
        let fusion = given(&self.fusion).map(PoseWeights::open).transpose()?;
        let Some(fusion) = fusion.or_else(|| warm_start.clone()) else {
            return Err(Error::Usage(
                "fusion is not given; pass --fusion FILE with what `pose train-fusion` wrote, or --warm-start FILE with what `pose train-generator` did"
                    .into(),
            ));
        };
        shares(&[
            ("drop_all", self.drop_all),
            ("drop_each", self.drop_each),
            ("identity_pairs", self.identity_pairs),
            ("dropout", self.dropout),
        ])?;
        not_negative(&[("offset_noise", self.offset_noise)])?;
        positive("figure_weight", self.figure_weight, "1")?;
        for channels in &self.stem_channels {
            sizes(&[("stem_channels", *channels)])?;
        }
        let variant = Some(self.variant.as_str()).filter(|variant| !variant.is_empty());
        let base = Base::open(&self.base, variant)?;
        let named = given(&self.source_encoder);
        let source_encoder = named.map(VisionConfig::read).transpose()?;
        let tuning = match self.mode {
            Mode::Full => Tuning::Full,
            Mode::Light => Tuning::Light { rank: self.rank },
            Mode::New => self.new_unet.tuning(&base)?,
        };
        let (width, height) = self.run.size()?;
        let mut shape = GeneratorShape::new(
            &base.folder,
            &fusion.record.fusion,
            source_encoder,
            tuning,
            (width.into(), height.into()),
        );
        let patch =
            shape.source_encoder.as_ref().unwrap_or(&fusion.record.fusion.encoder).patch_size();
        if self.source_side != 0 {
            if self.source_side < patch {
                return Err(Error::Usage(format!(
                    "source_side is {}, but a patch of the source encoder is {patch} pixels wide; give at least that, or 0 for the encoder's own side",
                    self.source_side
                )));
            }
            shape.source_side = self.source_side;
        }
        shape.source_projection.dropout = self.dropout;
        shape.fusion_projection.dropout = self.dropout;
        shape.pose_stem.channels.clone_from(&self.stem_channels);
        let run = self.run.run(start, self)?;
        let mut plan = GeneratorPlan::new(run, base, fusion, named.map(Path::to_owned), shape)?;
        plan.dropping = Dropping { all: self.drop_all, each: self.drop_each };
        plan.warm_start = warm_start;
        plan.timesteps = self.timesteps;
        plan.offset_noise = self.offset_noise;
        plan.identity_pairs = self.identity_pairs;
        plan.figure_weight = self.figure_weight;
        plan.file_precision = self.file_precision;
        let (train, test) = self.run.pairs()?;
        Ok(Ready { plan, train, test })
    }
}

/// The keys of a variant by its name.
fn variant_of(
    name: Option<&str>,
    of: fn(&(&str, &'static str, &'static str)) -> &'static str,
) -> Result<Option<&'static str>, Error> {
    let Some(name) = name.filter(|name| *name != "fpdm") else { return Ok(None) };
    match VARIANTS.iter().find(|(known, ..)| *known == name) {
        Some(variant) => Ok(Some(of(variant))),
        None => Err(Error::Usage(format!("there is no preset '{name}'; known: fpdm, toybox"))),
    }
}

impl PoseRun {
    /// FPDM's first stage, into a folder.
    pub fn fusion(output: PathBuf) -> Self {
        let config = FusionConfig::resolve(None, None, Table::new()).map(|config| config.run);
        Self { output, ..Self::preset(config) }
    }

    /// FPDM's second stage, into a folder. Its rate is a tenth from epoch 55 of 100 on; here it is constant.
    pub fn generator(output: PathBuf) -> Self {
        let config = GeneratorConfig::resolve(None, None, Table::new()).map(|config| config.run);
        Self { output, ..Self::preset(config) }
    }

    fn preset(config: Result<RunConfig, Error>) -> Self {
        let mut config = config.expect("a test parses every preset");
        config.output = PathBuf::from(".");
        config.run(Start::New, &Table::new()).expect("an output is given")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::set;

    fn overrides(settings: &[&str]) -> Table {
        let mut table = Table::new();
        for setting in settings {
            set(&mut table, setting).unwrap();
        }
        table
    }

    #[test]
    fn every_preset_is_complete_and_its_variant_changes_it() {
        let fusion = |name| FusionConfig::resolve(name, None, Table::new()).unwrap();
        let generator = |name| GeneratorConfig::resolve(name, None, Table::new()).unwrap();
        assert!(fusion(None).encoder().is_err_and(|e| e.to_string().contains("--encoder")));
        let (folder, shape) = fusion(Some("toybox")).encoder().unwrap();
        assert!(folder.is_some() && shape.blocks() == fusion(Some("toybox")).encoder_blocks);
        assert!(matches!(generator(Some("fpdm")).mode, Mode::Full));
        assert!(matches!(generator(Some("toybox")).mode, Mode::New));
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/pose"));
        assert_eq!(files.unwrap().count(), 2 + 2 * VARIANTS.len());
        for config in [fusion(Some("toybox")).run, generator(Some("toybox")).run] {
            assert_eq!(config.size().unwrap(), (128, 128));
        }
    }

    #[test]
    fn fpdm_s_runs_are_those_of_its_code() {
        let (first, second) = (PoseRun::fusion("out".into()), PoseRun::generator("out".into()));
        assert_eq!((first.batch_size, first.learning_rate, first.weight_decay), (48, 1e-5, 1e-4));
        assert_eq!((second.batch_size, second.accumulation, second.learning_rate), (42, 3, 1e-4));
        assert_eq!(first.output, PathBuf::from("out"));
    }

    #[test]
    fn numbers_that_make_no_run_are_refused_by_their_keys() {
        for key in ["steps", "batch_size", "gradient_accumulation", "warmup_steps", "save_every"] {
            let settings = [&format!("{key}=4611686018427387904"), "output=out"];
            let config = FusionConfig::resolve(None, None, overrides(&settings)).unwrap();
            let error = config.run.run(Start::New, &config).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key} is 4611686018427387904; give")), "{error}");
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let said = |settings: &[&str]| {
            let config = FusionConfig::resolve(None, None, overrides(settings));
            config.and_then(|config| config.ready(Start::New)).err().unwrap().to_string()
        };
        assert!(said(&["learning_rat=1"]).contains("learning_rate?"));
        assert!(said(&[]).contains("--encoder DIR"));
        assert!(said(&["new_encoder.blocks=1"]).contains("--data DIR"));
        assert!(said(&["new_encoder.blocks=1", "data=nowhere"]).contains("--frame"));
        assert!(said(&["new_encoder.blocks=1", "new_encoder.heads=3"]).contains("3 heads"));
        for (setting, word) in [
            ("new_encoder.width=0", "new_encoder.width is 0; give at least 1"),
            ("new_encoder.blocks=-1", "new_encoder.blocks is -1"),
            ("temperature=0", "temperature is 0"),
            ("temperature=-1", "temperature is -1"),
            ("dropout=1", "dropout is 1; give a share"),
            ("l1_weight=nan", "l1_weight is NaN"),
        ] {
            let said = said(&["new_encoder.blocks=1", setting]);
            assert!(said.contains(word), "{said}");
        }
        assert!(FusionConfig::resolve(Some("tiny"), None, Table::new()).is_err());
    }
}
