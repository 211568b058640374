//! A photo and drawings of poses to pictures of that person in those poses.

use std::ops::ControlFlow;
use std::path::Path;

use image::RgbImage;
use models::low_rank::{LowRank, cross_attention_keys_and_values};
use models::params::Params;
use models::samplers::{SamplerConfig, SamplerKind};
use models::schedule::{ScheduleConfig, TimestepSpacing};
use models::unet::UNet;
use models::vae::Vae;
use models::vit::{VisionConfig, VisionEncoder};
use tch::{Device, Kind, Tensor};

use super::guidance::PoseScales;
use super::networks::{Evidence, Fusion, Routes};
use super::shape::{GeneratorShape, Tuning};
use super::weights::{PoseWeights, encoder_hash};
use crate::error::guarded;
use crate::{Base, Error, Painter, Sampling, picture};

/// How pictures are sampled.
#[derive(Clone)]
pub struct PoseSampling {
    /// Which sampler.
    pub kind: SamplerKind,
    /// Its settings.
    pub config: SamplerConfig,
    /// Denoising steps.
    pub steps: usize,
    /// Of the guidance.
    pub scales: PoseScales,
}

impl Default for PoseSampling {
    /// FPDM's: 20 steps of DDPM (DDIM with all of its noise) at leading timesteps, both scales 2.
    fn default() -> Self {
        let config = SamplerConfig {
            spacing: Some(TimestepSpacing::Leading),
            eta: 1.0,
            ..SamplerConfig::default()
        };
        Self { kind: SamplerKind::Ddim, config, steps: 20, scales: PoseScales::default() }
    }
}

/// Every network that drawing needs, frozen.
pub struct PoseGenerator {
    fusion: Fusion,
    routes: Routes,
    source_encoder: Option<VisionEncoder>,
    unet: UNet,
    vae: Vae,
    schedule: ScheduleConfig,
    shape: GeneratorShape,
}

impl PoseGenerator {
    /// Reads pose weights and the base that they were trained on, checked; `source_encoder` is the folder of the encoder
    /// that they name, where they name one.
    pub fn load(
        weights: &PoseWeights,
        base: &Base,
        source_encoder: Option<&Path>,
        kind: Kind,
        device: Device,
    ) -> Result<Self, Error> {
        guarded("reading the pose weights", || {
            weights.check_base(base)?;
            let shape = weights.generator()?.shape.clone();
            let known = weights.generator()?.source_encoder.as_deref();
            let source_encoder =
                read_source_encoder(&shape, source_encoder, known, (kind, device))?;
            // The small networks in f32: their outputs decide on whole pictures.
            let tensors = weights.tensors(Kind::Float, device)?;
            let fusion = Fusion::load(&Params::root(&tensors), &weights.record.fusion);
            let routes = Routes::new(&Params::root(&tensors), &shape);
            tensors.report()?.require_complete()?;
            let tensors = weights.tensors(kind, device)?;
            let unet = match shape.tuning {
                Tuning::Full | Tuning::New { .. } => {
                    UNet::new(&Params::root(&tensors).pp("unet"), shape.tuning.unet(&base.folder))
                }
                Tuning::Light { rank } => {
                    let frozen = base.folder.unet_weights(kind, device)?;
                    let beside = Params::root(&tensors).pp("unet_lora");
                    let source =
                        LowRank::new(&frozen, beside, rank, cross_attention_keys_and_values);
                    let unet = UNet::new(&Params::root(&source), &base.folder.unet);
                    frozen.report()?.require_complete()?;
                    unet
                }
            };
            tensors.report()?.require_complete()?;
            let vae = base.folder.load_vae(kind, device)?;
            let schedule = shape.tuning.schedule(&base.folder);
            Ok(Self { fusion, routes, source_encoder, unet, vae, schedule, shape })
        })
    }

    /// The size that was learnt, width and height in pixels.
    pub fn size(&self) -> (i64, i64) {
        (self.shape.width, self.shape.height)
    }

    /// What photos and drawings show, `[B, 3, H', W']` and `[B, 3, H, W]` in [-1, 1].
    pub fn look(&self, sources: &Tensor, poses: &Tensor) -> Result<Evidence, Error> {
        guarded("looking at photo and pose", || {
            let encoder = self.source_encoder.as_ref();
            Ok(Evidence::gather(&self.fusion, encoder, &self.shape, sources, poses))
        })
    }

    /// One picture for each drawing of a pose `[B, 3, H, W]` and seed, in one batch; nothing where `on_step` stopped it.
    /// Photos are one for all, `[1, 3, H', W']`, or one for each. All in [-1, 1].
    pub fn draw(
        &self,
        sampling: &PoseSampling,
        sources: &Tensor,
        poses: &Tensor,
        seeds: &[u64],
        on_step: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<RgbImage>>, Error> {
        let sources = sources.repeat([seeds.len() as i64 / sources.size()[0], 1, 1, 1]);
        self.draw_evidence(sampling, &self.look(&sources, poses)?, seeds, on_step)
    }

    /// The same from what was seen before.
    pub fn draw_evidence(
        &self,
        sampling: &PoseSampling,
        evidence: &Evidence,
        seeds: &[u64],
        on_step: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<RgbImage>>, Error> {
        let (batch, size) = (seeds.len() as i64, evidence.drawings.size());
        let f = self.vae.downscale();
        if size.len() != 4
            || size[0] != batch
            || size[1] != 3
            || size[2] % f != 0
            || size[3] % f != 0
        {
            return Err(Error::Usage(format!(
                "drawings of poses are {size:?}, but [{batch}, 3, height, width] was expected, one for each seed and sides that {f} divides"
            )));
        }
        guarded("drawing", || {
            tch::no_grad(|| {
                let kind = self.unet.kind();
                let guidance = sampling.scales.guidance(&self.routes, evidence, kind);
                let schedule = walked(&self.schedule, &sampling.config);
                let painter = Painter { unet: &self.unet, vae: &self.vae, schedule: &schedule };
                let sampling = Sampling {
                    kind: sampling.kind,
                    config: sampling.config,
                    steps: sampling.steps,
                    guidance: 1.0,
                    guidance_rescale: 0.0,
                    width: size[3],
                    height: size[2],
                };
                painter.draw_guided(&sampling, &guidance, seeds, on_step)
            })
        })
    }

    /// A picture as the codec alone gives it back: what no picture that is drawn can be better than. `[1, 3, H, W]` in
    /// [-1, 1].
    pub fn through_the_codec(&self, picture: &Tensor) -> Result<RgbImage, Error> {
        guarded("coding a picture", || {
            tch::no_grad(|| {
                let latents = self.vae.encode(picture).mean * self.vae.scaling_factor();
                let decoded = self.vae.decode(&latents).squeeze_dim(0);
                Ok(picture::to_rgb(&decoded.to_device(Device::Cpu), self.unet.kind())?)
            })
        })
    }
}

/// The schedule that is walked: DDPM ends at the predicted picture itself, where DDIM may end at the first timestep's noise
/// (`set_alpha_to_one`).
fn walked(schedule: &ScheduleConfig, config: &SamplerConfig) -> ScheduleConfig {
    let mut schedule = schedule.clone();
    if config.eta > 0.0 {
        schedule.set_alpha_to_one = Some(true);
    }
    schedule
}

/// The encoder that pose weights name, from its folder; `known` is the hash of its weights.
fn read_source_encoder(
    shape: &GeneratorShape,
    folder: Option<&Path>,
    known: Option<&str>,
    (kind, device): (Kind, Device),
) -> Result<Option<VisionEncoder>, Error> {
    match (&shape.source_encoder, folder) {
        (None, _) => Ok(None),
        (Some(_), None) => Err(Error::Usage(
            "the pose weights read source photos by an encoder of its own, which lies in no file of theirs; give its folder (facebook/dinov2-large for FPDM)"
                .into(),
        )),
        (Some(config), Some(folder)) if VisionConfig::read(folder)? != *config => {
            Err(Error::Incompatible(format!(
                "the source encoder in {} is of another shape than the one that the pose weights were trained with; give that one",
                folder.display()
            )))
        }
        (Some(config), Some(folder)) => {
            if known.is_some() && known != Some(&encoder_hash(folder)?) {
                return Err(Error::Incompatible(format!(
                    "the source encoder in {} has other weights than the one that the pose weights were trained with; give that one",
                    folder.display()
                )));
            }
            Ok(Some(VisionEncoder::load(folder, config, kind, device)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::samplers;

    const TOYBOX: &str = include_str!("../../../assets/toybox/scheduler/scheduler_config.json");

    /// ᾱ of the toybox's timesteps.
    fn signals() -> Vec<f64> {
        let root = |share: f64| {
            let (first, last) = (0.00085f64.sqrt(), 0.012f64.sqrt());
            first + (last - first) * share
        };
        let betas = (0..1000).map(|t| root(f64::from(t) / 999.0).powi(2));
        let mut signal = 1.0;
        betas
            .map(|beta| {
                signal *= 1.0 - beta;
                signal
            })
            .collect()
    }

    /// Where twenty steps lead from `start` when each is told of the noise that `x_0` = 1 lies under; then the places before
    /// each step.
    fn walk(config: &SamplerConfig, noise: f64, start: f64) -> (f64, Vec<f64>) {
        let schedule = walked(&serde_json::from_str(TOYBOX).unwrap(), config);
        let mut sampler = samplers::build(SamplerKind::Ddim, &schedule, config, 20).unwrap();
        let (signals, mut places) = (signals(), Vec::new());
        let mut x = Tensor::from_slice(&[start]);
        for t in sampler.timesteps().to_vec() {
            places.push(x.double_value(&[0]));
            let signal = signals[t as usize];
            let epsilon = (&x - signal.sqrt()) / (1.0 - signal).sqrt();
            x = sampler.step(&epsilon, &x, &mut || Tensor::from_slice(&[noise]));
        }
        (x.double_value(&[0]), places)
    }

    #[test]
    fn all_of_ddim_s_noise_is_ddpm_s_step() {
        // Ho et al. 2020, equations 6 and 7, from a timestep to the one fifty before.
        let config = PoseSampling::default().config;
        let signals = signals();
        for (step, t) in [951usize, 501, 51].map(|t| ((951 - t) / 50, t)) {
            let (now, before) = (signals[t], signals[t - 50]);
            let (alpha, beta) = (now / before, 1.0 - now / before);
            let (_, still) = walk(&config, 0.0, 0.3);
            let (_, moved) = walk(&config, 0.01, 0.3);
            let (x, next) = (still[step], still[step + 1]);
            let mean = (before.sqrt() * beta + alpha.sqrt() * (1.0 - before) * x) / (1.0 - now);
            assert!((next - mean).abs() < 1e-4, "{t}: {next}, {mean}");
            if step == 0 {
                let deviation = ((1.0 - before) / (1.0 - now) * beta).sqrt();
                assert!((moved[1] - next - 0.01 * deviation).abs() < 1e-5, "{t}");
            }
        }
    }

    #[test]
    fn ddpm_ends_at_the_picture_whatever_the_base_s_ddim_ends_at() {
        let ddpm = PoseSampling::default().config;
        assert!((walk(&ddpm, 1.0, -0.7).0 - 1.0).abs() < 1e-4);
        let ddim = SamplerConfig { eta: 0.0, ..ddpm };
        let end = walk(&ddim, 1.0, -0.7).0;
        assert!((end - 1.0).abs() > 1e-3, "{end}: the toybox's DDIM ends at its first timestep");
    }
}
