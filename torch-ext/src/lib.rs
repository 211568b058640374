//! The few pieces of libtorch and of the system that tch and std do not expose, as safe functions. The only crate with
//! `unsafe`.
//!
//! Every function here that touches libtorch calls [`init`] first, so that the CUDA half of libtorch, where there is
//! one, is registered before anything asks for it.

mod bytes;
mod checkpoint;
mod cuda;
mod error;
mod ffi;
pub mod file;
mod frozen;
mod generator;
mod grad;
mod process;
mod runtime;
mod tensor_file;
mod weight;

pub use bytes::{from_bytes, to_bytes};
pub use checkpoint::checkpoint;
pub use cuda::{Cuda, init};
pub use error::TorchError;
pub use frozen::{FrozenConv2d, FrozenLinear};
pub use generator::Generator;
pub use grad::grad;
pub use process::{exit_now, is_ignored, started_in_removed_folder, survive_file_size_limit};
pub use runtime::{
    MemoryStats, channels_last, empty_cache, is_channels_last, libtorch_version, memory_stats,
    reset_peak_memory, set_cudnn_benchmark, set_deterministic, set_tf32, set_threads, threads,
};
pub use tensor_file::TensorFile;
pub use weight::Weight;
