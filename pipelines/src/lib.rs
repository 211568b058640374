//! What one does with concepts: train them, draw them.

pub mod photos;
pub mod picture;
pub mod templates;
