//! Drawn people beside the true ones, and beside what costs nothing: the source copied, the background alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use models::lpips::Lpips;
use models::params::Params;
use models::weights::Checkpoint;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::csv::pictures_below;
use super::file::pose_of;
use super::folder::squashed;
use super::frechet::{self, FrechetJudge};
use super::joints::{JointFinder, joint_error};
use super::metrics::{Mask, foreground_l1, l1, psnr, ssim_gaussian, ssim_uniform51};
use super::{Fault, Frame};
use crate::error::guarded;
use crate::evaluate::{Hashed, write_json};
use crate::{DeviceChoice, Error, photos};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// [`ssim_gaussian`].
    SsimGaussian,
    /// [`ssim_uniform51`].
    SsimUniform51,
    /// [`psnr`].
    Psnr,
    /// [`l1`].
    L1,
    /// [`Lpips::distance`]; needs its weights.
    Lpips,
    /// [`frechet::distance`] from the true pictures; needs Inception's weights. A number of a row, not of a picture.
    FidTruth,
    /// The same from another folder.
    FidReference,
    /// [`foreground_l1`]; needs masks.
    ForegroundL1,
    /// [`Mask::iou`] of the silhouette and the mask; needs masks and backgrounds.
    SilhouetteIou,
    /// The first of [`joint_error`]; needs poses.
    JointError,
    /// Its second.
    JointsNear,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::SsimGaussian,
        Self::SsimUniform51,
        Self::Psnr,
        Self::L1,
        Self::Lpips,
        Self::FidTruth,
        Self::FidReference,
        Self::ForegroundL1,
        Self::SilhouetteIou,
        Self::JointError,
        Self::JointsNear,
    ];

    /// What people call it, with an arrow to the better side.
    pub fn name(self) -> &'static str {
        match self {
            Self::SsimGaussian => "SSIM Gaussian ↑",
            Self::SsimUniform51 => "SSIM uniform 51 ↑",
            Self::Psnr => "PSNR dB ↑",
            Self::L1 => "L1 ↓",
            Self::Lpips => "LPIPS ↓",
            Self::FidTruth => "FID truth ↓",
            Self::FidReference => "FID reference ↓",
            Self::ForegroundL1 => "foreground L1 ↓",
            Self::SilhouetteIou => "silhouette IoU ↑",
            Self::JointError => "joint error ↓",
            Self::JointsNear => "joints near ↑",
        }
    }
}

/// A number for each metric that applies.
pub type Scores = BTreeMap<Metric, f64>;

/// What a user asks for. Pictures of different folders belong together where their names without the ending are equal.
#[derive(Debug, Clone, Default)]
pub struct EvaluateRequest {
    /// Folder of the true pictures; which are there says what is scored.
    pub truth: PathBuf,
    /// Folders of pictures to hold against them, by the name of their row.
    pub rows: Vec<(String, PathBuf)>,
    /// Folder of the true silhouettes, light on dark.
    pub masks: Option<PathBuf>,
    /// Folder of the backgrounds without anybody.
    pub backgrounds: Option<PathBuf>,
    /// Where the true joints are.
    pub poses: Option<TruePoses>,
    /// Weights of [`Lpips`].
    pub lpips: Option<PathBuf>,
    /// Weights of Inception.
    pub fid: Option<PathBuf>,
    /// Folder of pictures, those below it included, that distributions are compared with besides the true ones; the
    /// training set's, in FPDM's tables. Brought to the size of the true pictures.
    pub fid_reference: Option<PathBuf>,
    /// Where these two networks compute.
    pub device: DeviceChoice,
    /// The size at which all is compared; without it, all must be of the truth's size.
    pub size: Option<(u32, u32)>,
}

/// The joints that drawn people are to have, and what finds those that they have.
#[derive(Debug, Clone)]
pub struct TruePoses {
    /// Folder of pose files.
    pub folder: PathBuf,
    /// What they count in.
    pub frame: Frame,
    /// Weights of a [`JointFinder`]; without them the built-in ones, for toybox people.
    pub finder: Option<PathBuf>,
}

/// One picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PictureScores {
    /// Its name without the ending.
    pub name: String,
    /// Its scores; an infinite one (PSNR of equal pictures) is `null` in JSON.
    pub scores: Scores,
}

/// One folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// The means over the pictures that have a score.
    pub means: Scores,
    /// Picture by picture.
    pub pictures: Vec<PictureScores>,
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The version of this tool.
    pub tool_version: String,
    /// Pictures of each row.
    pub count: usize,
    /// The size that all were resized to, if they were.
    pub size: Option<(u32, u32)>,
    /// The weights of LPIPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lpips: Option<Hashed>,
    /// The weights of Inception.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fid: Option<Hashed>,
    /// What distributions were compared with besides the truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fid_reference: Option<Reference>,
    /// The rows; where poses, or masks and backgrounds were given, the first is the truth itself, the best there can be.
    pub rows: Vec<Row>,
}

/// A set of pictures that a distribution was compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    /// The folder.
    pub folder: PathBuf,
    /// Pictures in it and below it.
    pub count: usize,
}

impl Evaluation {
    /// Writes all of it as JSON.
    pub fn write(&self, file: &Path) -> Result<(), Error> {
        write_json(file, self)
    }
}

/// The pictures of a folder by name.
type Folder = BTreeMap<String, PathBuf>;

/// Scores every row. That all pictures are there is checked before the first is read.
pub fn evaluate(request: &EvaluateRequest) -> Result<Evaluation, Error> {
    if let Some(size) = request.size {
        super::check_size(size)?;
    }
    let truth = list(&request.truth)?;
    let matching = |folder: &PathBuf| -> Result<Folder, Error> {
        let found = list(folder)?;
        let mut missing = truth.keys().filter(|name| !found.contains_key(*name));
        match missing.next() {
            None => Ok(found),
            Some(name) => {
                let others = match missing.count() {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                let what = format!(
                    "holds no picture called {name}{others}, which {} does; give a folder with a picture of the same name for each of them",
                    request.truth.display()
                );
                Err(Fault::at(folder, None, what).into())
            }
        }
    };
    let masks = request.masks.as_ref().map(matching).transpose()?;
    let backgrounds = request.backgrounds.as_ref().map(matching).transpose()?;
    let poses = request.poses.as_ref().map(|poses| Poses::read(poses, truth.keys())).transpose()?;
    let mut rows = Vec::new();
    if poses.is_some() || (masks.is_some() && backgrounds.is_some()) {
        rows.push(("truth".to_owned(), truth.clone()));
    }
    for (name, folder) in &request.rows {
        rows.push((name.clone(), matching(folder)?));
    }
    if let Some(folder) = &backgrounds {
        rows.push(("background alone".to_owned(), folder.clone()));
    }
    let networks = Networks::load(request, &truth)?;
    // Each with what Inception sees in its pictures, where it looks at them.
    let mut rows: Vec<(Row, Folder, Vec<Tensor>)> = rows
        .into_iter()
        .map(|(name, files)| {
            (Row { name, means: Scores::new(), pictures: Vec::new() }, files, Vec::new())
        })
        .collect();
    let mut true_features = Vec::new();
    for (name, file) in &truth {
        let picture = photos::read(file)?;
        let own_size = picture.dimensions();
        let picture = squashed(picture, request.size.unwrap_or(own_size));
        let like = |folder: &Folder| read_like(&folder[name], request.size, (&picture, file));
        let mask = masks.as_ref().map(like).transpose()?.map(|mask| Mask::light(&mask));
        let background = backgrounds.as_ref().map(like).transpose()?;
        true_features.extend(networks.features(&picture)?);
        for (row, files, features) in &mut rows {
            let drawn = like(files)?;
            let mut scores = guarded("scoring", || {
                Ok(score(&picture, &drawn, mask.as_ref(), background.as_ref()))
            })?;
            if let Some(poses) = &poses {
                scores.extend(poses.score(name, &drawn, own_size)?);
            }
            scores.extend(guarded("scoring", || Ok(networks.lpips(&picture, &drawn)))?);
            features.extend(networks.features(&drawn)?);
            row.pictures.push(PictureScores { name: name.clone(), scores });
        }
    }
    let sets = networks.sets(&true_features)?;
    let hash = |file: &Option<PathBuf>| file.as_deref().map(Hashed::of_file).transpose();
    let rows = rows.into_iter().map(|(row, _, features)| {
        let mut means = means(&row.pictures);
        for (metric, those) in &sets {
            let these = Tensor::cat(&features, 0);
            let distance = guarded("scoring", || Ok(frechet::distance(&these, those)))?;
            means.insert(*metric, distance);
        }
        Ok(Row { means, ..row })
    });
    Ok(Evaluation {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        count: truth.len(),
        size: request.size,
        lpips: hash(&request.lpips)?,
        fid: hash(&request.fid)?,
        fid_reference: request
            .fid_reference
            .clone()
            .map(|folder| Reference { folder, count: networks.reference.len() }),
        rows: rows.collect::<Result<_, Error>>()?,
    })
}

fn score(
    truth: &RgbImage,
    drawn: &RgbImage,
    mask: Option<&Mask>,
    background: Option<&RgbImage>,
) -> Scores {
    let silhouette = background.map(|background| Mask::silhouette(drawn, background));
    let all = [
        (Metric::SsimGaussian, ssim_gaussian(truth, drawn)),
        (Metric::SsimUniform51, ssim_uniform51(truth, drawn)),
        (Metric::Psnr, Some(psnr(truth, drawn))),
        (Metric::L1, Some(l1(truth, drawn))),
        (Metric::ForegroundL1, mask.and_then(|mask| foreground_l1(truth, drawn, mask))),
        (
            Metric::SilhouetteIou,
            mask.zip(silhouette).and_then(|(mask, silhouette)| mask.iou(&silhouette)),
        ),
    ];
    all.into_iter().filter_map(|(metric, value)| Some((metric, value?))).collect()
}

/// Poses by the names of the pictures, and the finder.
struct Poses {
    files: BTreeMap<String, PathBuf>,
    frame: Frame,
    finder: JointFinder,
}

impl Poses {
    fn read<'a>(poses: &TruePoses, names: impl Iterator<Item = &'a String>) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        for name in names {
            let file = pose_of(&poses.folder.join(name));
            if !file.is_file() {
                let what = format!(
                    "holds no pose {name}.txt or {name}.json; give a folder with 18 lines `x y`, or OpenPose's JSON, for each picture"
                );
                return Err(Fault::at(&poses.folder, None, what).into());
            }
            files.insert(name.clone(), file);
        }
        let finder = JointFinder::load(poses.finder.as_deref())?;
        Ok(Self { files, frame: poses.frame, finder })
    }

    /// `truth` is the size of the true picture in its file, which pixels of the frame are pixels of.
    fn score(&self, name: &str, drawn: &RgbImage, truth: (u32, u32)) -> Result<Scores, Error> {
        let size = drawn.dimensions();
        let pose = super::read(&self.files[name], self.frame, truth)?;
        let found = joint_error(&self.finder.find(drawn)?, &pose, size);
        let both =
            found.map(|(error, near)| [(Metric::JointError, error), (Metric::JointsNear, near)]);
        Ok(both.into_iter().flatten().collect())
    }
}

/// The networks that look at pictures as people do, where their weights are given.
struct Networks {
    device: Device,
    lpips: Option<Lpips>,
    fid: Option<FrechetJudge>,
    reference: Vec<PathBuf>,
    /// Of the pictures that are scored.
    size: (u32, u32),
}

impl Networks {
    fn load(request: &EvaluateRequest, truth: &Folder) -> Result<Self, Error> {
        let EvaluateRequest { lpips, fid, fid_reference, .. } = request;
        let first = truth.values().next().map(|file| read(file, request.size)).transpose()?;
        let size = first.map_or((0, 0), |picture| picture.dimensions());
        let (width, height) = size;
        if request.poses.is_some() && width > 0 {
            super::check_size(size).map_err(|error| {
                Error::Usage(format!(
                    "joints are looked for in pictures of other sizes: {error}, as --size"
                ))
            })?;
        }
        if lpips.is_some() && width.min(height) < Lpips::LEAST_SIDE {
            return Err(Error::Usage(format!(
                "pictures are {width}x{height}, but LPIPS needs {} pixels a side; leave --lpips out, or give a larger --size",
                Lpips::LEAST_SIDE
            )));
        }
        if fid.is_some() {
            frechet::require_two(&request.truth, truth.len(), "--fid")?;
        }
        let reference = fid_reference.as_deref().map(pictures_below).transpose()?;
        let reference = reference.unwrap_or_default();
        if let Some(folder) = fid_reference {
            frechet::require_two(folder, reference.len(), "--fid-reference")?;
        }
        let device = match (lpips, fid) {
            (None, None) => Device::Cpu,
            _ => request.device.resolve()?,
        };
        if device.is_cuda() {
            torch_ext::set_tf32(false); // scores are compared, so they are f32 everywhere
        }
        let lpips = lpips.as_ref().map(|file| {
            let weights = Checkpoint::file(file, Kind::Float, device)?;
            let lpips = Lpips::new(&Params::root(&weights));
            weights.report()?.require_complete()?;
            Ok::<_, Error>(lpips)
        });
        let fid = fid.as_ref().map(|file| FrechetJudge::load(file, device)).transpose()?;
        Ok(Self { device, lpips: lpips.transpose()?, fid, reference, size })
    }

    fn lpips(&self, truth: &RgbImage, drawn: &RgbImage) -> Option<(Metric, f64)> {
        let lpips = self.lpips.as_ref()?;
        let [truth, drawn] = [truth, drawn].map(|x| photos::to_tensor(x).to_device(self.device));
        let distance = tch::no_grad(|| lpips.distance(&truth, &drawn));
        Some((Metric::Lpips, distance.double_value(&[0])))
    }

    /// What Inception sees in a picture, `[1, 2048]`.
    fn features(&self, picture: &RgbImage) -> Result<Option<Tensor>, Error> {
        let features = |judge: &FrechetJudge| guarded("scoring", || Ok(judge.features(picture)));
        self.fid.as_ref().map(features).transpose()
    }

    /// What it sees in all pictures that each row is compared with, `[N, 2048]`: the true ones, and the reference.
    fn sets(&self, truth: &[Tensor]) -> Result<Vec<(Metric, Tensor)>, Error> {
        let mut reference = Vec::new();
        for file in &self.reference {
            reference.extend(self.features(&read(file, Some(self.size))?)?);
        }
        let all = [(Metric::FidTruth, truth), (Metric::FidReference, &reference)];
        let given = all.into_iter().filter(|(_, features)| !features.is_empty());
        Ok(given.map(|(metric, features)| (metric, Tensor::cat(features, 0))).collect())
    }
}

fn means(pictures: &[PictureScores]) -> Scores {
    let mut values = BTreeMap::<Metric, Vec<f64>>::new();
    for (metric, value) in pictures.iter().flat_map(|picture| &picture.scores) {
        values.entry(*metric).or_default().push(*value);
    }
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    values.into_iter().map(|(metric, values)| (metric, mean(values))).collect()
}

fn list(folder: &Path) -> Result<Folder, Error> {
    let mut found = Folder::new();
    for path in photos::list(folder)?.0 {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(other) = found.insert(name.clone(), path.clone()) {
            let what = format!(
                "has the name of {}, and one would stand for both; remove one of them",
                other.display()
            );
            return Err(Fault::at(&path, None, what).into());
        }
    }
    Ok(found)
}

/// A picture, resized as Pillow's bicubic does it where a size is given.
fn read(file: &Path, size: Option<(u32, u32)>) -> Result<RgbImage, Error> {
    let picture = photos::read(file)?;
    Ok(match size {
        Some(size) => squashed(picture, size),
        None => picture,
    })
}

/// [`read`], where the size must be another picture's.
fn read_like(
    file: &Path,
    size: Option<(u32, u32)>,
    (like, its): (&RgbImage, &Path),
) -> Result<RgbImage, Error> {
    let picture = read(file, size)?;
    if picture.dimensions() == like.dimensions() {
        return Ok(picture);
    }
    let shown = |(width, height): (u32, u32)| format!("{width}x{height}");
    let what = format!(
        "is {} pixels, but {} is {}; pass --size {} to resize all of them, and give the size with the scores, since they depend on it",
        shown(picture.dimensions()),
        its.display(),
        shown(like.dimensions()),
        shown(super::DEFAULT_SIZE),
    );
    Err(Fault::at(file, None, what).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn folder(root: &Path, name: &str, pictures: &[(&str, u8)], size: u32) -> PathBuf {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, level) in pictures {
            let picture =
                RgbImage::from_fn(size, size, |x, y| Rgb([*level, x as u8, (x * y) as u8]));
            picture.save(folder.join(file)).unwrap();
        }
        folder
    }

    #[test]
    fn rows_hold_the_means_over_the_pictures_of_equal_names() {
        let root = tempfile::tempdir().unwrap();
        let truth = folder(root.path(), "truth", &[("a.png", 0), ("b.png", 0)], 24);
        let drawn =
            folder(root.path(), "drawn", &[("a.bmp", 51), ("b.png", 153), ("z.png", 9)], 24);
        let rows = vec![("drawn".to_owned(), drawn)];
        let found = evaluate(&EvaluateRequest { truth, rows, ..Default::default() }).unwrap();
        assert_eq!((found.count, found.rows.len()), (2, 1));
        let row = &found.rows[0];
        assert_eq!(row.pictures.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!((row.means[&Metric::L1] - 0.4 / 3.0).abs() < 1e-12);
        assert!(!row.means.contains_key(&Metric::SsimUniform51)); // 24 pixels are below its window
        assert!(!row.means.contains_key(&Metric::ForegroundL1)); // no masks
    }

    #[test]
    fn masks_and_backgrounds_add_their_metrics_and_rows() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str, level| folder(root.path(), name, &[("a.png", level)], 16);
        let request = EvaluateRequest {
            truth: at("truth", 200),
            rows: vec![("drawn".into(), at("drawn", 210))],
            masks: Some(at("masks", 255)),
            backgrounds: Some(at("backgrounds", 0)),
            ..Default::default()
        };
        let found = evaluate(&request).unwrap();
        let names: Vec<&str> = found.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["truth", "drawn", "background alone"]);
        let of = |row: usize, metric| found.rows[row].means[&metric];
        assert_eq!((of(0, Metric::SilhouetteIou), of(2, Metric::SilhouetteIou)), (1.0, 0.0));
        assert!((of(1, Metric::ForegroundL1) - 10.0 / 255.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn what_does_not_match_is_named() {
        let root = tempfile::tempdir().unwrap();
        let truth = folder(root.path(), "truth", &[("a.png", 0), ("b.png", 0), ("c.png", 0)], 24);
        let said = |rows: &[(&str, PathBuf)], size| {
            let rows =
                rows.iter().map(|(name, folder)| ((*name).to_owned(), folder.clone())).collect();
            let request =
                EvaluateRequest { truth: truth.clone(), rows, size, ..Default::default() };
            evaluate(&request).unwrap_err().to_string()
        };
        let less = folder(root.path(), "less", &[("a.png", 0)], 24);
        let text = said(&[("drawn", less)], None);
        assert!(text.contains("called b, and 1 more"), "{text}");
        let small = folder(root.path(), "small", &[("a.png", 0), ("b.png", 0), ("c.png", 0)], 16);
        let text = said(&[("drawn", small.clone())], None);
        assert!(
            text.contains("16x16") && text.contains("24x24") && text.contains("--size"),
            "{text}"
        );
        let text = said(&[("drawn", small.clone())], Some((20, 16)));
        assert!(text.contains("width is 20"), "{text}");
        let rows = vec![("drawn".to_owned(), small)];
        let resized = EvaluateRequest { truth, rows, size: Some((16, 16)), ..Default::default() };
        assert!(evaluate(&resized).is_ok());
        let twice = folder(root.path(), "twice", &[("a.png", 0), ("a.bmp", 0)], 24);
        let said = evaluate(&EvaluateRequest { truth: twice, ..Default::default() }).unwrap_err();
        assert!(said.to_string().contains("remove one"), "{said}");
    }
}
