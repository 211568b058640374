//! What turns pictures into unit vectors whose inner product is a likeness.

use std::ops::ControlFlow;
use std::path::PathBuf;

use embeddings::{Concept, Conditioner, Overflow};
use image::RgbImage;
use models::clip::{Clip, ClipConfig, PicturePreparation};
use models::folder::ModelFolder;
use models::schedule::NoiseSchedule;
use models::unet::{Conditioning, UNet};
use models::vae::Vae;
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use super::LikenessProtocol;
use crate::photos::{self, Crop};
use crate::{Base, Error};

/// Blocks of the U-Net whose features are taken: the middle, and the decoder without its last block, which looks at
/// pixels more than at things.
fn layers(decoder_blocks: usize) -> Vec<String> {
    let decoder = (0..decoder_blocks.saturating_sub(1)).map(|i| format!("up_blocks.{i}"));
    std::iter::once("mid_block".to_owned()).chain(decoder).collect()
}

/// An encoder of pictures.
pub(super) trait PictureEncoder {
    /// How many pictures it encodes at once.
    fn batch(&self) -> usize;
    /// One picture of any size as the encoder reads it, `[1, 3, H, W]`.
    fn prepare(&self, picture: &RgbImage) -> Tensor;
    /// Prepared pictures `[B, 3, H, W]` to unit vectors `[B, W]`.
    fn encode(&self, pictures: &Tensor) -> Tensor;
}

/// Unit vectors of picture files, `[N, W]` f64 on the CPU, in batches; nothing where `on_picture` stopped it, which is
/// told how many are done.
pub(super) fn encode(
    encoder: &dyn PictureEncoder,
    files: &[PathBuf],
    on_picture: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Tensor>, Error> {
    let (mut vectors, mut done) = (Vec::new(), 0);
    for files in files.chunks(encoder.batch()) {
        let prepare = |file: &PathBuf| Ok(encoder.prepare(&photos::read(file)?));
        let pictures = files.iter().map(prepare).collect::<Result<Vec<_>, Error>>()?;
        let encoded = encoder.encode(&Tensor::cat(&pictures, 0));
        vectors.push(encoded.to_device(Device::Cpu).to_kind(Kind::Double));
        done += files.len();
        if on_picture(done).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(Tensor::cat(&vectors, 0)))
}

/// CLIP with the way its pictures are prepared.
pub(super) struct ClipJudge {
    clip: Clip,
    preparation: PicturePreparation,
}

impl ClipJudge {
    /// Reads a CLIP folder.
    pub(super) fn load(folder: &std::path::Path, device: Device) -> Result<Self, Error> {
        let side = ClipConfig::read(folder)?.vision_config.image_size;
        let preparation = PicturePreparation::read(folder, side)?;
        Ok(Self { clip: Clip::load(folder, device)?, preparation })
    }

    /// Texts to unit vectors, `[B, W]` f64 on the CPU.
    pub(super) fn texts(&self, texts: &[String]) -> Tensor {
        self.clip.embed_texts(texts).to_device(Device::Cpu).to_kind(Kind::Double)
    }
}

impl PictureEncoder for ClipJudge {
    fn batch(&self) -> usize {
        32
    }

    fn prepare(&self, picture: &RgbImage) -> Tensor {
        self.preparation.prepare(&photos::to_bytes(picture))
    }

    fn encode(&self, pictures: &Tensor) -> Tensor {
        self.clip.embed_pictures(pictures)
    }
}

/// The base's own U-Net as a judge: it sees a lightly noised picture under an empty prompt. Of each of a few blocks the
/// output is averaged over the places and made a unit vector; an inner product is then the mean of the blocks' cosines.
///
/// Source: Tang et al. 2023 (DIFT) for the features; the pooling is ours.
pub(super) struct UNetJudge {
    unet: UNet,
    vae: Vae,
    schedule: NoiseSchedule,
    empty: Conditioning,
    noise: Tensor, // [1, C, h, w]
    protocol: LikenessProtocol,
}

impl UNetJudge {
    /// How this base's features are taken: at a tenth of its timesteps.
    pub(super) fn protocol(base: &Base) -> LikenessProtocol {
        LikenessProtocol {
            layers: layers(base.folder.unet.up_block_types.len()),
            timestep: base.folder.scheduler.num_train_timesteps as i64 / 10,
            seed: 0,
            resolution: base.resolution(),
        }
    }

    /// Reads what it needs of a base.
    pub(super) fn load(
        folder: &ModelFolder,
        protocol: &LikenessProtocol,
        (device, kind): (Device, Kind),
    ) -> Result<Self, Error> {
        let clip = folder.load_text_encoder(kind, device)?;
        let conditioner = Conditioner::new(folder.tokenizer()?, clip, 0);
        let none: [&dyn Concept; 0] = [];
        let prompt = conditioner.tokenize("", &none, Overflow::Refuse)?;
        let empty = Conditioning::context(conditioner.encode(&[&prompt], &none));
        let side = protocol.resolution / folder.vae.downscale();
        let shape = [1, folder.unet.in_channels, side, side];
        Ok(Self {
            unet: folder.load_unet(kind, device)?,
            vae: folder.load_vae(kind, device)?,
            schedule: NoiseSchedule::new(&folder.scheduler)?,
            empty,
            noise: Generator::cpu(protocol.seed).randn(&shape).to_device(device),
            protocol: protocol.clone(),
        })
    }
}

impl PictureEncoder for UNetJudge {
    fn batch(&self) -> usize {
        4
    }

    fn prepare(&self, picture: &RgbImage) -> Tensor {
        let side = self.protocol.resolution as u32;
        if picture.dimensions() == (side, side) {
            return photos::to_tensor(picture);
        }
        photos::to_tensor(&Crop::Center.resized(picture, (side, side)))
    }

    fn encode(&self, pictures: &Tensor) -> Tensor {
        let count = pictures.size()[0];
        let latents = self.vae.encode(pictures).mean * self.vae.scaling_factor(); // [B, C, h, w]
        let timesteps = Tensor::from_slice(&vec![self.protocol.timestep; count as usize])
            .to_device(latents.device());
        let noise = self.noise.expand_as(&latents);
        let noised = self.schedule.add_noise(&latents, &noise, &timesteps);
        let empty = self.empty.context.map(|c| c.to_kind(self.unet.kind()).repeat([count, 1, 1]));
        let features = self.unet.features(&noised, &timesteps, &Conditioning::context(empty));
        let taken = &features[..self.protocol.layers.len()];
        let unit = |x: &Tensor| {
            let pooled = x.to_kind(Kind::Float).mean_dim([2, 3].as_slice(), false, Kind::Float); // [B, channels]
            &pooled / pooled.norm_scalaropt_dim(2, [-1], true)
        };
        let vectors: Vec<Tensor> = taken.iter().map(unit).collect();
        Tensor::cat(&vectors, 1) / (taken.len() as f64).sqrt()
    }
}
