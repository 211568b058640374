//! NeTI: a small network gives the token vector for each timestep and cross-attention layer.
//!
//! Source: Alaluf et al. 2023, "A Neural Space-Time Representation for Text-to-Image Personalization".

mod encoding;
mod mapper;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Kind, Tensor};
use torch_ext::Generator;

use crate::concept::MOST_LAYERS;
use crate::file::Tensors;
use crate::{Adjustment, Concept, Injection, Site, TextualInversion, Varies};

pub use mapper::{Mapper, MapperConfig};

/// What the mapper's output is scaled to the length of the class's token vector by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormMode {
    /// The whole output, token vector and bypass together, as in the authors' release.
    Joint,
    /// The token vector only.
    Token,
    /// Nothing is scaled.
    None,
}

/// What a file keeps of a concept besides its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetiSettings {
    /// The network.
    pub mapper: MapperConfig,
    /// How its output is scaled.
    pub norm_mode: NormMode,
    /// The length of the class's token vector.
    pub target_norm: f64,
    /// Whether half of the output goes past CLIP.
    pub output_bypass: bool,
    /// α, the bypass as a share of the row that it is added to.
    pub bypass_strength: f64,
    /// Whether the token vector is the class's and the mapper's output added to it, which starts at zero; else it is
    /// the output alone, as in the release.
    #[serde(default)]
    pub residual: bool,
}

/// A concept whose token vector a mapper gives, one token long.
#[derive(Debug)]
pub struct Neti {
    placeholder: String,
    mapper: Mapper,
    settings: NetiSettings,
    /// `[1, D]`, the token vector of the class.
    class_vector: Tensor,
    truncation: Option<i64>,
    strength: Option<f64>,
}

impl Neti {
    /// A fresh mapper for a class's token vector `[1, D]`, on its device; trainable. `settings` without the
    /// mapper's outputs and the target norm, which follow from that vector.
    pub fn initialize(
        placeholder: &str,
        settings: &NetiSettings,
        class_vector: &Tensor,
        draw: &Generator,
    ) -> Self {
        let class_vector = class_vector.to_kind(Kind::Float);
        let mut settings = settings.clone();
        settings.target_norm = class_vector.norm().double_value(&[]);
        let halves = if settings.output_bypass { 2 } else { 1 };
        settings.mapper.outputs = halves * class_vector.size()[1];
        let mapper = Mapper::new(settings.mapper.clone(), draw);
        let mapper =
            if settings.residual { mapper.silenced(class_vector.size()[1]) } else { mapper };
        let mapper = mapper.trainable(class_vector.device());
        Self::new(placeholder, mapper, settings, class_vector)
    }

    fn new(
        placeholder: &str,
        mapper: Mapper,
        settings: NetiSettings,
        class_vector: Tensor,
    ) -> Self {
        let placeholder = placeholder.to_owned();
        Self { placeholder, mapper, settings, class_vector, truncation: None, strength: None }
    }

    pub(crate) fn from_tensors(
        placeholder: &str,
        tensors: &Tensors,
        settings: &Value,
    ) -> Result<Self, String> {
        let settings: NetiSettings = serde_json::from_value(settings.clone())
            .map_err(|e| format!("its settings are damaged ({e}); copy or train it again"))?;
        let MapperConfig { layers, hidden, time_anchors, outputs, .. } = settings.mapper;
        let sizes = [hidden, time_anchors, outputs].iter().all(|n| (1..=65_536).contains(n));
        let layers = (1..=MOST_LAYERS as i64).contains(&layers);
        let halves = !settings.output_bypass || outputs % 2 == 0;
        let lengths = (0.0..=1e6).contains(&settings.target_norm)
            && (0.0..=10.0).contains(&settings.bypass_strength);
        if !(sizes && layers && halves && lengths) {
            return Err("its settings are those of no mapper; copy or train it again".into());
        }
        let mapper = Mapper::from_tensors(settings.mapper.clone(), tensors)?;
        let width = outputs / if settings.output_bypass { 2 } else { 1 };
        match tensors.get("class_vector") {
            Some(class) if class.size() == [width] => {
                Ok(Self::new(placeholder, mapper, settings, class.unsqueeze(0)))
            }
            _ => Err(format!(
                "a NeTI concept has a tensor class_vector [{width}], but this file has not; copy or train it again"
            )),
        }
    }

    /// Token vectors `[N, D]` and, with a bypass, its directions `[N, D]`.
    fn outputs(&self, site: &Site<'_>) -> (Tensor, Option<Tensor>) {
        self.halves(self.mapper.forward(site, self.truncation))
    }

    /// The mapper's `output` `[N, D or 2D]` at its length, as token vectors `[N, D]` and the rest.
    fn halves(&self, output: Tensor) -> (Tensor, Option<Tensor>) {
        let scaled = |x: Tensor| scaled_to(&x, self.settings.target_norm);
        let output =
            if self.settings.norm_mode == NormMode::Joint { scaled(output) } else { output };
        let width = self.width();
        let input = output.narrow(1, 0, width);
        let input = if self.settings.residual {
            input + self.class_vector.to_device(output.device())
        } else {
            input
        };
        let input = if self.settings.norm_mode == NormMode::Token { scaled(input) } else { input };
        let bypass = self.settings.output_bypass.then(|| output.narrow(1, width, width));
        (input, bypass)
    }
}

/// Each row of `x` at this length.
fn scaled_to(x: &Tensor, length: f64) -> Tensor {
    x / x.norm_scalaropt_dim(2, [-1], true).clamp_min(1e-12) * length
}

impl Concept for Neti {
    fn placeholder(&self) -> &str {
        &self.placeholder
    }

    fn num_tokens(&self) -> usize {
        1
    }

    fn width(&self) -> i64 {
        self.class_vector.size()[1]
    }

    fn varies(&self) -> Varies {
        Varies::WithTimeAndLayer(self.settings.mapper.layers)
    }

    fn inject(&self, site: &Site<'_>) -> Injection {
        let device = site.layers.device();
        let enter = |x: Tensor| x.to_device(device).unsqueeze(1); // [N, 1, D]
        let (mut input, bypass) = self.outputs(site);
        if let Some(strength) = self.strength {
            let class = self.class_vector.to_device(input.device());
            input = &class + (input - &class) * strength;
        }
        match bypass {
            Some(bypass) => {
                let alpha = self.settings.bypass_strength * self.strength.unwrap_or(1.0);
                Injection::InputWithBypass {
                    input: enter(input),
                    bypass: enter(scaled_to(&bypass, alpha)),
                }
            }
            None => Injection::Input(enter(input)),
        }
    }

    fn parameters(&self) -> Vec<Tensor> {
        self.mapper.parameters()
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut tensors = self.mapper.tensors();
        tensors.push(("class_vector".to_owned(), self.class_vector.squeeze_dim(0)));
        tensors
    }

    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).expect("settings are plain data")
    }

    fn class_only(&self) -> Option<Box<dyn Concept>> {
        Some(Box::new(TextualInversion::new(&self.placeholder, &self.class_vector)))
    }

    fn adjust(&mut self, adjustment: &Adjustment) -> Result<(), String> {
        if let Some(units) = adjustment.truncation {
            let hidden = self.settings.mapper.hidden;
            if self.settings.mapper.nested_dropout <= 0.0 {
                return Err("was trained without nested dropout, so its units have no order to truncate; leave truncate out".into());
            }
            if !(0..=hidden).contains(&units) {
                return Err(format!(
                    "has {hidden} hidden units, but truncate is {units}; give 1 to {hidden}"
                ));
            }
            self.truncation = Some(units);
        }
        if let Some(strength) = adjustment.bypass {
            if !self.settings.output_bypass {
                return Err("was trained without a bypass; leave bypass out".into());
            }
            self.settings.bypass_strength = strength;
        }
        self.strength = adjustment.strength;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(norm_mode: NormMode, output_bypass: bool) -> NetiSettings {
        NetiSettings {
            mapper: MapperConfig {
                layers: 4,
                outputs: 0,
                hidden: 16,
                positional_encoding: true,
                sigma_time: 0.03,
                sigma_layer: 2.0,
                time_anchors: 10,
                nested_dropout: 0.5,
            },
            norm_mode,
            target_norm: 0.0,
            output_bypass,
            bypass_strength: 0.2,
            residual: false,
        }
    }

    fn concept(norm_mode: NormMode, output_bypass: bool) -> Neti {
        let class = Generator::cpu(1).randn(&[1, 8]) * 0.1;
        Neti::initialize("<x>", &settings(norm_mode, output_bypass), &class, &Generator::cpu(2))
    }

    fn lengths(x: &Tensor) -> Tensor {
        x.norm_scalaropt_dim(2, [-1], false)
    }

    #[test]
    fn the_joint_norm_is_that_of_both_halves_and_the_token_norm_of_the_token_vector() {
        let site = Site::new(&Tensor::from_slice(&[3i64, 900]), 4, None);
        for (mode, both) in [(NormMode::Joint, true), (NormMode::Token, false)] {
            let concept = concept(mode, true);
            let (input, bypass) = concept.outputs(&site);
            let whole = Tensor::cat(&[input.shallow_clone(), bypass.unwrap()], 1);
            let measured = lengths(if both { &whole } else { &input });
            let apart = (measured - concept.settings.target_norm).abs().max().double_value(&[]);
            assert!(apart < 1e-6, "{mode:?}: {apart}");
            assert!(concept.settings.target_norm > 0.1);
        }
    }

    #[test]
    fn three_and_four_are_rescaled_as_was_worked_out_by_hand() {
        let class = Tensor::from_slice(&[0.3f32, 0.4]).unsqueeze(0);
        for (mode, token, bypass) in [
            (NormMode::Joint, [0.3, 0.0], [0.0, 0.4]),
            (NormMode::Token, [0.5, 0.0], [0.0, 4.0]),
            (NormMode::None, [3.0, 0.0], [0.0, 4.0]),
        ] {
            let concept =
                Neti::initialize("<x>", &settings(mode, true), &class, &Generator::cpu(2));
            let output = Tensor::from_slice(&[3f32, 0.0, 0.0, 4.0]).unsqueeze(0);
            let (a, b) = concept.halves(output);
            for (found, expected) in [(a, token), (b.unwrap(), bypass)] {
                let apart = (found - Tensor::from_slice(&expected)).abs().max().double_value(&[]);
                assert!(apart < 1e-6, "{mode:?}: {apart}");
            }
        }
    }

    #[test]
    fn every_weight_gets_a_gradient_and_the_frequencies_none() {
        let concept = concept(NormMode::Joint, true);
        let draw = Generator::cpu(9);
        let site = Site::new(&Tensor::from_slice(&[3i64, 900]), 4, Some(&draw));
        let Injection::InputWithBypass { input, bypass, .. } = concept.inject(&site) else {
            panic!("it has a bypass")
        };
        let weights = draw.randn(&input.size());
        let loss = ((input + bypass.square()) * weights).sum(Kind::Float);
        let parameters = concept.parameters();
        assert_eq!(parameters.len(), 12);
        for gradient in Tensor::run_backward(&[loss], &parameters, false, false) {
            let norm = gradient.norm().double_value(&[]);
            assert!(norm.is_finite() && norm > 0.0, "{norm}");
        }
        let (_, w) = concept.tensors().into_iter().find(|(name, _)| name == "encoder.w").unwrap();
        assert!(!w.requires_grad());
    }
}
