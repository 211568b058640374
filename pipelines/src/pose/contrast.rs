//! The loss of the first stage: a fusion embedding is to lie where the encoder puts the target.

use serde::Serialize;
use tch::{Kind, Tensor};

/// How fusion and target are compared.
///
/// Paper: FPDM, stage one; `InfoNCE` is van den Oord et al. 2018, equation 4. B pairs, embeddings of width d.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contrast {
    /// What cosines are divided by.
    pub temperature: f64,
    /// Weight of the distance between source and fusion, nearly inert at FPDM's 1e-4: it compares vectors of any length
    /// with unit vectors.
    pub l1_weight: f64,
    /// Whether sources stand beside targets and beside fusions ("source-enhanced"). Each target then has its own source
    /// among its candidates, the same person in another pose, so that the pose must be read.
    pub source_enhanced: bool,
}

impl Default for Contrast {
    fn default() -> Self {
        Self { temperature: 0.07, l1_weight: 1e-4, source_enhanced: true }
    }
}

/// Both terms, attached to the graph, and how well targets find their fusions.
pub struct ContrastLoss {
    /// The contrastive term.
    pub nce: Tensor,
    /// The mean distance, before its weight.
    pub l1: Tensor,
    /// Of the targets among all candidates.
    pub retrieval: Retrieval,
}

/// Where the fusion of its pair stands when the candidates of each target are sorted by likeness. The rows of sources,
/// whose positive is the source itself, do not count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Retrieval {
    /// Share of targets whose fusion is first.
    pub top1: f64,
    /// Share of targets whose fusion is among the first five.
    pub top5: f64,
    /// The mean place, 1 is first.
    pub mean_rank: f64,
}

impl Contrast {
    /// Embeddings of source, target and fusion, `[B, d]` each, to the loss. Rows are targets, columns fusions; there is
    /// no term the other way.
    pub fn loss(&self, source: &Tensor, target: &Tensor, fused: &Tensor) -> ContrastLoss {
        let extended = |first: &Tensor| {
            if self.source_enhanced {
                Tensor::cat(&[first, source], 0)
            } else {
                first.shallow_clone()
            }
        };
        let (rows, columns) = (extended(target), extended(fused)); // [B or 2B, d]
        let scores = unit(&rows).matmul(&unit(&columns).transpose(0, 1)) / self.temperature;
        let positive = scores.diagonal(0, 0, 1); // [B or 2B]
        let nce = (scores.logsumexp([-1].as_slice(), false) - &positive).mean(Kind::Float);
        // As the release has it: beside sources among the candidates the second half is zero.
        let l1 = (extended(source) - &columns).abs().mean(Kind::Float);

        let targets = target.size()[0];
        let above = scores.gt_tensor(&positive.unsqueeze(1)).narrow(0, 0, targets);
        let ahead = above.to_kind(Kind::Float).sum_dim_intlist(-1, false, Kind::Float); // [B]
        let mean = |x: Tensor| x.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        let retrieval = Retrieval {
            top1: mean(ahead.lt(1.0)),
            top5: mean(ahead.lt(5.0)),
            mean_rank: 1.0 + mean(ahead),
        };
        ContrastLoss { nce, l1, retrieval }
    }
}

fn unit(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2, [-1], true).clamp_min(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(numbers: &[f32]) -> Tensor {
        Tensor::from_slice(numbers).view([-1, 2])
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }

    #[test]
    fn two_pairs_of_hand_set_vectors_give_the_closed_form() {
        // Lengths differ, cosines are those of the axes: sources x and y, targets y and x, fusions y and -y.
        let (source, target) = (rows(&[3., 0., 0., 2.]), rows(&[0., 1., 5., 0.]));
        let fused = rows(&[0., 1., 0., -1.]);
        let contrast = Contrast { temperature: 0.5, ..Contrast::default() };
        let ContrastLoss { nce, l1, retrieval } = contrast.loss(&source, &target, &fused);
        // Rows y, x, x, y over the columns y, -y, x, y, cosines doubled:
        let y = [2.0, -2.0, 0.0, 2.0];
        let x = [0.0, 0.0, 2.0, 0.0];
        let logsumexp = |s: [f64; 4]| s.iter().map(|s| s.exp()).sum::<f64>().ln();
        let expected =
            (logsumexp(y) - 2.0 + logsumexp(x) - 0.0 + logsumexp(x) - 2.0 + logsumexp(y) - 2.0)
                / 4.0;
        close(nce.double_value(&[]), expected);
        // |3| + |-1| + |0| + |3| over four numbers, halved.
        close(l1.double_value(&[]), 7.0 / 4.0 / 2.0);
        // The first target's fusion ties with its own kind only; the second's has a source ahead.
        assert_eq!(retrieval, Retrieval { top1: 0.5, top5: 1.0, mean_rank: 1.5 });
    }

    #[test]
    fn without_the_sources_only_fusions_are_candidates() {
        let (source, target) = (rows(&[1., 0., 0., 1.]), rows(&[0., 1., 1., 0.]));
        let contrast = Contrast { temperature: 1.0, source_enhanced: false, ..Contrast::default() };
        let ContrastLoss { nce, l1, retrieval } = contrast.loss(&source, &target, &target);
        close(nce.double_value(&[]), (1f64.exp() + 1.0).ln() - 1.0);
        close(l1.double_value(&[]), 1.0); // the mean distance, not halved: no row stands beside itself
        assert_eq!(retrieval, Retrieval { top1: 1.0, top5: 1.0, mean_rank: 1.0 });
    }

    #[test]
    fn a_fusion_that_copies_its_source_is_told_from_one_that_reads_the_pose() {
        let source = rows(&[1., 0.1, -1., 0.2]);
        let target = rows(&[0.9, 0.5, -0.9, 0.6]);
        let contrast = Contrast::default();
        let copying = contrast.loss(&source, &target, &source).nce.double_value(&[]);
        let reading = contrast.loss(&source, &target, &target).nce.double_value(&[]);
        assert!(reading < copying, "{reading} is not below {copying}");
    }
}
