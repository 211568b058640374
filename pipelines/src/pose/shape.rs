//! The sizes of all networks that pose weights hold.

use embeddings::fpdm::{CombinerConfig, PoseStemConfig, ProjectionConfig};
use models::folder::ModelFolder;
use models::schedule::{PredictionType, ScheduleConfig};
use models::unet::UNetConfig;
use models::vit::VisionConfig;
use serde::{Deserialize, Serialize};

use crate::Error;

/// FPDM's channels of the pose encoder, from the drawing's resolution to an eighth of it.
const STEM_CHANNELS: [i64; 4] = [16, 32, 96, 256];
/// FPDM's dropout inside the Combiner and after the layers of the projections.
const COMBINER_DROPOUT: f64 = 0.5;
const PROJECTION_DROPOUT: f64 = 0.2;

/// Of the first stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FusionShape {
    /// Of the encoder of photos, and of poses.
    pub encoder: VisionConfig,
    /// Whether the pose has an encoder of its own, as FPDM's figure draws it; its code has one for both.
    pub separate_pose_encoder: bool,
    /// Of the Combiner.
    pub combiner: CombinerConfig,
}

impl FusionShape {
    /// FPDM's for an encoder: the Combiner is as wide as the embeddings, one encoder reads photos and poses.
    pub fn new(encoder: VisionConfig) -> Self {
        let width = encoder.embedding_width();
        let combiner = CombinerConfig { width, hidden: width, dropout: COMBINER_DROPOUT };
        Self { encoder, separate_pose_encoder: false, combiner }
    }
}

/// What of the U-Net is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Tuning {
    /// All of its weights, as in FPDM.
    Full,
    /// Our extension, not the paper's: thin matrices of this rank beside the keys and values of the cross-attention.
    Light {
        /// Their rank.
        rank: i64,
    },
    /// A U-Net from nothing, of a shape and with a prediction of its own: of the base only VAE and noise schedule are used.
    New {
        /// Its shape.
        unet: Box<UNetConfig>,
        /// What it predicts.
        prediction: PredictionType,
    },
}

impl Tuning {
    /// The shape of the U-Net beside this base.
    pub fn unet<'a>(&'a self, base: &'a ModelFolder) -> &'a UNetConfig {
        match self {
            Self::Full | Self::Light { .. } => &base.unet,
            Self::New { unet, .. } => unet,
        }
    }

    /// The base's noise schedule, with what the U-Net predicts.
    pub fn schedule(&self, base: &ModelFolder) -> ScheduleConfig {
        let schedule = base.scheduler.clone();
        match self {
            Self::Full | Self::Light { .. } => schedule,
            Self::New { prediction, .. } => {
                ScheduleConfig { prediction_type: *prediction, ..schedule }
            }
        }
    }
}

/// Of the second stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratorShape {
    /// Of the encoder whose tokens the U-Net attends to; nothing where it is the first stage's.
    pub source_encoder: Option<VisionConfig>,
    /// Side of the square that source photos are brought to for it, in pixels.
    pub source_side: i64,
    /// From its tokens to the context.
    pub source_projection: ProjectionConfig,
    /// From the fusion embedding to the time embedding.
    pub fusion_projection: ProjectionConfig,
    /// From the drawing to the residual.
    pub pose_stem: PoseStemConfig,
    /// What of the U-Net is trained.
    pub tuning: Tuning,
    /// Of the pictures that were learnt, in pixels.
    pub width: i64,
    /// Likewise.
    pub height: i64,
}

impl GeneratorShape {
    /// FPDM's for a base, a first stage and a source encoder. Tokens are of photos of 512 pixels a side where the encoder
    /// is `DINOv2`, else of the encoder's own size.
    pub fn new(
        base: &ModelFolder,
        fusion: &FusionShape,
        source_encoder: Option<VisionConfig>,
        tuning: Tuning,
        (width, height): (i64, i64),
    ) -> Self {
        let reader = source_encoder.as_ref().unwrap_or(&fusion.encoder);
        let source_side = match reader {
            VisionConfig::Dinov2(_) => 512,
            VisionConfig::Clip(config) => config.image_size,
        };
        let embedding = fusion.combiner.width;
        let projection = |inputs, outputs| ProjectionConfig {
            inputs,
            hidden: embedding,
            outputs,
            dropout: PROJECTION_DROPOUT,
        };
        let unet = tuning.unet(base);
        let halvings = base.vae.downscale().ilog2() as usize;
        let last = STEM_CHANNELS.len() - 1;
        let (first_channels, context) = (unet.block_out_channels[0], unet.cross_attention_dim);
        Self {
            source_side,
            source_projection: projection(reader.token_width(), context),
            fusion_projection: projection(embedding, 4 * first_channels),
            pose_stem: PoseStemConfig {
                channels: (0..=halvings).map(|i| STEM_CHANNELS[i.min(last)]).collect(),
                outputs: first_channels,
            },
            source_encoder,
            tuning,
            width,
            height,
        }
    }

    /// Refuses numbers that make no network.
    pub fn check(&self) -> Result<(), Error> {
        match &self.tuning {
            Tuning::Light { rank } if *rank < 1 => {
                Err(Error::Usage(format!("the rank is {rank}, but at least 1 is needed; use 16")))
            }
            Tuning::New { unet, .. } => Ok(unet.check()?),
            _ => Ok(()),
        }
    }

    /// Refuses a base whose U-Net or VAE reads other sizes.
    pub fn check_base(&self, base: &ModelFolder) -> Result<(), Error> {
        let unet = self.tuning.unet(base);
        let first_channels = unet.block_out_channels[0];
        for (what, ours, theirs) in [
            ("a context of width", self.source_projection.outputs, unet.cross_attention_dim),
            ("a time embedding of width", self.fusion_projection.outputs, 4 * first_channels),
            ("first channels", self.pose_stem.outputs, first_channels),
            ("pictures shrunk by", self.pose_stem.downscale(), base.vae.downscale()),
            ("latents of channels", unet.in_channels, base.vae.latent_channels),
        ] {
            if ours != theirs {
                return Err(Error::Incompatible(format!(
                    "the pose weights are for {what} {ours}, but the base {} has {theirs}; use the base that they were trained on",
                    base.name()
                )));
            }
        }
        Ok(())
    }
}
