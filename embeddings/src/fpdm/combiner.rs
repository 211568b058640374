//! The Combiner: a person's embedding and a pose's to that of the person in the pose.

use models::layers::Linear;
use models::params::Params;
use serde::{Deserialize, Serialize};
use tch::Tensor;
use torch_ext::Generator;

use super::dropout;

/// The shape of a [`Combiner`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CombinerConfig {
    /// d, the width of the embeddings.
    pub width: i64,
    /// h, the width inside; FPDM has that of the embeddings.
    pub hidden: i64,
    /// Share of the hidden units that each training step leaves out.
    pub dropout: f64,
}

/// A gated mixture of two embeddings and of what both together give, of unit length.
///
/// Paper: Baldrati et al. 2022 (`CLIP4Cir`), figure 3, with a pose in place of the text. The keys are those of FPDM's
/// release. B samples.
pub struct Combiner {
    kpt_projection_layer: Linear,
    image_projection_layer: Linear,
    combiner_layer: Linear,
    output_layer: Linear,
    dynamic_scalar: [Linear; 2],
    dropout: f64,
}

impl Combiner {
    /// Builds it from the keys below `params`.
    pub fn new(params: &Params, config: &CombinerConfig) -> Self {
        let CombinerConfig { width, hidden, dropout } = *config;
        let linear = |key: &str, inputs, outputs| Linear::new(&params.pp(key), inputs, outputs);
        Self {
            kpt_projection_layer: linear("kpt_projection_layer", width, hidden),
            image_projection_layer: linear("image_projection_layer", width, hidden),
            combiner_layer: linear("combiner_layer", 2 * hidden, hidden),
            output_layer: linear("output_layer", hidden, width),
            dynamic_scalar: [
                linear("dynamic_scalar.0", 2 * hidden, hidden),
                linear("dynamic_scalar.3", hidden, 1),
            ],
            dropout,
        }
    }

    /// Embeddings of source and pose, `[B, d]` each and not normalised, to the fusion embedding `[B, d]`. In training
    /// dropout draws from `draw`.
    pub fn forward(&self, source: &Tensor, pose: &Tensor, draw: Option<&Generator>) -> Tensor {
        let hidden =
            |layer: &Linear, x: &Tensor| dropout(layer.forward(x).relu(), self.dropout, draw);
        let p = hidden(&self.kpt_projection_layer, pose);
        let s = hidden(&self.image_projection_layer, source);
        let both = Tensor::cat(&[p, s], -1); // [B, 2h]
        let mixed = self.output_layer.forward(&hidden(&self.combiner_layer, &both));
        let [first, second] = &self.dynamic_scalar;
        let gate = second.forward(&hidden(first, &both)).sigmoid(); // [B, 1]
        let other: Tensor = 1.0 - &gate;
        let fused = mixed + gate * pose + other * source;
        let norm = fused.norm_scalaropt_dim(2, [-1], true).clamp_min(1e-12);
        fused / norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::params::ParamSource;
    use tch::{Device, Kind};

    /// d = h = 2; each projection is the identity, the others weigh pose and source by numbers of one's own.
    struct ByHand;

    impl ParamSource for ByHand {
        fn parameter(&self, name: &str, shape: &[i64]) -> Tensor {
            let numbers: &[f32] = match name {
                "kpt_projection_layer.weight" | "image_projection_layer.weight" => {
                    &[1., 0., 0., 1.]
                }
                "combiner_layer.weight" => &[1., 0., 0., 0., 0., 0., 0., 1.],
                "output_layer.weight" => &[2., 0., 0., 1.],
                "dynamic_scalar.0.weight" => &[0.; 8],
                "dynamic_scalar.3.bias" => &[1.098_612_3], // the gate is 3/4
                _ => &[0., 0.],                            // the biases and the rest of the gate
            };
            Tensor::from_slice(numbers).view(shape)
        }
        fn shape(&self, _name: &str) -> Option<Vec<i64>> {
            None
        }
        fn kind(&self) -> Kind {
            Kind::Float
        }
        fn device(&self) -> Device {
            Device::Cpu
        }
    }

    fn by_hand(dropout: f64) -> Combiner {
        let config = CombinerConfig { width: 2, hidden: 2, dropout };
        Combiner::new(&Params::root(&ByHand), &config)
    }

    #[test]
    fn a_fusion_worked_out_by_hand() {
        let (source, pose) = (Tensor::from_slice(&[4f32, 1.]), Tensor::from_slice(&[2f32, -3.]));
        let [source, pose] = [source, pose].map(|x| x.view([1, 2]));
        // r = [2, 0, 4, 1]; m = [2 · 2, 1 · 1]; 3/4 p + 1/4 s = [2.5, -2]; sum [6.5, -1] of length 6.5765.
        let fused = by_hand(0.5).forward(&source, &pose, None);
        for (i, expected) in [6.5 / 43.25f64.sqrt(), -1.0 / 43.25f64.sqrt()].iter().enumerate() {
            let found = fused.double_value(&[0, i as i64]);
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
        let exchanged = by_hand(0.5).forward(&pose, &source, None);
        assert!((exchanged - fused).abs().max().double_value(&[]) > 0.05);
    }

    #[test]
    fn dropout_draws_from_the_generator_that_it_is_given_and_from_no_other() {
        let combiner = by_hand(0.5);
        let x = Tensor::ones([8, 2], (Kind::Float, Device::Cpu));
        let fuse = |draw: Option<&Generator>| combiner.forward(&x, &x, draw);
        let (first, second) = (fuse(Some(&Generator::cpu(3))), fuse(Some(&Generator::cpu(3))));
        assert_eq!(first, second);
        assert_ne!(first, fuse(None));
        assert_eq!(fuse(None), fuse(None));
    }
}
