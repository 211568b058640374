//! ConES before its first step: where its rows start and how long they may become.

use embeddings::{Conditioner, Cones, ConesRows, ConesSettings, Overflow, PromptTokens};
use models::unet::{CrossAttnContext, KeyValue};
use tch::{Kind, Tensor};

use super::method::given;
use super::plan::TrainPlan;
use crate::Error;
use crate::config::TrainConfig;

/// Everyday nouns that say how far apart things lie after CLIP.
const NOUNS: &str = include_str!("../../../configs/prompts/nouns.txt");

/// The rows that a run learns, as `slots` of its configuration names them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ConesSlots {
    pub rows: ConesRows,
    /// K, rows of padding learnt besides.
    tail: i64,
    /// ρ, the longest that a residual may be as a share of its row; 0 for the distance between everyday nouns.
    cap: f64,
    tail_strength: f64,
}

impl ConesSlots {
    /// From the keys of the configuration.
    pub fn new(config: &TrainConfig) -> Result<Self, Error> {
        let refuse = |text: String| Err(Error::Usage(text));
        if config.vectors != 1 {
            return refuse(format!(
                "vectors is {}, but ConES learns a row for each word of the class; leave it out",
                config.vectors
            ));
        }
        let slots = given(config.slots.clone(), "slots")?;
        let (rows, tail) =
            slots.split_once('+').map_or((slots.as_str(), None), |(r, t)| (r, Some(t)));
        let rows = match rows {
            "noun" => ConesRows::Noun,
            "noun-replace" => ConesRows::NounReplace,
            "prompt" => ConesRows::Prompt,
            _ => {
                return refuse(format!(
                    "slots '{slots}' are unknown; use noun, noun+tail:4, noun-replace or prompt"
                ));
            }
        };
        let tail = match tail.map(|tail| tail.strip_prefix("tail:").and_then(|k| k.parse().ok())) {
            None => 0,
            Some(Some(rows_of_tail))
                if rows != ConesRows::Prompt && (1..=32).contains(&rows_of_tail) =>
            {
                rows_of_tail
            }
            Some(_) => {
                return refuse(format!(
                    "slots '{slots}' have no such tail; use noun+tail:4 (1 to 32), or prompt alone"
                ));
            }
        };
        let (cap, tail_strength) =
            (given(config.cap, "cap")?, given(config.tail_strength, "tail_strength")?);
        Ok(Self { rows, tail, cap, tail_strength })
    }

    /// A concept that changes nothing.
    pub fn stand_in(self, word: &str, words: Vec<i64>, length: usize, width: i64) -> Cones {
        Cones::stand_in(word, self.rows, words, self.tail, length, width)
    }

    /// The concept before its first step: at the class, as the training's prompts show it.
    pub fn start(self, plan: &TrainPlan, conditioner: &Conditioner) -> Cones {
        tch::no_grad(|| {
            let (word, phrase) =
                (&plan.config.concept, plan.initializer.as_deref().unwrap_or_default());
            let words = conditioner.words(phrase);
            let count = words.len() as i64;
            let width = conditioner.token_table().size()[1];
            let nothing = self.stand_in(word, words.clone(), conditioner.length(), width);
            let rows: Vec<Tensor> = plan
                .prompts
                .iter()
                .filter_map(|p| conditioner.tokenize(p, &[&nothing], Overflow::Refuse).ok())
                .map(|tokens| rows_at_slots(conditioner, &tokens))
                .collect(); // each [m + K, D], or [S, D] of a whole prompt
            let rows = Tensor::stack(&rows, 0); // [prompts, m + K, D]
            let mean = rows.mean_dim(0, false, Kind::Float);
            let learnt = mean.size()[0] - self.tail;
            let tail = (self.tail > 0).then(|| mean.narrow(0, learnt, self.tail));
            let limits = if self.rows == ConesRows::Noun {
                let cap =
                    if self.cap > 0.0 { self.cap } else { distance_of_nouns(conditioner, phrase) };
                let lengths = rows.narrow(1, 0, count).norm_scalaropt_dim(2, [2], false); // [prompts, m]
                let mean = lengths.mean_dim(0, false, Kind::Double) * cap;
                Vec::try_from(mean).expect("a flat tensor of numbers")
            } else {
                Vec::new()
            };
            let start = match self.rows {
                ConesRows::Noun => Tensor::zeros_like(&mean.narrow(0, 0, learnt)),
                ConesRows::NounReplace | ConesRows::Prompt => mean.narrow(0, 0, learnt),
            };
            let settings =
                ConesSettings { rows: self.rows, words, limits, tail_strength: self.tail_strength };
            Cones::new(word, settings, &start, tail.as_ref())
        })
    }
}

/// The rows of a prompt, encoded without any concept, where `tokens` has slots; f32.
fn rows_at_slots(conditioner: &Conditioner, tokens: &PromptTokens) -> Tensor {
    let positions: Vec<i64> = tokens.slots.iter().map(|slot| slot.position as i64).collect();
    let plain = PromptTokens { slots: Vec::new(), ..tokens.clone() };
    let rows = rows(conditioner, &plain); // [S, D]
    rows.index_select(0, &Tensor::from_slice(&positions).to_device(rows.device()))
}

/// The context of a prompt without concepts, `[S, D]`, f32.
fn rows(conditioner: &Conditioner, tokens: &PromptTokens) -> Tensor {
    match conditioner.encode(&[tokens], &[]) {
        CrossAttnContext::Shared(KeyValue { key, .. }) => key.squeeze_dim(0).to_kind(Kind::Float),
        CrossAttnContext::PerLayer(_) => unreachable!("nothing varies without concepts"),
    }
}

/// The median of ‖E(noun) − E(class)‖ / ‖E(class)‖ over everyday nouns, E being the last word's row of "a photo of a
/// …"; 0.7 where that is no number.
fn distance_of_nouns(conditioner: &Conditioner, class: &str) -> f64 {
    let row = |noun: &str| -> Option<Tensor> {
        let prompt = format!("a photo of a {noun}");
        let tokens = conditioner.tokenize(&prompt, &[], Overflow::Refuse).ok()?;
        Some(rows(conditioner, &tokens).get(tokens.end as i64 - 1).to_kind(Kind::Double))
    };
    let Some(class) = row(class) else { return 0.7 };
    let share = |noun: &str| Some(((row(noun)? - &class).norm() / class.norm()).double_value(&[]));
    let mut shares: Vec<f64> = NOUNS.lines().filter_map(share).filter(|s| *s > 0.0).collect();
    shares.sort_by(f64::total_cmp);
    shares.get(shares.len() / 2).copied().unwrap_or(0.7)
}
