//! AdamW with a state that can be saved, which tch's optimisers do not have.
//!
//! Source: Loshchilov and Hutter 2019, algorithm 2; the same arithmetic as `torch.optim.AdamW`.

use tch::{Kind, Tensor};

/// Hyper-parameters that stay the same throughout a run.
#[derive(Debug, Clone, Copy)]
pub struct AdamWConfig {
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the squared gradient's running mean.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Decoupled: the share of a parameter that goes at each step, times the learning rate.
    pub weight_decay: f64,
}

/// The parameters in training with their moments.
pub struct AdamW {
    config: AdamWConfig,
    /// What is trained, f32 leaves.
    pub parameters: Vec<Tensor>,
    /// Running means of the gradients.
    pub first_moments: Vec<Tensor>,
    /// Running means of their squares.
    pub second_moments: Vec<Tensor>,
    /// Steps done, for the correction of the means' bias.
    pub steps: u64,
}

impl AdamW {
    /// Zero moments; the parameters are moved in place.
    pub fn new(parameters: Vec<Tensor>, config: AdamWConfig) -> Self {
        let zeros = || parameters.iter().map(Tensor::zeros_like).collect();
        let (first_moments, second_moments) = (zeros(), zeros());
        Self { config, parameters, first_moments, second_moments, steps: 0 }
    }

    /// Moves every parameter along its gradient, in place.
    pub fn step(&mut self, gradients: &[Tensor], learning_rate: f64) {
        self.steps += 1;
        let AdamWConfig { beta1, beta2, epsilon, weight_decay } = self.config;
        let steps = self.steps as f64;
        let (correction1, correction2) = (1.0 - beta1.powf(steps), 1.0 - beta2.powf(steps));
        tch::no_grad(|| {
            for (i, gradient) in gradients.iter().enumerate() {
                let parameter = &mut self.parameters[i];
                let (m, v) = (&mut self.first_moments[i], &mut self.second_moments[i]);
                let _ = parameter.g_mul_scalar_(1.0 - learning_rate * weight_decay);
                // In place where it can be: new memory for each of them costs more than the arithmetic.
                let _ = m.lerp_(gradient, 1.0 - beta1);
                let _ = v.lerp_(&gradient.square(), 1.0 - beta2);
                let mut denominator = v.sqrt();
                let _ = denominator.g_div_scalar_(correction2.sqrt()).g_add_scalar_(epsilon);
                let mut update = &*m / denominator;
                *parameter -= update.g_mul_scalar_(learning_rate / correction1);
            }
        });
    }
}

/// The Euclidean norm of all gradients together.
pub(super) fn joint_norm(gradients: &[Tensor]) -> f64 {
    let squares: Vec<Tensor> = gradients.iter().map(|g| g.square().sum(Kind::Double)).collect();
    Tensor::stack(&squares, 0).sum(Kind::Double).sqrt().double_value(&[]) // the device is waited for once
}

/// Scales gradients so that their joint norm is at most `limit` (0 = no limit); returns the norm before.
pub(super) fn clip(gradients: &mut [Tensor], limit: f64) -> f64 {
    let norm = joint_norm(gradients);
    if limit > 0.0 && norm > limit {
        for gradient in gradients {
            *gradient *= limit / norm;
        }
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: AdamWConfig =
        AdamWConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };

    #[test]
    fn the_first_step_moves_by_the_learning_rate_against_the_sign() {
        let mut adam = AdamW::new(vec![Tensor::from_slice(&[1f64, -2.0])], CONFIG);
        adam.step(&[Tensor::from_slice(&[0.3f64, -7.0])], 0.1);
        let moved = Vec::<f64>::try_from(&adam.parameters[0]).expect("flat");
        for (found, expected) in moved.iter().zip([0.999 - 0.1, -1.998 + 0.1]) {
            assert!((found - expected).abs() < 1e-7, "{found} is not {expected}");
        }
    }

    #[test]
    fn many_steps_equal_libtorch_s_own_optimiser() {
        use tch::nn::{self, OptimizerConfig as _};
        let vs = nn::VarStore::new(tch::Device::Cpu);
        let start = Tensor::from_slice(&[0.5f32, -1.0, 2.0]);
        let mut theirs = vs.root().zeros("x", &[3]);
        tch::no_grad(|| theirs.copy_(&start));
        let mut optimiser =
            nn::AdamW { beta1: 0.9, beta2: 0.999, wd: 0.01, eps: 1e-8, amsgrad: false }
                .build(&vs, 0.05)
                .expect("an optimiser");
        let mut ours = AdamW::new(vec![start.copy().set_requires_grad(true)], CONFIG);
        let loss = |x: &Tensor| ((x * x * x) + x.sin()).abs().sum(Kind::Float);
        for _ in 0..50 {
            optimiser.backward_step(&loss(&theirs));
            let x = ours.parameters[0].shallow_clone();
            let gradients = Tensor::run_backward(&[loss(&x)], &[&x], false, false);
            ours.step(&gradients, 0.05);
        }
        let apart = (&ours.parameters[0] - &theirs).abs().max().double_value(&[]);
        assert!(apart < 1e-6, "{apart} apart after 50 steps");
    }

    #[test]
    fn clipping_keeps_the_direction_and_bounds_the_norm() {
        let mut gradients = [Tensor::from_slice(&[3f32]), Tensor::from_slice(&[4f32])];
        assert!((clip(&mut gradients, 1.0) - 5.0).abs() < 1e-6);
        assert!((gradients[0].double_value(&[0]) - 0.6).abs() < 1e-6);
        assert!((clip(&mut gradients, 0.0) - 1.0).abs() < 1e-6);
    }
}
