//! The training methods: what of the configuration is theirs, and the concept that a run starts with.

use embeddings::{
    Concept, Conditioner, ConesRows, Initializer, MapperConfig, Neti, NetiSettings, NormMode,
    TextualInversion, Xti,
};
use models::tokenizer::Tokenizer;
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use super::cones::ConesSlots;
use super::plan::TrainPlan;
use crate::config::{NormShape, TrainConfig};
use crate::{Base, Error};

/// A method with its checked settings. What is learnt tells them apart: CoRe is Textual Inversion with other terms in its
/// loss.
#[derive(Debug)]
pub(crate) enum Method {
    TextualInversion,
    Xti { layers: i64 },
    Neti(Box<NetiSettings>),
    Cones(ConesSlots),
}

impl Method {
    /// Reads the keys of the configuration's method, and refuses values that it cannot use.
    pub fn new(config: &TrainConfig, base: &Base) -> Result<Self, Error> {
        let layers = base.folder.unet.cross_attention_layers();
        match config.method.as_str() {
            "ti" | "core" => Ok(Self::TextualInversion),
            "xti" => Ok(Self::Xti { layers }),
            "neti" => Ok(Self::Neti(Box::new(neti(config, layers)?))),
            "cones" => Ok(Self::Cones(ConesSlots::new(config)?)),
            other => Err(Error::Usage(format!(
                "method '{other}' is unknown; use core, ti, xti, neti or cones"
            ))),
        }
    }

    /// The cross-attention layers that a prompt is encoded for, where it is encoded for each.
    pub fn layers(&self) -> Option<i64> {
        match self {
            Self::Xti { layers } => Some(*layers),
            Self::Neti(settings) => Some(settings.mapper.layers),
            Self::TextualInversion | Self::Cones(_) => None,
        }
    }

    /// Some methods start from a single token.
    pub fn check_initializer(&self, phrase: &str, tokenizer: &Tokenizer) -> Result<(), Error> {
        let tokens = tokenizer.encode(phrase).len();
        if matches!(self, Self::Neti(_)) && tokens != 1 {
            return Err(Error::Usage(format!(
                "NeTI takes the size of its vectors from one token, but '{phrase}' is {tokens}; name a broader class \
                 of one token with --init, such as --init object"
            )));
        }
        Ok(())
    }

    /// Some methods need a word.
    pub fn check_random_start(&self) -> Result<(), Error> {
        match self {
            Self::Neti(_) => Err(Error::Usage(
                "NeTI takes the size of its vectors from a word; leave --init-random out, and pass --class or --init"
                    .into(),
            )),
            Self::Cones(_) => Err(Error::Usage(
                "ConES starts from the words of a class; leave --init-random out, and pass --class or --init".into(),
            )),
            _ => Ok(()),
        }
    }

    /// A concept of the right size and no meaning, to see whether prompts fit.
    pub fn stand_in(
        &self,
        config: &TrainConfig,
        phrase: Option<&str>,
        tokenizer: &Tokenizer,
    ) -> Box<dyn Concept> {
        if let Self::Cones(slots) = self {
            let words = phrase.map(|phrase| tokenizer.encode(phrase)).unwrap_or_default();
            return Box::new(slots.stand_in(&config.concept, words, tokenizer.length(), 1));
        }
        let vectors = Tensor::zeros([i64::from(config.vectors), 1], (Kind::Float, Device::Cpu));
        Box::new(TextualInversion::new(&config.concept, &vectors))
    }

    /// Whether the concept is all of a prompt, so that templates have no place.
    pub fn is_whole_prompt(&self) -> bool {
        matches!(self, Self::Cones(slots) if slots.rows == ConesRows::Prompt)
    }

    /// The concept before its first step, trainable, on the conditioner's device.
    pub fn start(
        &self,
        plan: &TrainPlan,
        conditioner: &Conditioner,
        draw: &Generator,
    ) -> Box<dyn Concept> {
        let (word, count) = (&plan.config.concept, i64::from(plan.config.vectors));
        let table = conditioner.token_table();
        let initializer = plan.initializer.as_deref();
        let initializer = initializer.map_or(Initializer::Random, |p| conditioner.initializer(p));
        match self {
            Self::TextualInversion => {
                Box::new(TextualInversion::initialize(word, count, &initializer, table, draw))
            }
            Self::Xti { layers } => {
                Box::new(Xti::initialize(word, *layers, count, &initializer, table, draw))
            }
            Self::Neti(settings) => {
                let class = initializer.vectors(1, table, draw);
                Box::new(Neti::initialize(word, settings, &class, draw))
            }
            Self::Cones(slots) => Box::new(slots.start(plan, conditioner)),
        }
    }
}

fn neti(config: &TrainConfig, layers: i64) -> Result<NetiSettings, Error> {
    let refuse = |text: String| Err(Error::Usage(text));
    if config.vectors != 1 {
        return refuse(format!("vectors is {}, but NeTI learns 1; leave it out", config.vectors));
    }
    let settings = NetiSettings {
        mapper: MapperConfig {
            layers,
            outputs: 0, // follows from the class's vector
            hidden: given(config.hidden_units, "hidden_units")?.into(),
            positional_encoding: given(config.positional_encoding, "positional_encoding")?,
            sigma_time: given(config.sigma_time, "sigma_time")?,
            sigma_layer: given(config.sigma_layer, "sigma_layer")?,
            time_anchors: given(config.time_anchors, "time_anchors")?.into(),
            nested_dropout: given(config.nested_dropout, "nested_dropout")?,
        },
        norm_mode: given(config.norm_mode, "norm_mode")?,
        target_norm: 0.0, // follows from the class's vector
        output_bypass: given(config.output_bypass, "output_bypass")?,
        bypass_strength: given(config.bypass_strength, "bypass_strength")?,
        residual: given(config.residual, "residual")?,
    };
    if settings.residual && settings.norm_mode == NormMode::Joint {
        return refuse(
            "residual adds to the class's vector, so that vector and bypass cannot be scaled together; give \
             norm_mode=token"
                .into(),
        );
    }
    if config.core.as_ref().is_some_and(|core| core.norm != NormShape::None) {
        return refuse(
            "core.norm scales what is learnt, which for NeTI is a network; give core.norm=none"
                .into(),
        );
    }
    let mapper = &settings.mapper;
    if 1000 % mapper.time_anchors != 0 {
        return refuse(format!(
            "time_anchors is {}, which does not divide 1000; give 10",
            mapper.time_anchors
        ));
    }
    Ok(settings)
}

/// A key that the method's preset has.
pub(super) fn given<T>(value: Option<T>, key: &str) -> Result<T, Error> {
    value.ok_or_else(|| Error::Usage(format!("{key} is not given; the method's preset has it")))
}
