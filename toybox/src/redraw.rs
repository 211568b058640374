//! The test pairs of a people folder as pose weights draw them: all conditions given, and with one of them withheld or
//! exchanged. What is drawn then shows what each route into the U-Net is good for.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use image::RgbImage;
use pipelines::photos::{read, to_tensor};
use pipelines::pose::data::{Pair, PoseData};
use pipelines::pose::{
    Evidence, Frame, PoseGenerator, PoseSampling, PoseScales, PoseWeights, draw,
};
use pipelines::{Base, DeviceChoice, Error, Precision};
use tch::Tensor;

/// Pairs that are drawn at once; what is exchanged comes from the next pair of the same batch.
const BATCH: usize = 16;

/// What is drawn of each pair, by the name of its folder.
const ROWS: [(&str, Change); 5] = [
    ("model", Change::Nothing),
    ("without-fusion", Change::NoFusion),
    ("skeletons-swapped", Change::Skeletons),
    ("source-swapped", Change::Source),
    ("fusion-swapped", Change::Fusion),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Nothing,
    NoFusion,
    Skeletons,
    Source,
    Fusion,
}

impl Change {
    fn of(self, evidence: &Evidence) -> Evidence {
        let next = |x: &Tensor, on: bool| if on { x.roll([1], [0]) } else { x.shallow_clone() };
        Evidence {
            tokens: next(&evidence.tokens, self == Self::Source),
            fused: next(&evidence.fused, self == Self::Fusion),
            drawings: next(&evidence.drawings, self == Self::Skeletons),
        }
    }
}

/// Which pictures are drawn, and how.
pub struct Redraw {
    /// A folder that `toybox people` wrote.
    pub people: PathBuf,
    /// Pose weights; without them the built-in ones.
    pub weights: Option<PathBuf>,
    /// Test pairs, from the first.
    pub count: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Both scales of the guidance.
    pub guidance: f64,
    /// Rows to draw; none are all.
    pub rows: Vec<String>,
}

/// Draws into a folder for each row, and lays beside them what `personalize pose evaluate` compares with: `truth`,
/// `source`, `masks`, `backgrounds`, `poses`, `genes`, and `codec`, which is the truth through the VAE.
pub fn redraw(
    request: &Redraw,
    out: &Path,
    report: &mut dyn FnMut(&str, usize),
) -> Result<(), Error> {
    let pairs = PoseData::read(&request.people, Frame::Pixels)?.test;
    if pairs.is_empty() || request.count == 0 {
        return Err(Error::Usage(format!(
            "{} holds no pairs to be judged by; write some with `toybox people --test 64`",
            request.people.display()
        )));
    }
    let pairs = &pairs[..request.count.min(pairs.len())];
    let weights = match &request.weights {
        Some(file) => PoseWeights::open(file)?,
        None => PoseWeights::built_in()?,
    };
    let mut base = Base::open(Path::new(""), None)?;
    base.check_weights()?;
    let device = DeviceChoice::Auto.resolve()?;
    let kind = Precision::Auto.resolve(device);
    let generator = PoseGenerator::load(&weights, &base, None, kind, device)?;
    lay_out(&request.people, pairs, out)?;
    let asked = |row: &str| request.rows.is_empty() || request.rows.iter().any(|name| name == row);

    for (batch, some) in pairs.chunks(BATCH).enumerate() {
        let targets = some.iter().map(|pair| read(&pair.target)).collect::<Result<Vec<_>, _>>()?;
        let sources = some.iter().map(|pair| read(&pair.source)).collect::<Result<Vec<_>, _>>()?;
        let poses: Vec<RgbImage> =
            some.iter().zip(&targets).map(|(pair, t)| draw(&pair.pose, t.dimensions())).collect();
        let evidence = generator.look(&stacked(&sources), &stacked(&poses))?;
        let first = batch * BATCH;
        let seeds: Vec<u64> = (first..first + some.len()).map(|i| i as u64).collect();
        for (row, change) in ROWS.into_iter().filter(|(row, _)| asked(row)) {
            let fusion = if change == Change::NoFusion { 0.0 } else { request.guidance };
            let sampling = PoseSampling {
                steps: request.steps,
                scales: PoseScales { source_pose: request.guidance, fusion },
                ..PoseSampling::default()
            };
            let go_on = &mut |_, _| ControlFlow::Continue(());
            let drawn = generator.draw_evidence(&sampling, &change.of(&evidence), &seeds, go_on)?;
            save(&out.join(row), some, &drawn.unwrap_or_default())?;
            report(row, first + some.len());
        }
        if asked("codec") {
            let coded =
                targets.iter().map(|target| generator.through_the_codec(&to_tensor(target)));
            save(&out.join("codec"), some, &coded.collect::<Result<Vec<_>, _>>()?)?;
        }
    }
    Ok(())
}

fn stacked(pictures: &[RgbImage]) -> Tensor {
    Tensor::cat(&pictures.iter().map(to_tensor).collect::<Vec<_>>(), 0)
}

fn folder(path: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), verb: "created", source };
    fs::create_dir_all(path).map_err(io)
}

fn save(to: &Path, pairs: &[Pair], pictures: &[RgbImage]) -> Result<(), Error> {
    folder(to)?;
    for (pair, picture) in pairs.iter().zip(pictures) {
        let file = to.join(pair.target.file_name().unwrap_or_default()).with_extension("png");
        pipelines::picture::write(&file, picture, None, pipelines::picture::Existing::Replace)?;
    }
    Ok(())
}

/// Copies what the rows are compared with.
fn lay_out(people: &Path, pairs: &[Pair], out: &Path) -> Result<(), Error> {
    for (name, from, ending) in [
        ("truth", "img/target", "png"),
        ("source", "img/source", "png"),
        ("masks", "masks", "png"),
        ("backgrounds", "backgrounds", "png"),
        ("poses", "pose/target", "txt"),
        ("genes", "genes", "json"),
    ] {
        folder(&out.join(name))?;
        for pair in pairs {
            let file =
                Path::new(pair.target.file_name().unwrap_or_default()).with_extension(ending);
            let from = people.join(from).join(&file);
            let io = |source| Error::Io { path: from.clone(), verb: "copied", source };
            fs::copy(&from, out.join(name).join(&file)).map_err(io)?;
        }
    }
    Ok(())
}
