//! `pose generate`: a photo and poses on disk to pictures on disk.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use embeddings::file::hex;
use image::RgbImage;
use models::samplers;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::file::own_frame;
use super::folder::{source_size, squashed};
use super::generate::{PoseGenerator, PoseSampling};
use super::guidance::PoseScales;
use super::render::{PIXELS_OF_WHAT, is_png, name};
use super::weights::PoseWeights;
use super::{Frame, check_size, draw, read, read_picture, sequence};
use crate::denoise::below_one;
use crate::generate::Progress;
use crate::limits::within;
use crate::output::prepare_folder;
use crate::photos::{self, to_tensor};
use crate::picture::{self, Existing, PictureParameters, UsedConcept, names_picture};
use crate::{Base, DeviceChoice, Error, Precision};

/// What a user wants drawn.
#[derive(Debug, Clone)]
pub struct PoseRequest {
    /// The photo of the person.
    pub source: PathBuf,
    /// A pose as text, JSON or a picture, or a folder of them.
    pub pose: PathBuf,
    /// What coordinates count in; pictures of poses have none.
    pub frame: Option<Frame>,
    /// Pose weights; without them the built-in ones.
    pub weights: Option<PathBuf>,
    /// The base that they were trained on; empty for the built-in one.
    pub base: PathBuf,
    /// Variant of its weight files.
    pub variant: Option<String>,
    /// Folder of the encoder that the weights name, where they name one.
    pub source_encoder: Option<PathBuf>,
    /// Width and height; without it, what was learnt.
    pub size: Option<(u32, u32)>,
    /// Denoising steps.
    pub steps: usize,
    /// Scale of photo and pose in the guidance; 1 or less is none.
    pub guidance: f64,
    /// Scale of the fusion embedding, where it is not that of `guidance`.
    pub fusion_guidance: Option<f64>,
    /// Whether noise is added at each step (DDPM) or none (DDIM).
    pub stochastic: bool,
    /// Of the noise, the same for each pose of a sequence, so that what the pose does not say stays.
    pub seed: u64,
    /// Pictures drawn at once.
    pub batch_size: usize,
    /// A file (`.png`, `.jpg`, `.webp`) for one pose, or a folder.
    pub output: PathBuf,
    /// Replace pictures of the same name.
    pub force: bool,
    /// Where it computes.
    pub device: DeviceChoice,
    /// In what.
    pub precision: Precision,
}

/// A checked request.
pub struct PosePlan {
    request: PoseRequest,
    weights: PoseWeights,
    base: Base,
    source: RgbImage,
    /// Drawings by the file of their pose.
    poses: Vec<(PathBuf, RgbImage)>,
    size: (u32, u32),
    /// Whether the output is one picture rather than a folder.
    is_file: bool,
    device: Device,
    kind: Kind,
}

/// What was written.
#[derive(Debug)]
pub struct PosePictures {
    /// Pictures, then sheet and animation of a sequence.
    pub paths: Vec<PathBuf>,
    /// Whether it was stopped before the last picture.
    pub interrupted: bool,
}

impl PosePlan {
    /// Checks everything that can be checked without drawing.
    pub fn new(request: PoseRequest) -> Result<Self, Error> {
        if request.steps == 0 || request.batch_size == 0 {
            return Err(Error::Usage(
                "steps and batch size are at least 1; 20 steps are usual".into(),
            ));
        }
        let fusion = request.fusion_guidance.unwrap_or_default();
        within(
            &(f64::MIN..=f64::MAX),
            "a finite number such as 2",
            &[("--guidance", request.guidance), ("--fusion-guidance", fusion)],
        )?;
        let weights = match &request.weights {
            Some(file) => PoseWeights::open(file)?,
            None => PoseWeights::built_in()?,
        };
        let shape = &weights.generator()?.shape;
        let learnt = (shape.width as u32, shape.height as u32);
        let mut base = Base::open(&request.base, request.variant.as_deref())?;
        let schedule = shape.tuning.schedule(&base.folder);
        let PoseSampling { kind, config, .. } = PoseSampling::default();
        samplers::build(kind, &schedule, &config, request.steps)?;
        base.check_weights()?;
        weights.check_base(&base)?;
        let size = request.size.unwrap_or(learnt);
        check_size(size)?;
        base.check_size(&[("width", size.0.into()), ("height", size.1.into())])?;
        let source = squashed(photos::read(&request.source)?, source_size(size));
        let is_folder = request.pose.is_dir();
        let is_file = names_picture(&request.output)?;
        if is_folder && is_file {
            return Err(Error::Usage(format!(
                "{} is a folder of poses, but --output {} is one picture; give a folder",
                request.pose.display(),
                request.output.display()
            )));
        }
        let files =
            if is_folder { sequence::poses(&request.pose)? } else { vec![request.pose.clone()] };
        let poses = files.into_iter().map(|file| {
            let drawn = drawing(&file, &request, size)?;
            Ok((file, drawn))
        });
        let poses = poses.collect::<Result<Vec<_>, Error>>()?;
        let device = request.device.resolve()?;
        let kind = request.precision.resolve(device);
        let folder = if is_file {
            request.output.parent().unwrap_or(Path::new(""))
        } else {
            &request.output
        };
        prepare_folder(folder)?;
        Ok(Self { request, weights, base, source, poses, size, is_file, device, kind })
    }

    /// What it says of itself before it begins.
    pub fn summary(&self) -> String {
        let (width, height) = self.size;
        format!(
            "pose weights {}, base {}, {} of {width}x{height}, seed {}",
            self.weights.path().display(),
            self.base.record.name,
            match self.poses.len() {
                1 => "one picture".to_owned(),
                count => format!("{count} pictures"),
            },
            self.request.seed
        )
    }

    /// What the user should know before the drawing.
    pub fn warnings(&self) -> Vec<String> {
        let base = self.base.warnings().iter().cloned();
        base.chain(below_one("--guidance", self.request.guidance)).collect()
    }

    fn scales(&self) -> PoseScales {
        PoseScales::given(self.request.guidance, self.request.fusion_guidance)
    }

    fn parameters(&self, pose: &Path, hash: &str) -> PictureParameters {
        let shown =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let scales = self.scales();
        PictureParameters {
            prompt: format!("{} in the pose of {}", shown(&self.request.source), shown(pose)),
            negative_prompt: String::new(),
            steps: self.request.steps as u32,
            sampler: if self.request.stochastic { "ddpm" } else { "ddim" }.into(),
            schedule: String::new(),
            guidance: scales.source_pose,
            seed: self.request.seed,
            refine: 0,
            width: self.size.0,
            height: self.size.1,
            base: self.base.record.name.clone(),
            precision: Precision::name(self.kind).into(),
            concepts: vec![UsedConcept {
                placeholder: "pose weights".into(),
                hash: hash.to_owned(),
                options: format!("fusion={}", scales.fusion),
            }],
            details: None,
            circumstances: None,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// The drawing of a pose, from text or from a picture.
fn drawing(file: &Path, request: &PoseRequest, size: (u32, u32)) -> Result<RgbImage, Error> {
    if is_png(file) {
        return Ok(squashed(read_picture(file)?, size));
    }
    let frame = match request.frame {
        None | Some(Frame::Pixels) => own_frame(file).or(request.frame),
        given => given,
    };
    let Some(frame) = frame else {
        return Err(Error::Usage(format!(
            "{} holds coordinates, and what they count in is never guessed; pass --frame 256-margin-40, 256x176, pixels or pixels:WxH",
            file.display()
        )));
    };
    if frame == Frame::Pixels && request.size.is_none() {
        return Err(Error::Usage(PIXELS_OF_WHAT.into()));
    }
    Ok(draw(&read(file, frame, size)?, size))
}

/// Draws a plan's pictures, batch by batch, each written as soon as it is there.
pub fn generate(
    plan: &PosePlan,
    report: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<PosePictures, Error> {
    let PosePlan { request, weights, base, poses, .. } = plan;
    let _ = report(Progress::Phase("reading the pose weights")); // asked again at the first step
    let encoder = request.source_encoder.as_deref();
    let generator = PoseGenerator::load(weights, base, encoder, plan.kind, plan.device)?;
    let hash = torch_ext::file::read(weights.path()).map_err(Error::io(weights.path(), "read"))?;
    let hash = hex(&Sha256::digest(&hash));
    let mut sampling = PoseSampling { steps: request.steps, ..PoseSampling::default() };
    sampling.scales = plan.scales();
    sampling.config.eta = if request.stochastic { 1.0 } else { 0.0 };
    let source = to_tensor(&plan.source);
    let existing = if request.force { Existing::Replace } else { Existing::Keep };
    let total = request.steps * poses.len().div_ceil(request.batch_size);
    let (mut paths, mut pictures) = (Vec::new(), Vec::new());
    for (batch, some) in poses.chunks(request.batch_size).enumerate() {
        let drawings: Vec<Tensor> = some.iter().map(|(_, drawing)| to_tensor(drawing)).collect();
        let seeds = vec![request.seed; some.len()];
        let mut on_step =
            |done, _| report(Progress::Step { done: batch * request.steps + done, total });
        let drawings = Tensor::cat(&drawings, 0);
        let drawn = generator.draw(&sampling, &source, &drawings, &seeds, &mut on_step)?;
        let Some(drawn) = drawn else {
            return Ok(PosePictures { paths, interrupted: true });
        };
        for ((pose, _), drawn) in some.iter().zip(drawn) {
            let file =
                if plan.is_file { request.output.clone() } else { request.output.join(name(pose)) };
            let parameters = plan.parameters(pose, &hash);
            let path = picture::write(&file, &drawn, Some(&parameters), existing)?;
            let _ = report(Progress::Picture(&path)); // asked again at the next step
            paths.push(path);
            pictures.push(drawn);
        }
    }
    if request.pose.is_dir() {
        let both = sequence::write(&request.output, &pictures, sequence::DELAY, existing)?;
        for path in both {
            let _ = report(Progress::Picture(&path)); // nothing is left to stop
            paths.push(path);
        }
    }
    Ok(PosePictures { paths, interrupted: false })
}
