//! Bicubic resizing of bytes as Pillow does it, to the bit: what CLIP's published preparation of pictures rests on.
//!
//! Source: Pillow, `src/libImaging/Resample.c`: the kernel (Keys 1981, a = -0.5) is widened when it shrinks, weights are
//! fixed-point numbers of 22 bits, rows are resized before columns and rounded to bytes in between. libtorch's
//! antialiased kernel has 15 bits or fewer, which moves one value in two hundred by a level and a cosine by 2e-4.

/// Bits behind the point of a weight: 32 without the 8 of a byte and 2 for sums beyond 1.
const BITS: u32 = 32 - 8 - 2;
/// RGB.
const CHANNELS: usize = 3;

/// The inputs of one output, from the first on, with their weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Resizes RGB bytes, row by row, from one (width, height) to another.
pub fn resize(pixels: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    let wide = along(pixels, (from.0, to.0), CHANNELS);
    along(&wide, (from.1, to.1), to.0 * CHANNELS)
}

/// Resizes an axis whose entries are `step` bytes each.
fn along(pixels: &[u8], (from, to): (usize, usize), step: usize) -> Vec<u8> {
    if from == to {
        return pixels.to_vec();
    }
    let taps = taps(from, to);
    let mut out = Vec::with_capacity(pixels.len() / from * to);
    for line in pixels.chunks_exact(from * step) {
        for tap in &taps {
            let inputs = &line[tap.first * step..];
            out.extend((0..step).map(|place| weighed(tap, inputs[place..].iter().step_by(step))));
        }
    }
    out
}

fn weighed<'a>(tap: &Taps, inputs: impl Iterator<Item = &'a u8>) -> u8 {
    let half = 1 << (BITS - 1);
    let sum = tap.weights.iter().zip(inputs).fold(half, |sum, (w, &x)| sum + w * i32::from(x));
    (sum >> BITS).clamp(0, 255) as u8
}

/// What each output reads along an axis.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let widening = scale.max(1.0);
    let support = 2.0 * widening;
    (0..to)
        .map(|place| {
            let centre = (place as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weight = |x: usize| bicubic((x as f64 - centre + 0.5) / widening);
            let weights: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |w: &f64| (w / sum * f64::from(1 << BITS)).round() as i32;
            Taps { first, weights: weights.iter().map(fixed).collect() }
        })
        .collect()
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_colour_stays_and_one_size_copies() {
        let even = [7, 130, 255].repeat(6 * 4);
        assert_eq!(resize(&even, (6, 4), (9, 3)), [7, 130, 255].repeat(27));
        let any: Vec<u8> = (0..36).collect();
        assert_eq!(resize(&any, (4, 3), (4, 3)), any);
    }

    #[test]
    fn a_step_is_halved_by_the_widened_kernel() {
        // From 4 to 2 the four inputs lie 1/4, 1/4, 3/4 and 5/4 of the kernel's width from the first output, where it
        // is 0.8672, 0.8672, 0.2266 and -0.0703, in all 1.8906: 200 · 1.7344 / 1.8906 = 183.5, less a rounding of
        // the fixed point, and 200 · 0.1563 / 1.8906 = 16.5 for the second.
        let row = [200u8, 200, 0, 0].map(|x| [x; 3]).concat();
        assert_eq!(resize(&row, (4, 1), (2, 1)), [183, 183, 183, 17, 17, 17]);
        let column = row;
        assert_eq!(resize(&column, (1, 4), (1, 2)), [183, 183, 183, 17, 17, 17]);
    }

    #[test]
    fn what_overshoots_stays_black_and_white() {
        let row = [0u8, 0, 255, 255].map(|x| [x; 3]).concat();
        let found = resize(&row, (4, 1), (8, 1));
        let grey: Vec<u8> = found.into_iter().step_by(3).collect();
        assert_eq!((grey[2], grey[5]), (0, 255), "{grey:?}");
        assert!(grey.is_sorted(), "{grey:?}");
    }
}
