//! The pose encoder: a drawing of the pose to what is added after the U-Net's `conv_in`.

use models::layers::Conv2d;
use models::params::Params;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The shape of a [`PoseStem`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoseStemConfig {
    /// Channels at each resolution, that of the drawing first; from each to the next the sides are halved.
    pub channels: Vec<i64>,
    /// Channels after the U-Net's `conv_in`.
    pub outputs: i64,
}

impl PoseStemConfig {
    /// The sides of the drawing in those of the residual: that of the VAE.
    pub fn downscale(&self) -> i64 {
        1 << self.channels.len().saturating_sub(1)
    }
}

/// `ControlNet`'s hint network (Zhang et al. 2023, appendix): 3×3 convolutions with `SiLU` between them.
pub struct PoseStem {
    conv_in: Conv2d,
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl PoseStem {
    /// Builds it from `conv_in`, `blocks.…` and `conv_out`.
    pub fn new(params: &Params, config: &PoseStemConfig) -> Self {
        let channels = &config.channels;
        let blocks = channels.windows(2).enumerate().flat_map(|(i, pair)| {
            let block = |at: usize| params.pp("blocks").pp(2 * i + at);
            [
                Conv2d::new(&block(0), pair[0], pair[0], 3),
                Conv2d::strided(&block(1), pair[0], pair[1], 3, 2, 1),
            ]
        });
        Self {
            conv_in: Conv2d::new(&params.pp("conv_in"), 3, channels[0], 3),
            blocks: blocks.collect(),
            conv_out: Conv2d::new(
                &params.pp("conv_out"),
                channels[channels.len() - 1],
                config.outputs,
                3,
            ),
        }
    }

    /// The parameters that a new stem has at zero, so that it adds nothing at first.
    pub fn starts_at_zero(name: &str) -> bool {
        name.ends_with("conv_out.weight") || name.ends_with("conv_out.bias")
    }

    /// Drawings `[B, 3, H, W]` in [0, 1], black where nothing is drawn, to residuals `[B, outputs, h, w]`.
    pub fn forward(&self, drawings: &Tensor) -> Tensor {
        let mut x = self.conv_in.forward(drawings).silu();
        for block in &self.blocks {
            x = block.forward(&x).silu();
        }
        self.conv_out.forward(&x)
    }
}
