//! A step of the first stage.

use tch::{Kind, Tensor};
use torch_ext::Generator;

use super::contrast::{Contrast, ContrastLoss};
use super::networks::Fusion;
use super::pairs::{PosePairs, batch};
use crate::Error;
use crate::trainer::{Losses, TrainStep};

/// Draws pairs and brings the fusion of source and target's pose to where the target is.
pub(super) struct FusionStep<'a> {
    pub fusion: &'a Fusion,
    pub pairs: &'a mut dyn PosePairs,
    pub contrast: Contrast,
    pub batch_size: usize,
}

impl TrainStep for FusionStep<'_> {
    fn losses(&mut self, index: u64, draw: &Generator) -> Result<Losses, Error> {
        let first = index * self.batch_size as u64;
        let pairs = batch(self.pairs, first, self.batch_size, 0.0, draw)?;
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
        Ok(Losses { total: nce + l1 * self.contrast.l1_weight, terms })
    }
}
