//! The eighteen joints of a person.

use image::RgbImage;

use crate::photos;

/// The names of the joints, in OpenPose order (COCO). Right and left are the person's own.
pub const JOINTS: [&str; 18] = [
    "nose",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
];

/// The joint that each joint becomes in a mirror.
const OPPOSITE: [usize; 18] = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16];

/// Where the joints of a person are in a picture of any size; nothing for a joint that is not seen.
///
/// Units: shares of the picture's width and height, from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Skeleton(pub [Option<(f64, f64)>; 18]);

impl Skeleton {
    /// The joints in pixels of a picture of this size.
    pub fn at(&self, (width, height): (u32, u32)) -> [Option<(f64, f64)>; 18] {
        self.0.map(|joint| joint.map(|(x, y)| (x * f64::from(width), y * f64::from(height))))
    }

    /// The person seen in a mirror: right and left change places.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        Self(OPPOSITE.map(|joint| self.0[joint].map(|(x, y)| (1.0 - x, y))))
    }

    /// How many joints are seen.
    pub fn seen(&self) -> usize {
        self.0.iter().flatten().count()
    }
}

/// A picture and the skeleton in it, both seen in a mirror.
pub fn mirrored(picture: &RgbImage, skeleton: &Skeleton) -> (RgbImage, Skeleton) {
    (photos::mirrored(picture), skeleton.mirrored())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_skeleton() -> impl Strategy<Value = Skeleton> {
        let joint = proptest::option::of((0.0..=1.0f64, 0.0..=1.0f64));
        proptest::collection::vec(joint, 18)
            .prop_map(|joints| Skeleton(std::array::from_fn(|k| joints[k])))
    }

    #[test]
    fn a_mirror_exchanges_right_and_left_by_name() {
        for (k, name) in JOINTS.iter().enumerate() {
            let other = match name.split_once('_') {
                Some(("right", part)) => format!("left_{part}"),
                Some(("left", part)) => format!("right_{part}"),
                _ => (*name).to_owned(),
            };
            assert_eq!(JOINTS[OPPOSITE[k]], other);
        }
    }

    #[test]
    fn a_mirrored_joint_lies_on_the_mirrored_pixel() {
        let mut skeleton = Skeleton([None; 18]);
        skeleton.0[4] = Some((2.5 / 10.0, 0.5));
        let picture = RgbImage::from_fn(10, 4, |x, _| image::Rgb([u8::from(x == 2); 3]));
        let (picture, skeleton) = mirrored(&picture, &skeleton);
        let (x, y) = skeleton.at((10, 4))[7].unwrap();
        assert_eq!(picture.get_pixel(x as u32, y as u32).0, [1; 3]);
        assert_eq!(skeleton.seen(), 1);
    }

    proptest! {
        #[test]
        fn mirroring_twice_changes_nothing(skeleton in any_skeleton()) {
            let twice = skeleton.mirrored().mirrored();
            for (a, b) in skeleton.0.iter().zip(&twice.0) {
                prop_assert_eq!(a.is_some(), b.is_some());
                if let (Some(a), Some(b)) = (a, b) {
                    prop_assert!((a.0 - b.0).abs().max((a.1 - b.1).abs()) < 1e-15);
                }
            }
        }
    }
}
