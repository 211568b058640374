//! CLIP as a judge, with the way its pictures are prepared.

use std::path::Path;

use image::RgbImage;
use models::clip::{Clip, ClipConfig, PicturePreparation};
use tch::{Device, Kind, Tensor};

use super::{Cut, PictureEncoder, batch_on, cut_by, normalised};
use crate::Error;

/// Both towers of CLIP.
pub(crate) struct ClipJudge {
    clip: Clip,
    preparation: PicturePreparation,
}

impl ClipJudge {
    /// Reads a CLIP folder.
    pub(crate) fn load(folder: &Path, device: Device) -> Result<Self, Error> {
        let side = ClipConfig::read(folder)?.vision_config.image_size;
        let preparation = PicturePreparation::read(folder, side)?;
        Ok(Self { clip: Clip::load(folder, device)?, preparation })
    }

    /// Texts to unit vectors, `[B, W]` f64 on the CPU.
    pub(crate) fn texts(&self, texts: &[String]) -> Tensor {
        self.clip.embed_texts(texts).to_device(Device::Cpu).to_kind(Kind::Double)
    }
}

impl PictureEncoder for ClipJudge {
    fn batch(&self) -> usize {
        batch_on(self.clip.device())
    }

    fn cut(&self) -> Cut {
        cut_by(&self.preparation)
    }

    fn encode(&self, pictures: &[RgbImage]) -> Tensor {
        self.clip.embed_pictures(&normalised(&self.preparation, pictures, self.clip.device()))
    }
}
