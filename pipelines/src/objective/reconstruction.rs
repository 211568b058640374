//! Textual Inversion's loss: predict the noise in a photo under a prompt that holds the concept.
//!
//! Source: Gal et al. 2022, equation 2; Wu et al. 2024 (CoRe), equations 1 and 2.

use embeddings::{Conditioner, PromptTokens, TextualInversion};
use models::schedule::NoiseSchedule;
use models::unet::{Conditioning, UNet};
use tch::{Kind, Tensor};

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
    pub concept: &'a TextualInversion,
    /// γ of Hang et al. 2023; 0 is no weighting.
    pub min_snr_gamma: f64,
    /// Where another term reads the queries of this term's pass.
    pub queries: Option<&'a SharedQueries<'a>>,
}

impl LossTerm for Reconstruction<'_> {
    fn name(&self) -> &'static str {
        "reconstruction"
    }

    fn loss(&mut self, step: &StepInputs) -> Tensor {
        let photos = step.photos.as_ref().expect("a run that reconstructs has photos");
        let prompts: Vec<&PromptTokens> = photos.prompts.iter().collect();
        let context = self.conditioner.encode(&prompts, &[self.concept]);
        let cond = Conditioning::context(context.map(|c| c.to_kind(self.unet.kind())));
        let (x_t, timesteps) = (&step.x_t, &step.timesteps);
        let prediction = match self.queries {
            None => self.unet.forward(x_t, timesteps, &cond),
            Some(queries) => {
                queries.during(step, |probe| self.unet.forward_probed(x_t, timesteps, &cond, probe))
            }
        };
        let error = (prediction.to_kind(Kind::Float) - &photos.target).square();
        let error = error.mean_dim([1, 2, 3].as_slice(), false, Kind::Float); // [B]
        let weighted = if self.min_snr_gamma > 0.0 {
            error * self.schedule.min_snr_weight(&step.timesteps, self.min_snr_gamma)
        } else {
            error
        };
        weighted.mean(Kind::Float)
    }
}
