//! The loss of every method: predict the noise in a photo under a prompt that holds the concept.
//!
//! Source: Gal et al. 2022, equation 2; Wu et al. 2024 (CoRe), equations 1 and 2.

use embeddings::{Concept, Conditioner, PromptTokens};
use models::schedule::NoiseSchedule;
use models::unet::{Conditioning, UNet};
use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::{LossTerm, SharedQueries, StepInputs};

/// The mean squared error of the U-Net's prediction.
pub struct Reconstruction<'a> {
    /// Of the base.
    pub schedule: &'a NoiseSchedule,
    /// Prompts to contexts.
    pub conditioner: &'a Conditioner,
    /// Frozen.
    pub unet: &'a UNet,
    /// In training.
    pub concept: &'a dyn Concept,
    /// γ of Hang et al. 2023; 0 is no weighting.
    pub min_snr_gamma: f64,
    /// Where another term reads the queries of this term's pass.
    pub queries: Option<&'a SharedQueries<'a>>,
}

impl LossTerm for Reconstruction<'_> {
    fn name(&self) -> &'static str {
        "reconstruction"
    }

    fn loss(&mut self, step: &StepInputs, draw: &Generator) -> Tensor {
        self.at(step, Some(draw))
    }
}

impl Reconstruction<'_> {
    /// The loss at `step`: a scalar, f32. Without `draw` the concept is the one that is drawn, with nothing random in it.
    pub fn at(&self, step: &StepInputs, draw: Option<&Generator>) -> Tensor {
        let photos = step.photos.as_ref().expect("a run that reconstructs has photos");
        let prompts: Vec<&PromptTokens> = photos.prompts.iter().collect();
        let (x_t, timesteps) = (&step.x_t, &step.timesteps);
        let same = self.queries.and(draw).map(Generator::twin);
        let context = self.conditioner.encode_at(&prompts, &[self.concept], timesteps, draw);
        let cond = Conditioning::context(context.map(|c| c.to_kind(self.unet.kind())));
        let prediction = match self.queries.zip(same) {
            None => self.unet.forward(x_t, timesteps, &cond),
            Some((queries, same)) => queries.during(step, &same, |probe| {
                self.unet.forward_probed(x_t, timesteps, &cond, probe)
            }),
        };
        let error = (prediction.to_kind(Kind::Float) - &photos.target).square();
        let error = error.mean_dim([1, 2, 3].as_slice(), false, Kind::Float); // [B]
        let weighted = if self.min_snr_gamma > 0.0 {
            error * self.schedule.min_snr_weight(timesteps, self.min_snr_gamma)
        } else {
            error
        };
        weighted.mean(Kind::Float)
    }
}
