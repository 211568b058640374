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
use crate::{Scene, World, choices};

/// Names the scenes; none of them is of the training.
const SEED: u64 = 0x0062_6172;
/// Denoising steps of a picture.
const STEPS: usize = 25;

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
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Bars {
    /// Reconstruction: the mean of the pictures' PSNRs, dB.
    pub psnr: f64,
    /// Reconstruction: the PSNR of the mean squared error, dB.
    pub psnr_of_mean: f64,
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
        let (psnr, psnr_of_mean) = reconstruction(world, &vae);
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
        Ok(Bars { psnr, psnr_of_mean, to_caption, to_picture, drawn, truth, seconds })
    })
}

/// Mean PSNR and PSNR of the mean error of 64 pictures, dB.
fn reconstruction(world: World, vae: &models::vae::Vae) -> (f64, f64) {
    let errors: Vec<f64> = (0..64)
        .map(|k| {
            let picture = to_tensor(&crate::sample(world, SEED ^ 1, k).0.draw());
            let latents = vae.encode(&picture).mean * vae.scaling_factor();
            let decoded = vae.decode(&latents).clamp(-1.0, 1.0).to_device(tch::Device::Cpu);
            ((decoded - picture) * 0.5).square().mean(Kind::Double).double_value(&[])
        })
        .collect();
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    let each: f64 = errors.iter().map(|error| -10.0 * error.log10()).sum();
    (each / errors.len() as f64, -10.0 * mean.log10())
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
    }
}
