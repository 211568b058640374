//! The encoder and the decoder of the autoencoder.

use tch::Tensor;

use super::VaeConfig;
use crate::layers::{Conv2d, GroupNorm, Linear, attention, silu};
use crate::params::Params;
use crate::resnet::{Downsample2D, Norm, ResnetBlock2D, Upsample2D};

const EPS: f64 = 1e-6;

fn resnet(params: &Params, inputs: i64, outputs: i64, config: &VaeConfig) -> ResnetBlock2D {
    let norm = Norm { groups: config.norm_num_groups, eps: EPS };
    ResnetBlock2D::new(params, inputs, outputs, None, norm)
}

fn norm(params: &Params, channels: i64, config: &VaeConfig) -> GroupNorm {
    GroupNorm::new(params, config.norm_num_groups, channels, EPS)
}

/// Self-attention over the pixels, one head.
struct MidAttention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl MidAttention {
    fn new(params: &Params, channels: i64, config: &VaeConfig) -> Self {
        // The published files keep the names that diffusers had in 2022.
        let linear = |name: &str, old_name: &str| {
            let old = params.shape(&format!("{old_name}.weight")).is_some();
            Linear::new(&params.pp(if old { old_name } else { name }), channels, channels)
        };
        Self {
            group_norm: norm(&params.pp("group_norm"), channels, config),
            to_q: linear("to_q", "query"),
            to_k: linear("to_k", "key"),
            to_v: linear("to_v", "value"),
            to_out: linear("to_out.0", "proj_attn"),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (height, width) = (x.size()[2], x.size()[3]);
        let h = self.group_norm.forward(x).permute([0, 2, 3, 1]).flatten(1, 2); // [B, P, C]
        let (q, k, v) = (self.to_q.forward(&h), self.to_k.forward(&h), self.to_v.forward(&h));
        let h = self.to_out.forward(&attention(&q, &k, &v, 1, false));
        x + h.unflatten(1, [height, width]).permute([0, 3, 1, 2]) // [B, C, H, W]
    }
}

struct Mid {
    resnets: [ResnetBlock2D; 2],
    attention: Option<MidAttention>,
}

impl Mid {
    fn new(params: &Params, channels: i64, config: &VaeConfig) -> Self {
        let resnet = |i| resnet(&params.pp("resnets").pp(i), channels, channels, config);
        let attention = &params.pp("attentions.0");
        Self {
            resnets: [resnet(0), resnet(1)],
            attention: config
                .mid_block_add_attention
                .then(|| MidAttention::new(attention, channels, config)),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.resnets[0].forward(x, None);
        if let Some(attention) = &self.attention {
            x = attention.forward(&x);
        }
        self.resnets[1].forward(&x, None)
    }
}

pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<(Vec<ResnetBlock2D>, Option<Downsample2D>)>,
    mid_block: Mid,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn new(params: &Params, config: &VaeConfig) -> Self {
        let channels = &config.block_out_channels;
        let last = channels.len() - 1;
        let down_block = |level: usize| {
            let params = params.pp("down_blocks").pp(level);
            let (inputs, outputs) = (channels[level.saturating_sub(1)], channels[level]);
            let resnets = (0..config.layers_per_block)
                .map(|i| {
                    let inputs = if i == 0 { inputs } else { outputs };
                    resnet(&params.pp("resnets").pp(i), inputs, outputs, config)
                })
                .collect();
            let downsampler = (level != last)
                .then(|| Downsample2D::new(&params.pp("downsamplers.0"), outputs, 0));
            (resnets, downsampler)
        };
        Self {
            conv_in: Conv2d::new(&params.pp("conv_in"), config.in_channels, channels[0], 3),
            down_blocks: (0..=last).map(down_block).collect(),
            mid_block: Mid::new(&params.pp("mid_block"), channels[last], config),
            conv_norm_out: norm(&params.pp("conv_norm_out"), channels[last], config),
            conv_out: Conv2d::new(
                &params.pp("conv_out"),
                channels[last],
                2 * config.latent_channels,
                3,
            ),
        }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward(x);
        for (resnets, downsampler) in &self.down_blocks {
            for resnet in resnets {
                x = resnet.forward(&x, None);
            }
            if let Some(downsampler) = downsampler {
                x = downsampler.forward(&x);
            }
        }
        let x = self.mid_block.forward(&x);
        self.conv_out.forward(&silu(self.conv_norm_out.forward(&x)))
    }
}

pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: Mid,
    up_blocks: Vec<(Vec<ResnetBlock2D>, Option<Upsample2D>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn new(params: &Params, config: &VaeConfig) -> Self {
        let channels: Vec<i64> = config.block_out_channels.iter().rev().copied().collect();
        let last = channels.len() - 1;
        let up_block = |level: usize| {
            let params = params.pp("up_blocks").pp(level);
            let (inputs, outputs) = (channels[level.saturating_sub(1)], channels[level]);
            let resnets = (0..=config.layers_per_block)
                .map(|i| {
                    let inputs = if i == 0 { inputs } else { outputs };
                    resnet(&params.pp("resnets").pp(i), inputs, outputs, config)
                })
                .collect();
            let upsampler =
                (level != last).then(|| Upsample2D::new(&params.pp("upsamplers.0"), outputs));
            (resnets, upsampler)
        };
        Self {
            conv_in: Conv2d::new(&params.pp("conv_in"), config.latent_channels, channels[0], 3),
            mid_block: Mid::new(&params.pp("mid_block"), channels[0], config),
            up_blocks: (0..=last).map(up_block).collect(),
            conv_norm_out: norm(&params.pp("conv_norm_out"), channels[last], config),
            conv_out: Conv2d::new(&params.pp("conv_out"), channels[last], config.out_channels, 3),
        }
    }

    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.mid_block.forward(&self.conv_in.forward(x));
        for (resnets, upsampler) in &self.up_blocks {
            for resnet in resnets {
                x = resnet.forward(&x, None);
            }
            if let Some(upsampler) = upsampler {
                let size = x.size();
                x = upsampler.forward(&x, [2 * size[2], 2 * size[3]]);
            }
        }
        self.conv_out.forward(&silu(self.conv_norm_out.forward(&x)))
    }
}
