//! The few pieces of libtorch that tch does not expose, as safe functions. The only crate with `unsafe`.
