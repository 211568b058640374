//! People in poses: joints and the files they come in, skeletons as pictures, lists of pairs, how good a drawn pose is;
//! and FPDM's two stages of training and what they draw.
//!
//! Paper: Lee et al., *Fusion Embedding for Pose-Guided Person Image Synthesis with Diffusion Model* (arXiv 2412.07333).
//!
//! ```text
//! 18 lines `x y`, OpenPose's JSON or a row of a CSV ► Frame ► Skeleton ► draw ► the picture that a pose encoder reads
//! pairs ► train_fusion ► pose weights ► train_generator ► pose weights ► PoseGenerator ► pictures
//! ```

mod config;
mod contrast;
mod csv;
pub mod data;
mod draw;
pub mod evaluate;
mod file;
mod folder;
mod frame;
pub mod frechet;
mod fusion;
mod generate;
mod generator;
mod guidance;
pub mod joints;
pub mod metrics;
mod networks;
mod openpose;
mod pairs;
mod render;
mod request;
mod retrieval;
mod run;
pub mod sequence;
mod shape;
mod skeleton;
mod train;
mod weights;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use config::{FusionConfig, GeneratorConfig, Ready};
pub use contrast::{Contrast, ContrastLoss, Retrieval};
pub use draw::{LINE_WIDTH, draw, overlay, read_picture};
pub use file::read;
pub use folder::FolderPairs;
pub use frame::Frame;
pub use generate::{PoseGenerator, PoseSampling};
pub use generator::Dropping;
pub use guidance::PoseScales;
pub use networks::{Evidence, Fusion, Kept, Routes};
pub use pairs::{PosePair, PosePairs};
pub use render::{RenderRequest, check, render};
pub use request::{PosePictures, PosePlan, PoseRequest, generate};
pub use retrieval::retrieval;
pub use run::PoseRun;
pub use shape::{FusionShape, GeneratorShape, Tuning};
pub use skeleton::{JOINTS, Skeleton, mirrored};
pub use train::{FusionPlan, GeneratorPlan, train_fusion, train_generator};
pub use weights::{PoseRecord, PoseWeights, TrainedOn};

use crate::Error;
use crate::base::check_largest;

/// The side that networks which shrink three times need a multiple of.
pub const MULTIPLE: u32 = 8;

/// The size of FPDM's pictures, width and height: what DeepFashion's poses are drawn at where nothing else is asked for.
pub const DEFAULT_SIZE: (u32, u32) = (352, 512);

/// Something wrong in a file of poses or pairs, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; nothing where the fault is the file's as a whole.
    pub line: Option<usize>,
    /// What was expected, what was found and what to do.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.what),
            None => write!(f, "{}: {}", self.file.display(), self.what),
        }
    }
}

impl Fault {
    fn at(file: &Path, line: impl Into<Option<usize>>, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: line.into(), what: what.into() }
    }
}

/// `WxH` in pixels, both above zero.
pub fn parse_size(text: &str) -> Result<(u32, u32), Error> {
    let sides = text.split_once(['x', '×']).map(|(w, h)| (w.parse::<u32>(), h.parse::<u32>()));
    match sides {
        Some((Ok(width), Ok(height))) if width > 0 && height > 0 => Ok((width, height)),
        _ => Err(Error::Usage(format!(
            "the size '{text}' is not width x height in pixels; write it as 352x512"
        ))),
    }
}

/// Refuses a size that no generator can draw.
pub fn check_size((width, height): (u32, u32)) -> Result<(), Error> {
    for (name, side) in [("width", width), ("height", height)] {
        check_largest(name, side.into())?;
        if side == 0 || side % MULTIPLE != 0 {
            let near = (f64::from(side) / f64::from(MULTIPLE)).round().max(1.0) as u32 * MULTIPLE;
            return Err(Error::Usage(format!(
                "the {name} is {side} pixels, but pictures of poses need a multiple of {MULTIPLE}; use {near}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_two_numbers_that_eight_divides() {
        assert_eq!(parse_size("352x512").unwrap(), (352, 512));
        for text in ["352", "352x", "x512", "0x8", "-8x8", "8x8x8", "8.5x8"] {
            assert!(parse_size(text).unwrap_err().to_string().contains(text), "{text}");
        }
        check_size((352, 512)).unwrap();
        for side in [8200, 65_535, u32::MAX] {
            assert!(check_size((8, side)).unwrap_err().to_string().contains("at most 8192"));
        }
        let said = check_size((350, 512)).unwrap_err().to_string();
        assert!(said.contains("width is 350") && said.ends_with("use 352"), "{said}");
        let said = check_size((8, 3)).unwrap_err().to_string();
        assert!(said.contains("height is 3") && said.ends_with("use 8"), "{said}");
    }
}
