//! LPIPS: how different two pictures look, by AlexNet's features.
//!
//! Source: Zhang et al. 2018 (arXiv 1801.03924), equation 1; names and numbers are those of `lpips.LPIPS(net="alex")`, 0.1.

use tch::Tensor;

use crate::layers::Conv2d;
use crate::params::Params;

/// Of AlexNet's convolutions: slice and number, inputs, outputs, kernel, stride, padding; whether the picture is halved
/// before.
type Layer = ((i64, i64), (i64, i64), (i64, i64, i64), bool);

const LAYERS: [Layer; 5] = [
    ((1, 0), (3, 64), (11, 4, 2), false),
    ((2, 3), (64, 192), (5, 1, 2), true),
    ((3, 6), (192, 384), (3, 1, 1), true),
    ((4, 8), (384, 256), (3, 1, 1), false),
    ((5, 10), (256, 256), (3, 1, 1), false),
];
/// What the network takes from each channel of pictures in [-1, 1], and divides it by.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// AlexNet's convolutions and how much each channel of their features counts.
pub struct Lpips {
    layers: Vec<(Conv2d, Tensor)>,
}

impl Lpips {
    /// The shortest side that leaves something of a picture in every layer.
    pub const LEAST_SIDE: u32 = 31;

    /// Reads `net.slice1.0.weight`, … and `lin0.model.1.weight`, ….
    pub fn new(params: &Params) -> Self {
        let build = |(k, layer): (usize, &Layer)| {
            let &((slice, number), (inputs, outputs), (kernel, stride, padding), _) = layer;
            let params_of = params.pp(format!("net.slice{slice}.{number}"));
            let conv = Conv2d::strided(&params_of, inputs, outputs, kernel, stride, padding);
            let counts = params.pp(format!("lin{k}.model.1")).get("weight", &[1, outputs, 1, 1]);
            (conv, counts)
        };
        Self { layers: LAYERS.iter().enumerate().map(build).collect() }
    }

    /// The distance of each picture of `x` from that of `y`, `[B, 3, H, W]` in [-1, 1]; `[B]`.
    pub fn distance(&self, x: &Tensor, y: &Tensor) -> Tensor {
        let channels = |numbers: &[f32; 3]| {
            Tensor::from_slice(numbers).view([1, 3, 1, 1]).to_device(x.device()).to_kind(x.kind())
        };
        let prepared = (Tensor::cat(&[x, y], 0) - channels(&SHIFT)) / channels(&SCALE);
        let mut features = prepared; // [2 B, C, h, w]
        let mut distance = Tensor::zeros([x.size()[0]], (x.kind(), x.device()));
        for ((conv, counts), (.., halved)) in self.layers.iter().zip(&LAYERS) {
            if *halved {
                features = features.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], false);
            }
            features = conv.forward(&features).relu();
            let norm = features.square().sum_dim_intlist([1].as_slice(), true, x.kind()).sqrt();
            let unit = (&features / (norm + 1e-10)).chunk(2, 0);
            let counted = (&unit[0] - &unit[1]).square() * counts.to_kind(x.kind());
            distance += counted.sum_dim_intlist([1].as_slice(), false, x.kind()).mean_dim(
                [1, 2].as_slice(),
                false,
                x.kind(),
            );
        }
        distance
    }
}
