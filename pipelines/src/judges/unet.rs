//! The base's own U-Net as a judge of likeness: what needs no weights but those of the base.

use embeddings::{Concept, Conditioner, Overflow};
use image::RgbImage;
use models::folder::ModelFolder;
use models::schedule::NoiseSchedule;
use models::unet::{Conditioning, CrossAttnContext, UNet};
use models::vae::Vae;
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use super::{Cut, PictureEncoder};
use crate::evaluate::LikenessProtocol;
use crate::photos::{self, Crop};
use crate::{Base, Error};

/// Of the pictures of a batch: four of Stable Diffusion's, whose encoding by the VAE is what takes the memory.
const PIXELS_AT_ONCE: i64 = 4 * 512 * 512;
/// Pictures of a batch, however small they are.
const MOST: i64 = 16;

/// Blocks of the U-Net whose features are taken: the middle, and the decoder without its last block, which looks at
/// pixels more than at things.
fn layers(decoder_blocks: usize) -> Vec<String> {
    let decoder = (0..decoder_blocks.saturating_sub(1)).map(|i| format!("up_blocks.{i}"));
    std::iter::once("mid_block".to_owned()).chain(decoder).collect()
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
        (PIXELS_AT_ONCE / self.protocol.resolution.pow(2)).clamp(1, MOST) as usize
    }

    fn cut(&self) -> Cut {
        let side = self.protocol.resolution as u32;
        Box::new(move |picture| {
            if picture.dimensions() == (side, side) {
                return picture.clone();
            }
            Crop::Center.resized(picture, (side, side))
        })
    }

    fn encode(&self, pictures: &[RgbImage]) -> Tensor {
        let count = pictures.len() as i64;
        let pixels: Vec<Tensor> = pictures.iter().map(photos::to_tensor).collect();
        let latents = self.vae.encode(&Tensor::cat(&pixels, 0)).mean * self.vae.scaling_factor(); // [B, C, h, w]
        let timesteps = Tensor::from_slice(&vec![self.protocol.timestep; pictures.len()])
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
