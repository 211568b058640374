//! The report of an evaluation.

use std::ops::ControlFlow;
use std::path::Path;

use embeddings::Concept;
use maud::{Markup, html};
use serde_json::Value;

use super::attention::{self, Maps, Subject, Words};
use super::page::{self, SIDE, Section};
use super::{command, curves};
use crate::Error;
use crate::evaluate::{EvaluateRequest, Hashed, Metric, PromptResult, Results, Summary, request};
use crate::generate::GeneratePlan;
use crate::judges::PictureFile;
use crate::photos;

/// Of a grid's pictures, in pixels.
const CELL: u32 = 192;
/// Seeds and prompts of the grid, at most.
const SEEDS: usize = 8;
const PROMPTS: usize = 40;

/// The page of the evaluation in `folder`.
pub(super) fn page(
    folder: &Path,
    flow: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<String, Error> {
    let results = Results::read(&folder.join("results.json"))?;
    let request = request(folder)?;
    let protocol = &results.protocol;
    let word = results.concepts.first().map_or("?", |concept| &concept.placeholder);
    let sections = [
        Section { id: "scores", title: "Scores", body: scores(&results) },
        Section { id: "photos", title: "Photos", body: pictures_of(request.as_ref(), &results) },
        Section { id: "pictures", title: "Prompts and seeds", body: grid(folder, &results) },
        Section {
            id: "attention",
            title: "Attention",
            body: attention::shown(word, maps(folder, &results, request.as_ref(), flow)),
        },
        Section { id: "prompts", title: "Prompt by prompt", body: by_prompt(&results) },
        Section {
            id: "repeat",
            title: "To repeat it",
            body: match &request {
                Some(request) => command::shown(&command::evaluate(request, folder)),
                None => page::notice(
                    "plan.json does not say what was asked for, as a version before this one wrote it; the protocol below does.",
                ),
            },
        },
        Section { id: "protocol", title: "Protocol", body: all_of(&results) },
    ];
    let class = protocol.class.as_deref().unwrap_or("no class");
    let subtitle = format!(
        "an evaluation: {class}, {} prompts ({}) of {} seeds",
        results.prompts.len(),
        protocol.prompt_set,
        protocol.seeds.len()
    );
    Ok(page::page(word, &subtitle, &sections))
}

fn scores(results: &Results) -> Markup {
    let number = |x: Option<f64>| x.map_or("–".to_owned(), |x| format!("{x:.4}"));
    let interval = |summary: &Summary| {
        summary.interval.map_or("–".to_owned(), |[low, high]| format!("{low:.4} to {high:.4}"))
    };
    html! {
        div.wide {
            table {
                thead { tr {
                    th scope="col" { "metric" } th scope="col" { "mean" } th scope="col" { "sd" }
                    th scope="col" { "95 % interval" } th scope="col" { "n" } th scope="col" { "photos" }
                } }
                tbody {
                    @for (metric, summary) in &results.summary {
                        tr {
                            th scope="row" { (metric.name()) }
                            td { (number(Some(summary.mean))) }
                            td { (number(summary.standard_deviation)) }
                            td { (interval(summary)) }
                            td { (summary.count) }
                            td { (number(results.photos.get(metric).copied())) }
                        }
                    }
                }
            }
        }
        p.caption {
            "More is better. n counts prompts, over which mean, standard deviation and interval (" (results.protocol.interval)
            ") are taken; photos: the same of the photos among themselves."
        }
        div.curves {
            @for (metric, summary) in &results.summary {
                (curves::scores(metric.name(), &values(results, *metric), summary, results.photos.get(metric).copied()))
            }
        }
        p.caption {
            "A dot for each prompt in their order below; the line is their mean, the band its interval, the grey line the photos among \
            themselves."
        }
    }
}

/// A metric of each prompt that has it.
fn values(results: &Results, metric: Metric) -> Vec<f64> {
    results.prompts.iter().filter_map(|prompt| prompt.scores.get(&metric).copied()).collect()
}

/// The photos as they were compared, where the folder says in which they lie.
fn pictures_of(request: Option<&EvaluateRequest>, results: &Results) -> Markup {
    let Some(request) = request else {
        return page::notice(
            "The folder does not say where the photos lie; their names and hashes are in the protocol.",
        );
    };
    let show = |file: &PictureFile| {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let picture = match file.read() {
            Ok(pixels) => page::picture(&pixels, SIDE, &format!("photo {name}")),
            Err(error) => page::notice(&error.to_string()),
        };
        (picture, name)
    };
    let files = match PictureFile::photos(&request.photos, request.masks.as_deref()) {
        Ok((files, _)) => files,
        Err(error) => {
            return page::notice(&format!("The photos cannot be shown any more: {error}"));
        }
    };
    let same = files.iter().map(|file| Hashed::of_file(&file.path).ok());
    let same = same.eq(results.protocol.photos.iter().cloned().map(Some));
    html! {
        @if !same { (page::notice("These are not the photos that were compared: the folder has changed since.")) }
        @if request.masks.is_some() { p.caption { "As they were compared: what is not the subject is grey." } }
        (page::gallery(&files.iter().map(show).collect::<Vec<_>>()))
    }
}

/// A row a prompt, a column a seed.
fn grid(folder: &Path, results: &Results) -> Markup {
    let seeds = &results.protocol.seeds[..results.protocol.seeds.len().min(SEEDS)];
    let rows = &results.prompts[..results.prompts.len().min(PROMPTS)];
    let cell = |prompt: &PromptResult, i: usize| {
        let Some(picture) = prompt.pictures.get(i) else { return html! {} };
        match photos::read(&folder.join(&picture.file)) {
            Ok(pixels) => {
                page::picture(&pixels, CELL, &format!("{}, seed {}", prompt.prompt, picture.seed))
            }
            Err(error) => page::notice(&error.to_string()),
        }
    };
    html! {
        div.wide {
            table.grid {
                thead { tr {
                    th scope="col" { "prompt" }
                    @for seed in seeds { th scope="col" { "seed " (seed) } }
                } }
                tbody {
                    @for prompt in rows {
                        tr {
                            th scope="row" { (prompt.prompt) }
                            @for i in 0..seeds.len() { td { (cell(prompt, i)) } }
                        }
                    }
                }
            }
        }
        @if seeds.len() < results.protocol.seeds.len() || rows.len() < results.prompts.len() {
            p.caption {
                "The first " (rows.len()) " of " (results.prompts.len()) " prompts and the first " (seeds.len()) " of "
                (results.protocol.seeds.len()) " seeds; all pictures lie in the folder."
            }
        }
    }
}

/// Of the first seed of the first prompts.
fn maps(
    folder: &Path,
    results: &Results,
    request: Option<&EvaluateRequest>,
    flow: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Maps, Error> {
    let Some(request) = request else {
        return Err(Error::Usage("the folder does not say where concept and base lie".into()));
    };
    let mut drawing = request.drawing.clone();
    drawing.prompts = results.prompts.iter().map(|prompt| prompt.prompt.clone()).collect();
    drawing.output = folder.join("pictures");
    let plan = GeneratePlan::new(drawing)?;
    if plan.used() != results.concepts {
        return Err(Error::Usage("the concept's file is not the one that was judged".into()));
    }
    let concepts: Vec<&dyn Concept> = plan.concepts().iter().map(|c| &**c).collect();
    let subject = |prompt: &PromptResult| {
        let picture = &prompt.pictures.first()?;
        Some(photos::read(&folder.join(&picture.file)).map(|pixels| Subject {
            pixels,
            prompt: prompt.prompt.clone(),
            caption: format!("{}, seed {}", prompt.prompt, picture.seed),
        }))
    };
    let subjects = results.prompts.iter().take(attention::PICTURES).filter_map(subject);
    let words = Words {
        base: plan.base(),
        concepts: &concepts,
        clip_skip: request.drawing.clip_skip,
        place: plan.place(),
    };
    attention::maps(&words, &subjects.collect::<Result<Vec<_>, _>>()?, flow)
}

fn by_prompt(results: &Results) -> Markup {
    let metrics: Vec<Metric> = results.summary.keys().copied().collect();
    html! {
        div.wide {
            table {
                thead { tr {
                    th scope="col" { "prompt" }
                    @for metric in &metrics { th scope="col" { (metric.name()) } }
                } }
                tbody {
                    @for prompt in &results.prompts {
                        tr {
                            th.prompt scope="row" { (prompt.prompt) }
                            @for metric in &metrics {
                                td { (prompt.scores.get(metric).map_or("–".to_owned(), |x| format!("{x:.4}"))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Protocol, concepts and device, every value by its dotted name.
fn all_of(results: &Results) -> Markup {
    let mut rows = Vec::new();
    // What was read from JSON can be written as JSON.
    let value = |x: Result<Value, serde_json::Error>| x.unwrap_or_default();
    flatten(&mut rows, "", &value(serde_json::to_value(&results.protocol)));
    flatten(&mut rows, "concepts", &value(serde_json::to_value(&results.concepts)));
    flatten(&mut rows, "device", &value(serde_json::to_value(&results.device)));
    html! {
        p.caption { "Two evaluations can be compared where all of this is equal but concepts and device." }
        details {
            summary { "Every value" }
            div.wide {
                table.protocol { tbody {
                    @for (name, value) in &rows { tr { th scope="row" { (name) } td { (value) } } }
                } }
            }
        }
    }
}

fn flatten(rows: &mut Vec<(String, String)>, name: &str, value: &Value) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(inner) => {
            for (key, value) in inner {
                flatten(rows, &below(key), value);
            }
        }
        Value::Array(values) if values.iter().any(|v| v.is_object() || v.is_string()) => {
            for (i, value) in values.iter().enumerate() {
                flatten(rows, &below(&i.to_string()), value);
            }
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(Value::to_string).collect();
            rows.push((name.to_owned(), values.join(", ")));
        }
        Value::String(text) => rows.push((name.to_owned(), text.clone())),
        Value::Null => rows.push((name.to_owned(), "–".to_owned())),
        other => rows.push((name.to_owned(), other.to_string())),
    }
}
