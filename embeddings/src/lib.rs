//! What a concept is: its parameters, its place in a prompt, and its file.
//!
//! ```text
//! prompt ─ tokenize ─► PromptTokens ─┐
//! concepts ─────────────────────────┴─ Conditioner::encode ─► CrossAttnContext
//! ```

mod concept;
mod conditioner;
mod cones;
pub mod file;
pub mod fpdm;
mod mixed;
mod neti;
mod pair;
mod prompt;
mod textual_inversion;
mod word;
mod xti;

pub use concept::{Adjustment, Concept, Injection, Site, Varies};
pub use conditioner::Conditioner;
pub use cones::{Cones, ConesRows, ConesSettings};
pub use mixed::Mixed;
pub use neti::{Mapper, MapperConfig, Neti, NetiSettings, NormMode};
pub use pair::PromptPair;
pub use prompt::{
    Overflow, PromptError, PromptTokens, Slot, check_placeholder, placeholders_in, start_of,
    words_beyond,
};
pub use textual_inversion::{Initializer, TextualInversion};
pub use word::{composed, replace_word, same_word};
pub use xti::Xti;
