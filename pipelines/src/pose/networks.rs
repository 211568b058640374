//! The networks of both stages: what photo and pose show, and the routes by which the U-Net is told.

use embeddings::fpdm::{Combiner, FusionProjection, PoseStem, SourceProjection};
use models::params::Params;
use models::unet::{Conditioning, CrossAttnContext, KeyValue};
use models::vit::{VisionEncoder, VisionFeatures};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use super::shape::{FusionShape, GeneratorShape};

/// The first stage: photo and pose to the fusion embedding, all of width d.
pub struct Fusion {
    image_encoder: VisionEncoder,
    /// Nothing where the pose is read by the photo's encoder, as FPDM's code has it.
    pose_encoder: Option<VisionEncoder>,
    combiner: Combiner,
}

/// Three vectors a sample, `[B, d]` each; the first two as the encoder gives them, the third of unit length.
pub struct FusionOutput {
    /// Of the photo.
    pub source: Tensor,
    /// Of the drawing of the pose.
    pub pose: Tensor,
    /// Of the person in the pose.
    pub fused: Tensor,
}

impl Fusion {
    /// From its parts.
    pub fn new(
        image_encoder: VisionEncoder,
        pose_encoder: Option<VisionEncoder>,
        combiner: Combiner,
    ) -> Self {
        Self { image_encoder, pose_encoder, combiner }
    }

    /// From `image_encoder.…`, `pose_encoder.…` where there is one, and `combiner.…`.
    pub fn load(params: &Params, shape: &FusionShape) -> Self {
        let encoder = |key| VisionEncoder::new(&params.pp(key), &shape.encoder);
        Self {
            image_encoder: encoder("image_encoder"),
            pose_encoder: shape.separate_pose_encoder.then(|| encoder("pose_encoder")),
            combiner: Combiner::new(&params.pp("combiner"), &shape.combiner),
        }
    }

    /// Photos `[B, 3, H, W]` in [-1, 1] to embeddings `[B, d]`.
    pub fn embed(&self, photos: &Tensor) -> Tensor {
        self.image_encoder.forward(photos, self.image_encoder.image_size()).embedding
    }

    /// Photos and drawings of poses, `[B, 3, H, W]` in [-1, 1]. In training dropout draws from `draw`.
    pub fn forward(
        &self,
        sources: &Tensor,
        poses: &Tensor,
        draw: Option<&Generator>,
    ) -> FusionOutput {
        self.fuse(self.embed(sources), poses, draw)
    }

    fn fuse(&self, source: Tensor, poses: &Tensor, draw: Option<&Generator>) -> FusionOutput {
        let reader = self.pose_encoder.as_ref().unwrap_or(&self.image_encoder);
        let pose = reader.forward(poses, reader.image_size()).embedding;
        let fused = self.combiner.forward(&source, &pose, draw);
        FusionOutput { source, pose, fused }
    }
}

/// What photo and pose show, before anything that the second stage learns. B samples.
pub struct Evidence {
    /// Of the source encoder, `[B, 1 + N, T]`.
    pub tokens: Tensor,
    /// Of the first stage, `[B, d]`.
    pub fused: Tensor,
    /// Drawings of the poses, `[B, 3, H, W]` in [0, 1].
    pub drawings: Tensor,
}

impl Evidence {
    /// Photos and drawings, `[B, 3, H, W]` in [-1, 1], through frozen encoders: tokens are those of `source_encoder` or,
    /// without one, of the first stage's. Nothing is dropped at random and no gradient gathered.
    pub fn gather(
        fusion: &Fusion,
        source_encoder: Option<&VisionEncoder>,
        shape: &GeneratorShape,
        sources: &Tensor,
        poses: &Tensor,
    ) -> Self {
        tch::no_grad(|| {
            let own = &fusion.image_encoder;
            let VisionFeatures { tokens, embedding } = own.forward(sources, own.image_size());
            let tokens = match source_encoder {
                Some(encoder) => encoder.forward(sources, shape.source_side).tokens,
                None if shape.source_side == own.image_size() => tokens,
                None => own.forward(sources, shape.source_side).tokens,
            };
            let fused = fusion.fuse(embedding, poses, None).fused;
            let drawings = (poses.to_kind(Kind::Float) * 0.5 + 0.5).to_device(fused.device());
            Self { tokens, fused, drawings }
        })
    }
}

/// Which conditions the samples of a batch keep: 1 or 0 each, `[B]`.
pub struct Kept {
    /// Source tokens.
    pub source: Tensor,
    /// The pose.
    pub pose: Tensor,
    /// The fusion embedding.
    pub fusion: Tensor,
}

impl Kept {
    /// The same for all samples: source, pose, fusion.
    pub fn all(batch: i64, kept: [bool; 3]) -> Self {
        let [source, pose, fusion] =
            kept.map(|kept| Tensor::full([batch], f64::from(kept), (Kind::Float, Device::Cpu)));
        Self { source, pose, fusion }
    }
}

/// The three modules that the second stage adds to the U-Net.
pub struct Routes {
    source_projection: SourceProjection,
    fusion_projection: FusionProjection,
    pose_stem: PoseStem,
}

impl Routes {
    /// From `source_projection.…`, `fusion_projection.…` and `pose_stem.…`.
    pub fn new(params: &Params, shape: &GeneratorShape) -> Self {
        Self {
            source_projection: SourceProjection::new(
                &params.pp("source_projection"),
                &shape.source_projection,
            ),
            fusion_projection: FusionProjection::new(
                &params.pp("fusion_projection"),
                &shape.fusion_projection,
            ),
            pose_stem: PoseStem::new(&params.pp("pose_stem"), &shape.pose_stem),
        }
    }

    /// What the U-Net is told. Tokens and pose that are not kept are zero behind their module; the fusion embedding is
    /// zero before it, so that its absence too has a bias that is learnt. In training dropout draws from `draw`.
    pub fn conditioning(
        &self,
        evidence: &Evidence,
        kept: &Kept,
        draw: Option<&Generator>,
    ) -> Conditioning {
        let device = evidence.fused.device();
        let mask = |kept: &Tensor, rank: usize| {
            let mut shape = vec![1; rank];
            shape[0] = -1;
            kept.to_device(device).view(shape.as_slice()) // [B, 1, ...]
        };
        let tokens = self.source_projection.forward(&evidence.tokens, draw);
        let context = tokens * mask(&kept.source, 3); // [B, 1 + N, D]
        let fused = &evidence.fused * mask(&kept.fusion, 2);
        let residual = self.pose_stem.forward(&evidence.drawings) * mask(&kept.pose, 4);
        Conditioning {
            context: CrossAttnContext::Shared(KeyValue::same(context)),
            time_bias: Some(self.fusion_projection.forward(&fused, draw)),
            stem_residual: Some(residual),
            guidance: None,
        }
    }
}

/// A conditioning whose context is of the kind that a U-Net computes in.
pub(super) fn of_kind(conditioning: Conditioning, kind: Kind) -> Conditioning {
    Conditioning { context: conditioning.context.map(|c| c.to_kind(kind)), ..conditioning }
}
