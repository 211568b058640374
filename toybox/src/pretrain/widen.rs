//! A wider U-Net that predicts what a narrower one does, so that training goes on instead of starting again.
//!
//! Source: Chen, Goodfellow, Shlens 2016 (`Net2Net`), section 2.3. Every channel of the outermost level becomes two
//! that hold the same; what reads the two shares its weight between them, unevenly, so that their gradients differ.

use std::fs;
use std::path::{Path, PathBuf};

use models::params::{ParamSource, Params};
use models::seeded::Seeded;
use models::unet::{UNet, UNetConfig};
use models::weights::{self, Checkpoint};
use pipelines::Error;
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

/// Standard deviation of a weight's share around one half.
const UNEVEN: f64 = 0.1;

/// Doubles the outermost level of `unet/` in the folder of a base: its configuration and its weights.
///
/// The prediction is kept but for the group norms over channels of two levels, whose groups move, and but for a shortcut of
/// the second level whose convolution falls away because both levels are now equally wide.
pub fn widen(base: &Path) -> Result<PathBuf, Error> {
    let folder = base.join("unet");
    let path = folder.join("config.json");
    let unread = |what: String| models::ModelError::Invalid { path: path.clone(), what };
    let text = fs::read_to_string(&path)
        .map_err(|source| models::ModelError::Io { path: path.clone(), source })?;
    let mut config: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| unread(error.to_string()))?;
    let first = &mut config["block_out_channels"][0];
    *first = (first.as_i64().unwrap_or(0) * 2).into();
    let wide: UNetConfig =
        serde_json::from_value(config.clone()).map_err(|error| unread(error.to_string()))?;
    wide.check()?;

    let stem = "diffusion_pytorch_model";
    let narrow = Checkpoint::open(&folder, stem, None, Kind::Float, Device::Cpu)?;
    let shapes = Seeded::new("unet", 0, Kind::Float, Device::Cpu);
    let _ = UNet::new(&Params::root(&shapes), &wide);
    let draw = Generator::cpu(0);
    let widened = shapes
        .into_drawn()
        .into_iter()
        .map(|(name, like)| {
            let shape = narrow.shape(&name).unwrap_or_else(|| like.size());
            let value = grow(&name, &narrow.parameter(&name, &shape), &like.size(), &draw);
            (name, value.to_kind(Kind::Half))
        })
        .collect();
    narrow.report()?.require_complete()?;
    let written = folder.join("diffusion_pytorch_model.safetensors");
    weights::write(&written, widened)?;
    fs::write(&path, format!("{config:#}\n")).map_err(|source| Error::Io {
        path: path.clone(),
        verb: "written",
        source,
    })?;
    Ok(written)
}

/// One parameter, `[out, in, ...]` or `[out]`, in its wider shape.
fn grow(name: &str, narrow: &Tensor, shape: &[i64], draw: &Generator) -> Tensor {
    let outputs = origins(narrow.size()[0], shape[0]);
    let mut wide = narrow.index_select(0, &Tensor::from_slice(&outputs)); // [out', in, ...]
    if shape.len() > 1 && shape[1] != narrow.size()[1] {
        let inputs = origins(narrow.size()[1], shape[1]);
        wide = wide.index_select(1, &Tensor::from_slice(&inputs)); // [out', in', ...]
        for pair in (1..inputs.len()).filter(|&i| inputs[i] == inputs[i - 1]) {
            let share = if name.starts_with("time_embedding.linear_1") {
                Tensor::ones(&shape[..1], (Kind::Float, Device::Cpu)) // every second frequency is new
            } else {
                draw.randn(&shape[..1]) * UNEVEN + 0.5 // [out']
            };
            let mut each = vec![1; shape.len()];
            each[0] = shape[0];
            let share = share.view(each.as_slice()); // [out', 1, ...]
            let _ = wide.narrow(1, pair as i64 - 1, 1).g_mul_(&share);
            let _ = wide.narrow(1, pair as i64, 1).g_mul_(&(1.0 - share));
        }
    }
    if name.ends_with("to_q.weight") && shape[0] != narrow.size()[0] {
        wide *= 0.5f64.sqrt(); // heads twice as wide: sums twice as large, over a root of their width
    }
    wide
}

/// The narrow channel that each of `wide` channels comes from. Where only the last of joined channels are doubled (those
/// that skip from the outermost level), the first stay.
fn origins(narrow: i64, wide: i64) -> Vec<i64> {
    let kept = 2 * narrow - wide; // all where nothing grows
    (0..wide).map(|i| if i < kept { i } else { kept + (i - kept) / 2 }).collect()
}
