//! CLIP: the text encoder in separable stages, the vision encoder with its projection, and both together.

mod joint;
mod preparation;
mod resample;
mod text;

pub use crate::layers::Activation;
pub use crate::vit::{ClipVision, ClipVisionConfig, ClipVisionOutput};
pub use joint::{Clip, ClipConfig, tokenizer_folder};
pub use preparation::PicturePreparation;
pub(crate) use preparation::{CLIP_MEAN, CLIP_STD};
pub use resample::resize;
pub(crate) use text::CLASS as TEXT_CLASS;
pub use text::{ClipText, ClipTextConfig};
