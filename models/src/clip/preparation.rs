//! From a picture of any size to what CLIP's vision tower reads: resized, cut around the middle, normalised.

use std::path::Path;

use serde::Deserialize;
use tch::{Kind, Tensor};

use super::resample::resize;
use crate::ModelError;
use crate::config::read_config;

/// The mean and deviation of the channels in CLIP's own training, for folders without `preprocessor_config.json`.
pub(crate) const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
pub(crate) const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
/// PIL's number for bicubic interpolation.
const BICUBIC: i64 = 3;

/// What transformers' `CLIPImageProcessor` does, by `preprocessor_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct PicturePreparation {
    /// The shorter side after resizing, in pixels.
    shortest_edge: i64,
    /// Side of the square that is kept, in pixels.
    side: i64,
    mean: [f64; 3],
    std: [f64; 3],
}

/// `preprocessor_config.json`; what is absent has `CLIPImageProcessor`'s default.
#[derive(Deserialize)]
struct File {
    size: Option<Size>,
    crop_size: Option<Size>,
    #[serde(default = "bicubic")]
    resample: i64,
    #[serde(default = "yes")]
    do_resize: bool,
    #[serde(default = "yes")]
    do_center_crop: bool,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "yes")]
    do_normalize: bool,
    rescale_factor: Option<f64>,
    #[serde(default = "clip_mean")]
    image_mean: [f64; 3],
    #[serde(default = "clip_std")]
    image_std: [f64; 3],
}

/// A number of pixels, as older files have it, or an object.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(i64),
    Shortest { shortest_edge: i64 },
    Both { height: i64, width: i64 },
}

fn bicubic() -> i64 {
    BICUBIC
}
fn yes() -> bool {
    true
}
fn clip_mean() -> [f64; 3] {
    CLIP_MEAN
}
fn clip_std() -> [f64; 3] {
    CLIP_STD
}

impl PicturePreparation {
    /// The shorter side to `shortest_edge` pixels, the middle square of `side`, normalised by channel.
    pub(crate) fn new(shortest_edge: i64, side: i64, mean: [f64; 3], std: [f64; 3]) -> Self {
        Self { shortest_edge, side, mean, std }
    }

    /// Of a CLIP folder whose tower reads squares of `side` pixels; CLIP's own where the folder says nothing.
    ///
    /// Errors: a file that asks for steps which CLIP's processor does not take, or for another size than the tower's.
    pub fn read(folder: &Path, side: i64) -> Result<Self, ModelError> {
        let path = folder.join("preprocessor_config.json");
        if !path.is_file() {
            return Ok(Self { shortest_edge: side, side, mean: CLIP_MEAN, std: CLIP_STD });
        }
        Self::checked(&path, &read_config(&path)?, side)
    }

    fn checked(path: &Path, file: &File, side: i64) -> Result<Self, ModelError> {
        let refuse = |what: String| Err(ModelError::invalid(path, what));
        let steps = file.do_resize && file.do_center_crop && file.do_rescale && file.do_normalize;
        let factor = file.rescale_factor.unwrap_or(1.0 / 255.0);
        if !steps || file.resample != BICUBIC || (factor * 255.0 - 1.0).abs() > 1e-6 {
            return refuse(
                "other steps than CLIP's are asked for (bicubic resizing, centre crop, rescaling by 1/255, \
                 normalisation); use the file of a CLIP model"
                    .into(),
            );
        }
        if !file.image_std.iter().all(|std| *std > 0.0) {
            return refuse("image_std holds a number that is not above 0; use the file that came with the weights".into());
        }
        let crop = match file.crop_size {
            None => side,
            Some(Size::Side(n) | Size::Shortest { shortest_edge: n }) => n,
            Some(Size::Both { height, width }) if height == width => height,
            Some(Size::Both { height, width }) => {
                return refuse(format!(
                    "the crop is {width}x{height}, but the vision tower reads squares of {side}; use files of one model"
                ));
            }
        };
        if crop != side {
            return refuse(format!(
                "pictures are cut to {crop} pixels, but the vision tower of config.json reads {side}; use files of \
                 one model"
            ));
        }
        let shortest_edge = match file.size {
            None => side,
            Some(Size::Side(n) | Size::Shortest { shortest_edge: n }) if n >= side => n,
            _ => {
                return refuse(format!(
                    "size has to give a shortest_edge of at least {side} pixels; use the file of a CLIP model"
                ));
            }
        };
        Ok(Self { shortest_edge, side, mean: file.image_mean, std: file.image_std })
    }

    /// Side of the square that is kept, in pixels.
    pub fn side(&self) -> i64 {
        self.side
    }

    /// The square of a picture of (width, height) that the tower reads; RGB bytes row by row, here and there.
    pub fn cut(&self, pixels: &[u8], (width, height): (usize, usize)) -> Vec<u8> {
        let (edge, side) = (self.shortest_edge as usize, self.side as usize);
        // The longer side in integers, cut off as transformers does.
        let (new_width, new_height) = if height <= width {
            (edge * width / height, edge)
        } else {
            (edge, edge * height / width)
        };
        let resized = resize(pixels, (width, height), (new_width, new_height));
        let (top, left) = ((new_height - side) / 2, (new_width - side) / 2);
        let rows = resized.chunks_exact(3 * new_width).skip(top).take(side);
        rows.flat_map(|row| &row[3 * left..3 * (left + side)]).copied().collect()
    }

    /// Bytes `[B, side, side, 3]` of cut pictures as the tower reads them: `[B, 3, side, side]` f32, where they are.
    pub fn normalise(&self, bytes: &Tensor) -> Tensor {
        let channels = |numbers: &[f64; 3]| {
            let numbers = Tensor::from_slice(numbers).to_kind(Kind::Float).view([1, 3, 1, 1]);
            numbers.to_device(bytes.device())
        };
        let levels = bytes.permute([0, 3, 1, 2]).to_kind(Kind::Float); // [B, 3, side, side]
        (levels / 255.0 - channels(&self.mean)) / channels(&self.std)
    }

    /// A picture of (width, height), RGB bytes row by row, as the tower reads it: `[1, 3, side, side]` f32 on the CPU.
    pub fn prepare(&self, pixels: &[u8], size: (usize, usize)) -> Tensor {
        let cut = Tensor::from_slice(&self.cut(pixels, size));
        self.normalise(&cut.view([1, self.side, self.side, 3]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PicturePreparation, String> {
        let file = serde_json::from_str(text).map_err(|e| e.to_string())?;
        PicturePreparation::checked(Path::new("p.json"), &file, 128).map_err(|e| e.to_string())
    }

    #[test]
    fn sizes_of_old_and_new_files_are_read() {
        let new = r#"{"size": {"shortest_edge": 144}, "crop_size": {"height": 128, "width": 128}}"#;
        let found = read(new).unwrap();
        assert_eq!((found.shortest_edge, found.side, found.mean), (144, 128, CLIP_MEAN));
        assert_eq!(read(r#"{"size": 144, "crop_size": 128}"#).unwrap(), found);
    }

    #[test]
    fn what_clip_does_not_do_is_refused() {
        for (text, reason) in [
            (r#"{"crop_size": 224}"#, "cut to 224 pixels, but the vision tower"),
            (r#"{"crop_size": {"height": 128, "width": 64}}"#, "the crop is 64x128"),
            (r#"{"size": {"height": 128, "width": 128}}"#, "shortest_edge of at least 128"),
            (r#"{"size": 64}"#, "shortest_edge of at least 128"),
            (r#"{"resample": 2}"#, "other steps than CLIP's"),
            (r#"{"do_normalize": false}"#, "other steps than CLIP's"),
            (r#"{"image_std": [0, 1, 1]}"#, "not above 0"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_picture_of_the_tower_s_size_is_only_normalised() {
        let half = PicturePreparation { shortest_edge: 2, side: 2, mean: [0.5; 3], std: [0.5; 3] };
        let bytes: Vec<u8> = (0..12).map(|i| i * 23).collect();
        let ours = half.prepare(&bytes, (2, 2));
        let expected = Tensor::from_slice(&bytes).view([2, 2, 3]).permute([2, 0, 1]) / 127.5 - 1.0;
        assert!((ours.squeeze_dim(0) - expected).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn the_middle_of_a_wide_picture_is_kept() {
        let cut = PicturePreparation { shortest_edge: 4, side: 4, mean: [0.0; 3], std: [1.0; 3] };
        let columns: Vec<u8> = (0..9).flat_map(|x| [x; 3]).collect();
        let ours = cut.prepare(&columns.repeat(4), (9, 4));
        let first = Vec::<f32>::try_from((ours * 255.0).get(0).get(0).get(0)).unwrap();
        assert_eq!(first.iter().map(|x| x.round()).collect::<Vec<_>>(), [2.0, 3.0, 4.0, 5.0]);
    }
}
