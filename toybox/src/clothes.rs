//! Whether a drawn person wears what the photo shows.
//!
//! The true picture is drawn again with the garment in each colour, and in each pattern, there is. The drawn picture's
//! garment is right where, of all these, the true one is nearest to it. No threshold, and guessing is right once in twelve
//! (colours) or four (patterns).

use std::path::Path;

use image::RgbImage;
use serde::Serialize;

use crate::{Colour, Pair, Pattern, Scene, Skin, Subject};

/// Levels by which a pixel must differ between two of the pictures to count as the garment's.
const DIFFERS: u8 = 12;

/// Shares of pictures in which a garment is right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Clothes {
    /// Pictures.
    pub count: usize,
    /// The main colour of the top.
    pub top: f64,
    /// That of what covers the legs.
    pub bottom: f64,
    /// The pattern of the tops that have one.
    pub pattern: f64,
}

/// Judges the pictures of a folder by the genes of the same names.
pub fn clothes(drawn: &Path, genes: &Path) -> Result<Clothes, Box<dyn std::error::Error>> {
    let mut right = [(0_u32, 0_u32); 3];
    let mut count = 0;
    for entry in std::fs::read_dir(drawn)? {
        let file = entry?.path();
        if file.extension().is_none_or(|ending| ending != "png") {
            continue;
        }
        let name = Path::new(file.file_name().unwrap_or_default()).with_extension("json");
        let text = std::fs::read_to_string(genes.join(&name))
            .map_err(|e| format!("{}: {e}", genes.join(&name).display()))?;
        let pair: Pair = serde_json::from_str(&text)?;
        let picture = image::open(&file)?.to_rgb8();
        count += 1;
        for (sum, found) in right.iter_mut().zip(judge(&pair.target, &picture)) {
            if let Some(found) = found {
                *sum = (sum.0 + u32::from(found), sum.1 + 1);
            }
        }
    }
    let [top, bottom, pattern] = right.map(|(right, of)| f64::from(right) / f64::from(of.max(1)));
    Ok(Clothes { count, top, bottom, pattern })
}

/// Top, bottom, pattern of the top; nothing where no pixel shows it, or where it has no pattern.
fn judge(scene: &Scene, drawn: &RgbImage) -> [Option<bool>; 3] {
    let Subject::Person(person) = scene.subject else { return [None; 3] };
    let wearing = |top: Skin, bottom: Skin| {
        let mut person = person;
        (person.looks.top, person.looks.bottom) = (top, bottom);
        Scene { subject: Subject::Person(person), ..*scene }.draw()
    };
    let (top, bottom) = (person.looks.top, person.looks.bottom);
    let colours = |worn: Skin, draw: &dyn Fn(Skin) -> RgbImage| {
        let others = Colour::ALL.into_iter().filter(|c| *c != worn.main && *c != worn.second);
        let others = others.map(|main| draw(Skin { main, ..worn })).collect::<Vec<_>>();
        nearest(drawn, &draw(worn), &others)
    };
    let patterns = || {
        let others = Pattern::ALL.into_iter().filter(|p| *p != top.pattern);
        let others: Vec<_> =
            others.map(|pattern| wearing(Skin { pattern, ..top }, bottom)).collect();
        nearest(drawn, &wearing(top, bottom), &others)
    };
    [
        colours(top, &|top| wearing(top, bottom)),
        colours(bottom, &|bottom| wearing(top, bottom)),
        (top.pattern != Pattern::Plain).then(patterns).flatten(),
    ]
}

/// Whether `drawn` is nearer to `truth` than to any of the others, where these differ.
fn nearest(drawn: &RgbImage, truth: &RgbImage, others: &[RgbImage]) -> Option<bool> {
    let differs = |a: &[u8], b: &[u8]| a.iter().zip(b).any(|(a, b)| a.abs_diff(*b) > DIFFERS);
    let pixels: Vec<usize> = (0..truth.as_raw().len() / 3)
        .filter(|i| {
            let levels = 3 * i..3 * i + 3;
            let here = &truth.as_raw()[levels.clone()];
            others.iter().any(|other| differs(here, &other.as_raw()[levels.clone()]))
        })
        .collect();
    let distance = |to: &RgbImage| -> u64 {
        let level = |k: usize| u64::from(drawn.as_raw()[k].abs_diff(to.as_raw()[k]));
        pixels.iter().flat_map(|i| 3 * i..3 * i + 3).map(level).sum()
    };
    let true_distance = distance(truth);
    (!pixels.is_empty()).then(|| others.iter().all(|other| true_distance < distance(other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Place, World, pair};

    #[test]
    fn the_true_picture_is_right_and_another_person_s_is_mostly_not() {
        let (mut right, mut wrong) = (0, 0);
        for (world, index) in World::ALL.into_iter().flat_map(|w| (0..6).map(move |i| (w, i))) {
            let [this, next] = [index, index + 1].map(|index| pair(world, 4, index, Place::Studio));
            assert!(
                judge(&this.target, &this.target.draw()).iter().all(|found| *found != Some(false))
            );
            let mut other = this.target;
            other.subject = next.target.subject;
            for found in judge(&this.target, &other.draw())[..2].iter().flatten() {
                if *found { right += 1 } else { wrong += 1 }
            }
        }
        assert!(wrong > 3 * right, "{right} right, {wrong} wrong");
    }
}
