//! Parameters that are to be trained: new ones, or those of a checkpoint to go on with.

use std::cell::RefCell;

use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use crate::ModelError;
use crate::params::ParamSource;
use crate::weights::Checkpoint;

/// Parameters by their names.
type Named = Vec<(String, Tensor)>;

/// A source of trainable f32 parameters; layers compute in the kind of their input, so that the network runs
/// in `compute` (bf16, say) while what is trained stays f32.
pub struct Fresh {
    draw: Generator,
    start: Option<Checkpoint>,
    trains: fn(&str) -> bool,
    compute: Kind,
    device: Device,
    trained: RefCell<Named>,
    frozen: RefCell<Named>,
}

impl Fresh {
    /// New parameters with `PyTorch`'s default initialisation, which depend on the seed and on the order in
    /// which the network asks for them.
    pub fn new(seed: u64, compute: Kind, device: Device) -> Self {
        Self {
            draw: Generator::cpu(seed),
            start: None,
            trains: |_| true,
            compute,
            device,
            trained: RefCell::default(),
            frozen: RefCell::default(),
        }
    }

    /// The parameters of a checkpoint opened in f32, to be trained where `trains` says so by name.
    pub fn starting_from(start: Checkpoint, compute: Kind, trains: fn(&str) -> bool) -> Self {
        let device = start.device();
        Self { start: Some(start), trains, ..Self::new(0, compute, device) }
    }

    /// What is trained so far, by name, in the order in which the network asked for it.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        clone(&self.trained)
    }

    /// What is not trained, likewise, in f32.
    pub fn frozen(&self) -> Vec<(String, Tensor)> {
        clone(&self.frozen)
    }

    /// Refuses a checkpoint that lacks what the network asked for.
    pub fn require_complete(&self) -> Result<(), ModelError> {
        self.start.as_ref().map_or(Ok(()), |start| start.report()?.require_complete())
    }

    fn initial(&self, name: &str, shape: &[i64]) -> Tensor {
        match shape.len() {
            1 if name.ends_with(".weight") => Tensor::ones(shape, (Kind::Float, Device::Cpu)),
            1 if name.ends_with(".bias") => Tensor::zeros(shape, (Kind::Float, Device::Cpu)),
            _ if name.contains("_embedding") && !name.contains("patch") => {
                self.draw.randn(shape) * 0.02
            }
            _ => {
                let fan_in = shape.iter().skip(1).product::<i64>().max(1) as f64;
                (self.draw.rand(shape) * 2.0 - 1.0) / fan_in.sqrt()
            }
        }
    }
}

fn clone(named: &RefCell<Named>) -> Named {
    named.borrow().iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect()
}

impl ParamSource for Fresh {
    fn parameter(&self, name: &str, shape: &[i64]) -> Tensor {
        let value = match &self.start {
            Some(start) => start.parameter(name, shape),
            None => self.initial(name, shape).to_device(self.device),
        };
        if !(self.trains)(name) {
            self.frozen.borrow_mut().push((name.to_owned(), value.shallow_clone()));
            return value.to_kind(self.compute);
        }
        let leaf = value.detach().set_requires_grad(true);
        self.trained.borrow_mut().push((name.to_owned(), leaf.shallow_clone()));
        leaf
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.start.as_ref().and_then(|start| start.shape(name))
    }

    fn kind(&self) -> Kind {
        self.compute
    }

    fn device(&self) -> Device {
        self.device
    }
}
