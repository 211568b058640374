//! A path into a source of parameters: what a network is built from.

use tch::{Device, Kind, Tensor};

/// Where a network's parameters come from: a checkpoint on disk or a rule that draws them.
pub trait ParamSource {
    /// The parameter of this full name and shape, on the source's device and of its kind.
    ///
    /// A source that lacks it returns a placeholder of that shape and remembers the miss, so that one
    /// load names all that is missing.
    fn parameter(&self, name: &str, shape: &[i64]) -> Tensor;

    /// The shape under which the source holds `name`, if it holds it.
    fn shape(&self, name: &str) -> Option<Vec<i64>>;

    /// What is to be added to the matrix of this full name and shape `[outputs, inputs]` as a product of two thin ones:
    /// `[rank, inputs]` and `[outputs, rank]`. Most sources have nothing.
    fn low_rank(&self, _name: &str, _shape: &[i64]) -> Option<[Tensor; 2]> {
        None
    }

    /// The kind of the parameters.
    fn kind(&self) -> Kind;

    /// Their device.
    fn device(&self) -> Device;
}

/// A prefix in a [`ParamSource`]: `params.pp("down_blocks").pp(0)`.
#[derive(Clone)]
pub struct Params<'a> {
    source: &'a dyn ParamSource,
    prefix: String,
}

impl<'a> Params<'a> {
    /// The root of `source`.
    pub fn root(source: &'a dyn ParamSource) -> Self {
        Self { source, prefix: String::new() }
    }

    /// The same source one level deeper.
    #[must_use]
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        Self { source: self.source, prefix: self.full_name(&name.to_string()) }
    }

    /// The parameter `name` below this prefix.
    pub fn get(&self, name: &str, shape: &[i64]) -> Tensor {
        self.source.parameter(&self.full_name(name), shape)
    }

    /// What the source adds to the matrix `name` below this prefix.
    pub(crate) fn low_rank(&self, name: &str, shape: &[i64]) -> Option<[Tensor; 2]> {
        self.source.low_rank(&self.full_name(name), shape)
    }

    /// The shape of `name` below this prefix, where the source holds it.
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.source.shape(&self.full_name(name))
    }

    /// The kind of the parameters.
    pub fn kind(&self) -> Kind {
        self.source.kind()
    }

    /// Their device.
    pub fn device(&self) -> Device {
        self.source.device()
    }

    fn full_name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}
