//! How much memory a run will need, before anything of it is read.
//!
//! An estimate: frozen weights, and what one pass through the text encoder and the U-Net keeps for its backward pass. The
//! factors were fitted to the peaks that BENCHMARKS.md measured at the size of Stable Diffusion 1.5.

use models::clip::ClipTextConfig;
use models::unet::UNetConfig;
use tch::{Device, Kind};

use super::context::ContextPlan;
use super::method::Method;
use super::plan::TrainPlan;
use crate::Error;

/// Tensors of a resnet's size that it keeps for the backward pass.
const RESNET: i64 = 8;
/// The same of a transformer, whose perceptron is eight times as wide.
const TRANSFORMER: i64 = 28;
/// What is left of it with gradient checkpointing.
const CHECKPOINTED: f64 = 0.2;
/// Tensors of a prompt's size that a block of the text encoder keeps; its perceptron is four times as wide.
const TEXT_BLOCK: i64 = 15;
/// The program and libtorch themselves, in bytes.
const PROGRAM: u64 = 300 << 20;
/// Positions of a prompt.
const TOKENS: i64 = 77;

impl TrainPlan {
    /// The peak of the training loop in bytes.
    pub(super) fn memory(&self) -> Result<u64, Error> {
        let folder = &self.base.folder;
        let bytes = |kind: Kind| kind.elt_size_in_bytes() as f64;
        let text_kind = self.text_kind();
        let mut weights = folder.parameters("unet")? as f64 * bytes(self.kind);
        // What enters after the text encoder lets go of it before the loop.
        let encodes = !matches!(self.method, Method::Cones(_));
        if encodes {
            weights += folder.parameters("text_encoder")? as f64 * bytes(text_kind);
        }
        let side = i64::from(self.photos.photos[0].pixels.width()) / folder.vae.downscale();
        let Activations { pass, maps, offered } = Activations::of_a_sample(&folder.unet, side);
        let pass = pass as f64 * bytes(self.kind);
        // Probabilities are f32, and count twice: as they are, and what they are made of or weighted with.
        let [maps, offered] = [maps, offered].map(|maps| 2.0 * maps as f64 * bytes(Kind::Float));

        let batch = i64::from(self.config.batch_size);
        let (own, compared) = self.prompts_kept(batch);
        let text = |prompts: i64| {
            let config = &folder.text_encoder;
            if encodes { encoded(config, prompts, text_kind, self.device) } else { 0.0 }
        };
        let term = |sample: f64, prompts: i64| batch as f64 * sample + text(prompts);
        let kept = if self.config.gradient_checkpointing { CHECKPOINTED } else { 1.0 };
        let reconstruction = if self.context.as_ref().is_some_and(ContextPlan::shares_queries) {
            // Probed, so not checkpointed. The prompt that the queries are held against is encoded before the pass, and
            // the maps over it are made in the pass, of detached queries: the graph of both waits for the term that
            // follows, so all of it is there when the pass is at its largest.
            term(pass + offered, own + compared)
        } else {
            term(pass * kept, own)
        };
        let shown = self
            .context
            .as_ref()
            .is_some_and(|context| context.config.lambda_attn > 0.0 && !context.shares_queries());
        let attention = if shown { term(pass + maps, compared) } else { 0.0 };
        // Terms are walked one after the other, so the largest counts; that of the encodings has no pass.
        Ok((weights + reconstruction.max(attention)) as u64 + PROGRAM)
    }

    /// How many prompts the text encoder keeps for the photos of a batch, and for the prompt that their attention is
    /// compared at: what varies with the layer is encoded for each, and there for each sample's timestep.
    fn prompts_kept(&self, batch: i64) -> (i64, i64) {
        self.method.layers().map_or((batch, 1), |layers| (batch * layers, batch * layers))
    }
}

/// What so many prompts leave in the text encoder for their backward pass, in bytes.
fn encoded(config: &ClipTextConfig, prompts: i64, kind: Kind, device: Device) -> f64 {
    let ClipTextConfig { hidden_size: width, intermediate_size: perceptron, .. } = *config;
    let rows = prompts * config.max_position_embeddings;
    // In bf16 the CPU lays out the weights once more for the backward pass (`torch_ext::FrozenLinear`).
    let twice = kind == Kind::BFloat16 && device == Device::Cpu;
    let weights = if twice { width * (4 * width + 2 * perceptron) } else { 0 };
    let block = TEXT_BLOCK * rows * width + weights;
    (config.num_hidden_layers * block) as f64 * kind.elt_size_in_bytes() as f64
}

/// Numbers that one sample leaves in a pass.
struct Activations {
    /// Without attention maps, which fused attention does not write out.
    pass: i64,
    /// In the maps of all cross-attentions.
    maps: i64,
    /// In those of one cross-attention of each resolution, whose queries are shared.
    offered: i64,
}

impl Activations {
    /// For latents of this side.
    fn of_a_sample(config: &UNetConfig, side: i64) -> Self {
        let levels = config.block_out_channels.len();
        let (mut pass, mut maps, mut offered) = (0, 0, 0);
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
            let map = config.heads(level) * pixels * TOKENS;
            maps += transformers * map;
            offered += transformers.min(1) * map;
        }
        Self { pass, maps, offered }
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
        let Activations { maps, offered, .. } = Activations::of_a_sample(&config, 64);
        assert_eq!(maps, 77 * 8 * (4096 * 5 + 1024 * 5 + 256 * 5 + 64));
        assert_eq!(offered, 77 * 8 * (4096 + 1024 + 256 + 64));
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

    #[test]
    fn sixteen_prompts_in_bf16_take_as_much_more_than_one_in_f32_as_the_benchmarks_measured() {
        let config: ClipTextConfig = serde_json::from_str(
            r#"{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
            "vocab_size": 49408}"#,
        )
        .expect("a configuration");
        let of = |prompts, kind| encoded(&config, prompts, kind, Device::Cpu);
        // NeTI's peak less that of textual inversion, and the text encoder (123 M) in bf16 instead of f32.
        let measured = (3624.0 - 3400.0) * 1e6 + 123e6 * (4.0 - 2.0);
        let ratio = (of(16, Kind::BFloat16) - of(1, Kind::Float)) / measured;
        assert!((0.8..1.25).contains(&ratio), "{ratio} of what was measured");
    }
}
