//! How good a concept is: pictures of it in fixed prompts, compared with its photos and with the prompts.
//!
//! A folder holds `plan.json` (what is to be done, and what was asked for), `pictures/` and, once all is done,
//! `results.json`. The same command goes on where it was stopped; another plan is refused.

mod compare;
mod encoders;
mod folder;
mod protocol;
mod results;
mod scores;
mod statistics;
mod texts;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::guarded;
use crate::generate::{self, GeneratePlan, GenerateRequest, Progress, generate};
use crate::judges::{
    ClipJudge, DinoJudge, Encoded, PictureEncoder, PictureFile, UNetJudge, encode, with_unet_judge,
};
use crate::templates::Templates;
use crate::{Base, Error, FolderLock, Precision};
use encoders::{hash_clip, hash_dino};
use folder::{RESULTS, Task};
use texts::texts;

pub(crate) use encoders::clip_folder;
pub(crate) use folder::request;
pub(crate) use results::write_json;

pub use compare::{Comparison, MetricComparison, compare};
pub use protocol::{ClipTextPolicy, Hashed, LikenessProtocol, Protocol, SamplingProtocol};
pub use results::{Metric, PictureResult, PromptResult, Results, Scores};
pub use statistics::Summary;

/// What a user asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvaluateRequest {
    /// How the pictures are drawn; without prompts, `count` for each, into the folder of the evaluation. The first
    /// concept is the one that is judged.
    pub drawing: GenerateRequest,
    /// Folder of the photos.
    pub photos: PathBuf,
    /// The name of a prompt set, or a file.
    pub prompts: String,
    /// Folder of a `CLIPModel`, where it is not the base's own.
    pub clip: Option<PathBuf>,
    /// Folder of DINO, where it is to judge as well.
    #[serde(default)]
    pub dino: Option<PathBuf>,
    /// Folder of the photos' masks, where only the subject is to be compared with.
    #[serde(default)]
    pub masks: Option<PathBuf>,
    /// What stands for the concept in CLIP-T.
    pub clip_text: ClipTextPolicy,
    /// What the concept is an example of, where it is not what its file says.
    pub class: Option<String>,
}

/// A checked request. Nothing changes it afterwards.
pub struct EvaluatePlan {
    output: PathBuf,
    drawing: GeneratePlan,
    photos: Vec<PictureFile>,
    clip: PathBuf,
    dino: Option<PathBuf>,
    /// The texts for CLIP-T by metric, prompt by prompt.
    texts: Vec<(Metric, Vec<String>)>,
    protocol: Protocol,
    warnings: Vec<String>,
    /// Held until the results and their report are done.
    _lock: FolderLock,
}

/// What became of an evaluation.
#[derive(Debug)]
pub enum Evaluated {
    /// All was done; where the results were written.
    Done(Box<Results>, PathBuf),
    /// The observer stopped it; the same plan goes on from there.
    Interrupted,
}

impl EvaluatePlan {
    /// Checks a request against photos, prompts, concepts, base, CLIP and what is in the folder already; then notes the
    /// plan there. Reads no weight but to hash it.
    pub fn new(request: EvaluateRequest) -> Result<Self, Error> {
        // A path that is no Unicode is nothing that JSON can hold: then the report knows less.
        let asked = Some(request.clone()).filter(|asked| serde_json::to_value(asked).is_ok());
        let EvaluateRequest { mut drawing, photos, prompts, clip, dino, masks, clip_text, class } =
            request;
        if drawing.count == 0 {
            return Err(Error::Usage("--images is 0; give 1 or more, 4 as published".into()));
        }
        let mut words = generate::words(&drawing.concepts)?;
        let Some((word, known)) = words.first_mut() else {
            return Err(Error::Usage(
                "no concept is given; pass --concept FILE, the file that train wrote".into(),
            ));
        };
        *known = class.or(known.take());
        let (word, class) = (word.clone(), known.clone());
        if class.is_none() && clip_text == ClipTextPolicy::Class {
            return Err(Error::Usage(format!(
                "the file of {word} does not say what it is an example of, which CLIP-T needs; pass --class cat, or --clip-text drop"
            )));
        }
        let (templates, prompt_set) =
            Templates::evaluation(&prompts, class.as_deref().unwrap_or_default())?;
        let (photos, notices) = PictureFile::photos(&photos, masks.as_deref())?;
        for photo in &photos {
            photo.read()?; // a fault of one should not show after hours of drawing
        }
        let output = std::mem::take(&mut drawing.output);
        let written = folder::written(&output)?;
        drawing.output = output.join("pictures");
        drawing.prompts = (0..templates.count()).map(|i| templates.fill(i, &word)).collect();
        let drawing = GeneratePlan::new(drawing)?;
        let clip = clip_folder(clip, drawing.base().folder.path())?;
        let protocol = Protocol {
            prompt_set,
            prompts: templates.lines().to_vec(),
            photos: hashes(photos.iter().map(|photo| Some(&photo.path)))?,
            masks: hashes(photos.iter().map(|photo| photo.mask.as_ref()))?,
            clip: hash_clip(&clip)?,
            dino: dino.as_deref().map(hash_dino).transpose()?,
            clip_text,
            ..protocol(&drawing, class)?
        };
        let task = Task { protocol, concepts: drawing.used().to_vec() };
        let judged_anew = match &written {
            Some(written) => folder::check(&output, written, &task)?,
            None => Vec::new(),
        };
        let lock = FolderLock::take(&output)?;
        let drawing = drawing.reusing()?;
        let (task, notice) = folder::note(&output, task, asked, &judged_anew)?;
        let mut warnings = drawing.warnings().to_vec();
        warnings.extend(notices.iter().map(ToString::to_string));
        warnings.extend(notice);
        let texts = texts(templates.lines(), &words, clip_text);
        let Task { protocol, .. } = task;
        Ok(Self { output, drawing, photos, clip, dino, texts, protocol, warnings, _lock: lock })
    }

    /// What the base is called.
    pub fn base_name(&self) -> &str {
        self.drawing.base_name()
    }

    /// What the user should know before it begins.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// What is in each of these files; nothing for those that are not given.
fn hashes<'a>(files: impl Iterator<Item = Option<&'a PathBuf>>) -> Result<Vec<Hashed>, Error> {
    files.flatten().map(|file| Hashed::of_file(file)).collect()
}

/// What the drawing says of the protocol; prompts, photos and CLIP are not known to it.
fn protocol(drawing: &GeneratePlan, class: Option<String>) -> Result<Protocol, Error> {
    let (request, base) = (drawing.request(), drawing.base());
    Ok(Protocol {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        prompt_set: String::new(),
        prompts: Vec::new(),
        class,
        seeds: (0..u64::from(request.count)).map(|i| request.seed.wrapping_add(i)).collect(),
        sampling: SamplingProtocol {
            sampler: request.sampler.clone(),
            karras: request.karras,
            spacing: request.spacing,
            steps: request.steps,
            guidance: request.guidance,
            guidance_rescale: request.guidance_rescale,
            negative_prompt: request.negative_prompt.clone(),
            clip_skip: request.clip_skip,
            refine: request.refine,
            width: request.width,
            height: request.height,
            precision: Precision::name(drawing.place().1).to_owned(),
            batch_size: request.batch_size,
        },
        base: Hashed::read(&base.record.name, &base.folder.weight_files()?)?,
        photos: Vec::new(),
        masks: Vec::new(),
        clip: Hashed { name: String::new(), sha256: String::new() },
        dino: None,
        clip_text: ClipTextPolicy::default(),
        unet: UNetJudge::protocol(base),
        interval: "95 %, Student's t over prompts".to_owned(),
    })
}

/// Draws what is missing, scores all and writes `results.json`.
pub fn evaluate(
    plan: &EvaluatePlan,
    observer: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Evaluated, Error> {
    let (device, _) = plan.drawing.place();
    // Only whether they can be read: a fault of an encoder should not show after hours of drawing.
    guarded("reading CLIP", || ClipJudge::load(&plan.clip, device).map(drop))?;
    if let Some(dino) = &plan.dino {
        guarded("reading DINO", || DinoJudge::load(dino, device).map(drop))?;
    }
    if generate(&plan.drawing, observer)?.interrupted {
        return Ok(Evaluated::Interrupted);
    }
    guarded("scoring", || tch::no_grad(|| score(plan, observer)))
}

fn score(
    plan: &EvaluatePlan,
    observer: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Evaluated, Error> {
    let (drawing, place) = (&plan.drawing, plan.drawing.place());
    let pictures = drawing.pictures();
    let drawn = pictures.iter().flatten().map(|(path, _)| PictureFile::from(path.clone()));
    let files: Vec<PictureFile> = plan.photos.iter().cloned().chain(drawn).collect();
    // An encoder at a time is in memory, and each leaves when it has seen all.
    let mut looked = |name: &str, encoder: &dyn PictureEncoder| {
        if observer(Progress::Phase(&format!("{name} looks at the pictures"))).is_break() {
            return Ok(None);
        }
        let mut on_picture = |done| observer(Progress::Step { done, total: files.len() });
        let Some(encoded) = encode(encoder, &files, &mut on_picture)? else { return Ok(None) };
        let said = told(name, files.len(), &encoded);
        Ok(observer(Progress::Phase(&said)).is_continue().then_some(encoded.vectors))
    };

    let judge = ClipJudge::load(&plan.clip, place.0)?;
    let Some(by_clip) = looked("CLIP", &judge)? else { return Ok(Evaluated::Interrupted) };
    let texts: Vec<_> =
        plan.texts.iter().map(|(metric, texts)| (*metric, judge.texts(texts))).collect();
    drop(judge);
    let mut by_dino = None;
    if let Some(folder) = &plan.dino {
        by_dino = looked("DINO", &DinoJudge::load(folder, place.0)?)?;
        if by_dino.is_none() {
            return Ok(Evaluated::Interrupted);
        }
    }
    let by_unet = with_unet_judge(&drawing.base().folder, &plan.protocol.unet, place, |judge| {
        looked("the U-Net", judge)
    })?;
    let Some(by_unet) = by_unet else { return Ok(Evaluated::Interrupted) };

    let dino = by_dino.map(|vectors| (Metric::Dino, vectors));
    let vectors = scores::Vectors {
        photos: plan.photos.len() as i64,
        pictures: i64::from(drawing.request().count),
        likenesses: [(Metric::ClipI, by_clip.shallow_clone()), (Metric::UnetLikeness, by_unet)]
            .into_iter()
            .chain(dino)
            .collect(),
        by_clip,
        texts,
    };
    let prompts: Vec<PromptResult> = pictures
        .iter()
        .enumerate()
        .map(|(i, pictures)| vectors.prompt(i, &plan.protocol, drawing.request(), pictures))
        .collect();
    let results = Results {
        format: results::FORMAT,
        protocol: plan.protocol.clone(),
        concepts: drawing.used().to_vec(),
        device: match place.0 {
            Device::Cuda(n) => format!("cuda:{n}"),
            _ => "cpu".to_owned(),
        },
        summary: Results::summarise(&prompts),
        photos: vectors.among_photos(),
        prompts,
    };
    let path = plan.output.join(RESULTS);
    write_json(&path, &results)?;
    Ok(Evaluated::Done(Box::new(results), path))
}

/// How long an encoder took, and how much of that it was at work and not waiting for pictures.
fn told(name: &str, pictures: usize, encoded: &Encoded) -> String {
    let seconds = |time: Duration| time.as_secs_f64();
    format!(
        "{name} looked at {pictures} pictures in {:.1} s, {:.0} % of which it was at work",
        seconds(encoded.whole),
        100.0 * seconds(encoded.encoding) / seconds(encoded.whole).max(f64::MIN_POSITIVE)
    )
}

/// How like each other a base's U-Net finds pictures, `[N, N]` cosines: the judge without an evaluation around it.
pub fn unet_likeness(base: &Base, pictures: &[PathBuf], device: Device) -> Result<Tensor, Error> {
    guarded("scoring", || {
        tch::no_grad(|| {
            let protocol = UNetJudge::protocol(base);
            with_unet_judge(&base.folder, &protocol, (device, Kind::Float), |judge| {
                let files: Vec<_> = pictures.iter().cloned().map(PictureFile::from).collect();
                let encoded = encode(judge, &files, &mut |_| ControlFlow::Continue(()))?;
                let vectors = encoded.expect("nothing stops it").vectors;
                Ok(vectors.matmul(&vectors.transpose(0, 1)))
            })
        })
    })
}
