//! The sample pictures of a run, by prompt and step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use maud::{Markup, html};

use super::page::{self, SIDE};
use crate::photos;

/// Steps that are shown; of more, as many evenly spread.
const STEPS: usize = 40;

/// The files `samples/STEP-PROMPT.png` of a run.
pub(super) struct Samples {
    /// By step, then by prompt.
    steps: BTreeMap<u64, BTreeMap<usize, PathBuf>>,
}

impl Samples {
    /// Those of a run's folder; none where it drew none.
    pub fn find(folder: &Path) -> Self {
        let mut steps = BTreeMap::<u64, BTreeMap<usize, PathBuf>>::new();
        let entries = folder.join("samples").read_dir().into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "png")
                && let Some((step, prompt)) =
                    path.file_stem().and_then(|stem| stem.to_str()?.split_once('-'))
                && let (Ok(step), Ok(prompt)) = (step.parse(), prompt.parse())
            {
                steps.entry(step).or_default().insert(prompt, path);
            }
        }
        Self { steps }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The last step up to `step` that drew any, with its pictures by prompt.
    pub fn until(&self, step: u64) -> Option<(u64, &BTreeMap<usize, PathBuf>)> {
        self.steps.range(..=step).next_back().map(|(step, pictures)| (*step, pictures))
    }

    /// All prompts at one step, and a slider over the steps.
    pub fn viewer(&self, prompts: &[String]) -> Markup {
        let all: Vec<u64> = self.steps.keys().copied().collect();
        let steps = spread(&all, STEPS);
        let Some(&last) = steps.last() else { return html! {} };
        let shown: Vec<usize> = (0..prompts.len())
            .filter(|prompt| steps.iter().any(|step| self.steps[step].contains_key(prompt)))
            .collect();
        let label = steps.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        html! {
            div data-viewer=(label) {
                p.slider {
                    label for="step" { "Step" }
                    input id="step" type="range" min="0" max=(steps.len() - 1) value=(steps.len() - 1);
                    output for="step" { (last) }
                }
                div.gallery {
                    @for prompt in shown {
                        figure {
                            @for step in &steps {
                                div data-frame=(step) hidden[*step != last] {
                                    (self.frame(*step, prompt, &prompts[prompt]))
                                }
                            }
                            figcaption { (prompts[prompt]) }
                        }
                    }
                }
            }
            @if steps.len() < all.len() {
                p.caption { (steps.len()) " of " (all.len()) " steps with samples are shown, evenly spread." }
            }
        }
    }

    fn frame(&self, step: u64, prompt: usize, text: &str) -> Markup {
        let Some(path) = self.steps[&step].get(&prompt) else {
            return page::notice(&format!("no picture after step {step}"));
        };
        match photos::read(path) {
            Ok(pixels) => page::picture(&pixels, SIDE, &format!("{text}, after step {step}")),
            Err(error) => page::notice(&error.to_string()),
        }
    }
}

/// At most `most` of these, evenly spread; first and last are among them.
fn spread(all: &[u64], most: usize) -> Vec<u64> {
    if all.len() <= most {
        return all.to_vec();
    }
    (0..most).map(|i| all[i * (all.len() - 1) / (most - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_steps_the_first_the_last_and_some_between_are_shown() {
        let all: Vec<u64> = (1..=1000).collect();
        let shown = spread(&all, 40);
        assert_eq!((shown.len(), shown[0], shown[39]), (40, 1, 1000));
        assert!(shown.windows(2).all(|pair| (25..=26).contains(&(pair[1] - pair[0]))));
        assert_eq!(spread(&all[..3], 40), [1, 2, 3]);
    }
}
