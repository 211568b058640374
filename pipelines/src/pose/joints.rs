//! Finds the joints in pictures of toybox people, to say whether a drawn person stands as was asked for.

use std::path::{Path, PathBuf};

use image::RgbImage;
use models::layers::Conv2d;
use models::params::Params;
use models::weights::Checkpoint;
use tch::{Device, Kind, Tensor};

use super::Skeleton;
use crate::photos::to_tensor;
use crate::{Error, error::guarded};

/// Joints of a person.
const JOINTS: i64 = 18;
/// Pixels along one side of a heat map's cell.
const CELL: i64 = 4;
/// Channels at the heat maps' resolution, and at half of it.
const FINE: i64 = 48;
const COARSE: i64 = 64;
/// The finder that comes with this program.
const BUILT_IN: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/toybox/pose/joints.safetensors");

/// A small network from a picture to a heat map for each joint. Trained on pictures whose joints are known
/// (`toybox joints`); it knows nobody but toybox people.
pub struct JointFinder {
    conv_in: Conv2d,
    down: Conv2d,
    middle: [Conv2d; 3],
    up: Conv2d,
    heat: Conv2d,
}

impl JointFinder {
    /// Builds it from `conv_in`, `down`, `middle.…`, `up` and `heat`.
    pub fn new(params: &Params) -> Self {
        let conv = |key: &str, inputs, outputs| Conv2d::new(&params.pp(key), inputs, outputs, 3);
        Self {
            conv_in: conv("conv_in", 3 * CELL * CELL, FINE),
            down: Conv2d::strided(&params.pp("down"), FINE, COARSE, 3, 2, 1),
            middle: [0, 1, 2].map(|i| conv(&format!("middle.{i}"), COARSE, COARSE)),
            up: conv("up", FINE + COARSE, FINE),
            heat: conv("heat", FINE, JOINTS),
        }
    }

    /// Reads a finder; without a file the built-in one.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let file = file.map_or_else(|| PathBuf::from(BUILT_IN), Path::to_owned);
        let weights = Checkpoint::file(&file, Kind::Float, Device::Cpu)?;
        let finder = Self::new(&Params::root(&weights));
        weights.report()?.require_complete()?;
        Ok(finder)
    }

    /// Pictures `[B, 3, H, W]` in [-1, 1], sides that 8 divides, to the logarithms of heat maps, `[B, 18, H / 4 · W / 4]`.
    pub fn heat(&self, pictures: &Tensor) -> Tensor {
        let fine = self.conv_in.forward(&pictures.pixel_unshuffle(CELL)).relu(); // [B, 48, H/4, W/4]
        let mut coarse = self.down.forward(&fine).relu(); // [B, 64, H/8, W/8]
        for conv in &self.middle {
            coarse = &coarse + conv.forward(&coarse).relu();
        }
        let size = fine.size();
        let wide = coarse.upsample_nearest2d([size[2], size[3]], None, None);
        let x = self.up.forward(&Tensor::cat(&[fine, wide], 1)).relu();
        self.heat.forward(&x).flatten(2, 3).log_softmax(-1, Kind::Float)
    }

    /// Where heat maps of a picture of this size are centred, in cells, `[B, 18, 2]`, x first.
    pub fn centres(heat: &Tensor, (width, height): (i64, i64)) -> Tensor {
        let cells = cells((width, height), heat.device()); // [H/4 · W/4, 2]
        heat.exp().matmul(&cells)
    }

    /// The joints of a picture, in pixels. All eighteen are always found somewhere.
    pub fn find(&self, picture: &RgbImage) -> Result<[(f64, f64); 18], Error> {
        guarded("looking for joints", || {
            let size = (i64::from(picture.width()), i64::from(picture.height()));
            let centres = tch::no_grad(|| Self::centres(&self.heat(&to_tensor(picture)), size));
            let cell = CELL as f64;
            Ok(std::array::from_fn(|joint| {
                let at = |axis| cell * centres.double_value(&[0, joint as i64, axis]);
                (at(0), at(1))
            }))
        })
    }
}

/// The middles of a heat map's cells, in cells, row by row, `[H/4 · W/4, 2]`, x first.
pub fn cells((width, height): (i64, i64), device: Device) -> Tensor {
    let axis = |side: i64| Tensor::arange(side / CELL, (Kind::Float, device)) + 0.5;
    let (x, y) = (axis(width), axis(height));
    let (rows, columns) = (y.size()[0], x.size()[0]);
    let x = x.view([1, -1]).expand([rows, columns], false);
    let y = y.view([-1, 1]).expand([rows, columns], false);
    Tensor::stack(&[x, y], -1).view([-1, 2])
}

/// Joints in cells of heat maps, `[18, 2]`, x first; those that are not seen lie at -1.
pub fn in_cells(pose: &Skeleton, size: (u32, u32)) -> Tensor {
    let numbers: Vec<f32> = pose
        .at(size)
        .iter()
        .flat_map(|joint| joint.map_or([-1.0; 2], |(x, y)| [x, y].map(|v| v as f32 / CELL as f32)))
        .collect();
    Tensor::from_slice(&numbers).view([JOINTS, 2])
}

/// How far found joints lie from those of a pose in a picture of this size: the mean distance as a share of the figure's
/// height, from the highest joint to the lowest, and the share of joints that are nearer than a twentieth of that.
pub fn joint_error(
    found: &[(f64, f64); 18],
    pose: &Skeleton,
    size: (u32, u32),
) -> Option<(f64, f64)> {
    const NEAR: f64 = 0.05;
    let joints = pose.at(size);
    let heights = joints.iter().flatten().map(|joint| joint.1);
    let (top, bottom) = heights.fold((f64::MAX, f64::MIN), |(a, b), y| (a.min(y), b.max(y)));
    let height = bottom - top;
    if height.is_nan() || height <= 0.0 {
        return None; // fewer than two joints, or all on one line: no figure to measure by
    }
    let seen = found
        .iter()
        .zip(&joints)
        .filter_map(|(found, joint)| joint.map(|(x, y)| (x - found.0).hypot(y - found.1) / height));
    let errors: Vec<f64> = seen.collect();
    let share = |count: usize| count as f64 / errors.len() as f64;
    let near = errors.iter().filter(|error| **error < NEAR).count();
    Some((errors.iter().sum::<f64>() / errors.len() as f64, share(near)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tall() -> Skeleton {
        let mut pose = Skeleton([None; 18]);
        pose.0[0] = Some((0.5, 0.25));
        pose.0[10] = Some((0.5, 0.75));
        pose
    }

    #[test]
    fn errors_are_shares_of_the_figure_s_height_and_unseen_joints_do_not_count() {
        // 100 pixels wide, 200 high: a figure of 100 pixels.
        let mut found = [(0.0, 0.0); 18];
        found[0] = (53.0, 50.0); // 3 pixels off
        found[10] = (50.0, 160.0); // 10 pixels off
        let (error, near) = joint_error(&found, &tall(), (100, 200)).unwrap();
        assert!((error - 0.065).abs() < 1e-12 && (near - 0.5).abs() < 1e-12, "{error}, {near}");
        assert!(joint_error(&found, &Skeleton([None; 18]), (100, 200)).is_none());
    }

    #[test]
    fn a_sharp_heat_map_is_centred_on_its_cell() {
        let size = (32, 16);
        let target = in_cells(&Skeleton([Some((0.5 + 1.0 / 64.0, 0.3)); 18]), (32, 16)); // x 16.5, y 4.8
        let distances = (cells(size, Device::Cpu).unsqueeze(0) - target.unsqueeze(1)).square();
        let heat = (distances.sum_dim_intlist(-1, false, Kind::Float) * -50.0)
            .log_softmax(-1, Kind::Float)
            .unsqueeze(0); // [1, 18, 32]
        let centres = JointFinder::centres(&heat, size);
        assert!((centres.double_value(&[0, 3, 0]) - 4.5).abs() < 0.13);
        assert!((centres.double_value(&[0, 3, 1]) - 1.5).abs() < 0.01);
    }
}
