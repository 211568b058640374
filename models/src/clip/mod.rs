//! CLIP: the text encoder in separable stages, and the vision encoder with its projection.

mod layers;
mod text;
mod vision;

pub use crate::layers::Activation;
pub use text::{ClipText, ClipTextConfig};
pub use vision::{ClipVision, ClipVisionConfig, ClipVisionOutput};
