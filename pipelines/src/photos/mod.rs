//! The photos of a concept.
