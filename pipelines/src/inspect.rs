//! What can be told of a concept from its numbers, and from a base's vocabulary beside them.

use std::path::Path;

use embeddings::file::ConceptFile;
use embeddings::{Concept, Injection, Site};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::error::guarded;
use crate::{Base, Error};

/// Timesteps at which a concept that varies with time is looked at.
const TIMESTEPS: [i64; 10] = [0, 100, 200, 300, 400, 500, 600, 700, 800, 900];
/// How many words are named.
const NEAREST: i64 = 5;

/// The measures of a concept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Cross-attention layers that it was made for, where it varies with them.
    pub layers: Option<i64>,
    /// Whether it varies with the timestep.
    pub with_time: bool,
    /// Trained numbers.
    pub parameters: usize,
    /// The Euclidean length of each vector, or of those at ten timesteps and each layer.
    pub norms: Vec<f64>,
    /// How many dimensions these vectors fill: the exponential of the entropy of their singular values (Roy and
    /// Vetterli 2007). Only where there are several for one place in the prompt.
    pub effective_rank: Option<f64>,
    /// What a base's vocabulary says of a concept that enters before CLIP.
    pub vocabulary: Option<Vocabulary>,
}

/// A concept beside the words of a base.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vocabulary {
    /// The median length of a word's vector.
    pub median_norm: f64,
    /// The cosine between the concept's mean vector and the class's.
    pub class_cosine: Option<f64>,
    /// The nearest words by the cosine to the concept's mean vector, nearest first.
    pub nearest: Vec<(String, f64)>,
}

/// Measures a concept; with a base also against its vocabulary, and without one against the built-in base's, where that
/// is what it was trained on.
pub fn inspect(file: &ConceptFile, base: Option<&Path>) -> Result<Inspection, Error> {
    guarded("looking at the concept", || {
        let concept = file.concept();
        let vectors = tch::no_grad(|| vectors(&*concept)); // [N · n, D]
        let norms = Vec::try_from(lengths(&vectors)).expect("a flat tensor of numbers");
        let varies = concept.varies();
        let effective_rank = varies.layers().map(|_| effective_rank(&vectors));
        let base = match base {
            // Rows that enter after CLIP are no words.
            _ if !concept.words().is_empty() => None,
            Some(path) => Some(given(file, path)?),
            None => built_in(file),
        };
        let vocabulary = base.map(|base| vocabulary(file, &vectors, &base)).transpose()?;
        Ok(Inspection {
            layers: varies.layers(),
            with_time: varies.with_time(),
            parameters: concept.parameters().iter().map(Tensor::numel).sum(),
            norms,
            effective_rank,
            vocabulary,
        })
    })
}

/// What the concept puts into a prompt at every layer and, where it varies with time, at ten timesteps.
fn vectors(concept: &dyn Concept) -> Tensor {
    let varies = concept.varies();
    let timesteps = if varies.with_time() { &TIMESTEPS[..] } else { &TIMESTEPS[..1] };
    let site = Site::new(&Tensor::from_slice(timesteps), varies.layers().unwrap_or(1), None);
    let (Injection::Input(rows)
    | Injection::InputWithBypass { input: rows, .. }
    | Injection::Output { add: rows, .. }) = concept.inject(&site);
    rows.flatten(0, 1).to_kind(Kind::Double)
}

/// The base in a folder, if the concept is for it.
fn given(file: &ConceptFile, path: &Path) -> Result<Base, Error> {
    let base = Base::open(path, None)?;
    base.check_concept(file)?;
    Ok(base)
}

/// The built-in base, if it is there and the concept was trained with its vocabulary.
fn built_in(file: &ConceptFile) -> Option<Base> {
    let record = file.record.base.as_ref()?;
    let mut base = given(file, Path::new("")).ok()?;
    base.check_weights().ok()?;
    record.same_vocabulary(&base.record).then_some(base)
}

fn vocabulary(file: &ConceptFile, vectors: &Tensor, base: &Base) -> Result<Vocabulary, Error> {
    let tokenizer = base.folder.tokenizer()?;
    let table = base.folder.token_table()?.to_kind(Kind::Double); // [rows, D]
    let mean = vectors.mean_dim(0, false, Kind::Double); // [D]
    let cosines = table.matmul(&mean) / (lengths(&table) * mean.norm()).clamp_min(1e-12); // [rows]
    let class = file.record.class.as_deref().map(|class| tokenizer.encode(class));
    let class = class.filter(|ids| !ids.is_empty()).map(|ids| {
        let class =
            table.index_select(0, &Tensor::from_slice(&ids)).mean_dim(0, false, Kind::Double);
        class.dot(&mean).double_value(&[]) / (class.norm() * mean.norm()).double_value(&[])
    });
    let words = tokenizer.ids().min(table.size()[0]);
    let (best, ids) = cosines.narrow(0, 0, words).topk(NEAREST.min(words), 0, true, true);
    let nearest = (0..best.size()[0])
        .filter_map(|i| Some((tokenizer.word(ids.int64_value(&[i]))?, best.double_value(&[i]))));
    Ok(Vocabulary {
        median_norm: lengths(&table).median().double_value(&[]),
        class_cosine: class,
        nearest: nearest.collect(),
    })
}

fn lengths(rows: &Tensor) -> Tensor {
    rows.norm_scalaropt_dim(2, [-1], false)
}

/// exp(-Σ p ln p) of the singular values of `rows` as shares p of their sum; 0 where all are zero.
fn effective_rank(rows: &Tensor) -> f64 {
    let values = Vec::<f64>::try_from(rows.svd(true, false).1);
    let values = values.unwrap_or_default();
    let sum: f64 = values.iter().sum();
    if sum <= 0.0 {
        return 0.0;
    }
    let entropy: f64 =
        values.iter().map(|v| v / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
    entropy.exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_have_rank_one_and_orthogonal_ones_their_number() {
        let equal = Tensor::ones([6, 8], (Kind::Double, tch::Device::Cpu));
        assert!((effective_rank(&equal) - 1.0).abs() < 1e-6);
        let orthogonal = Tensor::eye(5, (Kind::Double, tch::Device::Cpu)) * 0.3;
        assert!((effective_rank(&orthogonal) - 5.0).abs() < 1e-9);
        assert!(effective_rank(&equal.zeros_like()) < 1e-9);
    }
}
