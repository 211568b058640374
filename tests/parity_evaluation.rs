//! CLIP's and DINO's scores against transformers, from pixels on (`scripts/fixtures/evaluation.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use models::clip::{Clip, ClipConfig, PicturePreparation};
use models::params::Params;
use models::tokenizer::Tokenizer;
use models::vit::{Dino, DinoConfig};
use parity::{Fixture, OUTPUTS, path};
use tch::{Kind, Tensor};

const TEXTS: [&str; 3] = [
    "a photo of a cat in the snow",
    "a in the city at night",
    "An old Painting, in the style of a foggy dragon!",
];
const PICTURES: usize = 5;
const PHOTOS: i64 = 2;

fn clip() -> Clip {
    let config = ClipConfig::read(&path("clip")).unwrap();
    let tokenizer = Tokenizer::open(&path("sd1/tokenizer")).unwrap();
    Clip::new(&Params::root(&parity::seeded("clip")), &config, tokenizer)
}

/// The pictures of CLIP's fixture, as this rule makes them ready.
fn prepared(preparation: &PicturePreparation) -> Tensor {
    let fixture = Fixture::open("clip/scores.safetensors");
    let prepare = |i: usize| {
        let picture = fixture.tensor(&format!("picture{i}")); // [H, W, 3]
        let size = picture.size();
        let bytes = Vec::<u8>::try_from(picture.flatten(0, -1)).unwrap();
        preparation.prepare(&bytes, (size[1] as usize, size[0] as usize))
    };
    Tensor::cat(&(0..PICTURES).map(prepare).collect::<Vec<_>>(), 0)
}

fn prepared_for_clip() -> Tensor {
    prepared(&PicturePreparation::read(&path("clip"), 32).unwrap())
}

/// Scores may be a ten-thousandth apart.
fn near(fixture: &Fixture, name: &str, ours: &Tensor) {
    let gap = (ours - fixture.tensor(name)).abs().max().double_value(&[]);
    println!("{name}: {gap:.1e} away");
    assert!(gap <= 1e-4, "{name} is {gap:.2e} away");
}

#[test]
fn pictures_of_any_size_are_prepared_as_python_does() {
    let fixture = Fixture::open("clip/scores.safetensors");
    fixture.agrees("pixels", &prepared_for_clip(), 1e-6);
    let dino = DinoConfig::read(&path("dino")).unwrap();
    let fixture = Fixture::open("dino/scores.safetensors");
    fixture.agrees("pixels", &prepared(&dino.preparation()), 1e-6);
}

#[test]
fn vectors_and_scores_of_the_same_pixels_agree() {
    let (fixture, clip) = (Fixture::open("clip/scores.safetensors"), clip());
    let texts = TEXTS.map(str::to_owned);
    let pixels = fixture.tensor("pixels");
    fixture.agrees("text_embeds", &clip.embed_texts(&texts), OUTPUTS);
    fixture.agrees("image_embeds", &clip.embed_pictures(&pixels), OUTPUTS);
    fixture.agrees("logits_per_image", &clip.logits(&pixels, &texts), OUTPUTS);
}

#[test]
fn scores_of_picture_files_agree_within_a_ten_thousandth() {
    let (fixture, clip) = (Fixture::open("clip/scores.safetensors"), clip());
    let pictures = clip.embed_pictures(&prepared_for_clip());
    let photos = pictures.narrow(0, 0, PHOTOS);
    let drawn = pictures.narrow(0, PHOTOS, PICTURES as i64 - PHOTOS);
    let texts = clip.embed_texts(&TEXTS.map(str::to_owned));
    let to_photos = drawn.matmul(&photos.transpose(0, 1));
    near(&fixture, "clip_i", &to_photos.mean_dim(1, false, Kind::Float));
    near(&fixture, "clip_t", &drawn.matmul(&texts.transpose(0, 1)));
    let cosines = drawn.matmul(&drawn.transpose(0, 1));
    let among: Tensor = (cosines.sum(Kind::Float) - cosines.trace()) / 6.0;
    near(&fixture, "diversity", &(among * -1.0 + 1.0).view([1]));
}

#[test]
fn dino_s_scores_of_picture_files_agree_within_a_ten_thousandth() {
    let fixture = Fixture::open("dino/scores.safetensors");
    let config = DinoConfig::read(&path("dino")).unwrap();
    let dino = Dino::new(&Params::root(&parity::seeded("dino")), &config);
    let vectors = dino.embed_pictures(&prepared(&config.preparation()));
    fixture.agrees("vectors", &vectors, OUTPUTS);
    let drawn = vectors.narrow(0, PHOTOS, PICTURES as i64 - PHOTOS);
    let to_photos = drawn.matmul(&vectors.narrow(0, 0, PHOTOS).transpose(0, 1));
    near(&fixture, "dino", &to_photos.mean_dim(1, false, Kind::Float));
}
