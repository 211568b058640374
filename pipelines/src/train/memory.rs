//! How much memory a run will need, before anything of it is read.
//!
//! An estimate: frozen weights, and what one pass through the U-Net keeps for its backward pass. The factors were fitted
//! to the peaks that BENCHMARKS.md measured at the size of Stable Diffusion 1.5.

use models::unet::UNetConfig;
use tch::Kind;

use super::method::Method;
use super::plan::TrainPlan;
use crate::Error;

/// Tensors of a resnet's size that it keeps for the backward pass.
const RESNET: i64 = 8;
/// The same of a transformer, whose perceptron is eight times as wide.
const TRANSFORMER: i64 = 28;
/// What is left of it with gradient checkpointing.
const CHECKPOINTED: f64 = 0.2;
/// The program and libtorch themselves, in bytes.
const PROGRAM: u64 = 300 << 20;
/// Positions of a prompt.
const TOKENS: i64 = 77;

impl TrainPlan {
    /// The peak of the training loop in bytes.
    pub(super) fn memory(&self) -> Result<u64, Error> {
        let folder = &self.base.folder;
        let mut weights = folder.parameters("unet")? * self.kind.elt_size_in_bytes() as u64;
        if !matches!(self.method, Method::Cones(_)) {
            // What enters after the text encoder lets go of it before the loop.
            weights +=
                folder.parameters("text_encoder")? * self.text_kind().elt_size_in_bytes() as u64;
        }
        let side = i64::from(self.photos.photos[0].pixels.width()) / folder.vae.downscale();
        let Activations { pass, maps } = Activations::of_a_sample(&folder.unet, side);
        let pass = (pass * self.kind.elt_size_in_bytes() as i64) as f64;
        // Probabilities are f32: as they are, and as the values are weighted with them.
        let maps = (2 * maps * Kind::Float.elt_size_in_bytes() as i64) as f64;
        let kept = if self.config.gradient_checkpointing { CHECKPOINTED } else { 1.0 };
        let shown = self
            .context
            .as_ref()
            .is_some_and(|context| context.config.lambda_attn > 0.0 && !context.shares_queries());
        // Terms are walked one after the other, so the largest counts.
        let sample = if shown { pass + maps } else { pass * kept };
        let batch = f64::from(self.config.batch_size);
        Ok(weights + (batch * sample) as u64 + PROGRAM)
    }
}

/// Numbers that one sample leaves in a pass.
struct Activations {
    /// Without attention maps, which fused attention does not write out.
    pass: i64,
    /// In the maps of all cross-attentions.
    maps: i64,
}

impl Activations {
    /// For latents of this side.
    fn of_a_sample(config: &UNetConfig, side: i64) -> Self {
        let levels = config.block_out_channels.len();
        let (mut pass, mut maps) = (0, 0);
        for level in 0..levels {
            let pixels = (side >> level).max(1).pow(2);
            let size = config.block_out_channels[level] * pixels;
            let (down, up) = (config.layers_per_block, config.layers_per_block + 1);
            let attends = |block: &str| i64::from(block.starts_with("CrossAttn"));
            let mut transformers = attends(&config.down_block_types[level]) * down
                + attends(&config.up_block_types[levels - 1 - level]) * up;
            let mut resnets = down + up;
            if level + 1 == levels {
                transformers += 1; // the middle
                resnets += 2;
            }
            pass += size * (RESNET * resnets + TRANSFORMER * transformers);
            maps += transformers * config.heads(level) * pixels * TOKENS;
        }
        Self { pass, maps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SD15: &str = r#"{"in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 768, "attention_head_dim": 8}"#;

    #[test]
    fn maps_of_sd_1_5_have_as_many_numbers_as_the_specification_counts() {
        let config: UNetConfig = serde_json::from_str(SD15).expect("a configuration");
        let maps = Activations::of_a_sample(&config, 64).maps;
        assert_eq!(maps, 77 * 8 * (4096 * 5 + 1024 * 5 + 256 * 5 + 64));
    }

    #[test]
    fn a_pass_of_sd_1_5_is_as_large_as_the_benchmarks_measured() {
        let config: UNetConfig = serde_json::from_str(SD15).expect("a configuration");
        let pass = Activations::of_a_sample(&config, 64).pass as f64;
        // Peak less weights of U-Net (860 M) and text encoder (123 M, f32) less the program, of BENCHMARKS.md.
        for (peak_mb, bytes) in [(5807.0, 4.0), (3402.0, 2.0)] {
            let measured = peak_mb * 1e6 - 860e6 * bytes - 123e6 * 4.0 - PROGRAM as f64;
            let ratio = pass * bytes / measured;
            assert!((0.8..1.25).contains(&ratio), "{ratio} of what was measured");
        }
    }
}
