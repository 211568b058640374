//! `AutoencoderKL`: pictures to latents (mean and log-variance) and back.

mod blocks;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::ModelError;
use crate::layers::Conv2d;
use crate::params::Params;
use blocks::{Decoder, Encoder};

/// `vae/config.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct VaeConfig {
    /// Channels of the picture.
    #[serde(default = "three")]
    pub in_channels: i64,
    /// Channels of the reconstruction.
    #[serde(default = "three")]
    pub out_channels: i64,
    /// Channels of the latents.
    #[serde(default = "four")]
    pub latent_channels: i64,
    /// Channels at each level, outermost first.
    pub block_out_channels: Vec<i64>,
    /// Resnets a level in the encoder; one more in the decoder.
    #[serde(default = "one")]
    pub layers_per_block: i64,
    /// Groups of the group norms.
    #[serde(default = "thirty_two")]
    pub norm_num_groups: i64,
    /// Latents are multiplied by this before the U-Net sees them.
    #[serde(default = "scaling_factor")]
    pub scaling_factor: f64,
    /// f16 overflows in it: run it in f32.
    #[serde(default)]
    pub force_upcast: bool,
    /// A 1×1 convolution after the encoder.
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    /// A 1×1 convolution before the decoder.
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
    /// Self-attention in the middle.
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,

    #[serde(default)]
    shift_factor: Option<f64>,
    #[serde(default)]
    latents_mean: Option<Vec<f64>>,
    #[serde(default)]
    down_block_types: Option<Vec<String>>,
}

fn one() -> i64 {
    1
}
fn three() -> i64 {
    3
}
fn four() -> i64 {
    4
}
fn thirty_two() -> i64 {
    32
}
fn yes() -> bool {
    true
}
fn scaling_factor() -> f64 {
    // Absent from the first published files.
    0.18215
}

impl VaeConfig {
    /// Pixels along one side of a latent's pixel: 8 for Stable Diffusion.
    pub fn downscale(&self) -> i64 {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Refuses what Stable Diffusion's autoencoder does not have, naming the key.
    pub fn check(&self) -> Result<(), ModelError> {
        let refuse = |key, found, expected| {
            Err(ModelError::Unsupported { part: "vae", key, found, expected })
        };
        if self.shift_factor.is_some_and(|shift| shift != 0.0) || self.latents_mean.is_some() {
            return refuse("shift_factor or latents_mean", "set".into(), "null");
        }
        let mut types = self.down_block_types.iter().flatten();
        if let Some(other) = types.find(|t| *t != "DownEncoderBlock2D") {
            return refuse("down_block_types", other.clone(), "DownEncoderBlock2D");
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
