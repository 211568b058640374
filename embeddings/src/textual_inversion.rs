//! Textual Inversion: a concept is one or a few token vectors.
//!
//! Source: Gal et al. 2022, "An Image is Worth One Word", section 4.

use tch::{Kind, Tensor};
use torch_ext::Generator;

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

impl TextualInversion {
    /// A concept from its vectors, `[n, D]`; kept in f32 whatever the base's kind.
    pub fn new(placeholder: &str, vectors: &Tensor) -> Self {
        Self { placeholder: placeholder.to_owned(), vectors: vectors.to_kind(Kind::Float) }
    }

    /// `count` vectors that start from `initializer`, on the device of `table` `[rows, D]`; trainable.
    ///
    /// A phrase of more tokens than vectors is averaged in `count` runs of neighbours; one of fewer tokens
    /// is repeated from its start.
    pub fn initialize(
        placeholder: &str,
        count: i64,
        initializer: &Initializer,
        table: &Tensor,
        draw: &Generator,
    ) -> Self {
        let vectors = match initializer {
            Initializer::Tokens(ids) => {
                let rows =
                    table.index_select(0, &Tensor::from_slice(ids).to_device(table.device()));
                spread(&rows.to_kind(Kind::Float), count)
            }
            Initializer::Random => {
                let sample = table.narrow(0, 0, table.size()[0].min(4096)).to_kind(Kind::Float);
                let noise = draw.randn(&[count, table.size()[1]]).to_device(table.device());
                noise * sample.std(true) + sample.mean(Kind::Float)
            }
        };
        Self::new(placeholder, &vectors.detach().copy()).trainable()
    }

    /// The same concept with vectors that gather a gradient.
    #[must_use]
    pub fn trainable(self) -> Self {
        Self { vectors: self.vectors.set_requires_grad(true), ..self }
    }

    /// The word that stands for the concept in a prompt.
    pub fn placeholder(&self) -> &str {
        &self.placeholder
    }

    /// The same concept under another word.
    #[must_use]
    pub fn renamed(self, placeholder: &str) -> Self {
        Self { placeholder: placeholder.to_owned(), ..self }
    }

    /// The tokens that it takes in a prompt.
    pub fn num_tokens(&self) -> usize {
        self.vectors.size()[0] as usize
    }

    /// `[n, D]`, f32.
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }
}

/// `rows` `[k, D]` as `count` vectors: copied, averaged in runs, or repeated.
fn spread(rows: &Tensor, count: i64) -> Tensor {
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
