//! The levels of the U-Net: down, middle, up.

use std::sync::Arc;

use tch::Tensor;

use super::attention::Transformer2D;
use super::conditioning::{AttnProbe, CrossAttnContext, KeyValue, LayerIds};
use super::config::UNetConfig;
use crate::params::Params;
use crate::resnet::{Downsample2D, Norm, ResnetBlock2D, Upsample2D};

/// What every block of one pass shares.
pub(crate) struct Pass<'a, 'p> {
    pub time: &'a Tensor,
    pub context: &'a CrossAttnContext,
    pub probe: Option<&'a mut (dyn AttnProbe + 'p)>,
    pub checkpointing: bool,
}

impl Pass<'_, '_> {
    fn resnet(&self, resnet: &Arc<ResnetBlock2D>, x: &Tensor) -> Tensor {
        if !self.checkpointing {
            return resnet.forward(x, Some(self.time));
        }
        let inputs = [x.shallow_clone(), self.time.shallow_clone()];
        torch_ext::checkpoint(resnet, &inputs, |resnet, x| resnet.forward(&x[0], Some(&x[1])))
    }

    fn transformer(&mut self, transformer: &Arc<Transformer2D>, x: &Tensor) -> Tensor {
        let contexts: Vec<&KeyValue> =
            transformer.layers().map(|layer| self.context.at(layer)).collect();
        if !self.checkpointing {
            return match &mut self.probe {
                Some(probe) => transformer.forward(x, &contexts, Some(&mut **probe)),
                None => transformer.forward(x, &contexts, None),
            };
        }
        let mut inputs = vec![x.shallow_clone()];
        for kv in contexts {
            inputs.extend([kv.key.shallow_clone(), kv.value.shallow_clone()]);
        }
        torch_ext::checkpoint(transformer, &inputs, |transformer, inputs| {
            let contexts: Vec<KeyValue> = inputs[1..]
                .chunks(2)
                .map(|kv| KeyValue { key: kv[0].shallow_clone(), value: kv[1].shallow_clone() })
                .collect();
            transformer.forward(&inputs[0], &contexts.iter().collect::<Vec<_>>(), None)
        })
    }
}

fn resnet(params: &Params, inputs: i64, outputs: i64, config: &UNetConfig) -> ResnetBlock2D {
    let time_width = Some(4 * config.block_out_channels[0]);
    let norm = Norm { groups: config.norm_num_groups, eps: config.norm_eps };
    ResnetBlock2D::new(params, inputs, outputs, time_width, norm)
}

/// `DownBlock2D` or `CrossAttnDownBlock2D`.
pub(crate) struct DownBlock {
    resnets: Vec<Arc<ResnetBlock2D>>,
    attentions: Vec<Arc<Transformer2D>>,
    downsampler: Option<Downsample2D>,
}

impl DownBlock {
    pub(crate) fn new(
        params: &Params,
        config: &UNetConfig,
        level: usize,
        inputs: i64,
        outputs: i64,
        last: bool,
        layers: &mut LayerIds,
    ) -> Self {
        let attends = config.down_block_types[level] == "CrossAttnDownBlock2D";
        let count = config.layers_per_block;
        let resnets = (0..count).map(|i| {
            let inputs = if i == 0 { inputs } else { outputs };
            let params = params.pp("resnets").pp(i);
            Arc::new(resnet(&params, inputs, outputs, config))
        });
        let attentions = (0..if attends { count } else { 0 }).map(|i| {
            let params = params.pp("attentions").pp(i);
            Arc::new(Transformer2D::new(&params, config, level, outputs, layers))
        });
        Self {
            resnets: resnets.collect(),
            attentions: attentions.collect(),
            downsampler: (!last).then(|| {
                Downsample2D::new(&params.pp("downsamplers.0"), outputs, config.downsample_padding)
            }),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor, skips: &mut Vec<Tensor>, pass: &mut Pass) -> Tensor {
        let mut x = x.shallow_clone();
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = pass.resnet(resnet, &x);
            if let Some(attention) = self.attentions.get(i) {
                x = pass.transformer(attention, &x);
            }
            skips.push(x.shallow_clone());
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.forward(&x);
            skips.push(x.shallow_clone());
        }
        x
    }
}

/// `UNetMidBlock2DCrossAttn`.
pub(crate) struct MidBlock {
    resnets: [Arc<ResnetBlock2D>; 2],
    attention: Arc<Transformer2D>,
}

impl MidBlock {
    pub(crate) fn new(params: &Params, config: &UNetConfig, layers: &mut LayerIds) -> Self {
        let level = config.block_out_channels.len() - 1;
        let channels = config.block_out_channels[level];
        let resnet = |i| {
            let resnet = resnet(&params.pp("resnets").pp(i), channels, channels, config);
            Arc::new(resnet.scaled_down(config.mid_block_scale_factor))
        };
        let params = params.pp("attentions.0");
        let attention = Arc::new(Transformer2D::new(&params, config, level, channels, layers));
        Self { resnets: [resnet(0), resnet(1)], attention }
    }

    pub(crate) fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let x = pass.resnet(&self.resnets[0], x);
        let x = pass.transformer(&self.attention, &x);
        pass.resnet(&self.resnets[1], &x)
    }
}

/// `UpBlock2D` or `CrossAttnUpBlock2D`.
pub(crate) struct UpBlock {
    resnets: Vec<Arc<ResnetBlock2D>>,
    attentions: Vec<Arc<Transformer2D>>,
    upsampler: Option<Upsample2D>,
}

impl UpBlock {
    /// Block `i` from the innermost; `skips` are the channels that come over from the way down.
    pub(crate) fn new(
        params: &Params,
        config: &UNetConfig,
        i: usize,
        inputs: i64,
        skips: &[i64],
        layers: &mut LayerIds,
    ) -> Self {
        let level = config.block_out_channels.len() - 1 - i;
        let outputs = config.block_out_channels[level];
        let attends = config.up_block_types[i] == "CrossAttnUpBlock2D";
        let resnets = skips.iter().enumerate().map(|(j, skip)| {
            let inputs = skip + if j == 0 { inputs } else { outputs };
            let params = params.pp("resnets").pp(j);
            Arc::new(resnet(&params, inputs, outputs, config))
        });
        let attentions = (0..if attends { skips.len() } else { 0 }).map(|j| {
            let params = params.pp("attentions").pp(j);
            Arc::new(Transformer2D::new(&params, config, level, outputs, layers))
        });
        Self {
            resnets: resnets.collect(),
            attentions: attentions.collect(),
            upsampler: (level != 0).then(|| Upsample2D::new(&params.pp("upsamplers.0"), outputs)),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor, skips: &mut Vec<Tensor>, pass: &mut Pass) -> Tensor {
        let mut x = x.shallow_clone();
        for (i, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the way down pushed one for each resnet here");
            x = pass.resnet(resnet, &Tensor::cat(&[x, skip], 1));
            if let Some(attention) = self.attentions.get(i) {
                x = pass.transformer(attention, &x);
            }
        }
        match (&self.upsampler, skips.last()) {
            (Some(upsampler), Some(skip)) => {
                let size = skip.size();
                upsampler.forward(&x, [size[2], size[3]])
            }
            _ => x,
        }
    }
}
