//! Joint angles within human limits, and where they put the eighteen joints.

use crate::rng::Rng;
use crate::shape::Point;
use crate::world::{Build, World};
use serde::{Deserialize, Serialize};

/// The angles of one arm or leg, in radians; 0 hangs straight down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limb {
    /// Away from the body, sideways.
    pub out: f32,
    /// Forwards.
    pub forward: f32,
    /// Elbow: how far the forearm turns up and out. Knee: how far the shin turns back.
    pub bend: f32,
}

/// How a person stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pose {
    /// Turn about the upright axis, radians; 0 faces the viewer, positive turns to the viewer's right.
    pub turn: f32,
    /// Sideways lean of the trunk.
    pub lean: f32,
    /// Sideways tilt of the head.
    pub nod: f32,
    /// Arms, right one first.
    pub arms: [Limb; 2],
    /// Legs, right one first.
    pub legs: [Limb; 2],
}

impl Pose {
    /// Standing straight, arms down.
    pub const STANDING: Self = Self {
        turn: 0.0,
        lean: 0.0,
        nod: 0.0,
        arms: [Limb { out: 0.22, forward: 0.0, bend: 0.1 }; 2],
        legs: [Limb { out: 0.06, forward: 0.0, bend: 0.0 }; 2],
    };

    /// One at random within the limits: arms up to 160 degrees, elbows 130, hips 45 sideways and 60 forwards, knees 90.
    pub fn sample(world: World, rng: &mut Rng) -> Self {
        let mut arm = || {
            let out = rng.range(0.08, 2.7);
            // A raised arm bends upwards, a hanging one either way.
            let bend = if rng.chance(0.3) { rng.range(0.0, 0.2) } else { rng.range(0.2, 2.2) };
            Limb {
                out,
                forward: if out < 0.8 { rng.range(-0.5, 0.9) } else { rng.range(-0.2, 0.3) },
                bend: bend.min(3.3 - out * 0.6),
            }
        };
        let arms = [arm(), arm()];
        let mut leg = || {
            let forward =
                if rng.chance(0.4) { rng.range(-0.35, 1.0) } else { rng.range(-0.1, 0.1) };
            let bend = if rng.chance(0.4) { rng.range(0.0, 1.4) } else { rng.range(0.0, 0.15) };
            Limb { out: rng.range(0.02, 0.55), forward, bend: bend.max(forward * 0.5) }
        };
        let legs = [leg(), leg()];
        let turn = world.look().build.turn;
        Self {
            turn: rng.range(-turn, turn),
            lean: rng.range(-0.18, 0.18),
            nod: rng.range(-0.2, 0.2),
            arms,
            legs,
        }
    }

    /// The same pose seen in a mirror: right and left change places.
    #[must_use]
    pub fn mirrored(self) -> Self {
        let [right_arm, left_arm] = self.arms;
        let [right_leg, left_leg] = self.legs;
        Self {
            turn: -self.turn,
            lean: -self.lean,
            nod: -self.nod,
            arms: [left_arm, right_arm],
            legs: [left_leg, right_leg],
        }
    }

    /// The joints in the person's frame: x to the viewer's right, y down with the feet on 0, z towards the viewer.
    pub(crate) fn skeleton(&self, build: &Build) -> Skeleton {
        let Build {
            head: size, width: [shoulder_x, hip_x], trunk: [shoulder_y, neck, chin], ..
        } = *build;
        let (turn_sin, turn_cos) = libm::sincosf(self.turn);
        let (lean_sin, lean_cos) = libm::sincosf(self.lean);
        let (nod_sin, nod_cos) = libm::sincosf(self.nod);
        let rotate =
            |[x, y, z]: [f32; 3]| [x * turn_cos + z * turn_sin, y, z * turn_cos - x * turn_sin];
        // The trunk leans about the hips.
        let trunk = |x: f32, up: f32, z: f32| {
            rotate([x * lean_cos + up * lean_sin, -0.98 - up * lean_cos + x * lean_sin, z])
        };
        let head = |x: f32, up: f32, z: f32| {
            let (x, up, z) = (x * size, up * size, z * size);
            trunk(x * nod_cos + up * nod_sin, chin + up * nod_cos - x * nod_sin, z)
        };
        let mut joints = [[0.0_f32; 3]; 18];
        joints[0] = head(0.0, 0.235, 0.21);
        joints[1] = trunk(0.0, neck, 0.0);
        for (k, side) in [(0, -1.0), (1, 1.0)] {
            let shoulder = trunk(side * shoulder_x, shoulder_y, 0.0);
            let arm = self.arms[k];
            let elbow = step(shoulder, rotate(direction(side, arm.out, arm.forward)), build.arm[0]);
            let wrist = step(
                elbow,
                rotate(direction(side, arm.out + arm.bend * 0.55, arm.forward + arm.bend * 0.75)),
                build.arm[1],
            );
            joints[2 + 3 * k..5 + 3 * k].copy_from_slice(&[shoulder, elbow, wrist]);
            let hip = rotate([side * hip_x, -0.98, 0.0]);
            let leg = self.legs[k];
            let knee = step(hip, rotate(direction(side, leg.out, leg.forward)), build.leg);
            let ankle = step(
                knee,
                rotate(direction(side, leg.out * 0.8, leg.forward - leg.bend)),
                build.leg,
            );
            joints[8 + 3 * k..11 + 3 * k].copy_from_slice(&[hip, knee, ankle]);
            joints[14 + k] = head(side * 0.085, 0.285, 0.19);
            joints[16 + k] = head(side * 0.225, 0.25, 0.0);
        }
        let crown = head(0.0, 0.42, 0.0);
        let skull = head(0.0, 0.25, 0.0);
        // The lower foot stands on the ground.
        let drop = -0.07 * build.girth - joints[10][1].max(joints[13][1]);
        let place = |mut point: [f32; 3]| {
            point[1] += drop;
            point
        };
        Skeleton { joints: joints.map(place), crown: place(crown), skull: place(skull) }
    }
}

/// A unit vector that hangs down, turned forwards and then sideways.
fn direction(side: f32, out: f32, forward: f32) -> [f32; 3] {
    let (out_sin, out_cos) = libm::sincosf(out);
    let (forward_sin, forward_cos) = libm::sincosf(forward);
    [side * out_sin * forward_cos, out_cos * forward_cos, forward_sin]
}

fn step(from: [f32; 3], along: [f32; 3], length: f32) -> [f32; 3] {
    [from[0] + along[0] * length, from[1] + along[1] * length, from[2] + along[2] * length]
}

/// A pose in space.
pub(crate) struct Skeleton {
    pub joints: [[f32; 3]; 18],
    pub crown: [f32; 3],
    pub skull: [f32; 3],
}

impl Skeleton {
    /// A joint as seen: the viewer looks along z.
    pub fn seen(&self, joint: usize) -> Point {
        (self.joints[joint][0], self.joints[joint][1])
    }

    /// Distance towards the viewer.
    pub fn depth(&self, joint: usize) -> f32 {
        self.joints[joint][2]
    }
}
