//! A step of the first stage.

use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::contrast::{Contrast, ContrastLoss};
use super::networks::Fusion;
use super::pairs::{PosePairs, batch};
use super::run::{PoseStep, no_batch};
use crate::Error;
use crate::trainer::{Losses, TrainStep};

/// Draws pairs and brings the fusion of source and target's pose to where the target is.
pub(super) struct FusionStep<'a> {
    pub fusion: &'a Fusion,
    pub pairs: &'a mut dyn PosePairs,
    pub contrast: Contrast,
    pub batch_size: usize,
    pub leaves: &'a [(String, Tensor)],
    pub failure: Option<Error>,
}

impl TrainStep for FusionStep<'_> {
    fn losses(&mut self, index: u64, draw: &Generator) -> Losses {
        let first = index * self.batch_size as u64;
        let pairs = match batch(self.pairs, first, self.batch_size, 0.0, draw) {
            Ok(pairs) => pairs,
            Err(error) => {
                self.failure = Some(error);
                return no_batch(self.leaves);
            }
        };
        let output = self.fusion.forward(&pairs.source, &pairs.pose, Some(draw));
        let target = self.fusion.embed(&pairs.target);
        let ContrastLoss { nce, l1, retrieval } =
            self.contrast.loss(&output.source, &target, &output.fused);
        let value = |x: &Tensor| x.to_kind(Kind::Double).double_value(&[]);
        let terms = vec![
            ("contrast", value(&nce)),
            ("l1", value(&l1)),
            ("top-1", retrieval.top1),
            ("top-5", retrieval.top5),
            ("mean rank", retrieval.mean_rank),
        ];
        Losses { total: nce + l1 * self.contrast.l1_weight, terms }
    }
}

impl PoseStep for FusionStep<'_> {
    fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }
}
