//! The table `[core]` of a configuration: what CoRe adds to Textual Inversion.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::limits::{counts, up_to};
use crate::objective::{AttentionReduction, CosineAxis, NormPolicy};
use crate::photos::Augmentation;

/// The keys of `[core]`; `configs/train/core.toml` explains each and holds its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the presets in configs/train/ document every key, once")]
pub struct CoreConfig {
    pub lambda_emb: f64,
    pub lambda_attn: f64,
    pub emb_axis: CosineAxis,
    pub attn_reduce: AttentionReduction,
    pub attn_mode: AttentionMode,
    pub prompts: String,
    pub norm: NormShape,
    pub norm_start: f64,
    pub norm_end: f64,
    pub augmentation: Augmentation,
    pub views: u32,
    pub refine_learning_rate: f64,
    pub refine_batch_size: u32,
    pub refine_largest_move: f64,
}

/// Where the attention that is compared comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionMode {
    /// Passes of their own, one under each prompt of a pair.
    FullPass,
    /// The queries of the training pass, held against the keys of both prompts.
    SharedQuery,
}

/// When the norm of the vectors is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormShape {
    /// Never.
    None,
    /// In the middle of the run.
    Window,
    /// Throughout: the norm that the vectors start with.
    Fixed,
}

impl CoreConfig {
    /// When the norm is held in a run of so many steps: from step `norm_start · steps` on, up to `norm_end · steps`.
    pub fn norm_policy(&self, steps: u64) -> NormPolicy {
        let at = |share: f64| (share * steps as f64).round() as u64;
        match self.norm {
            NormShape::None => NormPolicy::Free,
            NormShape::Window => {
                NormPolicy::Hold { after: at(self.norm_start), until: at(self.norm_end) }
            }
            NormShape::Fixed => NormPolicy::Hold { after: 0, until: steps },
        }
    }

    /// Refuses numbers that no run can use.
    pub(super) fn check_numbers(&self) -> Result<(), Error> {
        let weights =
            [("core.lambda_emb", self.lambda_emb), ("core.lambda_attn", self.lambda_attn)];
        up_to(1e9, &weights)?;
        up_to(1000.0, &[("core.refine_learning_rate", self.refine_learning_rate)])?;
        let shares = [
            ("core.norm_start", self.norm_start),
            ("core.norm_end", self.norm_end),
            ("core.refine_largest_move", self.refine_largest_move),
        ];
        up_to(1.0, &shares)?;
        let wide = u64::from;
        counts(1, 1000, &[("core.views", wide(self.views))])?;
        counts(1, 1000, &[("core.refine_batch_size", wide(self.refine_batch_size))])
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Table, TrainConfig};
    use super::*;

    fn core(steps: u64) -> NormPolicy {
        let config = TrainConfig::resolve(None, None, Table::new()).expect("the default preset");
        config.core.expect("the default is CoRe").norm_policy(steps)
    }

    #[test]
    fn the_window_is_that_of_the_paper_at_its_number_of_steps() {
        assert_eq!(core(300), NormPolicy::Hold { after: 120, until: 180 });
        assert_eq!(core(100), NormPolicy::Hold { after: 40, until: 60 });
    }
}
