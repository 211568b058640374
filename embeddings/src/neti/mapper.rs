//! NeTI's mapper: a small perceptron from a timestep and a layer to numbers.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use super::encoding::{Fourier, linear};
use crate::Site;
use crate::file::Tensors;

/// Pairs of frequencies of the positional encoding.
const FREQUENCIES: i64 = 1024;
/// Timesteps that the anchors of the first layer spread over.
const TIMESTEPS: i64 = 1000;
/// PyTorch's default for layer norms and leaky rectifiers.
const NORM_EPS: f64 = 1e-5;

/// The shape of a mapper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapperConfig {
    /// L, the U-Net's cross-attention layers.
    pub layers: i64,
    /// Numbers that it gives.
    pub outputs: i64,
    /// H, units of each of its two hidden layers.
    pub hidden: i64,
    /// Whether (t, l) is encoded by random Fourier features; else both are scaled to -1..1.
    pub positional_encoding: bool,
    /// Standard deviation of the frequencies in time.
    pub sigma_time: f64,
    /// And in the layer.
    pub sigma_layer: f64,
    /// Anchors in time for each layer, at which the first layer starts; they divide 1000.
    pub time_anchors: i64,
    /// How often the tail of the last hidden layer is dropped in training; 0 is never.
    pub nested_dropout: f64,
}

/// A weight and a bias, of a linear layer or a norm.
#[derive(Debug)]
struct Pair {
    weight: Tensor,
    bias: Tensor,
}

impl Pair {
    /// PyTorch's default for linear layers: uniform within ±1/√inputs.
    fn linear(inputs: i64, outputs: i64, draw: &Generator) -> Self {
        let bound = 1.0 / (inputs as f64).sqrt();
        let uniform = |shape: &[i64]| (draw.rand(shape) * 2.0 - 1.0) * bound;
        Self { weight: uniform(&[outputs, inputs]), bias: uniform(&[outputs]) }
    }

    fn norm(width: i64) -> Self {
        let options = (Kind::Float, Device::Cpu);
        Self { weight: Tensor::ones([width], options), bias: Tensor::zeros([width], options) }
    }

    fn map(self, f: impl Fn(Tensor) -> Tensor) -> Self {
        Self { weight: f(self.weight), bias: f(self.bias) }
    }

    fn apply(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }

    /// Layer norm and a leaky rectifier (slope 0.01).
    fn normalise(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        x.layer_norm([self.bias.size()[0]], weight, bias, NORM_EPS, false).leaky_relu()
    }
}

/// The perceptron. N sites, H hidden units.
#[derive(Debug)]
pub struct Mapper {
    config: MapperConfig,
    fourier: Option<Fourier>,
    input: Option<Pair>,
    first: Pair,
    first_norm: Pair,
    second: Pair,
    second_norm: Pair,
    output: Pair,
}

impl Mapper {
    /// Random but for the first layer, whose rows are the encodings of the anchors: row k·L + l is that of
    /// timestep k·1000/anchors at layer l.
    pub fn new(config: MapperConfig, draw: &Generator) -> Self {
        let (hidden, anchors) = (config.hidden, config.time_anchors * config.layers);
        let fourier = config
            .positional_encoding
            .then(|| Fourier::new(FREQUENCIES, config.sigma_time, config.sigma_layer, draw));
        let input = fourier.as_ref().map(|fourier| {
            let row = Tensor::arange(anchors, (Kind::Int64, Device::Cpu));
            let time =
                row.divide_scalar_mode(config.layers, "floor") * (TIMESTEPS / config.time_anchors);
            let weight = fourier.encode(&time.to_kind(Kind::Float), &row.remainder(config.layers));
            Pair { weight, ..Pair::linear(2 * FREQUENCIES, anchors, draw) }
        });
        let inputs = if input.is_some() { anchors } else { 2 };
        Self {
            first: Pair::linear(inputs, hidden, draw),
            first_norm: Pair::norm(hidden),
            second: Pair::linear(hidden, hidden, draw),
            second_norm: Pair::norm(hidden),
            output: Pair::linear(hidden, config.outputs, draw),
            config,
            fourier,
            input,
        }
    }

    /// From a file's tensors, whose names are those of the authors' release.
    pub fn from_tensors(config: MapperConfig, tensors: &Tensors) -> Result<Self, String> {
        let tensor = |name: &str, shape: &[i64]| match tensors.get(name) {
            Some(found) if found.size() == shape => Ok(found.shallow_clone()),
            Some(found) => Err(format!(
                "the mapper's {name} is {:?}, but its settings say {shape:?}; copy or train it again",
                found.size()
            )),
            None => Err(format!("the mapper has no tensor {name}; copy or train it again")),
        };
        let pair = |name: &str, shape: &[i64]| -> Result<Pair, String> {
            let weight = tensor(&format!("{name}.weight"), shape)?;
            Ok(Pair { weight, bias: tensor(&format!("{name}.bias"), &shape[..1])? })
        };
        let (hidden, anchors) = (config.hidden, config.time_anchors * config.layers);
        let (fourier, input) = if config.positional_encoding {
            let frequencies = tensors.get("encoder.w").and_then(|w| w.size().first().copied());
            let frequencies = frequencies.unwrap_or(FREQUENCIES);
            (
                Some(Fourier { frequencies: tensor("encoder.w", &[frequencies, 2])? }),
                Some(pair("input_layer", &[anchors, 2 * frequencies])?),
            )
        } else {
            (None, None)
        };
        let inputs = if input.is_some() { anchors } else { 2 };
        Ok(Self {
            first: pair("net.1", &[hidden, inputs])?,
            first_norm: pair("net.2", &[hidden])?,
            second: pair("net.4", &[hidden, hidden])?,
            second_norm: pair("net.5", &[hidden])?,
            output: pair("output_layer.0", &[config.outputs, hidden])?,
            config,
            fourier,
            input,
        })
    }

    /// The same mapper whose first `outputs` are zero at every site.
    #[must_use]
    pub(super) fn silenced(self, outputs: i64) -> Self {
        let zeroed = |t: Tensor| {
            let silent = t.narrow(0, 0, outputs).zeros_like();
            Tensor::cat(&[silent, t.narrow(0, outputs, t.size()[0] - outputs)], 0)
        };
        Self { output: self.output.map(zeroed), ..self }
    }

    /// The same mapper on a device, its weights gathering a gradient; the frequencies stay as they were drawn.
    #[must_use]
    pub fn trainable(self, device: Device) -> Self {
        let leaf = |t: Tensor| t.to_device(device).detach().copy().set_requires_grad(true);
        Self {
            input: self.input.map(|pair| pair.map(leaf)),
            first: self.first.map(leaf),
            first_norm: self.first_norm.map(leaf),
            second: self.second.map(leaf),
            second_norm: self.second_norm.map(leaf),
            output: self.output.map(leaf),
            ..self
        }
    }

    /// Its shape.
    pub fn config(&self) -> &MapperConfig {
        &self.config
    }

    fn pairs(&self) -> impl Iterator<Item = (&'static str, &Pair)> {
        let input = self.input.as_ref().map(|pair| ("input_layer", pair));
        input.into_iter().chain([
            ("net.1", &self.first),
            ("net.2", &self.first_norm),
            ("net.4", &self.second),
            ("net.5", &self.second_norm),
            ("output_layer.0", &self.output),
        ])
    }

    /// What is trained, in a fixed order.
    pub fn parameters(&self) -> Vec<Tensor> {
        let both = |pair: &Pair| [pair.weight.shallow_clone(), pair.bias.shallow_clone()];
        self.pairs().flat_map(|(_, pair)| both(pair)).collect()
    }

    /// What a file keeps, the frequencies too.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let names =
            self.pairs().flat_map(|(name, _)| ["weight", "bias"].map(|p| format!("{name}.{p}")));
        let mut tensors: Vec<(String, Tensor)> = names.zip(self.parameters()).collect();
        if let Some(fourier) = &self.fourier {
            tensors.push(("encoder.w".to_owned(), fourier.frequencies.shallow_clone()));
        }
        tensors
    }

    /// The mapper at each site, `[N, outputs]`, f32 on the device of its weights; `truncation` keeps that many
    /// hidden units where the site is no training's.
    pub fn forward(&self, site: &Site<'_>, truncation: Option<i64>) -> Tensor {
        let device = self.output.weight.device();
        let (t, l) = (site.timesteps.to_device(device), site.layers.to_device(device));
        let encoded = match &self.fourier {
            Some(fourier) => fourier.encode(&t, &l),
            None => linear(&t, &l, TIMESTEPS, self.config.layers),
        };
        let x = self.input.as_ref().map_or(encoded.shallow_clone(), |input| input.apply(&encoded));
        let x = self.first_norm.normalise(&self.first.apply(&x));
        let x = self.second_norm.normalise(&self.second.apply(&x)); // [N, H]
        let x = match site.draw {
            Some(draw) if self.config.nested_dropout > 0.0 => {
                let kept = kept_in_training(site, self.config.nested_dropout, x.size()[1], draw);
                keep_first(&x, &kept)
            }
            Some(_) => x,
            None => match truncation {
                Some(units) => {
                    keep_first(&x, &Tensor::from_slice(&[units]).expand([x.size()[0]], false))
                }
                None => x,
            },
        };
        self.output.apply(&x)
    }
}

/// How many hidden units each site keeps in a training step, `[N]`: for each layer one coin for all samples;
/// where it falls for the dropout each sample draws its own number below `hidden`, else all are kept.
fn kept_in_training(site: &Site<'_>, probability: f64, hidden: i64, draw: &Generator) -> Tensor {
    let layers = site.layer_count;
    let samples = site.layers.size()[0] / layers;
    let coins = draw.rand(&[layers, 1]).lt(probability); // [L, 1]
    let drawn = draw.randint(0, hidden, &[layers, samples]); // [L, B]
    drawn.where_self(&coins, &Tensor::from(hidden)).reshape([-1])
}

/// `x` `[N, H]` with all but the first `kept` `[N]` units at zero.
fn keep_first(x: &Tensor, kept: &Tensor) -> Tensor {
    let unit = Tensor::arange(x.size()[1], (Kind::Int64, x.device()));
    x * unit.less_tensor(&kept.to_device(x.device()).unsqueeze(1)).to_kind(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(outputs: i64) -> MapperConfig {
        MapperConfig {
            layers: 16,
            outputs,
            hidden: 128,
            positional_encoding: true,
            sigma_time: 0.03,
            sigma_layer: 2.0,
            time_anchors: 10,
            nested_dropout: 0.5,
        }
    }

    fn site<'a>(timesteps: &[i64], draw: Option<&'a Generator>) -> Site<'a> {
        Site::new(&Tensor::from_slice(timesteps), 16, draw)
    }

    #[test]
    fn the_papers_sizes_have_the_papers_number_of_parameters_and_outputs() {
        for (outputs, parameters) in [(1536, 563_616), (768, 464_544)] {
            let mapper = Mapper::new(config(outputs), &Generator::cpu(1));
            let count: usize = mapper.parameters().iter().map(Tensor::numel).sum();
            assert_eq!(count, parameters);
            assert_eq!(mapper.forward(&site(&[3, 700], None), None).size(), [32, outputs]);
        }
    }

    #[test]
    fn the_first_layer_starts_at_the_anchors_time_by_time_and_layer_by_layer() {
        let mapper = Mapper::new(config(768), &Generator::cpu(2));
        let (fourier, input) = (mapper.fourier.unwrap(), mapper.input.unwrap());
        assert_eq!(input.weight.size(), [160, 2048]);
        for (k, l) in [(0, 0), (3, 7), (9, 15)] {
            let anchor = fourier.encode(&Tensor::from_slice(&[100 * k]), &Tensor::from_slice(&[l]));
            let apart = (input.weight.get(16 * k + l) - anchor).abs().max().double_value(&[]);
            assert!(apart < 1e-6, "row {}: {apart}", 16 * k + l);
        }
    }

    #[test]
    fn truncation_keeps_exactly_the_first_units_and_none_is_the_identity() {
        let x = Generator::cpu(1).randn(&[2, 8]);
        let kept = keep_first(&x, &Tensor::from_slice(&[3i64, 0]));
        assert_eq!(kept.get(0).narrow(0, 0, 3), x.get(0).narrow(0, 0, 3));
        assert_eq!(kept.narrow(1, 3, 5), Tensor::zeros([2, 5], (Kind::Float, Device::Cpu)));
        assert_eq!(kept.get(1), Tensor::zeros([8], (Kind::Float, Device::Cpu)));
        let mapper = Mapper::new(config(768), &Generator::cpu(1));
        let (all, none) =
            (mapper.forward(&site(&[9], None), Some(128)), mapper.forward(&site(&[9], None), None));
        assert_eq!(all, none);
        let nothing = mapper.forward(&site(&[9], None), Some(0));
        assert_eq!(nothing.get(3), mapper.output.bias, "the bias is left");
    }

    #[test]
    fn the_dropout_falls_for_half_of_the_layers_and_keeps_any_number_of_units() {
        let draw = Generator::cpu(5);
        let site = Site::new(&Tensor::from_slice(&[1i64, 2]), 4000, Some(&draw));
        let kept = kept_in_training(&site, 0.5, 128, &draw).reshape([4000, 2]);
        let whole = kept.eq(128).to_kind(Kind::Float);
        assert_eq!(whole.select(1, 0), whole.select(1, 1), "samples of a layer share the coin");
        let share = whole.mean(Kind::Float).double_value(&[]);
        assert!((share - 0.5).abs() < 0.03, "{share}");
        let dropped = kept.masked_select(&kept.ne(128)).to_kind(Kind::Float);
        let (low, high) = (dropped.min().double_value(&[]), dropped.max().double_value(&[]));
        let mean = dropped.mean(Kind::Float).double_value(&[]);
        assert!(low < 1.0 && high > 126.0 && (mean - 63.5).abs() < 3.0, "{low} {mean} {high}");
    }

    #[test]
    fn training_drops_and_drawing_does_not() {
        let mapper = Mapper::new(config(768), &Generator::cpu(1));
        let draw = Generator::cpu(3);
        let (a, b) = (
            mapper.forward(&site(&[9], Some(&draw)), None),
            mapper.forward(&site(&[9], None), None),
        );
        let apart = (a - b).abs().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        let changed = apart.gt(0).to_kind(Kind::Int64).sum(Kind::Int64).int64_value(&[]);
        assert!((1..16).contains(&changed), "{changed} of 16 layers dropped");
    }
}
