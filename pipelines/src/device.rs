//! Where to compute and in what kind of number.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind};
use torch_ext::Cuda;

use crate::Error;

/// The device that a user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first CUDA device where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// This CUDA device.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => {
                other.strip_prefix("cuda:").and_then(|n| n.parse().ok()).map(Self::Cuda).ok_or_else(
                    || {
                        Error::Usage(format!(
                            "device '{other}' is unknown; use auto, cpu, cuda or cuda:N"
                        ))
                    },
                )
            }
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        match choice {
            DeviceChoice::Auto => "auto".to_owned(),
            DeviceChoice::Cpu => "cpu".to_owned(),
            DeviceChoice::Cuda(n) => format!("cuda:{n}"),
        }
    }
}

impl DeviceChoice {
    /// The device, where the machine has it.
    pub fn resolve(self) -> Result<Device, Error> {
        let found = device_count();
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => Ok(if found > 0 { Device::Cuda(0) } else { Device::Cpu }),
            Self::Cuda(n) if n < found => Ok(Device::Cuda(n)),
            Self::Cuda(n) => Err(Error::Usage(format!(
                "device cuda:{n} was asked for, but {}; use --device cpu",
                match found {
                    0 => format!("there is none here: {}", cuda_state().trim_end_matches('.')),
                    _ => format!("there are only {found}, counted from 0"),
                }
            ))),
        }
    }
}

fn device_count() -> usize {
    match torch_ext::init() {
        Cuda::Available { devices } => *devices,
        Cuda::Absent { .. } => 0,
    }
}

fn cuda_state() -> String {
    match torch_ext::init() {
        Cuda::Available { devices } => format!("{devices} device(s)"),
        Cuda::Absent { reason } => reason.clone(),
    }
}

/// The kind of number that the frozen base computes in. What is trained is always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 on CUDA, f32 on the CPU.
    #[default]
    Auto,
    /// Single precision.
    #[serde(alias = "fp32", alias = "float32", alias = "no")]
    F32,
    /// Half the memory, the range of f32.
    #[serde(alias = "bfloat16")]
    Bf16,
    /// Half the memory, a narrow range.
    #[serde(alias = "fp16", alias = "float16")]
    F16,
}

impl Precision {
    /// The kind on this device.
    pub fn resolve(self, device: Device) -> Kind {
        match self {
            Self::Bf16 => Kind::BFloat16,
            Self::F16 => Kind::Half,
            Self::Auto if device.is_cuda() => Kind::BFloat16,
            Self::F32 | Self::Auto => Kind::Float,
        }
    }

    /// The name of a kind in records and reports.
    pub(crate) fn name(kind: Kind) -> &'static str {
        match kind {
            Kind::BFloat16 => "bf16",
            Kind::Half => "f16",
            _ => "f32",
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let named = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
        Self::deserialize(named).map_err(|_| {
            Error::Usage(format!("precision '{text}' is unknown; use auto, f32, bf16 or f16"))
        })
    }
}

/// What `doctor` reports of the machine: a name and a value a line.
pub fn machine() -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("libtorch", torch_ext::libtorch_version()),
        ("threads", torch_ext::threads().to_string()),
        ("cuda", cuda_state()),
    ];
    for n in 0..device_count() {
        if let Some(memory) = torch_ext::memory_stats(Device::Cuda(n)) {
            let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
            let text = format!("{n}: {:.1} of {:.1} GiB free", gib(memory.free), gib(memory.total));
            lines.push(("cuda memory", text));
        }
    }
    lines
}
