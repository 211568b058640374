//! `unet/config.json`.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::ModelError;
use crate::config::{Class, DEEPEST, LARGEST_SIDE, Rule, WIDEST};

/// One number for all levels, or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same at every level.
    One(i64),
    /// By level, outermost first.
    Each(Vec<i64>),
}

impl PerLevel {
    /// The value at `level`.
    pub fn at(&self, level: usize) -> i64 {
        match self {
            Self::One(value) => *value,
            Self::Each(values) => values[level],
        }
    }
}

/// The non-linearities that diffusers knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeActivation {
    /// `x · sigmoid(x)`.
    #[serde(alias = "swish")]
    Silu,
    /// `x · tanh(softplus(x))`.
    Mish,
    /// The exact Gaussian error linear unit.
    Gelu,
    /// `max(x, 0)`.
    Relu,
}

impl TimeActivation {
    pub(super) fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Self::Silu => x.silu(),
            Self::Mish => x.mish(),
            Self::Gelu => x.gelu("none"),
            Self::Relu => x.relu(),
        }
    }
}

/// The configuration of a `UNet2DConditionModel`; what is absent has diffusers' default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNetConfig {
    /// Channels of the latents it reads.
    pub in_channels: i64,
    /// Channels of its prediction.
    pub out_channels: i64,
    /// Channels at each level, outermost first.
    pub block_out_channels: Vec<i64>,
    /// Resnets (and attentions) a level on the way down; one more on the way up.
    pub layers_per_block: i64,
    /// `CrossAttnDownBlock2D` or `DownBlock2D` at each level.
    pub down_block_types: Vec<String>,
    /// `UNetMidBlock2DCrossAttn`; `None` is a network without a middle.
    pub mid_block_type: Option<String>,
    /// `CrossAttnUpBlock2D` or `UpBlock2D` at each level, innermost first.
    pub up_block_types: Vec<String>,
    /// D, the width of the context.
    pub cross_attention_dim: i64,
    /// The number of *heads*, in spite of its name.
    pub attention_head_dim: PerLevel,
    /// The number of heads where a newer file says it plainly.
    pub num_attention_heads: Option<PerLevel>,
    /// Transformer blocks in each attention.
    pub transformer_layers_per_block: PerLevel,
    /// Linear instead of 1×1 convolutional projections around the transformer (SD 2.x).
    pub use_linear_projection: bool,
    /// Attention scores in f32 although the network is f16 (SD 2.x at 768).
    pub upcast_attention: bool,
    /// Groups of the group norms.
    pub norm_num_groups: i64,
    /// Of the group norms in resnets.
    pub norm_eps: f64,
    /// Cosines before sines in the timestep's encoding.
    pub flip_sin_to_cos: bool,
    /// Shift of the frequencies in the timestep's encoding.
    pub freq_shift: f64,
    /// Width of the encoding of the guidance scale that the network is told besides the timestep (LCM).
    pub time_cond_proj_dim: Option<i64>,
    /// Between the two layers of the time embedding and the blocks: behind the second layer.
    pub timestep_post_act: Option<TimeActivation>,
    /// The same, behind all that is added to the time embedding.
    pub time_embedding_act_fn: Option<TimeActivation>,
    /// Padding of the convolutions that halve the picture: 1 on all sides, or 0 for one below and to the right.
    pub downsample_padding: i64,
    /// Divides what the resnets of the middle return.
    pub mid_block_scale_factor: f64,
    /// Side of the latents it was trained on.
    pub sample_size: Option<i64>,
}

impl Default for UNetConfig {
    /// Those of diffusers' class.
    fn default() -> Self {
        let names = |names: [&str; 4]| names.map(str::to_owned).to_vec();
        let (down, up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
        Self {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            down_block_types: names([down, down, down, "DownBlock2D"]),
            mid_block_type: Some(MID_BLOCK.to_owned()),
            up_block_types: names(["UpBlock2D", up, up, up]),
            cross_attention_dim: 1280,
            attention_head_dim: PerLevel::One(8),
            num_attention_heads: None,
            transformer_layers_per_block: PerLevel::One(1),
            use_linear_projection: false,
            upcast_attention: false,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            time_cond_proj_dim: None,
            timestep_post_act: None,
            time_embedding_act_fn: None,
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            sample_size: None,
        }
    }
}

const MID_BLOCK: &str = "UNetMidBlock2DCrossAttn";
const DOWN_BLOCKS: [&str; 2] = ["CrossAttnDownBlock2D", "DownBlock2D"];
const UP_BLOCKS: [&str; 2] = ["CrossAttnUpBlock2D", "UpBlock2D"];
const ACTIVATIONS: Rule = Rule::Word(&["silu", "swish", "mish", "gelu", "relu"]);

/// What diffusers' class knows.
pub(crate) const CLASS: Class = Class {
    name: "UNet2DConditionModel",
    tells: true,
    keys: &[
        ("in_channels", Rule::Whole(1, WIDEST)),
        ("out_channels", Rule::Whole(1, WIDEST)),
        ("block_out_channels", Rule::Wholes(1, WIDEST)),
        ("layers_per_block", Rule::Whole(1, DEEPEST)),
        ("down_block_types", Rule::Words(&DOWN_BLOCKS)),
        ("mid_block_type", Rule::Part(MID_BLOCK)),
        ("up_block_types", Rule::Words(&UP_BLOCKS)),
        ("cross_attention_dim", Rule::Whole(1, WIDEST)),
        ("attention_head_dim", Rule::ByLevel(1, WIDEST)),
        ("num_attention_heads", Rule::ByLevel(1, WIDEST)),
        ("transformer_layers_per_block", Rule::ByLevel(1, DEEPEST)),
        ("use_linear_projection", Rule::Switch(false)),
        ("upcast_attention", Rule::Switch(false)),
        ("norm_num_groups", Rule::Whole(1, WIDEST)),
        ("norm_eps", Rule::Number(0.0, 1.0)),
        // Not its default, true: diffusers draws with sines first where the file says `null`.
        ("flip_sin_to_cos", Rule::Switch(false)),
        ("freq_shift", Rule::Number(0.0, 1.0)),
        ("time_cond_proj_dim", Rule::Whole(4, WIDEST)),
        ("timestep_post_act", ACTIVATIONS),
        ("time_embedding_act_fn", ACTIVATIONS),
        ("downsample_padding", Rule::Whole(0, 1)),
        ("mid_block_scale_factor", Rule::Number(1e-6, 1e6)),
        ("sample_size", Rule::Whole(1, LARGEST_SIDE)),
        ("act_fn", Rule::Word(&["silu", "swish"])),
        ("addition_embed_type", Rule::Unset),
        ("center_input_sample", Rule::Unset),
        ("class_embed_type", Rule::Unset),
        ("class_embeddings_concat", Rule::Unset),
        ("conv_in_kernel", Rule::Whole(3, 3)),
        ("conv_out_kernel", Rule::Whole(3, 3)),
        ("dual_cross_attention", Rule::Unset),
        ("encoder_hid_dim", Rule::Unset),
        ("encoder_hid_dim_type", Rule::Unset),
        ("num_class_embeds", Rule::Unset),
        ("only_cross_attention", Rule::Unset),
        ("resnet_time_scale_shift", Rule::Word(&["default"])),
        ("reverse_transformer_layers_per_block", Rule::Unset),
        ("time_embedding_dim", Rule::Unset),
        ("time_embedding_type", Rule::Word(&["positional"])),
        // Of other blocks, of inputs that are not given, or of training: diffusers draws the same with any value.
        ("addition_embed_type_num_heads", Rule::Any),
        ("addition_time_embed_dim", Rule::Any),
        ("attention_type", Rule::Any),
        ("cross_attention_norm", Rule::Any),
        ("dropout", Rule::Any),
        ("mid_block_only_cross_attention", Rule::Any),
        ("projection_class_embeddings_input_dim", Rule::Any),
        ("resnet_out_scale_factor", Rule::Any),
        ("resnet_skip_time_act", Rule::Any),
    ],
};

impl UNetConfig {
    /// Heads of the attentions at `level`.
    pub fn heads(&self, level: usize) -> i64 {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim).at(level)
    }

    /// The cross-attention layers that a network of this configuration has; it must have passed
    /// [`UNetConfig::check`].
    pub fn cross_attention_layers(&self) -> i64 {
        let levels = self.block_out_channels.len();
        let inside = |level: usize| self.transformer_layers_per_block.at(level);
        let layers =
            |types: &[String], attending: &str, each: i64, level: &dyn Fn(usize) -> usize| {
                let attends = types.iter().enumerate().filter(|(_, kind)| *kind == attending);
                attends.map(|(i, _)| each * inside(level(i))).sum::<i64>()
            };
        let each = self.layers_per_block;
        let middle = if self.mid_block_type.is_some() { inside(levels - 1) } else { 0 };
        layers(&self.down_block_types, "CrossAttnDownBlock2D", each, &|i| i)
            + middle
            + layers(&self.up_block_types, "CrossAttnUpBlock2D", each + 1, &|i| levels - 1 - i)
    }

    /// Refuses parts that do not fit together, naming the key; each key alone was checked when the file was read.
    pub fn check(&self) -> Result<(), ModelError> {
        let levels = self.block_out_channels.len();
        let refuse = |key, found: String, expected| {
            Err(ModelError::Unsupported { part: "unet", key, found, expected })
        };
        let known = |key, types: &[String], known: [&str; 2]| match types
            .iter()
            .find(|kind| !known.contains(&kind.as_str()))
        {
            Some(other) => refuse(key, other.clone(), "a block of Stable Diffusion 1.x or 2.x"),
            None if types.len() != levels => {
                refuse(key, format!("{} blocks", types.len()), "one block a level")
            }
            None => Ok(()),
        };
        known("down_block_types", &self.down_block_types, DOWN_BLOCKS)?;
        known("up_block_types", &self.up_block_types, UP_BLOCKS)?;
        for (key, value) in [
            ("attention_head_dim", Some(&self.attention_head_dim)),
            ("num_attention_heads", self.num_attention_heads.as_ref()),
            ("transformer_layers_per_block", Some(&self.transformer_layers_per_block)),
        ] {
            if let Some(PerLevel::Each(each)) = value
                && each.len() != levels
            {
                return refuse(key, format!("{} numbers", each.len()), "one number a level");
            }
        }
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            if channels % self.norm_num_groups != 0 || channels % self.heads(level) != 0 {
                let expected = "channels that norm_num_groups and the heads divide";
                return refuse("block_out_channels", channels.to_string(), expected);
            }
        }
        let layers = self.cross_attention_layers();
        if layers > MOST_LAYERS {
            let found =
                format!("{}, which makes {layers} cross-attention layers", self.layers_per_block);
            return refuse("layers_per_block", found, "a number that makes at most 256");
        }
        Ok(())
    }
}

/// The layers that a [`super::LayerId`] can tell apart.
const MOST_LAYERS: i64 = 256;
