//! A concept of rows after CLIP as an ordinary token, for tools that know nothing else.
//!
//! The token's vectors are fitted so that CLIP gives what the concept gives, over the templates of training. No
//! U-Net and no photo is needed, and what the fit misses is reported.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use embeddings::file::{ConceptFile, ConceptRecord};
use embeddings::{Concept, Conditioner, Overflow, PromptTokens, TextualInversion};
use models::unet::{CrossAttnContext, KeyValue};
use tch::{Kind, Tensor};
use torch_ext::Generator;

use crate::config::LrShape;
use crate::error::guarded;
use crate::templates::Templates;
use crate::trainer::{AdamW, AdamWConfig, LearningRate, Losses, Stop, TrainStep, Trainer};
use crate::{Base, DeviceChoice, Error};

/// What a user asks for.
#[derive(Debug)]
pub struct DistillRequest {
    /// The concept's file.
    pub concept: PathBuf,
    /// Folder of the base that it was trained on.
    pub base: PathBuf,
    /// The file to write.
    pub output: PathBuf,
    /// Replace a file that is there.
    pub force: bool,
    /// Optimiser steps.
    pub steps: u64,
    /// Learning rate of the token's vectors.
    pub learning_rate: f64,
    /// Where to compute.
    pub device: DeviceChoice,
}

/// What became of it.
#[derive(Debug)]
pub struct Distilled {
    /// The distance from the concept's rows that is left, as a share of the class's distance from them: 0 is a
    /// perfect fit, 1 no better than the class.
    pub misfit: f64,
    /// The file.
    pub path: PathBuf,
}

/// Fits a token to a concept and writes it as a Textual Inversion; `on_step` may stop it, which writes nothing.
pub fn distill(
    request: &DistillRequest,
    on_step: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Option<Distilled>, Error> {
    guarded("distilling", || run(request, on_step))
}

fn run(
    request: &DistillRequest,
    on_step: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Option<Distilled>, Error> {
    let file = ConceptFile::read(&request.concept)?;
    let teacher = file.concept();
    check(request, &*teacher)?;
    let device = request.device.resolve()?;
    let mut base = Base::open(&request.base, None)?;
    base.check_concept(&file)?;
    base.check_weights()?;

    let clip = base.folder.load_text_encoder(Kind::Float, device)?;
    let conditioner = Conditioner::new(base.folder.tokenizer()?, clip, 0);
    let ids = Tensor::from_slice(teacher.words()).to_device(device);
    let class = conditioner.token_table().index_select(0, &ids); // [m, D]
    let student = TextualInversion::new(teacher.placeholder(), &class.copy()).trainable();
    let mut fit = Fit::new(&conditioner, &*teacher, &student)?;

    let before = fit.distance();
    let mut trainer = trainer(request, &student);
    let ended = trainer.fit(&mut fit, &mut |_, record| Ok(on_step(record.step, request.steps)));
    match ended {
        Ok(ControlFlow::Continue(())) => {}
        Ok(ControlFlow::Break(())) => return Ok(None),
        Err(Stop::Diverged { step }) => return Err(Error::diverged(step, None, Kind::Float)),
        Err(Stop::NoBatch(error) | Stop::Failed(error)) => return Err(error),
    }
    let misfit = if before > 0.0 { fit.distance() / before } else { 0.0 };
    let bare = file.record.is_bare();
    let record = ConceptRecord {
        method: "ti".to_owned(),
        steps: request.steps,
        learning_rate: request.learning_rate,
        base: Some(base.record),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        config: format!(
            "# distilled from a concept of {}, misfit {misfit:.4}\n",
            file.record.method
        ),
        ..file.record
    };
    let record = if bare { record.bare() } else { record };
    ConceptFile::new(&student, record).write(&request.output)?;
    Ok(Some(Distilled { misfit, path: request.output.clone() }))
}

fn check(request: &DistillRequest, concept: &dyn Concept) -> Result<(), Error> {
    let refuse = |text: String| Err(Error::Usage(text));
    let word = concept.placeholder();
    if concept.words().is_empty() {
        return refuse(format!(
            "the concept {word} enters before the text encoder already; only ConES is distilled"
        ));
    }
    if concept.is_whole_prompt() {
        return refuse(format!(
            "the concept {word} is a whole prompt and no word; train it with --slots noun"
        ));
    }
    if request.steps == 0 || !(request.learning_rate.is_finite() && request.learning_rate > 0.0) {
        return refuse("steps and learning rate must be more than 0".to_owned());
    }
    if request.output.exists() && !request.force {
        return refuse(format!(
            "{} is there already; give --force or another --output",
            request.output.display()
        ));
    }
    crate::output::prepare_folder(request.output.parent().unwrap_or(Path::new("")))
}

fn trainer(request: &DistillRequest, student: &TextualInversion) -> Trainer {
    let adam = AdamWConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    Trainer {
        optimizer: AdamW::new(student.parameters(), adam),
        draw: Generator::cpu(0), // nothing here is random
        step: 0,
        steps: request.steps,
        accumulation: 1,
        learning_rate: LearningRate {
            peak: request.learning_rate,
            shape: LrShape::Cosine,
            end: 0.0,
            warmup: 0,
            steps: request.steps,
        },
        max_grad_norm: 0.0,
        average: None,
        loss_scale: 1.0,
    }
}

/// The student's context against the teacher's, over all templates at once. B templates, S tokens, D width.
struct Fit<'a> {
    conditioner: &'a Conditioner,
    student: &'a TextualInversion,
    prompts: Vec<PromptTokens>,
    /// `[B, S, D]`.
    target: Tensor,
    /// 1 at the concept's rows, else 0; `[B, S]`.
    concept: Tensor,
    /// 1 at the rows that the concept leaves alone, else 0; `[B, S]`.
    others: Tensor,
}

impl<'a> Fit<'a> {
    fn new(
        conditioner: &'a Conditioner,
        teacher: &dyn Concept,
        student: &'a TextualInversion,
    ) -> Result<Self, Error> {
        let templates = Templates::object();
        let texts: Vec<String> =
            (0..templates.count()).map(|i| templates.fill(i, teacher.placeholder())).collect();
        let tokenize = |concept: &dyn Concept| -> Result<Vec<PromptTokens>, Error> {
            let tokens =
                texts.iter().map(|t| conditioner.tokenize(t, &[concept], Overflow::Refuse));
            Ok(tokens.collect::<Result<_, _>>()?)
        };
        let (of_teacher, prompts) = (tokenize(teacher)?, tokenize(student)?);
        let target = tch::no_grad(|| context(conditioner, &of_teacher, teacher));
        let rows = |wanted: &dyn Fn(&PromptTokens, usize) -> bool| {
            let flags: Vec<f32> = of_teacher
                .iter()
                .flat_map(|p| (0..p.ids.len()).map(|i| if wanted(p, i) { 1.0 } else { 0.0 }))
                .collect();
            let shape = [of_teacher.len() as i64, conditioner.length() as i64];
            Tensor::from_slice(&flags).reshape(shape).to_device(target.device())
        };
        let slot = |p: &PromptTokens, i: usize| p.slots.iter().any(|slot| slot.position == i);
        let concept = rows(&|p, i| slot(p, i) && i < p.end);
        let others = rows(&|p, i| !slot(p, i));
        Ok(Self { conditioner, student, prompts, target, concept, others })
    }

    /// The mean square error of each row, `[B, S]`.
    fn errors(&self) -> Tensor {
        let apart = context(self.conditioner, &self.prompts, self.student) - &self.target;
        apart.square().mean_dim([2i64].as_slice(), false, Kind::Float)
    }

    /// Root mean square distance at the concept's rows.
    fn distance(&self) -> f64 {
        tch::no_grad(|| mean_over(&self.errors(), &self.concept)).double_value(&[]).sqrt()
    }
}

impl TrainStep for Fit<'_> {
    fn losses(&mut self, _index: u64, _draw: &Generator) -> Result<Losses, Error> {
        let rows = self.errors();
        let (concept, others) = (mean_over(&rows, &self.concept), mean_over(&rows, &self.others));
        let terms =
            vec![("concept", concept.double_value(&[])), ("others", others.double_value(&[]))];
        Ok(Losses { total: concept + others, terms })
    }
}

/// The mean of `rows` where `mask` is 1, both `[B, S]`.
fn mean_over(rows: &Tensor, mask: &Tensor) -> Tensor {
    (rows * mask).sum(Kind::Float) / mask.sum(Kind::Float)
}

fn context(conditioner: &Conditioner, prompts: &[PromptTokens], concept: &dyn Concept) -> Tensor {
    let prompts: Vec<&PromptTokens> = prompts.iter().collect();
    match conditioner.encode(&prompts, &[concept]) {
        CrossAttnContext::Shared(KeyValue { key, .. }) => key,
        CrossAttnContext::PerLayer(_) => unreachable!("neither side varies with the layer"),
    }
}
