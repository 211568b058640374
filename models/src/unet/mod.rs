//! `UNet2DConditionModel` of Stable Diffusion 1.x and 2.x, frozen, with the inputs that
//! personalisation needs: a timestep for each sample, a context for each cross-attention layer whose keys
//! and values may differ, and a probe on the attention.

mod attention;
mod blocks;
mod conditioning;
mod config;

pub use conditioning::{AttnProbe, Conditioning, CrossAttnContext, KeyValue, LayerId};
pub(crate) use config::CLASS;
pub use config::{TimeActivation, UNetConfig};

use tch::{Device, Kind, Tensor};

use crate::layers::{Conv2d, GroupNorm, Linear, silu};
use crate::params::Params;
use blocks::{DownBlock, MidBlock, Pass, UpBlock};

/// The denoising network. Shapes: B samples, `[B, 4, H, W]` latents, S tokens, D context width.
pub struct UNet {
    conv_in: Conv2d,
    time_embedding: (Linear, Linear),
    cond_proj: Option<Linear>,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    config: UNetConfig,
    layer_levels: Vec<usize>,
    kind: Kind,
    device: Device,
    checkpointing: bool,
}

impl UNet {
    /// Builds the network from `unet/`; the configuration must have passed [`UNetConfig::check`].
    pub fn new(params: &Params, config: &UNetConfig) -> Self {
        let channels = &config.block_out_channels;
        let (first, time_width) = (channels[0], 4 * channels[0]);
        let levels = channels.len();
        let mut layers = conditioning::LayerIds::default();
        let time = params.pp("time_embedding");

        let mut skips = vec![first];
        let down_blocks = (0..levels)
            .map(|level| {
                let (inputs, outputs) = (channels[level.saturating_sub(1)], channels[level]);
                let last = level + 1 == levels;
                let layers_here = config.layers_per_block as usize;
                skips.extend(std::iter::repeat_n(outputs, layers_here + usize::from(!last)));
                let params = params.pp("down_blocks").pp(level);
                DownBlock::new(&params, config, level, inputs, outputs, last, &mut layers)
            })
            .collect();
        let middle = config.mid_block_type.is_some();
        let mid_block = middle.then(|| MidBlock::new(&params.pp("mid_block"), config, &mut layers));
        let mut inputs = channels[levels - 1];
        let up_blocks = (0..levels)
            .map(|i| {
                let level = levels - 1 - i;
                let from = skips.len() - (config.layers_per_block as usize + 1);
                let mut skips_here = skips.split_off(from);
                skips_here.reverse();
                let params = params.pp("up_blocks").pp(i);
                let block = UpBlock::new(&params, config, i, inputs, &skips_here, &mut layers);
                inputs = channels[level];
                block
            })
            .collect();
        Self {
            conv_in: Conv2d::new(&params.pp("conv_in"), config.in_channels, first, 3),
            time_embedding: (
                Linear::new(&time.pp("linear_1"), first, time_width),
                Linear::new(&time.pp("linear_2"), time_width, time_width),
            ),
            cond_proj: config
                .time_cond_proj_dim
                .map(|width| Linear::without_bias(&time.pp("cond_proj"), width, first)),
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: GroupNorm::new(
                &params.pp("conv_norm_out"),
                config.norm_num_groups,
                first,
                config.norm_eps,
            ),
            conv_out: Conv2d::new(&params.pp("conv_out"), first, config.out_channels, 3),
            config: config.clone(),
            layer_levels: layers.into_levels(),
            kind: params.kind(),
            device: params.device(),
            checkpointing: false,
        }
    }

    /// Recompute each block in the backward pass instead of keeping its activations: about a third more
    /// time for a fraction of the memory. Passes with a probe keep them all the same, since what a probe
    /// reduces is no output of the block.
    #[must_use]
    pub fn with_gradient_checkpointing(mut self, on: bool) -> Self {
        self.checkpointing = on;
        self
    }

    /// Cross-attention layers: the length of a [`CrossAttnContext::PerLayer`], 16 for Stable Diffusion.
    pub fn layer_count(&self) -> usize {
        self.layer_levels.len()
    }

    /// The level of each cross-attention layer: 0 has the resolution of the latents, each further one half of it.
    pub fn layer_levels(&self) -> &[usize] {
        &self.layer_levels
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The kind of the parameters, and of what it returns.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The device of the parameters.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Predicts noise (or velocity) `[B, 4, H, W]` from latents `[B, 4, H, W]` and timesteps `[B]` or `[1]`
    /// (integers, or fractions as some samplers visit them).
    pub fn forward(&self, latents: &Tensor, timesteps: &Tensor, cond: &Conditioning) -> Tensor {
        self.run(latents, timesteps, cond, None)
    }

    /// [`UNet::forward`], showing every cross-attention's probabilities to `probe` on the way.
    pub fn forward_probed(
        &self,
        latents: &Tensor,
        timesteps: &Tensor,
        cond: &Conditioning,
        probe: &mut dyn AttnProbe,
    ) -> Tensor {
        self.run(latents, timesteps, cond, Some(probe))
    }

    /// What the network sees in latents `[B, 4, H, W]`: what enters the decoder and what leaves each of its blocks,
    /// innermost first, `[B, channels, h, w]` each. Source: Tang et al. 2023 (DIFT), section 3.
    pub fn features(
        &self,
        latents: &Tensor,
        timesteps: &Tensor,
        cond: &Conditioning,
    ) -> Vec<Tensor> {
        let mut features = Vec::new();
        let mut keep = |x: &Tensor| features.push(x.shallow_clone());
        let _ = self.decode(latents, timesteps, cond, None, &mut keep);
        features
    }

    fn run(
        &self,
        latents: &Tensor,
        timesteps: &Tensor,
        cond: &Conditioning,
        probe: Option<&mut (dyn AttnProbe + '_)>,
    ) -> Tensor {
        let x = self.decode(latents, timesteps, cond, probe, &mut |_| ());
        self.conv_out.forward(&silu(self.conv_norm_out.forward(&x)))
    }

    /// All levels; `seen` is shown what enters the decoder and what leaves each of its blocks, the last of which returns.
    fn decode(
        &self,
        latents: &Tensor,
        timesteps: &Tensor,
        cond: &Conditioning,
        probe: Option<&mut (dyn AttnProbe + '_)>,
        seen: &mut dyn FnMut(&Tensor),
    ) -> Tensor {
        let batch = latents.size()[0];
        let latents = torch_ext::channels_last(&latents.to_kind(self.kind));
        let time = self.embed_time(timesteps, batch, cond);
        let mut x = self.conv_in.forward(&latents);
        if let Some(residual) = &cond.stem_residual {
            x += residual.to_kind(self.kind);
        }
        let checkpointing = self.checkpointing && probe.is_none();
        let mut pass = Pass { time: &time, context: &cond.context, probe, checkpointing };
        let mut skips = vec![x.shallow_clone()];
        for block in &self.down_blocks {
            x = block.forward(&x, &mut skips, &mut pass);
        }
        if let Some(block) = &self.mid_block {
            x = block.forward(&x, &mut pass);
        }
        seen(&x);
        for block in &self.up_blocks {
            x = block.forward(&x, &mut skips, &mut pass);
            seen(&x);
        }
        x
    }

    /// Sinusoids of the timesteps through a two-layer perceptron, `[B, 4 · channels]`.
    fn embed_time(&self, timesteps: &Tensor, batch: i64, cond: &Conditioning) -> Tensor {
        let config = &self.config;
        let width = config.block_out_channels[0];
        let waves = sinusoids(timesteps, width, config.flip_sin_to_cos, config.freq_shift);
        let mut waves = waves.to_device(self.device).to_kind(self.kind);
        if let (Some(project), Some(scale)) = (&self.cond_proj, cond.guidance) {
            let scale = Tensor::from_slice(&[(scale - 1.0) as f32]) * 1000.0;
            let scale = sinusoids(&scale, config.time_cond_proj_dim.unwrap_or(4), false, 1.0);
            waves += project.forward(&scale.to_device(self.device).to_kind(self.kind));
        }
        let hidden = self.time_embedding.0.forward(&waves).silu();
        let mut time = self.time_embedding.1.forward(&hidden);
        if let Some(activation) = config.timestep_post_act {
            time = activation.forward(&time);
        }
        if let Some(bias) = &cond.time_bias {
            // Not in place: one timestep may meet a bias for each sample.
            time = &time + bias.to_kind(self.kind);
        }
        if let Some(activation) = config.time_embedding_act_fn {
            time = activation.forward(&time);
        }
        time.expand([batch, -1], false)
    }
}

/// The transformer's positional encoding of numbers, `[B]` to `[B, width]`, in f32; a last odd column is zero.
fn sinusoids(numbers: &Tensor, width: i64, cosines_first: bool, freq_shift: f64) -> Tensor {
    let half = width / 2;
    let exponent = Tensor::arange(half, (Kind::Float, numbers.device()))
        * (-(10_000f64.ln()) / (half as f64 - freq_shift));
    let phase = numbers.to_kind(Kind::Float).unsqueeze(-1) * exponent.exp(); // [B, half]
    let (sin, cos) = (phase.sin(), phase.cos());
    let waves =
        if cosines_first { Tensor::cat(&[cos, sin], -1) } else { Tensor::cat(&[sin, cos], -1) };
    waves.constant_pad_nd([0, width % 2])
}
