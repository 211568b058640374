//! XTI: a token vector of its own for each cross-attention layer of the U-Net.
//!
//! Source: Voynov et al. 2023, "P+: Extended Textual Conditioning in Text-to-Image Generation".

use tch::{Kind, Tensor};
use torch_ext::Generator;

use crate::concept::{MOST_LAYERS, check_vectors};
use crate::file::Tensors;
use crate::{Adjustment, Concept, Initializer, Injection, Site, Varies};

/// Stable Diffusion's cross-attention layers as `CompVis` numbers its blocks, in the order of a pass, which is that of the
/// alphabet, too; the keys of kohya's files, and of ours before format 3.
const KOHYA_NAMES: [&str; 16] = [
    "IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID", "OUT03", "OUT04", "OUT05", "OUT06",
    "OUT07", "OUT08", "OUT09", "OUT10", "OUT11",
];

/// A concept of n token vectors for each of L layers.
#[derive(Debug)]
pub struct Xti {
    placeholder: String,
    vectors: Tensor,
}

impl Xti {
    /// A concept from its vectors, `[L, n, D]`; kept in f32.
    pub fn new(placeholder: &str, vectors: &Tensor) -> Self {
        Self { placeholder: placeholder.to_owned(), vectors: vectors.to_kind(Kind::Float) }
    }

    /// The same `count` vectors for each of `layers` to start with, on the device of `table` `[rows, D]`;
    /// trainable.
    pub fn initialize(
        placeholder: &str,
        layers: i64,
        count: i64,
        initializer: &Initializer,
        table: &Tensor,
        draw: &Generator,
    ) -> Self {
        let vectors = initializer.vectors(count, table, draw).unsqueeze(0); // [1, n, D]
        Self::new(placeholder, &vectors.repeat([layers, 1, 1])).trainable()
    }

    /// The same concept with vectors that gather a gradient.
    #[must_use]
    pub fn trainable(self) -> Self {
        Self { vectors: self.vectors.set_requires_grad(true), ..self }
    }

    /// `[L, n, D]`, f32.
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }

    /// The keys of a file of kohya's, sorted.
    pub(crate) fn kohya_names() -> [&'static str; 16] {
        KOHYA_NAMES
    }

    /// From a file's tensors, numbered or with kohya's names.
    pub(crate) fn from_tensors(placeholder: &str, tensors: &Tensors) -> Result<Self, String> {
        let kohya = tensors.keys().eq(&KOHYA_NAMES).then(|| tensors.values().collect());
        let numbered = || (0..tensors.len()).map(|layer| tensors.get(&name(layer))).collect();
        let layers: Vec<&Tensor> = kohya.or_else(numbered).unwrap_or_default();
        let shape = layers.first().map(|first| first.size()).unwrap_or_default();
        if shape.len() != 2 || layers.len() > MOST_LAYERS {
            return Err("an XTI concept is a tensor [vectors, width] for each cross-attention layer (LAYER00 and on, \
                        or IN01 to OUT11), but this file holds others; copy or train it again"
                .into());
        }
        if layers.iter().any(|layer| layer.size() != shape) || shape.contains(&0) {
            return Err("an XTI concept has as many vectors of the same width for each layer, but this file has \
                        not; copy or train it again"
                .into());
        }
        check_vectors(shape[0])?;
        Ok(Self::new(placeholder, &Tensor::stack(&layers, 0)))
    }
}

/// The key of a layer's tensor.
fn name(layer: usize) -> String {
    format!("LAYER{layer:02}")
}

impl Concept for Xti {
    fn placeholder(&self) -> &str {
        &self.placeholder
    }

    fn num_tokens(&self) -> usize {
        self.vectors.size()[1] as usize
    }

    fn width(&self) -> i64 {
        self.vectors.size()[2]
    }

    fn varies(&self) -> Varies {
        Varies::WithLayer(self.vectors.size()[0])
    }

    fn inject(&self, site: &Site<'_>) -> Injection {
        let vectors = self.vectors.to_device(site.layers.device());
        Injection::Input(vectors.index_select(0, &site.layers)) // [N, n, D]
    }

    fn parameters(&self) -> Vec<Tensor> {
        vec![self.vectors.shallow_clone()]
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let layers = self.vectors.size()[0];
        (0..layers).map(|l| (name(l as usize), self.vectors.get(l))).collect()
    }

    fn adjust(&mut self, adjustment: &Adjustment) -> Result<(), String> {
        adjustment.without_mapper()?;
        self.vectors = adjustment.at_strength(&self.vectors)?;
        Ok(())
    }
}
