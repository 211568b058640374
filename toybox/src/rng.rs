//! Random numbers and noise that are the same on every machine.

/// A counter-based generator (`SplitMix64`): a seed names one sequence, everywhere and for ever.
#[derive(Debug, Clone)]
pub struct Rng(u64);

/// The finaliser of `SplitMix64`: spreads each input bit over all output bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// The sequence that `seed` names.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x6A09_E667_F3BC_C909))
    }

    /// The sequence number `index` of a family: neighbours share nothing.
    pub fn nth(seed: u64, index: u64) -> Self {
        Self::new(mix(seed).wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-24.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 16_777_216.0
    }

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform among `0..count`.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.bits()) * count as u128) >> 64) as usize
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Odd, so that each column and row of the lattice has a number of its own.
const STEP_X: u32 = 0x85EB_CA6B;
const STEP_Y: u32 = 0xC2B2_AE35;

/// A number in `[0, 1)` for each lattice point.
fn lattice(x: u32, y: u32, seed: u32) -> f32 {
    let mut h = x ^ y ^ seed;
    h = (h ^ (h >> 16)).wrapping_mul(0x7FEB_352D);
    h = (h ^ (h >> 15)).wrapping_mul(0x846C_A68B);
    (h >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
}

/// The largest whole number not above `x`, for `|x|` below 2^31. Faster than the library call that `f32::floor` becomes
/// on processors whose baseline lacks the instruction, and as exact.
pub fn floor(x: f32) -> f32 {
    let whole = x as i32 as f32;
    if whole > x { whole - 1.0 } else { whole }
}

/// Smooth value noise in `[0, 1)`, one bump per unit.
pub fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (floor_x, floor_y) = (floor(x), floor(y));
    let (west, north) = (
        (floor_x as i32 as u32).wrapping_mul(STEP_X),
        (floor_y as i32 as u32).wrapping_mul(STEP_Y),
    );
    let (east, south) = (west.wrapping_add(STEP_X), north.wrapping_add(STEP_Y));
    let (u, v) = (x - floor_x, y - floor_y);
    let (u, v) = (u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v));
    let top = lattice(west, north, seed) * (1.0 - u) + lattice(east, north, seed) * u;
    let bottom = lattice(west, south, seed) * (1.0 - u) + lattice(east, south, seed) * u;
    top * (1.0 - v) + bottom * v
}

/// Two octaves of [`noise`], in `[0, 1)`.
pub fn cloud(x: f32, y: f32, seed: u32) -> f32 {
    noise(x, y, seed) * 0.65 + noise(x * 2.3, y * 2.3, seed ^ 0x51_7C) * 0.35
}
