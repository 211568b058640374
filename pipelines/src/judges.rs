//! What turns pictures into unit vectors whose inner product is a likeness: for the evaluation of a concept, and for
//! the sample pictures of a run.

use std::borrow::Borrow;
use std::ops::ControlFlow;
use std::path::PathBuf;

use embeddings::{Concept, Conditioner, Overflow};
use image::RgbImage;
use models::clip::{Clip, ClipConfig, PicturePreparation};
use models::folder::ModelFolder;
use models::schedule::NoiseSchedule;
use models::unet::{Conditioning, CrossAttnContext, UNet};
use models::vae::Vae;
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use crate::evaluate::LikenessProtocol;
use crate::photos::{self, Crop};
use crate::{Base, Error};

/// Blocks of the U-Net whose features are taken: the middle, and the decoder without its last block, which looks at
/// pixels more than at things.
fn layers(decoder_blocks: usize) -> Vec<String> {
    let decoder = (0..decoder_blocks.saturating_sub(1)).map(|i| format!("up_blocks.{i}"));
    std::iter::once("mid_block".to_owned()).chain(decoder).collect()
}

/// An encoder of pictures.
pub(crate) trait PictureEncoder {
    /// How many pictures it encodes at once.
    fn batch(&self) -> usize;
    /// One picture of any size as the encoder reads it, `[1, 3, H, W]`.
    fn prepare(&self, picture: &RgbImage) -> Tensor;
    /// Prepared pictures `[B, 3, H, W]` to unit vectors `[B, W]`.
    fn encode(&self, pictures: &Tensor) -> Tensor;
}

/// Unit vectors of picture files, `[N, W]` f64 on the CPU, in batches; nothing where `on_picture` stopped it, which is
/// told how many are done.
pub(crate) fn encode(
    encoder: &dyn PictureEncoder,
    files: &[PathBuf],
    on_picture: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Tensor>, Error> {
    let (mut vectors, mut done) = (Vec::new(), 0);
    for files in files.chunks(encoder.batch()) {
        let read = files.iter().map(|file| photos::read(file));
        vectors.push(encode_pictures(encoder, &read.collect::<Result<Vec<_>, _>>()?));
        done += files.len();
        if on_picture(done).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(Tensor::cat(&vectors, 0)))
}

/// The same of pictures that are at hand, all at once or in batches.
pub(crate) fn encode_pictures<P: Borrow<RgbImage>>(
    encoder: &dyn PictureEncoder,
    pictures: &[P],
) -> Tensor {
    let encode = |pictures: &[P]| {
        let prepared: Vec<_> = pictures.iter().map(|p| encoder.prepare(p.borrow())).collect();
        let encoded = encoder.encode(&Tensor::cat(&prepared, 0));
        encoded.to_device(Device::Cpu).to_kind(Kind::Double)
    };
    Tensor::cat(&pictures.chunks(encoder.batch()).map(encode).collect::<Vec<_>>(), 0)
}

/// CLIP with the way its pictures are prepared.
pub(crate) struct ClipJudge {
    clip: Clip,
    preparation: PicturePreparation,
}

impl ClipJudge {
    /// Reads a CLIP folder.
    pub(crate) fn load(folder: &std::path::Path, device: Device) -> Result<Self, Error> {
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
        32
    }

    fn prepare(&self, picture: &RgbImage) -> Tensor {
        let (width, height) = picture.dimensions();
        self.preparation.prepare(picture.as_raw(), (width as usize, height as usize))
    }

    fn encode(&self, pictures: &Tensor) -> Tensor {
        self.clip.embed_pictures(pictures)
    }
}

/// The base's own U-Net as a judge: it sees a lightly noised picture under an empty prompt. Of each of a few blocks the
/// output is averaged over the middle of the picture and made a unit vector; an inner product is then the mean of the
/// blocks' cosines. The middle, because the subject is there and the surroundings are what prompts change.
///
/// Source: Tang et al. 2023 (DIFT) for the features; the pooling is ours.
pub(crate) struct UNetJudge<'a> {
    unet: &'a UNet,
    vae: &'a Vae,
    schedule: NoiseSchedule,
    empty: CrossAttnContext,
    noise: Tensor, // [1, C, h, w]
    protocol: LikenessProtocol,
}

impl<'a> UNetJudge<'a> {
    /// How this base's features are taken: at a tenth of its timesteps.
    pub(crate) fn protocol(base: &Base) -> LikenessProtocol {
        LikenessProtocol {
            layers: layers(base.folder.unet.up_block_types.len()),
            pooled: "the middle half of each side".to_owned(),
            timestep: base.folder.scheduler.num_train_timesteps as i64 / 10,
            seed: 0,
            resolution: base.resolution(),
        }
    }

    /// A judge of a base's networks; `empty` is the context of an empty prompt, `[1, S, D]`.
    pub(crate) fn new(
        (unet, vae): (&'a UNet, &'a Vae),
        schedule: NoiseSchedule,
        empty: &CrossAttnContext,
        protocol: &LikenessProtocol,
    ) -> Self {
        let side = protocol.resolution / vae.downscale();
        let shape = [1, unet.config().in_channels, side, side];
        Self {
            unet,
            vae,
            schedule,
            empty: empty.map(|c| c.to_kind(unet.kind())),
            noise: Generator::cpu(protocol.seed).randn(&shape).to_device(unet.device()),
            protocol: protocol.clone(),
        }
    }
}

/// Reads what the U-Net's judgement needs of a base, for the time of `work`.
pub(crate) fn with_unet_judge<T>(
    folder: &ModelFolder,
    protocol: &LikenessProtocol,
    (device, kind): (Device, Kind),
    work: impl FnOnce(&UNetJudge<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let clip = folder.load_text_encoder(kind, device)?;
    let conditioner = Conditioner::new(folder.tokenizer()?, clip, 0);
    let none: [&dyn Concept; 0] = [];
    let prompt = conditioner.tokenize("", &none, Overflow::Refuse)?;
    let empty = conditioner.encode(&[&prompt], &none);
    drop(conditioner);
    let (unet, vae) = (folder.load_unet(kind, device)?, folder.load_vae(kind, device)?);
    let schedule = NoiseSchedule::new(&folder.scheduler)?;
    work(&UNetJudge::new((&unet, &vae), schedule, &empty, protocol))
}

impl PictureEncoder for UNetJudge<'_> {
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
        let empty = self.empty.map(|c| c.repeat([count, 1, 1]));
        let features = self.unet.features(&noised, &timesteps, &Conditioning::context(empty));
        let taken = &features[..self.protocol.layers.len()];
        let unit = |x: &Tensor| {
            let pooled = middle(x).mean_dim([2, 3].as_slice(), false, Kind::Float); // [B, channels]
            &pooled / pooled.norm_scalaropt_dim(2, [-1], true)
        };
        let vectors: Vec<Tensor> = taken.iter().map(unit).collect();
        Tensor::cat(&vectors, 1) / (taken.len() as f64).sqrt()
    }
}

/// The middle half of each side, or a little more where a quarter is no whole number; `[B, C, h, w]`.
fn middle(x: &Tensor) -> Tensor {
    let size = x.size();
    let cut = |x: Tensor, axis: usize| {
        let edge = size[axis] / 4;
        x.narrow(axis as i64, edge, size[axis] - 2 * edge)
    };
    cut(cut(x.to_kind(Kind::Float), 2), 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_what_lies_a_quarter_from_each_border() {
        let x = Tensor::arange(32, (Kind::Int64, Device::Cpu)).view([1, 1, 8, 4]);
        let found = Vec::<f32>::try_from(middle(&x).flatten(0, -1)).unwrap();
        assert_eq!(found, [9.0, 10.0, 13.0, 14.0, 17.0, 18.0, 21.0, 22.0]);
        assert_eq!(middle(&x.narrow(2, 0, 2).narrow(3, 0, 3)).size(), [1, 1, 2, 3]);
    }
}
