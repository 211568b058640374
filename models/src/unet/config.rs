//! `unet/config.json`.

use serde::{Deserialize, Serialize};

use crate::ModelError;

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

/// The configuration of a `UNet2DConditionModel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UNetConfig {
    /// Channels of the latents it reads.
    pub in_channels: i64,
    /// Channels of its prediction.
    pub out_channels: i64,
    /// Channels at each level, outermost first.
    pub block_out_channels: Vec<i64>,
    /// Resnets (and attentions) a level on the way down; one more on the way up.
    #[serde(default = "two")]
    pub layers_per_block: i64,
    /// `CrossAttnDownBlock2D` or `DownBlock2D` at each level.
    pub down_block_types: Vec<String>,
    /// `CrossAttnUpBlock2D` or `UpBlock2D` at each level, innermost first.
    pub up_block_types: Vec<String>,
    /// D, the width of the context.
    pub cross_attention_dim: i64,
    /// The number of *heads*, in spite of its name.
    #[serde(default = "eight")]
    pub attention_head_dim: PerLevel,
    /// The number of heads where a newer file says it plainly.
    #[serde(default)]
    pub num_attention_heads: Option<PerLevel>,
    /// Transformer blocks in each attention.
    #[serde(default = "one")]
    pub transformer_layers_per_block: PerLevel,
    /// Linear instead of 1×1 convolutional projections around the transformer (SD 2.x).
    #[serde(default)]
    pub use_linear_projection: bool,
    /// Attention scores in f32 although the network is f16 (SD 2.x at 768).
    #[serde(default)]
    pub upcast_attention: bool,
    /// Groups of the group norms.
    #[serde(default = "thirty_two")]
    pub norm_num_groups: i64,
    /// Of the group norms in resnets.
    #[serde(default = "norm_eps")]
    pub norm_eps: f64,
    /// Cosines before sines in the timestep's encoding.
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    /// Shift of the frequencies in the timestep's encoding.
    #[serde(default)]
    pub freq_shift: f64,
    /// Side of the latents it was trained on.
    #[serde(default)]
    pub sample_size: Option<i64>,

    // What these networks do not have, read so that it can be refused.
    #[serde(default, skip_serializing)]
    act_fn: Option<String>,
    #[serde(default, skip_serializing)]
    class_embed_type: Option<String>,
    #[serde(default, skip_serializing)]
    num_class_embeds: Option<i64>,
    #[serde(default, skip_serializing)]
    addition_embed_type: Option<String>,
    #[serde(default, skip_serializing)]
    encoder_hid_dim_type: Option<String>,
    #[serde(default, skip_serializing)]
    resnet_time_scale_shift: Option<String>,
    #[serde(default, skip_serializing)]
    mid_block_type: Option<String>,
    #[serde(default, skip_serializing)]
    dual_cross_attention: bool,
    #[serde(default, skip_serializing)]
    only_cross_attention: serde_json::Value,
    #[serde(default, skip_serializing)]
    center_input_sample: bool,
}

fn two() -> i64 {
    2
}
fn one() -> PerLevel {
    PerLevel::One(1)
}
fn eight() -> PerLevel {
    PerLevel::One(8)
}
fn thirty_two() -> i64 {
    32
}
fn norm_eps() -> f64 {
    1e-5
}
fn yes() -> bool {
    true
}

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
        layers(&self.down_block_types, "CrossAttnDownBlock2D", each, &|i| i)
            + inside(levels - 1)
            + layers(&self.up_block_types, "CrossAttnUpBlock2D", each + 1, &|i| levels - 1 - i)
    }

    /// Refuses what Stable Diffusion 1.x and 2.x do not have, naming the key.
    pub fn check(&self) -> Result<(), ModelError> {
        let levels = self.block_out_channels.len();
        let refuse = |key, found: String, expected| {
            Err(ModelError::Unsupported { part: "unet", key, found, expected })
        };
        let only = |key, found: &Option<String>, expected: &'static str| match found {
            Some(value) if value != expected => refuse(key, value.clone(), expected),
            _ => Ok(()),
        };
        let known = |key, types: &[String], expected: &'static str| match types
            .iter()
            .find(|t| !expected.split(" or ").any(|e| e == t.as_str()))
        {
            Some(other) => refuse(key, other.clone(), expected),
            None if types.len() != levels => {
                refuse(key, format!("{} blocks", types.len()), "one block a level")
            }
            None => Ok(()),
        };
        known("down_block_types", &self.down_block_types, "CrossAttnDownBlock2D or DownBlock2D")?;
        known("up_block_types", &self.up_block_types, "CrossAttnUpBlock2D or UpBlock2D")?;
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
        only("act_fn", &self.act_fn, "silu")?;
        only("resnet_time_scale_shift", &self.resnet_time_scale_shift, "default")?;
        only("mid_block_type", &self.mid_block_type, "UNetMidBlock2DCrossAttn")?;
        for (key, value) in [
            ("class_embed_type", &self.class_embed_type),
            ("addition_embed_type", &self.addition_embed_type),
            ("encoder_hid_dim_type", &self.encoder_hid_dim_type),
        ] {
            if let Some(value) = value {
                return refuse(key, value.clone(), "null (Stable Diffusion 1.x or 2.x)");
            }
        }
        if let Some(n) = self.num_class_embeds {
            return refuse("num_class_embeds", n.to_string(), "null");
        }
        if self.dual_cross_attention || self.center_input_sample {
            return refuse("dual_cross_attention or center_input_sample", "true".into(), "false");
        }
        if !matches!(
            self.only_cross_attention,
            serde_json::Value::Null | serde_json::Value::Bool(false)
        ) {
            return refuse("only_cross_attention", self.only_cross_attention.to_string(), "false");
        }
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            if channels % self.norm_num_groups != 0 || channels % self.heads(level) != 0 {
                let expected = "channels that norm_num_groups and the heads divide";
                return refuse("block_out_channels", channels.to_string(), expected);
            }
        }
        Ok(())
    }
}
