//! The command line of `personalize`.
fn main() {}
