//! Latents of a gallery, drawn and encoded on a thread of their own while the first of them are learnt from.
//!
//! Drawing and encoding a picture costs a third of a step on it, so pictures are shown again and again; but a run need
//! not wait for all of them, and more of them are better. How many are shown depends on the samples seen alone, never
//! on how fast they come, so that a run that is resumed sees what one in a piece sees.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use models::folder::ModelFolder;
use models::vae::Vae;
use models::weights;
use pipelines::Error;
use tch::{Device, Kind, Tensor};

use super::data::Gallery;

/// Pictures that are encoded, kept and handed over together.
const PART: usize = 512;
/// Pictures that a run begins with.
const FIRST: usize = 4 * PART;
/// Samples that are learnt from for each picture that joins them.
const EACH: u64 = 6;
/// Parts that may wait to be learnt from: the drawing must not take the processor from the learning.
const AHEAD: usize = 4;

/// The latents so far, scaled, and those to come.
pub(super) struct Latents {
    /// `[PART, channels, h, w]`, halves.
    parts: Vec<Tensor>,
    coming: Receiver<Result<Tensor, Error>>,
}

impl Latents {
    /// Begins to draw. Parts are kept in `folder`, and taken from there by a run that goes on.
    pub(super) fn of(
        gallery: &Gallery,
        base: PathBuf,
        folder: PathBuf,
        place: (Device, Kind),
    ) -> Result<Self, Error> {
        fs::create_dir_all(&folder).map_err(|source| Error::Io {
            path: folder.clone(),
            verb: "created",
            source,
        })?;
        let (send, coming) = sync_channel(AHEAD);
        let parts: Vec<Gallery> = gallery.parts(PART);
        std::thread::spawn(move || {
            let drawn = tch::no_grad(|| draw(&parts, &base, &folder, place, &send));
            if let Err(error) = drawn {
                let _ = send.send(Err(error)); // nobody may be left to hear it
            }
        });
        Ok(Self { parts: Vec::new(), coming })
    }

    /// The latents of some places in the gallery, `[B, channels, h, w]`, f32; waits for those that are not there yet.
    pub(super) fn at(&mut self, places: &[usize]) -> Result<Tensor, Error> {
        let last = places.iter().max().map_or(0, |place| place / PART);
        while self.parts.len() <= last {
            let part = self.coming.recv().unwrap_or_else(|_| {
                Err(Error::Torch("the thread that draws pictures ended early".into()))
            })?;
            self.parts.push(part);
        }
        let one = |&place: &usize| self.parts[place / PART].get((place % PART) as i64);
        Ok(Tensor::stack(&places.iter().map(one).collect::<Vec<_>>(), 0).to_kind(Kind::Float))
    }
}

/// How many of a gallery's `all` pictures are shown when `seen` samples have been.
pub(super) fn shown(all: usize, seen: u64) -> usize {
    all.min(FIRST + (seen / EACH) as usize)
}

/// Encodes part after part, until there is none or nobody listens.
fn draw(
    parts: &[Gallery],
    base: &Path,
    folder: &Path,
    (device, kind): (Device, Kind),
    send: &SyncSender<Result<Tensor, Error>>,
) -> Result<(), Error> {
    let vae = ModelFolder::open(base, None)?.load_vae(kind, device)?;
    for (k, part) in parts.iter().enumerate() {
        let path = folder.join(format!("latents-{k:04}.safetensors"));
        let latents = if let Some(latents) = kept(&path, part, &vae) {
            latents
        } else {
            let latents = encode(part, &vae);
            weights::write(&path, vec![("latents".to_owned(), latents.shallow_clone())])?;
            latents
        };
        if send.send(Ok(latents)).is_err() {
            break;
        }
    }
    Ok(())
}

fn encode(part: &Gallery, vae: &Vae) -> Tensor {
    let scale = vae.scaling_factor();
    part.map(|pictures| {
        (vae.encode(pictures).mean * scale).to_kind(Kind::Half).to_device(Device::Cpu)
    })
}

/// What the file holds, if that is what this autoencoder makes of these pictures: the first one is encoded again.
fn kept(path: &Path, part: &Gallery, vae: &Vae) -> Option<Tensor> {
    let (_, latents) = Tensor::read_safetensors(path).ok()?.pop()?;
    let first = encode(&part.parts(1)[0], vae);
    let same = latents.size()[0] == part.len() as i64
        && latents.size()[1..] == first.size()[1..]
        && (latents.narrow(0, 0, 1) - first).abs().max().double_value(&[]) < 0.02;
    same.then_some(latents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_pictures_are_shown_the_longer_a_run_goes_and_never_more_than_there_are() {
        assert_eq!(shown(8, 0), 8);
        assert_eq!(shown(50_000, 0), FIRST);
        assert_eq!(shown(50_000, 6_000), FIRST + 1000);
        assert_eq!(shown(50_000, 6_000_000), 50_000);
    }
}
