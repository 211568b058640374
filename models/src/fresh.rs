//! New parameters, to be trained.

use std::cell::RefCell;

use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use crate::params::ParamSource;

/// A source of trainable f32 parameters with `PyTorch`'s default initialisation; layers compute in the kind
/// of their input, so that the network runs in `compute` (bf16, say) while what is trained stays f32.
pub struct Fresh {
    draw: Generator,
    compute: Kind,
    device: Device,
    drawn: RefCell<Vec<(String, Tensor)>>,
}

impl Fresh {
    /// Parameters that depend on the seed and on the order in which the network asks for them.
    pub fn new(seed: u64, compute: Kind, device: Device) -> Self {
        Self { draw: Generator::cpu(seed), compute, device, drawn: RefCell::default() }
    }

    /// All parameters so far, by name, in the order in which the network asked for them.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.drawn.borrow().iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect()
    }
}

impl ParamSource for Fresh {
    fn parameter(&self, name: &str, shape: &[i64]) -> Tensor {
        let drawn = match shape.len() {
            1 if name.ends_with(".weight") => Tensor::ones(shape, (Kind::Float, Device::Cpu)),
            1 if name.ends_with(".bias") => Tensor::zeros(shape, (Kind::Float, Device::Cpu)),
            _ if name.contains("_embedding") && !name.contains("patch") => {
                self.draw.randn(shape) * 0.02
            }
            _ => {
                let fan_in = shape.iter().skip(1).product::<i64>().max(1) as f64;
                (self.draw.rand(shape) * 2.0 - 1.0) / fan_in.sqrt()
            }
        };
        let leaf = drawn.to_device(self.device).detach().set_requires_grad(true);
        self.drawn.borrow_mut().push((name.to_owned(), leaf.shallow_clone()));
        leaf
    }

    fn shape(&self, _name: &str) -> Option<Vec<i64>> {
        None
    }

    fn kind(&self) -> Kind {
        self.compute
    }

    fn device(&self) -> Device {
        self.device
    }
}
