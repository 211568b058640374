//! Textual Inversion: a concept is one or a few token vectors.
//!
//! Source: Gal et al. 2022, "An Image is Worth One Word", section 4.

use tch::{Kind, Tensor};
use torch_ext::Generator;

use crate::concept::check_vectors;
use crate::file::Tensors;
use crate::{Adjustment, Concept, Injection, Site, Varies};

/// A concept that stands in a prompt as one word and enters CLIP as `n` token vectors.
#[derive(Debug)]
pub struct TextualInversion {
    placeholder: String,
    vectors: Tensor,
}

/// What the vectors start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Initializer {
    /// The token vectors of a word or phrase, given by its ids.
    Tokens(Vec<i64>),
    /// Normal draws with the mean and standard deviation of the table's entries.
    Random,
}

impl Initializer {
    /// `count` vectors `[count, D]`, f32 copies on the device of `table` `[rows, D]`.
    ///
    /// A phrase of more tokens than vectors is averaged in `count` runs of neighbours; one of fewer tokens
    /// is repeated from its start.
    pub fn vectors(&self, count: i64, table: &Tensor, draw: &Generator) -> Tensor {
        let vectors = match self {
            Self::Tokens(ids) => {
                let rows =
                    table.index_select(0, &Tensor::from_slice(ids).to_device(table.device()));
                spread(&rows.to_kind(Kind::Float), count)
            }
            Self::Random => {
                let sample = table.narrow(0, 0, table.size()[0].min(4096)).to_kind(Kind::Float);
                let noise = draw.randn(&[count, table.size()[1]]).to_device(table.device());
                noise * sample.std(true) + sample.mean(Kind::Float)
            }
        };
        vectors.detach().copy()
    }
}

impl TextualInversion {
    /// A concept from its vectors, `[n, D]`; kept in f32 whatever the base's kind.
    pub fn new(placeholder: &str, vectors: &Tensor) -> Self {
        Self { placeholder: placeholder.to_owned(), vectors: vectors.to_kind(Kind::Float) }
    }

    /// `count` vectors that start from `initializer`, on the device of `table` `[rows, D]`; trainable.
    pub fn initialize(
        placeholder: &str,
        count: i64,
        initializer: &Initializer,
        table: &Tensor,
        draw: &Generator,
    ) -> Self {
        let vectors = initializer.vectors(count, table, draw);
        Self::new(placeholder, &vectors).trainable()
    }

    /// The same concept with vectors that gather a gradient.
    #[must_use]
    pub fn trainable(self) -> Self {
        Self { vectors: self.vectors.set_requires_grad(true), ..self }
    }

    /// From a file's only tensor, `[n, D]` or `[D]`, whatever its name.
    pub(crate) fn from_tensors(placeholder: &str, tensors: &Tensors) -> Result<Self, String> {
        let mut all = tensors.iter();
        let (Some((name, tensor)), None) = (all.next(), all.next()) else {
            return Err(format!(
                "a Textual Inversion is one tensor [vectors, width], but this file holds {}; copy or train it again",
                tensors.len()
            ));
        };
        match *tensor.size() {
            [width] if width > 0 => Ok(Self::new(placeholder, &tensor.unsqueeze(0))),
            [rows, width] if rows > 0 && width > 0 => {
                check_vectors(rows)?;
                Ok(Self::new(placeholder, tensor))
            }
            _ => Err(format!(
                "a concept is a tensor of shape [vectors, width], but {name} is {:?}; give the file of a Textual \
                 Inversion",
                tensor.size()
            )),
        }
    }

    /// `[n, D]`, f32.
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }
}

impl Concept for TextualInversion {
    fn placeholder(&self) -> &str {
        &self.placeholder
    }

    fn num_tokens(&self) -> usize {
        self.vectors.size()[0] as usize
    }

    fn width(&self) -> i64 {
        self.vectors.size()[1]
    }

    fn varies(&self) -> Varies {
        Varies::Never
    }

    fn inject(&self, site: &Site<'_>) -> Injection {
        Injection::Input(self.vectors.to_device(site.layers.device()).unsqueeze(0)) // [1, n, D]
    }

    fn token_vectors(&self) -> Option<&Tensor> {
        Some(&self.vectors)
    }

    fn parameters(&self) -> Vec<Tensor> {
        vec![self.vectors.shallow_clone()]
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        vec![("emb_params".to_owned(), self.vectors.shallow_clone())]
    }

    fn adjust(&mut self, adjustment: &Adjustment) -> Result<(), String> {
        adjustment.without_mapper()?;
        self.vectors = adjustment.at_strength(&self.vectors)?;
        Ok(())
    }
}

/// `rows` `[k, D]` as `count` vectors: copied, averaged in runs, or repeated.
pub(crate) fn spread(rows: &Tensor, count: i64) -> Tensor {
    let k = rows.size()[0];
    let vectors: Vec<Tensor> = (0..count)
        .map(|i| {
            let (from, to) = (i * k / count, (i + 1) * k / count);
            if k < count {
                rows.select(0, i % k)
            } else {
                rows.narrow(0, from, to - from).mean_dim(0, false, Kind::Float)
            }
        })
        .collect();
    Tensor::stack(&vectors, 0) // [count, D]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Tensor {
        Tensor::from_slice(&[1f32, 2., 3., 4.]).reshape([4, 1])
    }

    fn values(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t.reshape([-1]).to_kind(Kind::Double)).expect("a flat tensor")
    }

    #[test]
    fn a_phrase_of_as_many_tokens_is_copied() {
        assert_eq!(values(&spread(&rows(), 4)), [1., 2., 3., 4.]);
    }

    #[test]
    fn a_longer_phrase_is_averaged_in_runs() {
        assert_eq!(values(&spread(&rows(), 2)), [1.5, 3.5]);
        assert_eq!(values(&spread(&rows(), 1)), [2.5]);
        assert_eq!(values(&spread(&rows(), 3)), [1., 2., 3.5]);
    }

    #[test]
    fn a_shorter_phrase_is_repeated() {
        assert_eq!(values(&spread(&rows(), 6)), [1., 2., 3., 4., 1., 2.]);
    }

    #[test]
    fn training_starts_from_a_copy_and_leaves_the_table_alone() {
        let table = rows();
        let draw = Generator::cpu(1);
        let init = Initializer::Tokens(vec![2]);
        let concept = TextualInversion::initialize("<x>", 1, &init, &table, &draw);
        assert!(concept.vectors().requires_grad() && !table.requires_grad());
        tch::no_grad(|| {
            let _ = concept.vectors().shallow_clone().fill_(9.0);
        });
        assert_eq!(values(&table), [1., 2., 3., 4.]);
    }
}
