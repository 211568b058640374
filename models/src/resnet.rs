//! The residual block with a timestep, and the changes of resolution.

use tch::Tensor;

use crate::layers::{Conv2d, GroupNorm, Linear, add, silu};
use crate::params::Params;

/// `ResnetBlock2D`; the VAE builds it without a timestep.
pub(crate) struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    /// Divides the sum of both ways.
    output_scale: f64,
}

/// The norms of a residual block.
#[derive(Clone, Copy)]
pub(crate) struct Norm {
    pub groups: i64,
    pub eps: f64,
}

impl ResnetBlock2D {
    pub(crate) fn new(
        params: &Params,
        inputs: i64,
        outputs: i64,
        time_width: Option<i64>,
        norm: Norm,
    ) -> Self {
        Self {
            norm1: GroupNorm::new(&params.pp("norm1"), norm.groups, inputs, norm.eps),
            conv1: Conv2d::new(&params.pp("conv1"), inputs, outputs, 3),
            time_emb_proj: time_width
                .map(|width| Linear::new(&params.pp("time_emb_proj"), width, outputs)),
            norm2: GroupNorm::new(&params.pp("norm2"), norm.groups, outputs, norm.eps),
            conv2: Conv2d::new(&params.pp("conv2"), outputs, outputs, 3),
            conv_shortcut: (inputs != outputs)
                .then(|| Conv2d::new(&params.pp("conv_shortcut"), inputs, outputs, 1)),
            output_scale: 1.0,
        }
    }

    /// The same block with its result divided by `scale`.
    pub(crate) fn scaled_down(self, scale: f64) -> Self {
        Self { output_scale: scale, ..self }
    }

    /// `x` `[B, inputs, H, W]` and the time embedding `[B, T]` to `[B, outputs, H, W]`.
    pub(crate) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Tensor {
        let mut h = self.conv1.forward(&silu(self.norm1.forward(x)));
        if let (Some(project), Some(time)) = (&self.time_emb_proj, time) {
            h += project.forward(&time.silu()).unsqueeze(-1).unsqueeze(-1); // [B, outputs, 1, 1]
        }
        let h = self.conv2.forward(&silu(self.norm2.forward(&h)));
        let h = match &self.conv_shortcut {
            Some(shortcut) => add(h, &shortcut.forward(x)),
            None => add(h, x),
        };
        if (self.output_scale - 1.0).abs() < f64::EPSILON { h } else { h / self.output_scale }
    }
}

/// `Downsample2D`: a convolution with stride 2.
pub(crate) struct Downsample2D {
    conv: Conv2d,
    padding: i64,
}

impl Downsample2D {
    pub(crate) fn new(params: &Params, channels: i64, padding: i64) -> Self {
        let conv = Conv2d::strided(&params.pp("conv"), channels, channels, 3, 2, padding);
        Self { conv, padding }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        if self.padding > 0 {
            return self.conv.forward(x);
        }
        // One row below, one column to the right: networks without padding were trained so.
        self.conv.forward(&x.constant_pad_nd([0, 1, 0, 1]))
    }
}

/// `Upsample2D`: nearest neighbours, then a convolution.
pub(crate) struct Upsample2D {
    conv: Conv2d,
}

impl Upsample2D {
    pub(crate) fn new(params: &Params, channels: i64) -> Self {
        Self { conv: Conv2d::new(&params.pp("conv"), channels, channels, 3) }
    }

    /// To `size` = height and width: that of the next skip tensor, which is not always the double.
    pub(crate) fn forward(&self, x: &Tensor, size: [i64; 2]) -> Tensor {
        self.conv.forward(&x.upsample_nearest2d(size, None, None))
    }
}
