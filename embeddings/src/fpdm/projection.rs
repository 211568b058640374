//! Perceptrons onto the widths of the U-Net: of source tokens and of the fusion embedding.

use models::layers::{LayerNorm, Linear};
use models::params::Params;
use serde::{Deserialize, Serialize};
use tch::Tensor;
use torch_ext::Generator;

use super::dropout;

/// The epsilon of `PyTorch`'s layer norm.
const NORM_EPS: f64 = 1e-5;

/// The shape of a projection.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProjectionConfig {
    /// Width of what comes in.
    pub inputs: i64,
    /// Width between the two layers.
    pub hidden: i64,
    /// Width of what the U-Net reads.
    pub outputs: i64,
    /// Share of the numbers that a training step leaves out, after either layer.
    pub dropout: f64,
}

/// An encoder's tokens of the source photo to the context of every cross-attention layer.
pub struct SourceProjection {
    first: Linear,
    norm: LayerNorm,
    second: Linear,
    dropout: f64,
}

impl SourceProjection {
    /// Builds it from `net.0`, `net.3` and `net.4`.
    pub fn new(params: &Params, config: &ProjectionConfig) -> Self {
        let ProjectionConfig { inputs, hidden, outputs, dropout } = *config;
        Self {
            first: Linear::new(&params.pp("net.0"), inputs, hidden),
            norm: LayerNorm::new(&params.pp("net.3"), hidden, NORM_EPS),
            second: Linear::new(&params.pp("net.4"), hidden, outputs),
            dropout,
        }
    }

    /// Tokens `[B, N, inputs]` to a context `[B, N, outputs]`. In training dropout draws from `draw`.
    pub fn forward(&self, tokens: &Tensor, draw: Option<&Generator>) -> Tensor {
        let hidden = dropout(self.first.forward(tokens).gelu("none"), self.dropout, draw);
        dropout(self.second.forward(&self.norm.forward(&hidden)), self.dropout, draw)
    }
}

/// The fusion embedding to a bias on the time embedding, which reaches every residual block.
pub struct FusionProjection {
    first: Linear,
    second: Linear,
    dropout: f64,
}

impl FusionProjection {
    /// Builds it from `net.0` and `net.3`.
    pub fn new(params: &Params, config: &ProjectionConfig) -> Self {
        let ProjectionConfig { inputs, hidden, outputs, dropout } = *config;
        Self {
            first: Linear::new(&params.pp("net.0"), inputs, hidden),
            second: Linear::new(&params.pp("net.3"), hidden, outputs),
            dropout,
        }
    }

    /// Fusion embeddings `[B, inputs]` to biases `[B, outputs]`. An absent one is zero *here*, so that what the U-Net
    /// sees of it is learnt. In training dropout draws from `draw`.
    pub fn forward(&self, fused: &Tensor, draw: Option<&Generator>) -> Tensor {
        let hidden = dropout(self.first.forward(fused).gelu("none"), self.dropout, draw);
        dropout(self.second.forward(&hidden), self.dropout, draw)
    }
}
