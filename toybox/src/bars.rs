//! How good the built-in base is: reconstruction, matching of captions, and whether what it draws is what was
//! asked for, judged by its own CLIP.
//!
//! The judge chooses among captions that differ in one attribute only, all that the world has a name for:
//! "a photo of a red teapot on the beach" against the same with each other place. It is asked about true
//! pictures of the same scenes too; what it gets wrong there is the judge's fault.

use std::path::Path;
use std::time::Instant;

use embeddings::Conditioner;
use image::RgbImage;
use models::clip::Clip;
use models::folder::ModelFolder;
use pipelines::photos::to_tensor;
use pipelines::{DeviceChoice, Error};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::artist::Artist;
use crate::cores::on_all_cores;
use crate::{Pattern, Person, Scene, Style, Subject, World, choices, fit};

/// Names the scenes; none of them is of the training.
const SEED: u64 = 0x0062_6172;
/// Denoising steps of a picture.
const STEPS: usize = 25;
/// Radius of the discs in which eyes lie, pixels.
const EYE: f32 = 6.0;

/// Shares of right choices, each over the scenes that have the attribute.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Judged {
    /// Of things, among the world's twelve.
    pub class: f64,
    /// Among the world's.
    pub background: f64,
    /// Among the world's.
    pub style: f64,
    /// The main colour of things that are not sketched, among twelve.
    pub colour: f64,
    /// None, sunglasses or a hat.
    pub accessory: f64,
    /// The pattern of things in photos that have one, among four; not judged by CLIP but by fitting the world's own
    /// drawings.
    pub pattern: f64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Bars {
    /// Reconstruction: the mean of the pictures' PSNRs, dB.
    pub psnr: f64,
    /// Reconstruction: the PSNR of the mean squared error, dB.
    pub psnr_of_mean: f64,
    /// Reconstruction: the same within patterns and people's eyes alone, dB.
    pub psnr_of_detail: f64,
    /// Share of pictures whose own caption is the nearest of 64.
    pub to_caption: f64,
    /// Share of captions whose own picture is the nearest of 64.
    pub to_picture: f64,
    /// Drawn pictures.
    pub drawn: Judged,
    /// True pictures of the same scenes: how far the judge can be trusted.
    pub truth: Judged,
    /// Seconds that a picture took to draw.
    pub seconds: f64,
}

/// Measures a base on `count` scenes of the world that it has learnt.
pub fn measure(world: World, base: &Path, count: usize, device: &str) -> Result<Bars, Error> {
    let device = device.parse::<DeviceChoice>()?.resolve()?;
    tch::no_grad(|| {
        let folder = ModelFolder::open(base, None)?;
        let clip = Clip::load(&base.join("clip"), device)?;
        let vae = folder.load_vae(Kind::Float, device)?;
        let [psnr, psnr_of_mean, psnr_of_detail] = reconstruction(world, &vae);
        let (to_caption, to_picture) = matching(world, &clip);

        let unet = folder.load_unet(Kind::Float, device)?;
        let text = folder.load_text_encoder(Kind::Float, device)?;
        let conditioner = Conditioner::new(folder.tokenizer()?, text, 0);
        let artist = Artist { unet: &unet, vae: &vae, conditioner: &conditioner, folder: &folder };
        let scenes: Vec<Scene> =
            (0..count as u64).map(|k| crate::sample(world, SEED, k).0).collect();
        let captions: Vec<String> = scenes.iter().map(Scene::full_caption).collect();
        let started = Instant::now();
        let drawn = artist.draw(&captions, STEPS, 1)?;
        let seconds = started.elapsed().as_secs_f64() / count.max(1) as f64;
        let truth: Vec<RgbImage> = scenes.iter().map(Scene::draw).collect();
        let (drawn, truth) = (judge(&clip, &scenes, &drawn), judge(&clip, &scenes, &truth));
        Ok(Bars {
            psnr,
            psnr_of_mean,
            psnr_of_detail,
            to_caption,
            to_picture,
            drawn,
            truth,
            seconds,
        })
    })
}

/// Mean PSNR of 64 pictures, PSNR of their mean error, and of the mean error within details, dB.
fn reconstruction(world: World, vae: &models::vae::Vae) -> [f64; 3] {
    let decibels = |error: f64| -10.0 * error.log10();
    let (mut each, mut all, mut within, mut pixels) = (0.0, 0.0, 0.0, 0.0);
    for k in 0..64 {
        let scene = crate::sample(world, SEED ^ 1, k).0;
        let picture = to_tensor(&scene.draw());
        let latents = vae.encode(&picture).mean * vae.scaling_factor();
        let decoded = vae.decode(&latents).clamp(-1.0, 1.0).to_device(tch::Device::Cpu);
        let error = ((decoded - picture) * 0.5).square(); // [1, 3, H, W]
        let mean = error.mean(Kind::Double).double_value(&[]);
        (each, all) = (each + decibels(mean) / 64.0, all + mean / 64.0);
        let details: Vec<f32> = details(&scene).iter().map(|&d| f32::from(u8::from(d))).collect();
        let details = Tensor::from_slice(&details); // [H W]
        let error = error.mean_dim([1].as_slice(), false, Kind::Float).flatten(0, -1);
        within += (error * &details).sum(Kind::Double).double_value(&[]);
        pixels += details.sum(Kind::Double).double_value(&[]);
    }
    [each, decibels(all), decibels(within / pixels)]
}

/// Which pixels the second colour of a pattern covers, or a person's eye.
fn details(scene: &Scene) -> Vec<bool> {
    let mut plain = *scene;
    match &mut plain.subject {
        Subject::Thing(thing) => thing.skin.pattern = Pattern::Plain,
        Subject::Person(Person { looks, .. }) => {
            (looks.top.pattern, looks.bottom.pattern) = (Pattern::Plain, Pattern::Plain);
        }
    }
    let eyes = scene.joints().map_or(Vec::new(), |joints| vec![joints[14], joints[15]]);
    let in_an_eye = |x: u32, y: u32| {
        let near = |(ex, ey): &(f32, f32)| (ex - x as f32).hypot(ey - y as f32) < EYE;
        eyes.iter().any(near)
    };
    let (own, plain) = (scene.draw(), plain.draw());
    let pixels = own.enumerate_pixels().zip(plain.pixels());
    pixels.map(|((x, y, own), plain)| own != plain || in_an_eye(x, y)).collect()
}

/// How often a fit finds the pattern that was asked for, of photos of things that have one.
fn patterns(scenes: &[Scene], pictures: &[RgbImage]) -> f64 {
    let asked: Vec<(&Scene, &RgbImage, Pattern)> = scenes
        .iter()
        .zip(pictures)
        .filter(|(scene, _)| scene.style == Style::Photo)
        .filter_map(|(scene, picture)| match scene.subject {
            Subject::Thing(thing) => Some((scene, picture, thing.skin.pattern)),
            Subject::Person(_) => None,
        })
        .filter(|(_, _, pattern)| *pattern != Pattern::Plain)
        .collect();
    let right = on_all_cores(&asked, |(scene, picture, pattern)| {
        fit::pattern(scene, picture) == Some(*pattern)
    });
    right.iter().filter(|right| **right).count() as f64 / asked.len().max(1) as f64
}

/// Top-1 of 64 pictures and captions, all different, both ways.
fn matching(world: World, clip: &Clip) -> (f64, f64) {
    let (mut pictures, mut captions) = (Vec::new(), Vec::<String>::new());
    for k in 0.. {
        let (scene, caption) = crate::sample(world, SEED ^ 2, k);
        if !captions.contains(&caption) {
            pictures.push(to_tensor(&scene.draw()));
            captions.push(caption);
        }
        if captions.len() == 64 {
            break;
        }
    }
    let logits = clip.logits(&Tensor::cat(&pictures, 0), &captions);
    let right = Tensor::arange(64, (Kind::Int64, logits.device()));
    let share = |axis| {
        let found = logits.argmax(axis, false).eq_tensor(&right);
        found.to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
    };
    (share(1), share(0))
}

/// Which choices the judge makes rightly.
fn judge(clip: &Clip, scenes: &[Scene], pictures: &[RgbImage]) -> Judged {
    let share = |choices: fn(&Scene) -> Vec<Scene>| {
        let (mut right, mut asked) = (0, 0);
        for (scene, picture) in scenes.iter().zip(pictures) {
            let choices = choices(scene);
            if choices.len() < 2 {
                continue;
            }
            let captions: Vec<String> = choices.iter().map(Scene::full_caption).collect();
            let best = clip.logits(&to_tensor(picture), &captions).argmax(-1, false);
            asked += 1;
            right += usize::from(choices[best.int64_value(&[0]) as usize] == *scene);
        }
        f64::from(right as u32) / f64::from(asked.max(1) as u32)
    };
    Judged {
        class: share(choices::classes),
        background: share(choices::backgrounds),
        style: share(choices::styles),
        colour: share(choices::colours),
        accessory: share(choices::accessories),
        pattern: patterns(scenes, pictures),
    }
}
