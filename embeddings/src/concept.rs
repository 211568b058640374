//! What every method's concept is to the rest: a word, and what enters where it stands.

use serde_json::Value;
use tch::{Kind, Tensor};
use torch_ext::Generator;

/// The most vectors that a file may hold for one place in a prompt. A prompt has room for far fewer; more are the numbers of
/// something else.
const MOST_VECTORS: i64 = 1000;
/// The most cross-attention layers that a concept can be made for.
pub(crate) const MOST_LAYERS: usize = 255;

/// Refuses more vectors than any concept has.
pub(crate) fn check_vectors(count: i64) -> Result<(), String> {
    if count > MOST_VECTORS {
        return Err(format!(
            "it holds {count} vectors, but a prompt has room for 75; give the file of a concept"
        ));
    }
    Ok(())
}

/// Something learnt that stands in a prompt as one word.
///
/// Methods differ in *where* they enter ([`Injection`]) and in what that depends on ([`Varies`]).
/// Shapes: N sites (see [`Site`]), n positions in the prompt, D width of the text encoder.
pub trait Concept {
    /// The word that stands for it in a prompt.
    fn placeholder(&self) -> &str;

    /// n, the positions that it takes in a prompt.
    fn num_tokens(&self) -> usize;

    /// D, the width of the text encoder that it was made for.
    fn width(&self) -> i64;

    /// What its injection depends on.
    fn varies(&self) -> Varies;

    /// What enters at each of N sites.
    fn inject(&self, site: &Site<'_>) -> Injection;

    /// The ids that CLIP reads in its place, n of them, where it enters only afterwards; else none.
    fn words(&self) -> &[i64] {
        &[]
    }

    /// Rows of padding at a prompt's end that it takes besides; its injection holds them behind its n positions.
    fn tail(&self) -> usize {
        0
    }

    /// Whether it is all of a prompt, start, end and padding, and stands in no other text.
    fn is_whole_prompt(&self) -> bool {
        false
    }

    /// `[n, D]`, f32, where token vectors are all that is learnt and enter before CLIP as they are, the same at every
    /// site; what can be tuned to a prompt.
    fn token_vectors(&self) -> Option<&Tensor> {
        None
    }

    /// What is learnt, f32 leaves in a fixed order.
    fn parameters(&self) -> Vec<Tensor>;

    /// Brings what is learnt back to what is allowed; follows each optimiser step.
    fn after_step(&self) {}

    /// What its file keeps: names and f32 tensors.
    fn tensors(&self) -> Vec<(String, Tensor)>;

    /// What its file keeps besides tensors; null for nothing.
    fn settings(&self) -> Value {
        Value::Null
    }

    /// What stands for it where it is to be avoided rather than drawn; nothing for itself.
    fn class_only(&self) -> Option<Box<dyn Concept>> {
        None
    }

    /// What a user may change when drawing it. The sentence of a refusal follows the concept's word.
    fn adjust(&mut self, adjustment: &Adjustment) -> Result<(), String>;
}

/// What a concept's injection depends on; it decides how often CLIP runs for a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Varies {
    /// On nothing: once a prompt.
    Never,
    /// On the U-Net's cross-attention layer, of which there are so many.
    WithLayer(i64),
    /// On the timestep as well.
    WithTimeAndLayer(i64),
}

impl Varies {
    /// The number of cross-attention layers that it was made for.
    pub fn layers(self) -> Option<i64> {
        match self {
            Self::Never => None,
            Self::WithLayer(layers) | Self::WithTimeAndLayer(layers) => Some(layers),
        }
    }

    /// Whether a context holds for one timestep only.
    pub fn with_time(self) -> bool {
        matches!(self, Self::WithTimeAndLayer(_))
    }
}

/// Where a concept enters, and with what.
#[derive(Debug)]
pub enum Injection {
    /// Token vectors before CLIP, `[1 or N, n, D]`.
    Input(Tensor),
    /// Token vectors before CLIP, and what is added after its last block where only values see it.
    InputWithBypass {
        /// `[1 or N, n, D]`.
        input: Tensor,
        /// `[1 or N, n, D]`; multiplied by the length of the row that it is added to.
        bypass: Tensor,
    },
    /// Rows after CLIP, for keys and values: a share of what is there, and something else.
    Output {
        /// `[1, n, 1]`, what a row is multiplied by.
        keep: Tensor,
        /// `[1, n, D]`, what is added then.
        add: Tensor,
    },
}

impl Injection {
    /// What goes into CLIP, if anything does.
    pub fn input(&self) -> Option<&Tensor> {
        match self {
            Self::Input(input) | Self::InputWithBypass { input, .. } => Some(input),
            Self::Output { .. } => None,
        }
    }
}

/// The N places in time and U-Net for which a prompt is encoded at once.
///
/// Layer by layer, and within a layer sample by sample: N = layers · B.
#[derive(Debug)]
pub struct Site<'a> {
    /// The timestep of each, `[N]`, f32.
    pub timesteps: Tensor,
    /// The cross-attention layer of each, `[N]`, i64.
    pub layers: Tensor,
    /// How many layers.
    pub layer_count: i64,
    /// Where what is random in training comes from; nothing when drawing.
    pub draw: Option<&'a Generator>,
}

impl<'a> Site<'a> {
    /// Sites of `layer_count` layers for samples with these `timesteps` `[B]`, of any kind.
    pub fn new(timesteps: &Tensor, layer_count: i64, draw: Option<&'a Generator>) -> Self {
        let batch = timesteps.size()[0];
        let layers = Tensor::arange(layer_count, (Kind::Int64, timesteps.device()));
        Self {
            timesteps: timesteps.to_kind(Kind::Float).repeat([layer_count]),
            layers: layers.unsqueeze(1).expand([layer_count, batch], false).reshape([-1]),
            layer_count,
            draw,
        }
    }

    /// One site for each layer, each at a timestep of its own: `timesteps` `[L]`, of any kind.
    pub fn one_of_each_layer(timesteps: &Tensor, draw: Option<&'a Generator>) -> Self {
        let layer_count = timesteps.size()[0];
        Self {
            timesteps: timesteps.to_kind(Kind::Float),
            layers: Tensor::arange(layer_count, (Kind::Int64, timesteps.device())),
            layer_count,
            draw,
        }
    }
}

/// How a concept is drawn where that is not how it was learnt.
#[derive(Debug, Default)]
pub struct Adjustment {
    /// 0 draws the class, 1 the concept as it was learnt; in between and beyond on the line through both.
    pub strength: Option<f64>,
    /// The token vectors of the class, `[k, D]`, for methods that do not keep them.
    pub class_vectors: Option<Tensor>,
    /// Hidden units of NeTI's mapper that are kept, from the most important.
    pub truncation: Option<i64>,
    /// The strength of NeTI's bypass.
    pub bypass: Option<f64>,
}

impl Adjustment {
    /// Refuses what only NeTI's mapper has.
    pub(crate) fn without_mapper(&self) -> Result<(), String> {
        for (key, given) in
            [("truncate", self.truncation.is_some()), ("bypass", self.bypass.is_some())]
        {
            if given {
                return Err(format!("is no NeTI concept, so it has no {key}; leave it out"));
            }
        }
        Ok(())
    }

    /// `learnt` `[.., n, D]` at the strength that is asked for, on the line from the class's vectors.
    pub(crate) fn at_strength(&self, learnt: &Tensor) -> Result<Tensor, String> {
        let Some(strength) = self.strength else { return Ok(learnt.shallow_clone()) };
        let Some(class) = &self.class_vectors else {
            return Err(
                "does not say what class it is of, which a strength needs; leave it out".into()
            );
        };
        let count = learnt.size()[learnt.dim() - 2];
        let class = crate::textual_inversion::spread(class, count); // [n, D]
        Ok(&class + (learnt - &class) * strength)
    }
}
