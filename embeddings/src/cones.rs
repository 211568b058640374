//! ConES as an anchored residual: what is learnt enters after CLIP, at the rows of the concept's class.
//!
//! Source: Yi et al. 2023, "ConES: Concept Embedding Search", for the idea of searching where the text encoder is
//! no longer in the loop; the anchor and the additive rows are ours (`docs/methods/cones.md`).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::concept::check_vectors;
use crate::file::Tensors;
use crate::{Adjustment, Concept, Injection, Site, Varies};

/// Where a concept's rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConesRows {
    /// Added to the rows of the class.
    Noun,
    /// In place of the rows of the class.
    NounReplace,
    /// In place of all rows of a prompt that is the concept alone.
    Prompt,
}

impl ConesRows {
    fn tensor(self) -> &'static str {
        match self {
            Self::Noun => "noun_residual",
            Self::NounReplace => "noun_rows",
            Self::Prompt => "prompt_rows",
        }
    }
}

/// What a file keeps of a concept besides its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConesSettings {
    /// Where the rows are.
    pub rows: ConesRows,
    /// The ids of the class's words, which CLIP reads in the concept's place.
    pub words: Vec<i64>,
    /// The longest that each row of a residual may be; empty for no limit.
    pub limits: Vec<f64>,
    /// How far the tail is drawn from where it started.
    pub tail_strength: f64,
}

/// A concept of rows after CLIP. m words of the class, K rows of the tail, S tokens, D width.
#[derive(Debug)]
pub struct Cones {
    placeholder: String,
    settings: ConesSettings,
    /// `[m, D]`, or `[S, D]` for a whole prompt.
    rows: Tensor,
    /// What the last K rows of padding are, `[K, D]`, and what they were, `[K, D]`.
    tail: Option<(Tensor, Tensor)>,
    strength: f64,
}

impl Cones {
    /// Trainable rows that start from `rows`, and a tail that starts from its base.
    pub fn new(
        placeholder: &str,
        settings: ConesSettings,
        rows: &Tensor,
        tail_base: Option<&Tensor>,
    ) -> Self {
        let leaf = |x: &Tensor| x.to_kind(Kind::Float).detach().copy().set_requires_grad(true);
        Self {
            placeholder: placeholder.to_owned(),
            settings,
            rows: leaf(rows),
            tail: tail_base.map(|base| (leaf(base), base.to_kind(Kind::Float).detach().copy())),
            strength: 1.0,
        }
    }

    /// A concept of the right size that changes nothing yet, on the CPU.
    pub fn stand_in(
        placeholder: &str,
        rows: ConesRows,
        words: Vec<i64>,
        tail: i64,
        length: usize,
        width: i64,
    ) -> Self {
        let zeros = |n: i64| Tensor::zeros([n, width], (Kind::Float, Device::Cpu));
        let count = if rows == ConesRows::Prompt { length } else { words.len() } as i64;
        let settings = ConesSettings { rows, words, limits: Vec::new(), tail_strength: 1.0 };
        let tail = (tail > 0).then(|| zeros(tail));
        Self::new(placeholder, settings, &zeros(count), tail.as_ref())
    }

    /// What its file says of it.
    pub fn cones_settings(&self) -> &ConesSettings {
        &self.settings
    }

    pub(crate) fn from_tensors(
        placeholder: &str,
        tensors: &Tensors,
        settings: &Value,
    ) -> Result<Self, String> {
        let settings: ConesSettings = serde_json::from_value(settings.clone())
            .map_err(|e| format!("its settings are damaged ({e}); copy or train it again"))?;
        let name = settings.rows.tensor();
        let rows = tensors.get(name).filter(|rows| rows.dim() == 2 && rows.numel() > 0);
        let Some(rows) = rows else {
            return Err(format!(
                "a ConES concept has a tensor {name} [rows, width], but this file has not; copy or train it again"
            ));
        };
        let size = rows.size();
        let words = settings.words.len();
        let fits = settings.rows == ConesRows::Prompt || size[0] == words as i64;
        if words == 0 || !fits {
            return Err(format!(
                "{name} has {} rows, but the class {words} words; copy or train it again",
                size[0]
            ));
        }
        check_vectors(size[0].max(words as i64))?;
        let limits = settings.limits.is_empty() || settings.limits.len() == words;
        if !limits || !(0.0..=10.0).contains(&settings.tail_strength) {
            return Err("its settings are those of no ConES; copy or train it again".into());
        }
        let tail = match (tensors.get("tail"), tensors.get("tail_base")) {
            (None, None) => None,
            (Some(tail), Some(base))
                if tail.size() == base.size() && tail.dim() == 2 && tail.size()[1] == size[1] =>
            {
                check_vectors(tail.size()[0])?;
                Some((tail.shallow_clone(), base.shallow_clone()))
            }
            _ => {
                return Err(
                    "tail and tail_base are not of one shape; copy or train it again".into()
                );
            }
        };
        let placeholder = placeholder.to_owned();
        Ok(Self { placeholder, settings, rows: rows.shallow_clone(), tail, strength: 1.0 })
    }
}

impl Concept for Cones {
    fn placeholder(&self) -> &str {
        &self.placeholder
    }

    fn num_tokens(&self) -> usize {
        self.settings.words.len()
    }

    fn width(&self) -> i64 {
        self.rows.size()[1]
    }

    fn varies(&self) -> Varies {
        Varies::Never
    }

    fn words(&self) -> &[i64] {
        &self.settings.words
    }

    fn tail(&self) -> usize {
        self.tail.as_ref().map_or(0, |(tail, _)| tail.size()[0] as usize)
    }

    fn is_whole_prompt(&self) -> bool {
        self.settings.rows == ConesRows::Prompt
    }

    fn inject(&self, site: &Site<'_>) -> Injection {
        let (s, device) = (self.strength, site.layers.device());
        let keep = if self.settings.rows == ConesRows::Noun { 1.0 } else { 1.0 - s };
        let constant = |rows: &Tensor, value: f64| {
            Tensor::full([rows.size()[0], 1], value, (Kind::Float, rows.device()))
        };
        let (mut keeps, mut adds) = (vec![constant(&self.rows, keep)], vec![&self.rows * s]);
        if let Some((tail, base)) = &self.tail {
            let s = if site.draw.is_some() { s } else { s * self.settings.tail_strength };
            keeps.push(constant(tail, 0.0));
            adds.push(base + (tail - base) * s);
        }
        let stack = |parts: &[Tensor]| Tensor::cat(parts, 0).to_device(device).unsqueeze(0);
        Injection::Output { keep: stack(&keeps), add: stack(&adds) }
    }

    fn parameters(&self) -> Vec<Tensor> {
        let tail = self.tail.iter().map(|(tail, _)| tail.shallow_clone());
        [self.rows.shallow_clone()].into_iter().chain(tail).collect()
    }

    /// Brings rows of a residual that are too long back to their limits.
    fn after_step(&self) {
        if self.settings.limits.is_empty() {
            return;
        }
        tch::no_grad(|| {
            let mut rows = self.rows.shallow_clone();
            let limits = Tensor::from_slice(&self.settings.limits).to_kind(Kind::Float);
            let limits = limits.to_device(rows.device()).unsqueeze(1); // [m, 1]
            let lengths = rows.norm_scalaropt_dim(2, [1], true).clamp_min(1e-12);
            let shorter = &rows * (limits / lengths).clamp_max(1.0);
            rows.copy_(&shorter);
        });
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut tensors = vec![(self.settings.rows.tensor().to_owned(), self.rows.shallow_clone())];
        if let Some((tail, base)) = &self.tail {
            tensors.push(("tail".to_owned(), tail.shallow_clone()));
            tensors.push(("tail_base".to_owned(), base.shallow_clone()));
        }
        tensors
    }

    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).expect("settings are plain data")
    }

    fn adjust(&mut self, adjustment: &Adjustment) -> Result<(), String> {
        adjustment.without_mapper()?;
        self.strength = adjustment.strength.unwrap_or(1.0);
        Ok(())
    }
}
