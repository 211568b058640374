//! How a timestep and a layer become a vector. Always in f32: the phases reach 150 radians.

use tch::{Kind, Tensor};
use torch_ext::Generator;

/// Random Fourier features (Tancik et al. 2020) of (t, l), both as they are, without a factor of 2π.
#[derive(Debug)]
pub(super) struct Fourier {
    /// `[F, 2]`: normal draws, not trained.
    pub frequencies: Tensor,
}

impl Fourier {
    pub fn new(count: i64, sigma_time: f64, sigma_layer: f64, draw: &Generator) -> Self {
        let sigmas = Tensor::from_slice(&[sigma_time as f32, sigma_layer as f32]);
        Self { frequencies: draw.randn(&[count, 2]) * sigmas }
    }

    /// `[N]` timesteps and layers of any kind to unit vectors `[N, 2F]`: all sines, then all cosines.
    pub fn encode(&self, timesteps: &Tensor, layers: &Tensor) -> Tensor {
        let both = Tensor::stack(&[timesteps.to_kind(Kind::Float), layers.to_kind(Kind::Float)], 1);
        let phase = both.matmul(&self.frequencies.to_device(both.device()).transpose(0, 1)); // [N, F]
        let waves = Tensor::cat(&[phase.sin(), phase.cos()], 1); // [N, 2F]
        let length = waves.norm_scalaropt_dim(2, [1], true);
        waves / length
    }
}

/// `[N]` timesteps and layers scaled to -1..1 each, `[N, 2]`.
pub(super) fn linear(timesteps: &Tensor, layers: &Tensor, steps: i64, layer_count: i64) -> Tensor {
    let scaled =
        |x: &Tensor, count: i64| x.to_kind(Kind::Float) * (2.0 / (count - 1).max(1) as f64) - 1.0;
    Tensor::stack(&[scaled(timesteps, steps), scaled(layers, layer_count)], 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(x: i64) -> Tensor {
        Tensor::from_slice(&[x])
    }

    fn close(found: &Tensor, expected: &[f64], apart: f64) {
        let found = Vec::<f64>::try_from(found.reshape([-1]).to_kind(Kind::Double)).unwrap();
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < apart, "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn two_frequencies_give_the_unit_vector_that_was_worked_out_by_hand() {
        let frequencies = Tensor::from_slice(&[0.03f32, 2.0, -0.01, 1.0]).reshape([2, 2]);
        let encoded = Fourier { frequencies }.encode(&one(500), &one(7)); // phases 29 and 2
        close(&encoded, &[-0.469_260, 0.642_970, -0.528_957, -0.294_260], 2e-6);
    }

    #[test]
    fn nearness_in_time_and_layer_is_a_gaussian_of_the_sigmas() {
        let fourier = Fourier::new(1024, 0.03, 2.0, &Generator::cpu(7));
        let at = |t: i64, l: i64| fourier.encode(&one(t), &one(l));
        for (t, l, expected) in [
            (0, 0, 1.0),
            (10, 0, 0.956),
            (50, 0, 0.325),
            (100, 0, 0.011),
            (0, 1, 0.135),
            (0, 2, 3e-4),
            (50, 1, 0.044),
        ] {
            let near = (at(300, 5) * at(300 + t, 5 + l)).sum(Kind::Float);
            close(&near, &[expected], 0.1);
        }
        close(&at(999, 15).norm(), &[1.0], 1e-5);
    }

    #[test]
    fn without_features_both_are_scaled_to_minus_one_to_one() {
        close(&linear(&one(500), &one(7), 1000, 16), &[0.001_001, -0.066_667], 1e-5);
        close(&linear(&one(999), &one(0), 1000, 16), &[1.0, -1.0], 1e-6);
    }
}
