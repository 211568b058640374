//! The names of samplers.

use crate::schedule::ScheduleError;
use std::{fmt, str::FromStr};

/// The samplers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// Denoising diffusion implicit models (Song et al. 2021).
    Ddim,
    /// Pseudo numerical methods, linear multistep of order 4 (Liu et al. 2022).
    Pndm,
    /// Euler's method over noise levels (Karras et al. 2022).
    Euler,
    /// Euler's method with noise added back at each step.
    EulerAncestral,
    /// Heun's method: two evaluations a step (Karras et al. 2022, algorithm 1).
    Heun,
    /// DPM-Solver++, second order, multistep (Lu et al. 2022).
    DpmPlusPlus2M,
    /// `UniPC`, predictor and corrector (Zhao et al. 2023).
    UniPc,
    /// DPM-Solver-2 over noise levels: two evaluations a step (Karras et al. 2022, algorithm 2, without churn).
    Dpm2,
    /// Linear multistep of order 4 over noise levels.
    Lms,
}

/// Every sampler with the spellings that it answers to; the first is its name.
const NAMES: [(SamplerKind, &[&str]); 9] = [
    (SamplerKind::Ddim, &["ddim"]),
    (SamplerKind::Pndm, &["pndm", "plms"]),
    (SamplerKind::Euler, &["euler"]),
    (SamplerKind::EulerAncestral, &["euler_a", "euler ancestral"]),
    (SamplerKind::Heun, &["heun"]),
    (SamplerKind::DpmPlusPlus2M, &["dpm++2m", "dpmpp_2m"]),
    (SamplerKind::UniPc, &["unipc"]),
    (SamplerKind::Dpm2, &["dpm2", "kdpm2"]),
    (SamplerKind::Lms, &["lms", "k_lms"]),
];

impl SamplerKind {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler_a",
            Self::Heun => "heun",
            Self::DpmPlusPlus2M => "dpm++2m",
            Self::UniPc => "unipc",
            Self::Dpm2 => "dpm2",
            Self::Lms => "lms",
        }
    }

    /// Every sampler.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(kind, _)| kind)
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A sampler as users write it, where a closing `karras` asks for Karras noise levels.
///
/// Case, spaces, `_` and `-` do not count: `dpm++2m_karras` and `DPM++ 2M Karras` are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplerName {
    /// The sampler.
    pub kind: SamplerKind,
    /// `Some(true)` where the name says so; for [`super::SamplerConfig`].
    pub karras: Option<bool>,
}

impl FromStr for SamplerName {
    type Err = ScheduleError;

    fn from_str(name: &str) -> Result<Self, ScheduleError> {
        let plain = folded(name);
        let (stem, karras) = match plain.strip_suffix("karras") {
            Some(stem) => (stem, Some(true)),
            None => (plain.as_str(), None),
        };
        let known =
            || NAMES.iter().flat_map(|(kind, names)| names.iter().map(|name| (*kind, *name)));
        if let Some((kind, _)) = known().find(|(_, known)| folded(known) == stem) {
            return Ok(Self { kind, karras });
        }
        let mut near: Vec<_> = known()
            .map(|(kind, known)| (strsim::jaro_winkler(stem, &folded(known)), kind.name()))
            .filter(|(likeness, _)| *likeness > 0.8)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut near: Vec<_> = near.into_iter().map(|(_, name)| format!("`{name}`")).collect();
        near.dedup();
        near.truncate(2);
        Err(ScheduleError::UnknownSampler {
            name: name.to_owned(),
            near: if near.is_empty() {
                String::new()
            } else {
                format!("did you mean {}? ", near.join(" or "))
            },
            all: SamplerKind::all()
                .map(SamplerKind::name)
                .chain(["dpm++2m_karras"])
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

impl FromStr for SamplerKind {
    type Err = ScheduleError;

    /// The sampler alone; [`SamplerName`] also keeps the word `karras`.
    fn from_str(name: &str) -> Result<Self, ScheduleError> {
        Ok(name.parse::<SamplerName>()?.kind)
    }
}

fn folded(name: &str) -> String {
    name.to_lowercase().chars().filter(|c| !matches!(c, ' ' | '_' | '-')).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that panics says so
mod tests {
    use super::*;

    #[test]
    fn names_of_other_programs_are_understood() {
        for (name, kind, karras) in [
            ("ddim", SamplerKind::Ddim, None),
            ("PLMS", SamplerKind::Pndm, None),
            ("Euler a", SamplerKind::EulerAncestral, None),
            ("euler_a", SamplerKind::EulerAncestral, None),
            ("DPM++ 2M", SamplerKind::DpmPlusPlus2M, None),
            ("DPM++ 2M Karras", SamplerKind::DpmPlusPlus2M, Some(true)),
            ("dpm++2m_karras", SamplerKind::DpmPlusPlus2M, Some(true)),
            ("UniPC", SamplerKind::UniPc, None),
            ("DPM2", SamplerKind::Dpm2, None),
            ("LMS Karras", SamplerKind::Lms, Some(true)),
        ] {
            assert_eq!(
                name.parse::<SamplerName>().unwrap(),
                SamplerName { kind, karras },
                "{name}"
            );
        }
    }

    #[test]
    fn every_sampler_answers_to_its_own_name() {
        for kind in SamplerKind::all() {
            assert_eq!(kind.name().parse::<SamplerKind>().unwrap(), kind);
        }
    }

    #[test]
    fn an_unknown_sampler_names_the_near_and_all() {
        let message = "eulr".parse::<SamplerKind>().unwrap_err().to_string();
        assert!(message.contains("did you mean `euler`"), "{message}");
        assert!(message.ends_with("heun, dpm++2m, unipc, dpm2, lms, dpm++2m_karras"), "{message}");
    }
}
