//! CLIP's scores against transformers, from pixels on (`scripts/fixtures/evaluation.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use models::clip::{Clip, ClipConfig, PicturePreparation};
use models::params::Params;
use models::tokenizer::Tokenizer;
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

fn prepared(fixture: &Fixture) -> Vec<Tensor> {
    let preparation = PicturePreparation::read(&path("clip"), 32).unwrap();
    (0..PICTURES).map(|i| preparation.prepare(&fixture.tensor(&format!("picture{i}")))).collect()
}

#[test]
fn pictures_of_any_size_are_prepared_within_one_level_of_python_s() {
    let fixture = Fixture::open("clip/scores.safetensors");
    let theirs = fixture.tensor("pixels");
    for (i, ours) in prepared(&fixture).iter().enumerate() {
        // Back to levels of a byte, by the largest of the three deviations.
        let levels = (ours.squeeze_dim(0) - theirs.get(i as i64)).abs() * 0.2757 * 255.0;
        let (largest, mean) =
            (levels.max().double_value(&[]), levels.mean(Kind::Float).double_value(&[]));
        println!("picture {i}: at most {largest:.3} levels away, {mean:.5} in the mean");
        assert!(largest < 1.1 && mean < 0.02, "picture {i}: {largest:.3}, {mean:.5}");
    }
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
    let pictures = clip.embed_pictures(&Tensor::cat(&prepared(&fixture), 0));
    let photos = pictures.narrow(0, 0, PHOTOS);
    let drawn = pictures.narrow(0, PHOTOS, PICTURES as i64 - PHOTOS);
    let texts = clip.embed_texts(&TEXTS.map(str::to_owned));
    let near = |name: &str, ours: &Tensor| {
        let gap = (ours - fixture.tensor(name)).abs().max().double_value(&[]);
        println!("{name}: {gap:.1e} away");
        assert!(gap <= 1e-4, "{name} is {gap:.2e} away");
    };
    let to_photos = drawn.matmul(&photos.transpose(0, 1));
    near("clip_i", &to_photos.mean_dim(1, false, Kind::Float));
    near("clip_t", &drawn.matmul(&texts.transpose(0, 1)));
    let cosines = drawn.matmul(&drawn.transpose(0, 1));
    let among: Tensor = (cosines.sum(Kind::Float) - cosines.trace()) / 6.0;
    near("diversity", &(among * -1.0 + 1.0).view([1]));
}
