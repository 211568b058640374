//! The only sampling loop.

use std::ops::ControlFlow;
use std::rc::Rc;

use embeddings::{Concept, Conditioner, PromptTokens};
use models::samplers::Sampler;
use models::unet::{Conditioning, CrossAttnContext, UNet};
use tch::{Kind, Tensor};

/// What a prompt gives the U-Net to attend to while a picture is drawn.
pub enum PromptContext<'a> {
    /// The same at every timestep.
    Constant(CrossAttnContext),
    /// Another at each, made when the sampler is there.
    AtTimestep(Box<dyn Fn(f64) -> CrossAttnContext + 'a>),
}

impl<'a> PromptContext<'a> {
    /// Encodes a prompt, now or, where one of its concepts varies with time, at every step.
    pub fn new(
        conditioner: &Rc<Conditioner>,
        prompt: &'a PromptTokens,
        concepts: &[&'a dyn Concept],
    ) -> Self {
        let varies = |concept: usize| concepts[concept].varies().with_time();
        if !prompt.slots.iter().any(|slot| varies(slot.concept)) {
            return Self::Constant(conditioner.encode(&[prompt], concepts));
        }
        let (conditioner, concepts) = (Rc::clone(conditioner), concepts.to_vec());
        Self::AtTimestep(Box::new(move |timestep| {
            let timestep = Tensor::from_slice(&[timestep as f32]);
            conditioner.encode_at(&[prompt], &concepts, &timestep, None)
        }))
    }
}

/// How the predictions under several conditionings are combined:
/// `e = e_0 + Σ w_i (e_i - e_{i-1})`. One branch is plain sampling, two are classifier-free guidance
/// (Ho and Salimans 2022, equation 6), three the guidance of a pose.
pub struct Guidance<'a> {
    branches: usize,
    scales: Vec<f64>,
    conditioning: Box<dyn Fn(f64) -> Rc<Conditioning> + 'a>,
    rescale: f64,
}

impl<'a> Guidance<'a> {
    /// Classifier-free guidance away from `negative`; a scale of 1 or less is none, as in diffusers: then the negative
    /// branch has no effect and is not run. `rescale` (Lin et al. 2023, equation 15) pulls the result's deviation back to that of the
    /// conditional prediction, for models trained with zero terminal SNR; 0 is off.
    pub fn classifier_free(
        positive: &CrossAttnContext,
        negative: &CrossAttnContext,
        scale: f64,
        rescale: f64,
    ) -> Self {
        let conditioning = Rc::new(join(positive, negative, scale));
        Self::new(Box::new(move |_| Rc::clone(&conditioning)), scale, rescale)
    }

    /// The same with a positive branch that has another context at each timestep.
    pub fn classifier_free_at(
        positive: impl Fn(f64) -> CrossAttnContext + 'a,
        negative: CrossAttnContext,
        scale: f64,
        rescale: f64,
    ) -> Self {
        let conditioning = move |t| Rc::new(join(&positive(t), &negative, scale));
        Self::new(Box::new(conditioning), scale, rescale)
    }

    /// Any number of branches: `conditioning` has them one after the other along the batch, `scales` a weight for each
    /// but the first.
    pub fn of_branches(conditioning: Conditioning, scales: Vec<f64>) -> Self {
        let (conditioning, branches) = (Rc::new(conditioning), scales.len() + 1);
        let conditioning = Box::new(move |_| Rc::clone(&conditioning));
        Self { branches, scales, conditioning, rescale: 0.0 }
    }

    /// No guidance by a second branch: the network is told `scale` and predicts what guidance of it would give, as it
    /// was distilled to (Luo et al. 2023, section 4.2). It has learnt no negative prompt.
    pub fn embedded(positive: impl Fn(f64) -> CrossAttnContext + 'a, scale: f64) -> Self {
        let told = move |t| {
            let conditioning = Conditioning::context(positive(t));
            Rc::new(Conditioning { guidance: Some(scale), ..conditioning })
        };
        Self { branches: 1, scales: Vec::new(), conditioning: Box::new(told), rescale: 0.0 }
    }

    fn new(
        conditioning: Box<dyn Fn(f64) -> Rc<Conditioning> + 'a>,
        scale: f64,
        rescale: f64,
    ) -> Self {
        let branches = if is_none(scale) { 1 } else { 2 };
        Self { branches, scales: vec![scale; branches - 1], conditioning, rescale }
    }

    /// One U-Net call for all branches; `[B, 4, H, W]` in f32.
    fn predict(&self, unet: &UNet, latents: &Tensor, timestep: f64) -> Tensor {
        let input = latents.repeat([self.branches as i64, 1, 1, 1]); // [branches · B, 4, H, W]
        let conditioning = (self.conditioning)(timestep);
        let timestep = Tensor::from_slice(&[timestep as f32]).to_device(latents.device());
        let all = unet.forward(&input, &timestep, &conditioning).to_kind(Kind::Float);
        let branches = all.chunk(self.branches as i64, 0);
        let mut combined = branches[0].shallow_clone();
        for (i, scale) in self.scales.iter().enumerate() {
            combined += (&branches[i + 1] - &branches[i]) * *scale;
        }
        if self.rescale == 0.0 || self.branches == 1 {
            return combined;
        }
        let deviation = |x: &Tensor| x.std_dim([1, 2, 3].as_slice(), true, true); // [B, 1, 1, 1]
        let rescaled = &combined * (deviation(&branches[self.branches - 1]) / deviation(&combined));
        rescaled * self.rescale + combined * (1.0 - self.rescale)
    }
}

/// Says whether a scale of guidance leaves the negative branch without effect.
pub(crate) fn is_none(scale: f64) -> bool {
    scale <= 1.0
}

/// What users of other programs may not expect of a scale of guidance below 1; `None` from 1 up.
pub(crate) fn below_one(name: &str, scale: f64) -> Option<String> {
    let alone =
        format!("{name} {scale} is no guidance, as in diffusers: the prompt alone is drawn");
    match scale {
        0.0 => Some(alone),
        _ if scale < 1.0 => Some(format!(
            "{alone}, as at 1; in A1111 and ComfyUI a number below 1 draws less of it and more of the negative prompt"
        )),
        _ => None,
    }
}

/// The branches of classifier-free guidance along the batch.
fn join(positive: &CrossAttnContext, negative: &CrossAttnContext, scale: f64) -> Conditioning {
    let both = [negative, positive];
    Conditioning::context(CrossAttnContext::cat(&both[usize::from(is_none(scale))..]))
}

/// Walks from standard normal noise `[B, 4, h, w]` to latents.
///
/// `noise` draws standard normal values of the latents' shape for samplers that add noise. `on_step` is told
/// the evaluations done and to do; it may stop the walk, which then returns nothing.
pub fn denoise(
    unet: &UNet,
    sampler: &mut dyn Sampler,
    guidance: &Guidance<'_>,
    initial_noise: &Tensor,
    noise: &mut dyn FnMut() -> Tensor,
    on_step: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Option<Tensor> {
    let timesteps = sampler.timesteps().to_vec();
    let mut latents = initial_noise * sampler.initial_noise_scale();
    for (i, &timestep) in timesteps.iter().enumerate() {
        let prediction = guidance.predict(unet, &sampler.model_input(&latents), timestep);
        latents = sampler.step(&prediction, &latents, noise);
        if on_step(i + 1, timesteps.len()).is_break() {
            return None;
        }
    }
    Some(latents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_of_one_or_less_draws_the_prompt_alone() {
        let row = |x: f64| {
            let row = Tensor::full([1, 2, 3], x, (Kind::Float, tch::Device::Cpu));
            CrossAttnContext::Shared(models::unet::KeyValue { key: row.copy(), value: row })
        };
        let batch = |scale: f64| {
            let guidance = Guidance::classifier_free(&row(1.0), &row(2.0), scale, 0.0);
            let CrossAttnContext::Shared(context) = &(guidance.conditioning)(0.0).context else {
                panic!("one context was given");
            };
            (guidance.branches, guidance.scales.len(), context.key.double_value(&[0, 0, 0]))
        };
        for scale in [1.0, 0.7, 0.0, -3.0] {
            assert_eq!(batch(scale), (1, 0, 1.0), "{scale}");
        }
        assert_eq!(batch(1.5), (2, 1, 2.0));
    }

    #[test]
    fn below_one_and_not_at_one_the_user_is_told() {
        assert_eq!(below_one("--guidance", 1.0), None);
        assert_eq!(below_one("--guidance", 7.5), None);
        let (zero, half) = (below_one("--guidance", 0.0), below_one("--guidance", 0.5));
        assert!(!zero.unwrap().contains("A1111"));
        assert!(half.unwrap().contains("--guidance 0.5 is no guidance"));
    }
}
