//! The report of a training run.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use embeddings::Concept;
use embeddings::file::{ConceptFile, ConceptRecord};
use maud::{Markup, html};

use super::attention::{self, Maps, Subject, Words};
use super::page::{self, SIDE, Section};
use super::samples::Samples;
use super::{command, curves, quantities};
use crate::base::check_largest;
use crate::config::{Table, TrainConfig, last_name};
use crate::photos::{self, PhotoSet};
use crate::{Base, DeviceChoice, Error};

/// What a run's folder holds, and what it speaks of.
struct Run<'a> {
    folder: &'a Path,
    config: TrainConfig,
    concept: Option<ConceptFile>,
    base: Result<Base, Error>,
    photos: Result<PhotoSet, Error>,
    samples: Samples,
    /// Steps in the log.
    steps: u64,
}

/// The page of the run in `folder`.
pub(super) fn page(
    folder: &Path,
    flow: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<String, Error> {
    let config = TrainConfig::resolve(None, Some(&folder.join("config.toml")), Table::new())?;
    config.check()?;
    let log = folder.join("log.jsonl");
    let logged = if log.is_file() { quantities::read(&log)? } else { Vec::new() };
    let steps = logged.iter().filter_map(|series| series.points.last()).map(|p| p.0 as u64).max();
    let file = folder.join(config.concept_file(""));
    let concept = file.is_file().then(|| ConceptFile::read(&file)).transpose()?;
    let variant = Some(config.variant.as_str()).filter(|variant| !variant.is_empty());
    let base = Base::open(&config.base, variant);
    let photos = photos_as_used(&config, base.as_ref().ok());
    let samples = Samples::find(folder);
    let run = Run { folder, config, concept, base, photos, samples, steps: steps.unwrap_or(0) };

    let mut sections = vec![
        Section { id: "run", title: "The run", body: run.facts() },
        Section { id: "photos", title: "Photos", body: run.photos() },
    ];
    if !run.samples.is_empty() {
        let body = html! {
            p.caption {
                "Drawn while it was trained: seed " (run.config.seed) ", " (run.config.sample_steps)
                " denoising steps, guidance " (run.config.sample_guidance) "."
            }
            (run.samples.viewer(&run.prompts()))
        };
        sections.push(Section { id: "samples", title: "Samples", body });
    }
    let body = run.attention(flow);
    sections.push(Section { id: "attention", title: "Attention", body });
    if !logged.is_empty() {
        let body = curves::curves(&logged);
        sections.push(Section { id: "curves", title: "Curves", body });
    }
    sections.push(Section {
        id: "configuration",
        title: "Configuration",
        body: run.configuration(),
    });
    let subtitle = match &run.config.class {
        class if class.is_empty() => format!("a training run, method {}", run.config.method),
        class => format!("a training run: {class}, method {}", run.config.method),
    };
    Ok(page::page(&run.config.concept, &subtitle, &sections))
}

/// The photos at the size that the run had them at. Where its base is not there any more a size is shown, but not what a
/// run would have refused.
fn photos_as_used(config: &TrainConfig, base: Option<&Base>) -> Result<PhotoSet, Error> {
    let side = match (config.resolution, base) {
        (0, Some(base)) => base.resolution() as u32,
        (0, None) => SIDE,
        (pixels, _) => pixels,
    };
    check_largest("resolution", side.into())?;
    Ok(PhotoSet::read(&config.photos, (side, side), config.crop)?)
}

impl Run<'_> {
    /// Gives what the concept's file says of its training, if it says anything.
    fn record(&self) -> Option<&ConceptRecord> {
        self.concept.as_ref().map(|file| &file.record).filter(|record| !record.is_bare())
    }

    /// The sample prompts with the concept's word in them.
    fn prompts(&self) -> Vec<String> {
        let config = &self.config;
        config.sample_prompts.iter().map(|p| p.replace("{}", &config.concept)).collect()
    }

    fn facts(&self) -> Markup {
        let config = &self.config;
        let steps = match self.steps {
            done if done >= config.steps => format!("{done}, all of them"),
            done => format!("{done} of {}: it was ended before", config.steps),
        };
        let record = self.record();
        let base = record.and_then(|record| record.base.as_ref()).map(|base| {
            format!("{} ({} px, {})", base.called(), base.resolution, base.prediction_type)
        });
        let kept = record.map(|record| record.steps).filter(|step| *step != self.steps);
        let kept = kept.map(|step| format!("the concept of step {step}"));
        let facts = [
            ("concept", config.concept.clone()),
            ("class", config.class.clone()),
            ("method", config.method.clone()),
            ("base", base.unwrap_or_else(|| last_name(&config.base))),
            ("steps", steps),
            ("kept", kept.unwrap_or_default()),
            ("batch", format!("{} x {}", config.gradient_accumulation, config.batch_size)),
            ("learning rate", config.effective_learning_rate().to_string()),
            ("seed", config.seed.to_string()),
            ("version", record.map_or(String::new(), |record| record.tool_version.clone())),
        ];
        html! {
            (page::facts(&facts))
            h3 { "To repeat it" }
            (command::shown(&command::train(self.folder)))
            @if self.steps < config.steps && self.steps > 0 {
                h3 { "To go on" }
                (page::command(&command::resume(self.folder)))
            }
        }
    }

    fn photos(&self) -> Markup {
        let set = match &self.photos {
            Ok(set) => set,
            Err(error) => {
                return page::notice(&format!("The photos cannot be shown any more: {error}"));
            }
        };
        let known = self.record().map(|record| &record.photos);
        let pictures: Vec<(Markup, String)> = set
            .photos
            .iter()
            .map(|photo| {
                let name = photo.path.file_name().unwrap_or_default().to_string_lossy();
                let caption = photo.caption.as_ref();
                let caption = caption.map_or(name.to_string(), |text| format!("{name}: {text}"));
                (page::picture(&photo.pixels, SIDE, &format!("photo {name}")), caption)
            })
            .collect();
        html! {
            @if known.is_some_and(|known| *known != set.hash()) {
                (page::notice("These are not the photos that the concept was trained on: the folder, or how they are cut, has changed since."))
            } @else {
                p.caption { "As the training saw them, before any augmentation." }
            }
            (page::gallery(&pictures))
        }
    }

    fn attention(&self, flow: &mut dyn FnMut() -> ControlFlow<()>) -> Markup {
        let Some(file) = &self.concept else {
            return page::notice("No concept was saved, so there is no attention to show.");
        };
        let mut maps = || -> Result<Maps, Error> {
            let base = match &self.base {
                Ok(base) => base,
                Err(error) => return Err(Error::Usage(error.to_string())),
            };
            base.check_concept(file)?;
            let concept = file.concept();
            let device = self.config.device.parse::<DeviceChoice>()?.resolve()?;
            let words = Words {
                base,
                concepts: &[&*concept],
                clip_skip: self.config.clip_skip,
                place: (device, self.config.precision.resolve(device)),
            };
            let step = self.record().map_or(self.steps, |record| record.steps);
            attention::maps(&words, &self.subjects(&*concept, step)?, flow)
        };
        attention::shown(&self.config.concept, maps())
    }

    /// The last sample pictures up to the concept's own step, or the photos where there are none.
    fn subjects(&self, concept: &dyn Concept, step: u64) -> Result<Vec<Subject>, Error> {
        let prompts = self.prompts();
        if let Some((step, pictures)) = self.samples.until(step) {
            let known = pictures.iter().filter_map(|(i, path)| Some((prompts.get(*i)?, path)));
            let subject = |(prompt, path): (&String, &PathBuf)| {
                Ok(Subject {
                    pixels: photos::read(path)?,
                    prompt: prompt.clone(),
                    caption: format!("{prompt}, after step {step}"),
                })
            };
            return known.take(attention::PICTURES).map(subject).collect();
        }
        let prompt = if concept.is_whole_prompt() {
            self.config.concept.clone()
        } else {
            format!("a photo of {}", self.config.concept)
        };
        let Ok(set) = &self.photos else { return Ok(Vec::new()) };
        let subject = |photo: &photos::Photo| Subject {
            pixels: photo.pixels.clone(),
            prompt: prompt.clone(),
            caption: format!(
                "{}, as '{prompt}'",
                photo.path.file_name().unwrap_or_default().to_string_lossy()
            ),
        };
        Ok(set.photos.iter().take(attention::PICTURES).map(subject).collect())
    }

    fn configuration(&self) -> Markup {
        html! {
            details {
                summary { "Every key as it was in force (config.toml), of each path its last name" }
                pre { code { (self.config.to_shared_toml()) } }
            }
        }
    }
}
