//! DINO as a judge of likeness.

use std::path::Path;

use image::RgbImage;
use models::clip::PicturePreparation;
use models::vit::{Dino, DinoConfig};
use tch::{Device, Tensor};

use super::{Cut, PictureEncoder, batch_on, cut_by, normalised};
use crate::Error;

/// The class token of a `ViTModel` that was trained as DINO.
///
/// Source: Ruiz et al. 2023 (`DreamBooth`), section 4.1.
pub(crate) struct DinoJudge {
    dino: Dino,
    preparation: PicturePreparation,
    device: Device,
}

impl DinoJudge {
    /// Reads the folder of a `ViTModel`.
    pub(crate) fn load(folder: &Path, device: Device) -> Result<Self, Error> {
        let config = DinoConfig::read(folder)?;
        let dino = Dino::load(folder, &config, device)?;
        Ok(Self { dino, preparation: config.preparation(), device })
    }
}

impl PictureEncoder for DinoJudge {
    fn batch(&self) -> usize {
        batch_on(self.device)
    }

    fn cut(&self) -> Cut {
        cut_by(&self.preparation)
    }

    fn encode(&self, pictures: &[RgbImage]) -> Tensor {
        self.dino.embed_pictures(&normalised(&self.preparation, pictures, self.device))
    }
}
