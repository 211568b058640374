//! Which conditions are given how much weight while a picture is drawn.

use models::unet::Conditioning;
use tch::Kind;

use super::networks::{Evidence, Kept, Routes, of_kind};
use crate::Guidance;
use crate::denoise::is_none;

/// The two scales of FPDM's guidance, `v = v_0 + w_1 (v_sp - v_0) + w_2 (v_spf - v_sp)`: nothing given, source and pose
/// given, the fusion embedding too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoseScales {
    /// Of photo and pose, w₁.
    pub source_pose: f64,
    /// Of the fusion embedding, w₂; 0 draws without it.
    pub fusion: f64,
}

impl Default for PoseScales {
    fn default() -> Self {
        Self { source_pose: 2.0, fusion: 2.0 }
    }
}

/// What an evaluation of the U-Net is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Branch {
    Nothing,
    SourcePose,
    All,
}

impl PoseScales {
    /// The scales that a user gives. A guidance of 1 or less is none, as in diffusers: photo and pose as they are. The fusion
    /// embedding has the same weight where it is given none of its own.
    pub fn given(guidance: f64, fusion: Option<f64>) -> Self {
        let source_pose = if is_none(guidance) { 1.0 } else { guidance };
        Self { source_pose, fusion: fusion.unwrap_or(source_pose) }
    }

    /// The branches that count, and a weight for each but the first. Where both scales are equal the middle one cancels;
    /// at 1 the first does; with no weight on the fusion the last does.
    #[expect(clippy::float_cmp, reason = "terms cancel where the numbers are exactly these")]
    fn branches(self) -> (Vec<Branch>, Vec<f64>) {
        let Self { source_pose: w1, fusion: w2 } = self;
        let mut branches = vec![Branch::Nothing, Branch::SourcePose, Branch::All];
        let mut scales = vec![w1, w2];
        if w1 == w2 {
            branches.remove(1);
            scales.remove(0);
        } else if w2 == 0.0 {
            branches.pop();
            scales.pop();
        }
        if scales[0] == 1.0 {
            branches.remove(0);
            scales.remove(0);
        }
        (branches, scales)
    }

    /// The guidance towards what `evidence` shows, for a U-Net that computes in `kind`.
    pub(super) fn guidance(
        self,
        routes: &Routes,
        evidence: &Evidence,
        kind: Kind,
    ) -> Guidance<'static> {
        let (branches, scales) = self.branches();
        let batch = evidence.fused.size()[0];
        let conditionings: Vec<Conditioning> = branches
            .iter()
            .map(|branch| {
                let kept = match branch {
                    Branch::Nothing => Kept::all(batch, [false; 3]),
                    Branch::SourcePose => Kept::all(batch, [true, true, false]),
                    Branch::All => Kept::all(batch, [true; 3]),
                };
                routes.conditioning(evidence, &kept, None)
            })
            .collect();
        let all = Conditioning::cat(&conditionings.iter().collect::<Vec<_>>());
        Guidance::of_branches(of_kind(all, kind), scales)
    }
}

#[cfg(test)]
mod tests {
    use super::Branch::{All, Nothing, SourcePose};
    use super::*;

    /// The combination of predictions as `Guidance` makes it.
    fn combined(scales: PoseScales, predictions: [f64; 3]) -> f64 {
        let (branches, scales) = scales.branches();
        let value = |branch: &Branch| predictions[*branch as usize];
        let steps = branches.windows(2).zip(&scales);
        value(&branches[0])
            + steps.map(|(two, w)| w * (value(&two[1]) - value(&two[0]))).sum::<f64>()
    }

    #[test]
    fn every_shortcut_gives_what_three_evaluations_give() {
        let predictions = [0.3, -1.1, 2.4];
        let [v0, sp, spf] = predictions;
        for (w1, w2) in
            [(2.0, 2.0), (2.0, 1.5), (1.0, 1.0), (1.0, 3.0), (2.5, 0.0), (1.0, 0.0), (0.0, 2.0)]
        {
            let expected = v0 + w1 * (sp - v0) + w2 * (spf - sp);
            let found = combined(PoseScales { source_pose: w1, fusion: w2 }, predictions);
            assert!((found - expected).abs() < 1e-12, "{w1}, {w2}: {found} is not {expected}");
        }
    }

    #[test]
    fn a_guidance_of_one_or_less_draws_photo_and_pose_as_they_are() {
        for guidance in [1.0, 0.5, 0.0, -3.0] {
            assert_eq!(PoseScales::given(guidance, None).branches().0, [All], "{guidance}");
            let without = PoseScales::given(guidance, Some(0.0));
            assert_eq!(without.branches().0, [SourcePose], "{guidance}");
        }
        assert_eq!(PoseScales::given(2.0, None), PoseScales::default());
    }

    #[test]
    fn an_evaluation_that_cancels_is_not_made() {
        let branches = |source_pose, fusion| PoseScales { source_pose, fusion }.branches().0;
        assert_eq!(branches(2.0, 2.0), [Nothing, All]);
        assert_eq!(branches(2.0, 1.0), [Nothing, SourcePose, All]);
        assert_eq!(branches(1.0, 2.0), [SourcePose, All]);
        assert_eq!(branches(2.0, 0.0), [Nothing, SourcePose]);
        assert_eq!(branches(1.0, 0.0), [SourcePose]);
        assert_eq!(branches(1.0, 1.0), [All]);
    }
}
