//! FPDM: what stands for a person in a pose. Not a word in a prompt: it enters the U-Net by the context, the time
//! embedding and the residual after `conv_in`.
//!
//! Paper: Lee et al., *Fusion Embedding for Pose-Guided Person Image Synthesis with Diffusion Model* (arXiv 2412.07333).
//!
//! ```text
//! source photo ── E ──► e_s ─┐
//! pose drawing ── E ──► e_p ─┴► Combiner ──► e_f ──► FusionProjection ──► time_bias
//! source photo ── H ──► tokens ──────────────► SourceProjection ──► context
//! pose drawing ──────────────────────────────► PoseStem ──────────► stem_residual
//! ```

mod combiner;
mod projection;
mod stem;

use tch::{Kind, Tensor};
use torch_ext::Generator;

pub use combiner::{Combiner, CombinerConfig};
pub use projection::{FusionProjection, ProjectionConfig, SourceProjection};
pub use stem::{PoseStem, PoseStemConfig};

/// Puts a share of the numbers at zero and scales the rest up, drawing from the run's own generator; without one, which
/// is not in training, `x` as it is.
fn dropout(x: Tensor, share: f64, draw: Option<&Generator>) -> Tensor {
    let Some(draw) = draw.filter(|_| share > 0.0) else { return x };
    let kept = draw.rand(&x.size()).ge(share).to_kind(Kind::Float) / (1.0 - share);
    let kept = kept.to_device(x.device());
    x * kept
}
