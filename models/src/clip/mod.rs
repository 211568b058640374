//! CLIP: the text encoder in separable stages, the vision encoder with its projection, and both together.

mod joint;
mod layers;
mod preparation;
mod resample;
mod text;
mod vision;

pub use crate::layers::Activation;
pub use joint::{Clip, ClipConfig, tokenizer_folder};
pub use preparation::PicturePreparation;
pub use resample::resize;
pub use text::{ClipText, ClipTextConfig};
pub use vision::{ClipVision, ClipVisionConfig, ClipVisionOutput};
