//! Where in a picture the U-Net attends to a concept's word.

use std::ops::ControlFlow;
use std::rc::Rc;

use embeddings::{Concept, Conditioner, Overflow};
use image::{ImageBuffer, Luma, Rgb, RgbImage, imageops};
use maud::{Markup, html};
use models::schedule::NoiseSchedule;
use models::unet::{AttnProbe, Conditioning, LayerId, UNet};
use models::vae::Vae;
use plotters::style::colors::colormaps::{ColorMap, ViridisRGB};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use super::page::{self, SIDE};
use crate::error::guarded;
use crate::photos::to_tensor;
use crate::{Base, Error};

/// Pictures whose attention is shown, at most: each takes a pass through VAE and U-Net.
pub(super) const PICTURES: usize = 6;
/// The noise that a picture gets, as a share of the timesteps.
const NOISE: f64 = 0.3;
/// The map's sides have at least so many places where the latents allow it.
const ROWS: i64 = 8;
/// How much of a picture the map covers.
const COVER: f32 = 0.6;

/// The words that are looked for, and with what.
pub(super) struct Words<'a> {
    /// Its networks are read for this.
    pub base: &'a Base,
    /// Of the prompts; the map is that of the first.
    pub concepts: &'a [&'a dyn Concept],
    /// Of the text encoder, counted from 1.
    pub clip_skip: usize,
    /// Where it is computed, and in what kind of number.
    pub place: (Device, Kind),
}

/// A picture and the prompt that it is looked at with.
pub(super) struct Subject {
    /// At a size that the base can draw.
    pub pixels: RgbImage,
    /// With the concept's word in it.
    pub prompt: String,
    /// What stands below.
    pub caption: String,
}

/// A picture with its map over it.
struct Map {
    picture: RgbImage,
    overlay: RgbImage,
    caption: String,
    /// The least and the largest share of a place's attention that the word has.
    range: (f32, f32),
}

/// Maps and how they were made.
pub(super) struct Maps {
    maps: Vec<Map>,
    timestep: i64,
    /// Side of the maps before they were enlarged, and how many layers they are the mean of.
    made_of: (i64, usize),
    interrupted: bool,
}

/// The attention on the first concept's word: each picture is encoded, lightly noised and shown to the U-Net with its
/// prompt; the word's probabilities are averaged over heads and over the cross-attention layers of one resolution, and
/// added up over the word's vectors.
///
/// Source: after Hertz et al. 2022 (Prompt-to-Prompt), section 3; one timestep in place of all.
pub(super) fn maps(
    words: &Words<'_>,
    subjects: &[Subject],
    flow: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Maps, Error> {
    guarded("looking for the concept's word", || tch::no_grad(|| look(words, subjects, flow)))
}

fn look(
    words: &Words<'_>,
    subjects: &[Subject],
    flow: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Maps, Error> {
    let (folder, (device, kind)) = (&words.base.folder, words.place);
    let timestep = (NOISE * folder.scheduler.num_train_timesteps as f64) as i64;
    let mut found = Maps { maps: Vec::new(), timestep, made_of: (0, 0), interrupted: false };
    if subjects.is_empty() || flow().is_break() {
        found.interrupted = !subjects.is_empty();
        return Ok(found);
    }
    let clip = folder.load_text_encoder(Kind::Float, device)?;
    let conditioner = Rc::new(Conditioner::new(folder.tokenizer()?, clip, words.clip_skip - 1));
    let unet = folder.load_unet(kind, device)?;
    let vae = folder.load_vae(kind, device)?;
    let schedule = NoiseSchedule::new(&folder.scheduler)?;
    for subject in subjects {
        if flow().is_break() {
            found.interrupted = true;
            break;
        }
        let (width, height) = subject.pixels.dimensions();
        words.base.check_size(&[("width", width.into()), ("height", height.into())])?;
        let prompt = conditioner.tokenize(&subject.prompt, words.concepts, Overflow::Truncate)?;
        let places = prompt.slots.iter().filter(|slot| slot.concept == 0);
        let places: Vec<i64> = places.map(|slot| slot.position as i64).collect();
        if places.is_empty() {
            continue;
        }
        let t = Tensor::from_slice(&[timestep]).to_device(device);
        let context = conditioner.encode_at(&[&prompt], words.concepts, &t, None);
        let cond = Conditioning::context(context.map(|c| c.to_kind(unet.kind())));
        let (map, made_of) = word_map(&unet, &vae, &schedule, &subject.pixels, &t, &cond, &places);
        found.made_of = made_of;
        found.maps.push(Map::new(subject, &map));
    }
    Ok(found)
}

/// The map `[h, w]` of the places of a prompt in one picture; its side and how many layers it is the mean of.
fn word_map(
    unet: &UNet,
    vae: &Vae,
    schedule: &NoiseSchedule,
    pixels: &RgbImage,
    t: &Tensor,
    cond: &Conditioning,
    places: &[i64],
) -> (Tensor, (i64, usize)) {
    let latents = vae.encode(&to_tensor(pixels)).mean * vae.scaling_factor(); // [1, C, h, w]
    let noise = Generator::cpu(0).randn(&latents.size()).to_device(latents.device());
    let noised = schedule.add_noise(&latents, &noise, t);
    let (_, _, mut height, mut width) = latents.size4().expect("a batch of latents");
    let level = level(unet.layer_levels(), height.min(width));
    for _ in 0..level {
        (height, width) = ((height + 1) / 2, (width + 1) / 2);
    }
    let layers = unet.layer_levels().iter().map(|found| *found == level).collect();
    let places = Tensor::from_slice(places).to_device(latents.device());
    let mut probe = WordProbe { layers, places, maps: Vec::new() };
    let _prediction = unet.forward_probed(&noised, t, cond, &mut probe);
    let count = probe.maps.len();
    let mean = Tensor::stack(&probe.maps, 0).mean_dim(0, false, Kind::Float); // [P]
    (mean.view([height, width]), (height.min(width), count))
}

/// The coarsest level of at least [`ROWS`] rows that encoder and decoder attend at, else the finest. That is where things
/// are told from each other: 16 rows of 64 for Stable Diffusion, where the finer levels follow edges and textures.
fn level(levels: &[usize], rows: i64) -> usize {
    let several = |level: usize| levels.iter().filter(|other| **other == level).count() > 1;
    let enough = |level: &usize| (rows >> level) >= ROWS && several(*level);
    let coarsest = levels.iter().copied().filter(enough).max();
    coarsest.or(levels.iter().copied().min()).unwrap_or(0)
}

/// Keeps the attention on some places of the prompt, `[P]` for each of some layers.
struct WordProbe {
    layers: Vec<bool>,
    places: Tensor,
    maps: Vec<Tensor>,
}

impl AttnProbe for WordProbe {
    fn observe(&mut self, layer: LayerId, probs: &Tensor) {
        if self.layers[layer.index()] {
            let on_word =
                probs.index_select(-1, &self.places).sum_dim_intlist(-1, false, Kind::Float); // [1, heads, P]
            self.maps.push(on_word.mean_dim([0i64, 1].as_slice(), false, Kind::Float)); // [P]
        }
    }
}

impl Map {
    fn new(subject: &Subject, map: &Tensor) -> Self {
        let (height, width) = map.size2().expect("a map");
        let values = Vec::<f32>::try_from(map.to_device(Device::Cpu).contiguous().view(-1));
        let values = values.expect("numbers of one kind");
        let least = values.iter().copied().fold(f32::INFINITY, f32::min);
        let most = values.iter().copied().fold(0.0, f32::max);
        let span = (most - least).max(f32::MIN_POSITIVE);
        let even = values.iter().map(|value| (value - least) / span).collect();
        let small = ImageBuffer::<Luma<f32>, Vec<f32>>::from_raw(width as u32, height as u32, even);
        let small = small.expect("a number for each place");
        let (width, height) = subject.pixels.dimensions();
        let heat = imageops::resize(&small, width, height, imageops::FilterType::CatmullRom);
        Self {
            picture: subject.pixels.clone(),
            overlay: overlaid(&subject.pixels, &heat),
            caption: subject.caption.clone(),
            range: (least, most),
        }
    }
}

/// The picture in grey under the colours of the heat, of the same size, in [0, 1].
fn overlaid(picture: &RgbImage, heat: &ImageBuffer<Luma<f32>, Vec<f32>>) -> RgbImage {
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let Rgb([r, g, b]) = *picture.get_pixel(x, y);
        let grey = 0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b);
        let colour = ViridisRGB.get_color(heat.get_pixel(x, y)[0].clamp(0.0, 1.0));
        let mix = |colour: u8| (COVER * f32::from(colour) + (1.0 - COVER) * grey).round() as u8;
        Rgb([mix(colour.0), mix(colour.1), mix(colour.2)])
    })
}

/// The maps, or the sentence that says why there are none.
pub(super) fn shown(word: &str, maps: Result<Maps, Error>) -> Markup {
    let maps = match maps {
        Ok(maps) => maps,
        Err(error) => return page::notice(&format!("There are no attention maps: {error}")),
    };
    if maps.maps.is_empty() {
        return page::notice(if maps.interrupted {
            "The attention maps were left out, since the command was interrupted; `personalize report` on this folder makes them."
        } else {
            "There is no picture whose prompt holds the concept's word."
        });
    }
    let (side, layers) = maps.made_of;
    html! {
        p.caption {
            "Which places of a picture attend to " code { (word) } ", dark least and yellow most. The picture is noised to timestep "
            (maps.timestep) " and shown to the U-Net with its prompt; the map is the mean over heads and the " (layers)
            " cross-attention layers whose queries are " (side) " a side, enlarged, each on a scale of its own: below it the share of a \
            place's attention at both ends."
        }
        div.gallery.pairs {
            @for Map { picture, overlay, caption, range } in &maps.maps {
                figure {
                    div.pair {
                        (page::picture(picture, SIDE, caption))
                        (page::picture(overlay, SIDE, &format!("attention on {word}: {caption}")))
                    }
                    figcaption { (caption) span.range { (format!("{:.3} to {:.3}", range.0, range.1)) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_taken_where_things_are_told_apart() {
        let sd = [0, 0, 1, 1, 2, 2, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0];
        assert_eq!(level(&sd, 64), 2, "the middle alone has 8 rows");
        assert_eq!(level(&sd, 96), 2);
        assert_eq!(level(&sd, 16), 1);
        assert_eq!(level(&sd, 4), 0);
    }

    #[test]
    fn the_hottest_place_is_yellow_and_the_coldest_dark() {
        let subject = Subject {
            pixels: RgbImage::from_pixel(32, 32, Rgb([128; 3])),
            prompt: String::new(),
            caption: String::new(),
        };
        let map = Tensor::from_slice2(&[[0.1f32, 0.1], [0.1, 0.5]]);
        let map = Map::new(&subject, &map);
        assert_eq!(map.range, (0.1, 0.5));
        let (cold, hot) = (map.overlay.get_pixel(0, 0), map.overlay.get_pixel(31, 31));
        assert!(
            hot[0] > cold[0] + 60 && hot[1] > cold[1] + 60 && hot[2] < cold[2],
            "{cold:?} {hot:?}"
        );
    }
}
