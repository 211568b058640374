//! `AutoencoderKL`: pictures to latents (mean and log-variance) and back.

mod blocks;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::ModelError;
use crate::config::{Class, DEEPEST, Rule, WIDEST};
use crate::layers::Conv2d;
use crate::params::Params;
use blocks::{Decoder, Encoder};

/// `vae/config.json`; what is absent has diffusers' default, but for `force_upcast`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct VaeConfig {
    /// Channels of the picture.
    pub in_channels: i64,
    /// Channels of the reconstruction.
    pub out_channels: i64,
    /// Channels of the latents.
    pub latent_channels: i64,
    /// Channels at each level, outermost first.
    pub block_out_channels: Vec<i64>,
    /// Resnets a level in the encoder; one more in the decoder.
    pub layers_per_block: i64,
    /// Groups of the group norms.
    pub norm_num_groups: i64,
    /// Latents are multiplied by this before the U-Net sees them.
    pub scaling_factor: f64,
    /// f16 overflows in it: run it in f32.
    pub force_upcast: bool,
    /// A 1×1 convolution after the encoder.
    pub use_quant_conv: bool,
    /// A 1×1 convolution before the decoder.
    pub use_post_quant_conv: bool,
    /// Self-attention in the middle.
    pub mid_block_add_attention: bool,

    down_block_types: Option<Vec<String>>,
    up_block_types: Option<Vec<String>>,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            block_out_channels: vec![64],
            layers_per_block: 1,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            // Those of SD 1.x lack the key and do not overflow.
            force_upcast: false,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            down_block_types: None,
            up_block_types: None,
        }
    }
}

/// What diffusers' class knows.
pub(crate) const CLASS: Class = Class {
    name: "AutoencoderKL",
    tells: true,
    keys: &[
        ("in_channels", Rule::Whole(3, 3)),
        ("out_channels", Rule::Whole(3, 3)),
        ("latent_channels", Rule::Whole(1, WIDEST)),
        ("block_out_channels", Rule::Wholes(1, WIDEST)),
        ("layers_per_block", Rule::Whole(1, DEEPEST)),
        ("norm_num_groups", Rule::Whole(1, WIDEST)),
        ("scaling_factor", Rule::Number(1e-6, 1e6)),
        ("force_upcast", Rule::Switch(true)),
        ("use_quant_conv", Rule::Switch(false)),
        ("use_post_quant_conv", Rule::Switch(false)),
        ("mid_block_add_attention", Rule::Switch(false)),
        ("down_block_types", Rule::Words(&["DownEncoderBlock2D"])),
        ("up_block_types", Rule::Words(&["UpDecoderBlock2D"])),
        ("act_fn", Rule::Word(&["silu", "swish"])),
        // Not read by `StableDiffusionPipeline`, which multiplies by `scaling_factor` alone.
        ("latents_mean", Rule::Any),
        ("latents_std", Rule::Any),
        ("sample_size", Rule::Any),
        ("shift_factor", Rule::Any),
    ],
};

impl VaeConfig {
    /// Pixels along one side of a latent's pixel: 8 for Stable Diffusion.
    pub fn downscale(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Refuses parts that do not fit together, naming the key; each key alone was checked when the file was read.
    pub fn check(&self) -> Result<(), ModelError> {
        let refuse = |key, found, expected| {
            Err(ModelError::Unsupported { part: "vae", key, found, expected })
        };
        let levels = self.block_out_channels.len();
        for (key, types) in
            [("down_block_types", &self.down_block_types), ("up_block_types", &self.up_block_types)]
        {
            if let Some(types) = types.as_ref().filter(|types| types.len() != levels) {
                return refuse(key, format!("{} blocks", types.len()), "one block a level");
            }
        }
        for &channels in &self.block_out_channels {
            if channels % self.norm_num_groups != 0 {
                let expected = "channels that norm_num_groups divides";
                return refuse("block_out_channels", channels.to_string(), expected);
            }
        }
        Ok(())
    }
}

/// A diagonal Gaussian over latents, unscaled: both `[B, 4, H/8, W/8]`.
#[derive(Debug)]
pub struct LatentDistribution {
    /// Its mean.
    pub mean: Tensor,
    /// The logarithm of its variance, clamped to [-30, 20].
    pub logvar: Tensor,
}

impl LatentDistribution {
    /// `mean + exp(logvar / 2) · noise`, for noise from N(0, 1).
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        &self.mean + (&self.logvar * 0.5).exp() * noise
    }
}

/// The autoencoder. Shapes: pictures `[B, 3, H, W]` in [-1, 1], latents `[B, 4, H/8, W/8]`.
pub struct Vae {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    scaling_factor: f64,
    downscale: i64,
    kind: Kind,
    device: Device,
}

impl Vae {
    /// Builds both halves from `vae/`.
    pub fn new(params: &Params, config: &VaeConfig) -> Self {
        let latent = config.latent_channels;
        let quant =
            |name: &str, channels: i64| Conv2d::new(&params.pp(name), channels, channels, 1);
        Self {
            encoder: Encoder::new(&params.pp("encoder"), config),
            decoder: Decoder::new(&params.pp("decoder"), config),
            quant_conv: config.use_quant_conv.then(|| quant("quant_conv", 2 * latent)),
            post_quant_conv: config.use_post_quant_conv.then(|| quant("post_quant_conv", latent)),
            scaling_factor: config.scaling_factor,
            downscale: config.downscale(),
            kind: params.kind(),
            device: params.device(),
        }
    }

    /// Pictures to the distribution of their latents, not yet scaled; f32.
    pub fn encode(&self, pictures: &Tensor) -> LatentDistribution {
        let pictures =
            torch_ext::channels_last(&pictures.to_device(self.device).to_kind(self.kind));
        let mut moments = self.encoder.forward(&pictures);
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments);
        }
        let halves = moments.to_kind(Kind::Float).chunk(2, 1);
        LatentDistribution { mean: halves[0].contiguous(), logvar: halves[1].clamp(-30.0, 20.0) }
    }

    /// Latents as the U-Net has them (scaled) to pictures around [-1, 1]; f32.
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        let latents = latents.to_device(self.device).to_kind(Kind::Float) / self.scaling_factor;
        let mut x = torch_ext::channels_last(&latents.to_kind(self.kind));
        if let Some(conv) = &self.post_quant_conv {
            x = conv.forward(&x);
        }
        self.decoder.forward(&x).to_kind(Kind::Float)
    }

    /// Pixels along one side of a latent's pixel: 8 for Stable Diffusion.
    pub fn downscale(&self) -> i64 {
        self.downscale
    }

    /// Latents are multiplied by this before the U-Net sees them.
    pub fn scaling_factor(&self) -> f64 {
        self.scaling_factor
    }
}
