//! From unit vectors to the scores of pictures, prompts and photos.

use std::path::PathBuf;

use tch::{Kind, Tensor};

use super::statistics::mean;
use super::{Metric, PictureResult, PromptResult, Protocol, Scores};
use crate::generate::GenerateRequest;

/// What the encoders gave: the photos first, then the pictures prompt by prompt.
pub(super) struct Vectors {
    /// How many photos there are.
    pub photos: i64,
    /// How many pictures a prompt has.
    pub pictures: i64,
    /// What makes pictures and photos comparable, by what it is called: vectors of both, `[photos + pictures, W]`.
    pub likenesses: Vec<(Metric, Tensor)>,
    /// CLIP's, which can be compared with texts as well.
    pub by_clip: Tensor,
    /// CLIP's vectors of the prompts, `[prompts, W]`, by what they are compared for.
    pub texts: Vec<(Metric, Tensor)>,
}

impl Vectors {
    /// The scores of prompt `i`, whose pictures lie here.
    pub(super) fn prompt(
        &self,
        i: usize,
        protocol: &Protocol,
        request: &GenerateRequest,
        pictures: &[(PathBuf, u64)],
    ) -> PromptResult {
        let from = self.photos + i as i64 * self.pictures;
        let own = |all: &Tensor| all.narrow(0, from, self.pictures); // [n, W]
        let mut columns: Vec<(Metric, Vec<f64>)> = Vec::new();
        for (metric, all) in &self.likenesses {
            columns.push((*metric, to_photos(&own(all), &all.narrow(0, 0, self.photos))));
        }
        for (metric, texts) in &self.texts {
            columns.push((*metric, numbers(&own(&self.by_clip).mv(&texts.get(i as i64)))));
        }
        let file = |path: &PathBuf| {
            format!("pictures/{}", path.file_name().unwrap_or_default().to_string_lossy())
        };
        let result = |(j, (path, seed)): (usize, &(PathBuf, u64))| PictureResult {
            file: file(path),
            seed: *seed,
            scores: columns.iter().map(|(metric, column)| (*metric, column[j])).collect(),
        };
        let means = columns.iter().filter_map(|(metric, column)| Some((*metric, mean(column)?)));
        let diversity = among(&own(&self.by_clip)).map(|cosine| (Metric::Diversity, 1.0 - cosine));
        PromptResult {
            template: protocol.prompts[i].clone(),
            prompt: request.prompts[i].clone(),
            scores: means.chain(diversity).collect(),
            pictures: pictures.iter().enumerate().map(result).collect(),
        }
    }

    /// How alike the photos are; nothing for one photo.
    pub(super) fn among_photos(&self) -> Scores {
        let photos = |all: &Tensor| among(&all.narrow(0, 0, self.photos));
        self.likenesses.iter().filter_map(|(metric, all)| Some((*metric, photos(all)?))).collect()
    }
}

/// The mean cosine of each picture `[n, W]` with all photos `[m, W]`.
fn to_photos(pictures: &Tensor, photos: &Tensor) -> Vec<f64> {
    numbers(&pictures.matmul(&photos.transpose(0, 1)).mean_dim(1, false, Kind::Double))
}

/// The mean cosine of all pairs of rows; nothing for one row.
fn among(rows: &Tensor) -> Option<f64> {
    let count = rows.size()[0];
    if count < 2 {
        return None;
    }
    let cosines = rows.matmul(&rows.transpose(0, 1)); // [n, n]
    let both = (cosines.sum(Kind::Double) - cosines.trace()).double_value(&[]);
    Some(both / (count * (count - 1)) as f64)
}

fn numbers(values: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(values).expect("a vector of f64 on the CPU")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[f64; 2]]) -> Tensor {
        Tensor::from_slice2(rows)
    }

    #[test]
    fn every_picture_is_held_against_every_photo() {
        let pictures = rows(&[[1.0, 0.0], [0.6, 0.8]]);
        let photos = rows(&[[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]);
        let found = to_photos(&pictures, &photos);
        for (found, expected) in found.iter().zip([1.8 / 3.0, (0.6 + 0.8 + 0.96) / 3.0]) {
            assert!((found - expected).abs() < 1e-12, "{found} and {expected}");
        }
    }

    #[test]
    fn pairs_are_counted_without_a_picture_and_itself() {
        // cosines 0, 0.6 and 0.8
        let found = among(&rows(&[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])).unwrap();
        assert!((found - 1.4 / 3.0).abs() < 1e-12, "{found}");
        assert_eq!(among(&rows(&[[1.0, 0.0]])), None);
    }
}
