//! What the parity tests share: Python's values, and our networks with the same seeded weights.
//!
//! `scripts/make_fixtures.py` wrote the values; the rule behind weights and inputs is that of
//! [`models::seeded`].

#![allow(dead_code)] // each test file uses its share

pub mod base;

use std::cell::RefCell;
use std::path::PathBuf;

use models::clip::ClipText;
use models::folder::ModelFolder;
use models::params::{ParamSource, Params};
use models::seeded::{Seeded, uniform};
use models::unet::{Conditioning, CrossAttnContext, KeyValue, UNet};
use models::vae::Vae;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

/// The small models of the fixtures, in the likeness of SD 1.5 and of SD 2.1 for 768 pixels.
pub const FAMILIES: [&str; 2] = ["sd1", "sd2"];

/// Share of the largest value by which an output may miss Python's.
pub const OUTPUTS: f64 = 1e-4;
/// The same for gradients.
pub const GRADIENTS: f64 = 1e-3;

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn folder(family: &str) -> ModelFolder {
    ModelFolder::open(&path(family), None).unwrap()
}

pub fn seeded(component: &str) -> Seeded {
    Seeded::new(component, Seeded::BASE_SEED, Kind::Float, Device::Cpu)
}

pub fn clip_text(family: &str) -> ClipText {
    ClipText::new(&Params::root(&seeded("text_encoder")), &folder(family).text_encoder)
}

pub fn unet(family: &str) -> UNet {
    UNet::new(&Params::root(&seeded("unet")), &folder(family).unet)
}

pub fn vae(family: &str) -> Vae {
    Vae::new(&Params::root(&seeded("vae")), &folder(family).vae)
}

/// A fixture's input, by name.
pub fn input(name: &str, shape: &[i64]) -> Tensor {
    uniform(&format!("input/{name}"), Seeded::BASE_SEED, shape)
}

/// The same with a gradient to gather.
pub fn leaf(name: &str, shape: &[i64]) -> Tensor {
    input(name, shape).set_requires_grad(true)
}

/// One context for all layers.
pub fn shared(context: &Tensor) -> Conditioning {
    Conditioning::context(CrossAttnContext::Shared(KeyValue::same(context.shallow_clone())))
}

/// The gradients of `sum(output · cotangent)`.
pub fn gradients(output: &Tensor, cotangent: &Tensor, inputs: &[&Tensor]) -> Vec<Tensor> {
    Tensor::run_backward(&[(output * cotangent).sum(Kind::Float)], inputs, true, false)
}

/// Seeded parameters that gather gradients.
pub struct Leaves {
    seeded: Seeded,
    leaves: RefCell<Vec<(String, Tensor)>>,
}

impl Leaves {
    pub fn new(component: &str) -> Self {
        Self { seeded: seeded(component), leaves: RefCell::default() }
    }

    /// What the network asked for, by name.
    pub fn into_leaves(self) -> Vec<(String, Tensor)> {
        self.leaves.into_inner()
    }
}

impl ParamSource for Leaves {
    fn parameter(&self, name: &str, shape: &[i64]) -> Tensor {
        let leaf = self.seeded.parameter(name, shape).set_requires_grad(true);
        self.leaves.borrow_mut().push((name.to_owned(), leaf.shallow_clone()));
        leaf
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

/// A file of values that Python computed.
pub struct Fixture {
    name: String,
    bytes: Vec<u8>,
}

impl Fixture {
    pub fn open(name: &str) -> Self {
        Self { name: name.to_owned(), bytes: std::fs::read(path(name)).unwrap() }
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap();
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::I64 => Kind::Int64,
            Dtype::U8 => Kind::Uint8,
            other => panic!("{}: {name} is {other:?}", self.name),
        };
        let shape: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
        torch_ext::from_bytes(view.data(), kind, &shape).unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).is_ok()
    }

    /// A text of the metadata.
    pub fn text(&self, key: &str) -> String {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).unwrap();
        header.metadata().as_ref().unwrap()[key].clone()
    }

    /// A setting of the run, from the metadata.
    pub fn setting<T: serde::de::DeserializeOwned>(&self, key: &str) -> T {
        serde_json::from_str(&self.text(key)).unwrap()
    }

    /// Fails where `ours` is further from Python's tensor `name` than `share` of its largest value.
    pub fn agrees(&self, name: &str, ours: &Tensor, share: f64) {
        let theirs = self.tensor(name);
        assert_eq!(ours.size(), theirs.size(), "{}: the shape of {name}", self.name);
        let scale = theirs.abs().max().double_value(&[]);
        let gap = (ours - &theirs).abs().max().double_value(&[]) / scale;
        println!("{}: {name} {gap:.1e}", self.name);
        assert!(gap <= share, "{}: {name} is {gap:.2e} of the largest value away", self.name);
    }
}
