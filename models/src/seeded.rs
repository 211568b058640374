//! Parameters drawn from a rule that depends on names, shapes and one seed only.
//!
//! With it a test, a benchmark or a demonstration rebuilds a network that another program (Python
//! included) drew by the same rule, bit for bit, without a checkpoint:
//!
//! ```text
//! seed = crc32("{component}/{name}#{base_seed}")
//! u    = rand(shape) of a CPU generator with that seed, f32
//! z    = (u - 0.5) · 2√3                          uniform, mean 0, standard deviation 1
//! 1-D, "….weight"        1 + 0.1 z
//! 1-D, "….bias"          0.05 z
//! "….running_var"        0.5 + 0.05 z
//! other 1-D              0.02 z
//! "…_embedding.weight"   0.02 z
//! everything else        z / √fan_in              fan_in = product of shape[1..]
//! ```
//!
//! Uniform draws, because libtorch's CPU `rand` is exact integer arithmetic and so equal on every machine.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::ModelError;
use crate::clip::ClipText;
use crate::folder::ModelFolder;
use crate::params::{ParamSource, Params};
use crate::unet::UNet;
use crate::vae::Vae;
use crate::weights;

/// A source of random parameters; it remembers what it drew, so that it can be saved.
pub struct Seeded {
    component: String,
    base_seed: u64,
    kind: Kind,
    device: Device,
    drawn: RefCell<Vec<(String, Tensor)>>,
}

impl Seeded {
    /// The seed that fixtures and benchmarks use.
    pub const BASE_SEED: u64 = 20_231_115;

    /// Parameters for one component: `unet`, `vae`, `text_encoder` or `vision_encoder`.
    pub fn new(component: &str, base_seed: u64, kind: Kind, device: Device) -> Self {
        Self { component: component.to_owned(), base_seed, kind, device, drawn: RefCell::default() }
    }

    /// All that was drawn so far, by name.
    pub fn into_drawn(self) -> Vec<(String, Tensor)> {
        self.drawn.into_inner()
    }
}

/// `z` of the rule: uniform with unit variance, f32 on the CPU. Also the inputs of fixtures, whose names
/// are `input/NAME`.
pub fn uniform(name: &str, base_seed: u64, shape: &[i64]) -> Tensor {
    let seed = crc32fast::hash(format!("{name}#{base_seed}").as_bytes());
    let u = torch_ext::Generator::cpu(u64::from(seed)).rand(shape);
    (u - 0.5) * (2.0 * 3f64.sqrt())
}

impl ParamSource for Seeded {
    fn parameter(&self, name: &str, shape: &[i64]) -> Tensor {
        let z = uniform(&format!("{}/{name}", self.component), self.base_seed, shape);
        let drawn = match (shape.len(), name) {
            (1, n) if n.ends_with(".weight") => z * 0.1 + 1.0,
            (1, n) if n.ends_with(".bias") => z * 0.05,
            (1, n) if n.ends_with(".running_var") => z * 0.05 + 0.5,
            (1, _) => z * 0.02,
            (_, n) if n.ends_with("_embedding.weight") => z * 0.02,
            _ => z * (1.0 / (shape.iter().skip(1).product::<i64>() as f64).sqrt()),
        };
        let drawn = drawn.to_kind(self.kind).to_device(self.device);
        self.drawn.borrow_mut().push((name.to_owned(), drawn.shallow_clone()));
        drawn
    }

    fn shape(&self, _name: &str) -> Option<Vec<i64>> {
        None
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn device(&self) -> Device {
        self.device
    }
}

/// Counts the numbers that a network asks for, and draws none.
struct Count(Cell<i64>);

impl ParamSource for Count {
    fn parameter(&self, _name: &str, shape: &[i64]) -> Tensor {
        let numbers = shape.iter().fold(1i64, |all, &n| all.saturating_mul(n));
        self.0.set(self.0.get().saturating_add(numbers));
        weights::placeholder(shape, Kind::Float)
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

/// Ten times the U-Net of Stable Diffusion.
const MOST_NUMBERS: i64 = 8_000_000_000;

/// Writes a whole model folder with random weights: the configurations and the tokenizer of `like`, which
/// may lack weights, and f32, f16 or bf16 safetensors.
///
/// Such a model draws noise; it is for tests, benchmarks and demonstrations.
pub fn write_model(like: &Path, output: &Path, kind: Kind) -> Result<(), ModelError> {
    let model = ModelFolder::open(like, None)?;
    copy_folder(like, output)?;
    let write = |part: &str, stem: &str, build: &dyn Fn(&Params)| {
        let count = Count(Cell::new(0));
        build(&Params::root(&count));
        if count.0.get() > MOST_NUMBERS {
            let what = format!(
                "asks for {} numbers, but at most {MOST_NUMBERS} are drawn; use a smaller model",
                count.0.get()
            );
            return Err(ModelError::invalid(&like.join(part).join("config.json"), what));
        }
        let source = Seeded::new(part, Seeded::BASE_SEED, kind, Device::Cpu);
        build(&Params::root(&source));
        let path = output.join(part).join(format!("{stem}.safetensors"));
        weights::write(&path, source.into_drawn())
    };
    write("text_encoder", "model", &|p| drop(ClipText::new(p, &model.text_encoder)))?;
    write("unet", "diffusion_pytorch_model", &|p| drop(UNet::new(p, &model.unet)))?;
    write("vae", "diffusion_pytorch_model", &|p| drop(Vae::new(p, &model.vae)))
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), ModelError> {
    fs::create_dir_all(to).map_err(|e| ModelError::io(to, e))?;
    for entry in fs::read_dir(from).map_err(|e| ModelError::io(from, e))? {
        let entry = entry.map_err(|e| ModelError::io(from, e))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else if path.extension().is_some_and(|e| e == "json" || e == "txt") {
            let bytes = torch_ext::file::read(&path).map_err(|e| ModelError::io(&path, e))?;
            fs::write(&target, bytes).map_err(|e| ModelError::io(&target, e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_beyond_any_model_is_refused_before_a_number_is_drawn() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sd1");
        let folder = tempfile::tempdir().unwrap();
        let (like, output) = (folder.path().join("like"), folder.path().join("base"));
        copy_folder(&fixture, &like).unwrap();
        let unet = like.join("unet/config.json");
        let mut value: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&unet).unwrap()).unwrap();
        value["block_out_channels"] = serde_json::json!([131_072, 131_072, 131_072, 131_072]);
        fs::write(&unet, value.to_string()).unwrap();
        let error = write_model(&like, &output, Kind::Float).unwrap_err().to_string();
        assert!(error.contains("unet/config.json: asks for "), "{error}");
    }
}
