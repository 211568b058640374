//! What stands out in a photo, and the part of given length that keeps the most of it.

use image::RgbImage;
use image::imageops;

/// Side of the thumbnail that is looked at: enough to see where a subject is; more only finds texture.
const SIDE: u32 = 96;
/// Standard deviation of the centre prior, in fractions of each side.
const PRIOR: f64 = 0.35;
/// How much brightness counts beside colour: things are told from each other by colour, light falls on all of them.
const BRIGHTNESS: f64 = 0.5;
/// From where to where a place is blown out, by its darkest channel, and how much it counts then: a window, a lamp or the
/// sky is the brightest there is in many photos, and the subject of few.
const GLARE: (f64, f64, f64) = (215.0, 245.0, 0.15);
/// Parts that keep this share of the most that one can keep are as good as that one.
const AS_GOOD: f64 = 0.99;
/// Places of a part that are tried in each column or row of the thumbnail.
const STEPS: usize = 4;

/// How much stands out in each column and in each row of a thumbnail; nothing in an even photo.
pub(super) struct Salience {
    across: Vec<f64>,
    down: Vec<f64>,
}

impl Salience {
    /// Looks at a photo.
    ///
    /// Each pixel's salience is its contrast to its neighbours plus its distance from the photo's mean colour, weighed by
    /// a centre prior. What exceeds the mean by a standard deviation stands out, so that an even background has no pull.
    pub fn of(photo: &RgbImage) -> Self {
        let (width, height) = photo.dimensions();
        let scale = f64::from(SIDE) / f64::from(width.max(height));
        let side = |full: u32| ((f64::from(full) * scale).round() as u32).clamp(1, full);
        let thumbnail = imageops::thumbnail(photo, side(width), side(height));
        let (width, height) = thumbnail.dimensions();

        let at = |x: u32, y: u32| seen(thumbnail.get_pixel(x.min(width - 1), y.min(height - 1)).0);
        let count = f64::from(width * height);
        let mut mean = [0.0; 3];
        for pixel in thumbnail.pixels() {
            for (sum, value) in mean.iter_mut().zip(seen(pixel.0)) {
                *sum += value / count;
            }
        }
        let middle = |place: u32, side: u32| (f64::from(place) + 0.5) / f64::from(side) - 0.5;
        let salience: Vec<(usize, usize, f64)> = thumbnail
            .enumerate_pixels()
            .map(|(x, y, pixel)| {
                let here = at(x, y);
                let edges = distance(here, at(x + 1, y)) + distance(here, at(x, y + 1));
                let off = middle(x, width).powi(2) + middle(y, height).powi(2);
                let weight = (-off / (2.0 * PRIOR * PRIOR)).exp() * glare(pixel.0);
                (x as usize, y as usize, (edges + distance(here, mean)) * weight)
            })
            .collect();

        let average = salience.iter().map(|(.., s)| s).sum::<f64>() / count;
        let variance = salience.iter().map(|(.., s)| (s - average).powi(2)).sum::<f64>() / count;
        let (mut across, mut down) = (vec![0.0; width as usize], vec![0.0; height as usize]);
        // Below one grey level the picture is even, and what is left is rounding.
        if average >= 1.0 {
            for (x, y, s) in salience {
                let outstanding = (s - average - variance.sqrt()).max(0.0);
                across[x] += outstanding;
                down[y] += outstanding;
            }
        }
        Self { across, down }
    }

    /// The middle, in fractions of the photo, of the part that keeps the most of what stands out; `part` is its width and
    /// height in fractions of the photo's.
    pub fn focus(&self, part: (f64, f64)) -> (f64, f64) {
        (best(&self.across, part.0), best(&self.down, part.1))
    }

    /// The share of what stands out that lies outside a part, which starts and ends at fractions of width and of height.
    /// A part leaves something of one axis only, so the larger share of both is the whole.
    pub fn lost(&self, across: (f64, f64), down: (f64, f64)) -> f64 {
        let lost = |along: &[f64], (start, end): (f64, f64)| {
            let total: f64 = along.iter().sum();
            let length = along.len() as f64;
            if total == 0.0 { 0.0 } else { 1.0 - kept(along, start * length, end * length) / total }
        };
        lost(&self.across, across).max(lost(&self.down, down)).max(0.0)
    }
}

/// A colour as it is compared: brightness, and how red and how blue it is.
fn seen(pixel: [u8; 3]) -> [f64; 3] {
    let [r, g, b] = pixel.map(f64::from);
    let brightness = 0.299 * r + 0.587 * g + 0.114 * b;
    [BRIGHTNESS * brightness, r - brightness, b - brightness]
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

fn glare(pixel: [u8; 3]) -> f64 {
    let (from, to, least) = GLARE;
    let darkest = f64::from(pixel.into_iter().min().unwrap_or(0));
    1.0 - (1.0 - least) * ((darkest - from) / (to - from)).clamp(0.0, 1.0)
}

/// What of `along` lies between two places; columns and rows count by the share of them that does.
fn kept(along: &[f64], start: f64, end: f64) -> f64 {
    let inside = |i: usize| (end.min(i as f64 + 1.0) - start.max(i as f64)).clamp(0.0, 1.0);
    along.iter().enumerate().map(|(i, value)| value * inside(i)).sum()
}

/// The middle of the part of length `share` that keeps the most: two things that do not fit into it together leave one of
/// them whole, rather than both cut. Of parts that are as good, the one with what it keeps nearest its middle.
fn best(along: &[f64], share: f64) -> f64 {
    let (count, length) = (along.len() as f64, share * along.len() as f64);
    let places = ((count - length).max(0.0) * STEPS as f64).floor() as usize;
    let parts: Vec<(f64, f64)> = (0..=places)
        .map(|place| place as f64 / STEPS as f64)
        .chain([count - length])
        .map(|start| (start, kept(along, start, start + length)))
        .collect();
    let most = parts.iter().map(|(_, kept)| *kept).fold(0.0, f64::max);
    if most == 0.0 {
        return 0.5;
    }
    let off_middle = |start: f64| {
        let moment =
            |i: usize| along[i] * (kept(&ONE, start - i as f64, start + length - i as f64));
        let (mass, moments) = (0..along.len()).fold((0.0, 0.0), |(mass, moments), i| {
            (mass + moment(i), moments + moment(i) * (i as f64 + 0.5))
        });
        (moments / mass - start - length / 2.0).abs()
    };
    let good = parts.iter().filter(|(_, kept)| *kept >= AS_GOOD * most);
    let nearest = good.min_by(|a, b| off_middle(a.0).total_cmp(&off_middle(b.0)));
    nearest.map_or(0.5, |(start, _)| (start + length / 2.0) / count)
}

/// One column of which everything stands out.
const ONE: [f64; 1] = [1.0];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_two_things_too_far_apart_one_is_kept_whole() {
        let mut along = [0.0; 20];
        along[2..5].fill(2.0);
        along[14..18].fill(1.0);
        let focus = best(&along, 0.5);
        assert!(focus - 0.25 <= 0.1 && focus + 0.25 >= 0.25, "{focus}");
    }

    #[test]
    fn one_thing_is_kept_in_the_middle_where_the_photo_allows_it() {
        let mut along = [0.0; 20];
        along[6..8].fill(1.0);
        assert!((best(&along, 0.5) - 0.35).abs() < 0.02);
        assert!((best(&[0.0; 7], 0.5) - 0.5).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn no_part_keeps_more_than_the_one_that_is_taken(
            along in proptest::collection::vec(0.0..1.0_f64, 1..60),
            share in 0.05..=1.0_f64,
            other in 0.0..=1.0_f64,
        ) {
            let (count, length) = (along.len() as f64, share * along.len() as f64);
            let middle = best(&along, share) * count;
            let taken = kept(&along, middle - length / 2.0, middle + length / 2.0);
            let start = other * (count - length);
            // Parts between the places that are tried keep at most what lies in a quarter of a column more.
            prop_assert!(taken >= AS_GOOD * (kept(&along, start, start + length) - 0.25) - 1e-9);
        }
    }
}
