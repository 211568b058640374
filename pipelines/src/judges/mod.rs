//! What turns pictures into unit vectors whose inner product is a likeness: for the evaluation of a concept, and for
//! the sample pictures of a run.

mod ahead;
mod clip;
mod dino;
mod unet;

use std::borrow::Borrow;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::RgbImage;
use models::clip::PicturePreparation;
use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::photos::{self, Notice, PhotoError};

pub(crate) use clip::ClipJudge;
pub(crate) use dino::DinoJudge;
pub(crate) use unet::{UNetJudge, with_unet_judge};

/// How a picture of any size is brought to the size that an encoder reads. It needs no libtorch, so it can be done on
/// other threads while the encoder works.
pub(crate) type Cut = Box<dyn Fn(&RgbImage) -> RgbImage + Send + Sync>;

/// An encoder of pictures.
pub(crate) trait PictureEncoder {
    /// How many pictures it encodes at once.
    fn batch(&self) -> usize;
    /// What makes pictures ready for it.
    fn cut(&self) -> Cut;
    /// Pictures that were made ready to unit vectors `[B, W]`.
    fn encode(&self, pictures: &[RgbImage]) -> Tensor;
}

/// A picture on disk, and the mask of what counts of it.
#[derive(Debug, Clone)]
pub(crate) struct PictureFile {
    /// The picture.
    pub path: PathBuf,
    /// Its mask; without one all of it counts.
    pub mask: Option<PathBuf>,
}

impl PictureFile {
    /// The photos of a folder, with their masks where a folder of these is given; and what else was noticed.
    pub(crate) fn photos(
        folder: &Path,
        masks: Option<&Path>,
    ) -> Result<(Vec<Self>, Vec<Notice>), PhotoError> {
        let (paths, notices) = photos::list(folder)?;
        let masks = masks.map(|masks| photos::masks(masks, &paths)).transpose()?;
        let mask = |i: usize| masks.as_ref().map(|masks| masks[i].clone());
        let files = paths.into_iter().enumerate().map(|(i, path)| Self { path, mask: mask(i) });
        Ok((files.collect(), notices))
    }

    /// The whole picture, as it counts.
    pub(crate) fn read(&self) -> Result<RgbImage, PhotoError> {
        match &self.mask {
            Some(mask) => photos::read_masked(&self.path, mask),
            None => photos::read(&self.path),
        }
    }
}

impl From<PathBuf> for PictureFile {
    fn from(path: PathBuf) -> Self {
        Self { path, mask: None }
    }
}

/// What an encoder made of picture files.
pub(crate) struct Encoded {
    /// Unit vectors, `[N, W]` f64 on the CPU.
    pub vectors: Tensor,
    /// From the first file to the last vector.
    pub whole: Duration,
    /// The part of it in which the encoder was at work.
    pub encoding: Duration,
}

/// Encodes picture files in batches; nothing where `on_picture` stopped it, which is told how many are done. Files are
/// read and cut on other threads meanwhile, so that the encoder does not wait.
pub(crate) fn encode(
    encoder: &dyn PictureEncoder,
    files: &[PictureFile],
    on_picture: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Encoded>, Error> {
    let (started, cut) = (Instant::now(), encoder.cut());
    let read = |file: &PictureFile| file.read().map(|picture| cut(&picture));
    ahead::ahead(files, 2 * encoder.batch(), &read, |mut ready| {
        let (mut vectors, mut encoding, mut done) = (Vec::new(), Duration::ZERO, 0);
        loop {
            let pictures: Vec<RgbImage> =
                ready.by_ref().take(encoder.batch()).collect::<Result<_, _>>()?;
            if pictures.is_empty() {
                break;
            }
            let before = Instant::now();
            vectors.push(encode_batch(encoder, &pictures));
            encoding += before.elapsed();
            done += pictures.len();
            if on_picture(done).is_break() {
                return Ok(None);
            }
        }
        let vectors = Tensor::cat(&vectors, 0);
        Ok(Some(Encoded { vectors, whole: started.elapsed(), encoding }))
    })
}

/// The vectors of pictures that are at hand, `[N, W]` f64 on the CPU.
pub(crate) fn encode_pictures<P: Borrow<RgbImage>>(
    encoder: &dyn PictureEncoder,
    pictures: &[P],
) -> Tensor {
    let cut = encoder.cut();
    let encode = |pictures: &[P]| {
        let ready: Vec<RgbImage> = pictures.iter().map(|p| cut(p.borrow())).collect();
        encode_batch(encoder, &ready)
    };
    Tensor::cat(&pictures.chunks(encoder.batch()).map(encode).collect::<Vec<_>>(), 0)
}

fn encode_batch(encoder: &dyn PictureEncoder, pictures: &[RgbImage]) -> Tensor {
    encoder.encode(pictures).to_device(Device::Cpu).to_kind(Kind::Double)
}

/// Pictures that a vision transformer encodes at once: what keeps a GPU busy; on a processor more would only make
/// Ctrl-C wait.
fn batch_on(device: Device) -> usize {
    if device.is_cuda() { 32 } else { 8 }
}

/// Cutting as transformers' processors do.
fn cut_by(preparation: &PicturePreparation) -> Cut {
    let (preparation, side) = (preparation.clone(), preparation.side() as u32);
    Box::new(move |picture| {
        let (width, height) = picture.dimensions();
        let bytes = preparation.cut(picture.as_raw(), (width as usize, height as usize));
        RgbImage::from_raw(side, side, bytes).expect("three bytes for each pixel")
    })
}

/// Cut pictures as such an encoder reads them, `[B, 3, side, side]` f32 on its device.
fn normalised(preparation: &PicturePreparation, pictures: &[RgbImage], device: Device) -> Tensor {
    let side = preparation.side();
    let bytes: Vec<Tensor> = pictures.iter().map(|p| Tensor::from_slice(p.as_raw())).collect();
    let bytes = Tensor::cat(&bytes, 0).view([-1, side, side, 3]);
    preparation.normalise(&bytes.to_device(device))
}
