//! What one does with concepts: train them, draw them, judge them. No terminal here: functions return values and
//! report events.
//!
//! ```text
//! train     TrainConfig ► TrainPlan ► base, concept ► Trainer::fit ► concept file
//! generate  GenerateRequest ► GeneratePlan ► base, concepts ► denoise ► VAE ► PNG
//! evaluate  EvaluateRequest ► EvaluatePlan ► generate ► CLIP, U-Net ► scores ► results.json
//! report    folder of a run or an evaluation ► report.html
//! ```

mod base;
pub mod config;
mod denoise;
mod device;
mod differences;
pub mod distill;
mod error;
pub mod evaluate;
pub mod generate;
pub mod inspect;
mod judges;
mod latents;
mod limits;
pub mod objective;
mod output;
mod painter;
pub mod photos;
pub mod picture;
pub mod pose;
mod refine;
pub mod report;
pub mod templates;
pub mod train;
pub mod trainer;

pub use base::{Base, random_base};
pub use denoise::{Guidance, PromptContext, denoise};
pub use device::{DeviceChoice, Precision, machine};
pub use embeddings::file::{BaseRecord, ConceptFile, FileError, Origin};
pub use error::Error;
pub use output::FolderLock;
pub use painter::{Painter, Sampling};
pub use refine::Refined;
