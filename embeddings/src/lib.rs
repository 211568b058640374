//! What a concept is: its parameters, its place in a prompt, and its file.
//!
//! ```text
//! prompt ─ tokenize ─► PromptTokens ─┐
//! concepts ─────────────────────────┴─ Conditioner::encode ─► CrossAttnContext
//! ```

mod conditioner;
pub mod file;
mod pair;
mod prompt;
mod textual_inversion;

pub use conditioner::Conditioner;
pub use pair::PromptPair;
pub use prompt::{Overflow, PromptError, PromptTokens, Slot, check_placeholder, placeholders_in};
pub use textual_inversion::{Initializer, TextualInversion};
