//! Several concepts under one word, each in cross-attention layers of its own.
//!
//! Source: Voynov et al. 2023, "P+", section on mixing: inner layers draw the shape, outer ones colour and texture.

use tch::{Kind, Tensor};

use crate::{Adjustment, Concept, Injection, Site, Varies};

/// A concept made of others.
pub struct Mixed {
    parts: Vec<Box<dyn Concept>>,
    /// For each of L layers, the part that is drawn there.
    part_of_layer: Vec<i64>,
}

impl Mixed {
    /// From concepts of as many tokens, all of which enter before CLIP; `part_of_layer` gives the part for each of the base's layers.
    pub fn new(parts: Vec<Box<dyn Concept>>, part_of_layer: Vec<i64>) -> Self {
        Self { parts, part_of_layer }
    }

    /// Each site's rows from its layer's part: of `[1 or N, n, D]` each, `[N, n, D]`.
    fn choose(&self, parts: &[Tensor], site: &Site<'_>) -> Tensor {
        let sites = site.layers.size()[0];
        let parts: Vec<Tensor> =
            parts.iter().map(|part| part.expand([sites, -1, -1], false)).collect();
        let all = Tensor::stack(&parts, 1); // [N, parts, n, D]
        let table = Tensor::from_slice(&self.part_of_layer).to_device(site.layers.device());
        let chosen = table.index_select(0, &site.layers); // [N]
        let site_row = Tensor::arange(sites, (Kind::Int64, site.layers.device()));
        let row = site_row * parts.len() as i64 + chosen;
        all.flatten(0, 1).index_select(0, &row)
    }
}

impl Concept for Mixed {
    fn placeholder(&self) -> &str {
        self.parts[0].placeholder()
    }

    fn num_tokens(&self) -> usize {
        self.parts[0].num_tokens()
    }

    fn width(&self) -> i64 {
        self.parts[0].width()
    }

    fn varies(&self) -> Varies {
        let layers = self.part_of_layer.len() as i64;
        if self.parts.iter().any(|part| part.varies().with_time()) {
            Varies::WithTimeAndLayer(layers)
        } else {
            Varies::WithLayer(layers)
        }
    }

    fn inject(&self, site: &Site<'_>) -> Injection {
        let (mut inputs, mut bypasses, mut passes) = (Vec::new(), Vec::new(), false);
        for part in &self.parts {
            let (input, bypass) = match part.inject(site) {
                Injection::Input(input) => (input, None),
                Injection::InputWithBypass { input, bypass } => (input, Some(bypass)),
                Injection::Output { .. } => unreachable!("only what enters before CLIP is mixed"),
            };
            passes |= bypass.is_some();
            bypasses.push(bypass.unwrap_or_else(|| input.zeros_like()));
            inputs.push(input);
        }
        let input = self.choose(&inputs, site);
        if passes {
            let bypass = self.choose(&bypasses, site);
            Injection::InputWithBypass { input, bypass }
        } else {
            Injection::Input(input)
        }
    }

    fn parameters(&self) -> Vec<Tensor> {
        self.parts.iter().flat_map(|part| part.parameters()).collect()
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        self.parts.iter().flat_map(|part| part.tensors()).collect()
    }

    fn class_only(&self) -> Option<Box<dyn Concept>> {
        self.parts.iter().find_map(|part| part.class_only())
    }

    fn adjust(&mut self, adjustment: &Adjustment) -> Result<(), String> {
        self.parts.iter_mut().try_for_each(|part| part.adjust(adjustment))
    }
}
