//! How good a concept is: pictures of it in fixed prompts, compared with its photos and with the prompts.
//!
//! A folder holds `plan.json` (what is to be done, and what was asked for), `pictures/` and, once all is done,
//! `results.json`. The same command goes on where it was stopped; another plan is refused.

mod compare;
mod protocol;
mod results;
mod scores;
mod statistics;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use models::clip::tokenizer_folder;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::differences::differences;
use crate::error::guarded;
use crate::generate::{self, GeneratePlan, GenerateRequest, Progress, generate};
use crate::judges::{ClipJudge, PictureEncoder, UNetJudge, encode, with_unet_judge};
use crate::photos;
use crate::picture::UsedConcept;
use crate::templates::{SLOT, Templates};
use crate::{Base, Error, Precision};
use results::read_json;
pub(crate) use results::write_json;

pub use compare::{Comparison, MetricComparison, compare};
pub use protocol::{ClipTextPolicy, Hashed, LikenessProtocol, Protocol, SamplingProtocol};
pub use results::{Metric, PictureResult, PromptResult, Results, Scores};
pub use statistics::Summary;

/// The file that says what a folder is about.
const PLAN: &str = "plan.json";

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
    /// What stands for the concept in CLIP-T.
    pub clip_text: ClipTextPolicy,
    /// What the concept is an example of, where it is not what its file says.
    pub class: Option<String>,
}

/// What a folder is about; written before the first picture.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(flatten)]
    task: Task,
    /// Where it all lies, which may change; for the report. Older folders do not have it.
    #[serde(default)]
    request: Option<EvaluateRequest>,
}

/// What must stay the same for an evaluation to go on.
#[derive(Serialize, Deserialize)]
struct Task {
    protocol: Protocol,
    concepts: Vec<UsedConcept>,
}

/// A checked request. Nothing changes it afterwards.
pub struct EvaluatePlan {
    output: PathBuf,
    drawing: GeneratePlan,
    photos: Vec<PathBuf>,
    clip: PathBuf,
    /// The texts for CLIP-T by metric, prompt by prompt.
    texts: Vec<(Metric, Vec<String>)>,
    protocol: Protocol,
    warnings: Vec<String>,
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
        let EvaluateRequest { mut drawing, photos, prompts, clip, clip_text, class } = request;
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
        let (photos, notices) = photos::list(&photos)?;
        let output = std::mem::take(&mut drawing.output);
        let written = written(&output)?;
        drawing.output = output.join("pictures");
        drawing.prompts = (0..templates.count()).map(|i| templates.fill(i, &word)).collect();
        let drawing = GeneratePlan::new(drawing)?;
        let clip = clip_folder(clip, drawing.base().folder.path())?;
        let protocol = Protocol {
            prompt_set,
            prompts: templates.lines().to_vec(),
            photos: photos.iter().map(|photo| Hashed::of_file(photo)).collect::<Result<_, _>>()?,
            clip: hash_clip(&clip)?,
            clip_text,
            ..protocol(&drawing, class)?
        };
        let task = Task { protocol, concepts: drawing.used().to_vec() };
        if let Some(written) = &written {
            check_same(&output, &written.task, &task)?;
        }
        let drawing = drawing.reusing()?;
        let plan = Written { task, request: asked };
        write_json(&output.join(PLAN), &plan)?;
        let mut warnings = drawing.warnings().to_vec();
        warnings.extend(notices.iter().map(ToString::to_string));
        let texts = texts(templates.lines(), &words, clip_text);
        Ok(Self { output, drawing, photos, clip, texts, protocol: plan.task.protocol, warnings })
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

/// What a folder says of its evaluation; nothing for a new one. Anything else in it is refused.
fn written(output: &Path) -> Result<Option<Written>, Error> {
    let path = output.join(PLAN);
    if path.exists() {
        return read_json(&path, "the plan of an evaluation").map(Some);
    }
    if holds_files(output) {
        return Err(Error::Usage(format!(
            "{} holds files and no evaluation that could go on ({PLAN} is not there); give another --output",
            output.display()
        )));
    }
    Ok(None)
}

/// What was asked for where this folder was made; nothing where it does not say so.
pub(crate) fn request(folder: &Path) -> Result<Option<EvaluateRequest>, Error> {
    let path = folder.join(PLAN);
    if !path.exists() {
        return Ok(None);
    }
    read_json::<Written>(&path, "the plan of an evaluation").map(|written| written.request)
}

/// Whether there is any file in a folder or in those inside it. What cannot be read is met again when it is written.
fn holds_files(folder: &Path) -> bool {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| !path.is_dir() || holds_files(&path))
}

fn check_same(output: &Path, written: &Task, plan: &Task) -> Result<(), Error> {
    let found = differences(written, plan);
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} holds another evaluation, which differs in {}; give another --output, or repeat that one to go on",
        output.display(),
        found.join(", ")
    )))
}

/// The given CLIP, or the one inside the base's folder.
pub(crate) fn clip_folder(given: Option<PathBuf>, base: &Path) -> Result<PathBuf, Error> {
    let folder = given.unwrap_or_else(|| base.join("clip"));
    if folder.join("config.json").is_file() {
        return Ok(folder);
    }
    Err(Error::Usage(if folder.starts_with(base) {
        format!(
            "the base {} has no CLIP with a vision tower beside it; pass --clip DIR, a folder such as that of clip-vit-base-patch32",
            base.display()
        )
    } else {
        format!(
            "--clip {} holds no config.json; give the folder of a CLIPModel in the Hugging Face layout",
            folder.display()
        )
    }))
}

/// Every file that CLIP's numbers depend on.
fn hash_clip(folder: &Path) -> Result<Hashed, Error> {
    let mut files = models::weights::weight_files(folder, "model", None)?;
    let tokenizer = tokenizer_folder(folder);
    let vocabulary = ["vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"];
    let settings = ["config.json", "preprocessor_config.json"];
    files.extend(settings.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
    files.extend(vocabulary.iter().map(|name| tokenizer.join(name)).filter(|path| path.is_file()));
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    Hashed::read(&full.file_name().unwrap_or_default().to_string_lossy(), &files)
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
        clip: Hashed { name: String::new(), sha256: String::new() },
        clip_text: ClipTextPolicy::default(),
        unet: UNetJudge::protocol(base),
        interval: "95 %, Student's t over prompts".to_owned(),
    })
}

/// The prompts as CLIP reads them: by the policy, and always with the concepts dropped.
fn texts(
    templates: &[String],
    words: &[(String, Option<String>)],
    policy: ClipTextPolicy,
) -> Vec<(Metric, Vec<String>)> {
    let with = |policy: ClipTextPolicy| {
        let stand_in = |(word, class): &(String, Option<String>)| match policy {
            ClipTextPolicy::Class => class.clone().unwrap_or_default(),
            ClipTextPolicy::Drop => String::new(),
            ClipTextPolicy::Literal => word.clone(),
        };
        let text = |template: &String| {
            let first = words.first().map(stand_in).unwrap_or_default();
            let filled = template.replace(SLOT, &first);
            let rest = words.iter().skip(1);
            let all = rest.fold(filled, |text, word| text.replace(&word.0, &stand_in(word)));
            all.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        templates.iter().map(text).collect::<Vec<_>>()
    };
    let mut texts = Vec::new();
    match policy {
        ClipTextPolicy::Class => texts.push((Metric::ClipTClass, with(policy))),
        ClipTextPolicy::Literal => texts.push((Metric::ClipTLiteral, with(policy))),
        ClipTextPolicy::Drop => {}
    }
    texts.push((Metric::ClipTDrop, with(ClipTextPolicy::Drop)));
    texts
}

/// Draws what is missing, scores all and writes `results.json`.
pub fn evaluate(
    plan: &EvaluatePlan,
    observer: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Evaluated, Error> {
    let (device, _) = plan.drawing.place();
    // Only whether it can be read: a fault of CLIP should not show after hours of drawing.
    guarded("reading CLIP", || ClipJudge::load(&plan.clip, device).map(drop))?;
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
    let drawn = pictures.iter().flatten().map(|(path, _)| path.clone());
    let files: Vec<PathBuf> = plan.photos.iter().cloned().chain(drawn).collect();
    let mut encoded = |phase: &str, encoder: &dyn PictureEncoder| {
        if observer(Progress::Phase(phase)).is_break() {
            return Ok(None);
        }
        encode(encoder, &files, &mut |done| observer(Progress::Step { done, total: files.len() }))
    };

    let judge = ClipJudge::load(&plan.clip, place.0)?;
    let Some(by_clip) = encoded("CLIP looks at the pictures", &judge)? else {
        return Ok(Evaluated::Interrupted);
    };
    let texts: Vec<_> =
        plan.texts.iter().map(|(metric, texts)| (*metric, judge.texts(texts))).collect();
    drop(judge);
    let by_unet = with_unet_judge(&drawing.base().folder, &plan.protocol.unet, place, |judge| {
        encoded("the U-Net looks at the pictures", judge)
    })?;
    let Some(by_unet) = by_unet else { return Ok(Evaluated::Interrupted) };

    let vectors = scores::Vectors {
        photos: plan.photos.len() as i64,
        pictures: i64::from(drawing.request().count),
        by_clip,
        by_unet,
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
    let path = plan.output.join("results.json");
    write_json(&path, &results)?;
    Ok(Evaluated::Done(Box::new(results), path))
}

/// How like each other a base's U-Net finds pictures, `[N, N]` cosines: the judge without an evaluation around it.
pub fn unet_likeness(base: &Base, pictures: &[PathBuf], device: Device) -> Result<Tensor, Error> {
    guarded("scoring", || {
        tch::no_grad(|| {
            let protocol = UNetJudge::protocol(base);
            with_unet_judge(&base.folder, &protocol, (device, Kind::Float), |judge| {
                let vectors = encode(judge, pictures, &mut |_| ControlFlow::Continue(()))?;
                let vectors = vectors.expect("nothing stops it");
                Ok(vectors.matmul(&vectors.transpose(0, 1)))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_concept_s_place_takes_the_class_nothing_or_the_word() {
        let templates = ["a {} in the <ink> style".to_owned()];
        let words = [("<cat>".to_owned(), Some("cat".to_owned())), ("<ink>".to_owned(), None)];
        let text = |policy, metric| {
            let all = texts(&templates, &words, policy);
            all.into_iter().find(|(found, _)| *found == metric).unwrap().1[0].clone()
        };
        assert_eq!(text(ClipTextPolicy::Class, Metric::ClipTClass), "a cat in the style");
        assert_eq!(text(ClipTextPolicy::Class, Metric::ClipTDrop), "a in the style");
        assert_eq!(text(ClipTextPolicy::Drop, Metric::ClipTDrop), "a in the style");
        assert_eq!(
            text(ClipTextPolicy::Literal, Metric::ClipTLiteral),
            "a <cat> in the <ink> style"
        );
    }
}
