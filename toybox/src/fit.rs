//! Which pattern a drawn thing wears, found by drawing: the world's own thing of the asked class and colours is fitted to
//! the picture once with each pattern, and the one that explains most of it is what it shows. No network judges.

use image::RgbImage;

use crate::{Pattern, Placement, Rng, SIZE, Scene, Subject};

/// Things that are tried anywhere, with each pattern.
const ANYWHERE: usize = 60;
/// Changes that are then tried on the best of them, each smaller than the one before.
const CHANGES: usize = 140;
/// Columns at either edge by which a row's background is known.
const EDGE: usize = 10;

/// The pattern of the thing in a photo, where `scene` says what it should be called: its class, its colours, what it
/// wears and where; not its place, size and shape, nor the pattern. `None` for people.
pub(crate) fn pattern(scene: &Scene, picture: &RgbImage) -> Option<Pattern> {
    let Subject::Thing(_) = scene.subject else { return None };
    let behind = behind(picture);
    let tint = scene.background.tint();
    let explained = |guess: &Scene| explained(guess, tint, picture, &behind);
    let fits = Pattern::ALL.map(|pattern| {
        let rng = &mut Rng::new(0x0066_6974); // the same things for each
        let anywhere = (0..ANYWHERE).map(|_| anew(scene, pattern, rng));
        let scored = anywhere.map(|guess| (explained(&guess), guess));
        let mut best = scored.max_by(|a, b| a.0.total_cmp(&b.0)).expect("there are some");
        for k in 0..CHANGES {
            let guess = changed(&best.1, 1.0 - 0.9 * k as f32 / CHANGES as f32, rng);
            let score = explained(&guess);
            if score > best.0 {
                best = (score, guess);
            }
        }
        (best.0, pattern)
    });
    fits.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, pattern)| pattern)
}

/// The scene with this pattern, and any place, size and shape.
fn anew(scene: &Scene, pattern: Pattern, rng: &mut Rng) -> Scene {
    let mut guess = Scene { placement: Placement::sample(scene.world, rng), ..*scene };
    if let Subject::Thing(thing) = &mut guess.subject {
        thing.shape = [rng.unit(), rng.unit(), rng.unit()];
        (thing.skin.pattern, thing.skin.phase) = (pattern, rng.unit());
    }
    guess
}

/// One or several of its numbers moved by up to `reach` of what they can be.
fn changed(scene: &Scene, reach: f32, rng: &mut Rng) -> Scene {
    let mut guess = *scene;
    let all = rng.chance(0.3);
    let one = rng.below(8);
    let mut by = |index: usize, most: f32| {
        let moved = rng.range(-most, most) * reach;
        if all || index == one { moved } else { 0.0 }
    };
    let placement = &mut guess.placement;
    placement.x += by(0, 6.0);
    placement.y += by(1, 6.0);
    placement.scale = (placement.scale + by(2, 6.0)).max(10.0);
    placement.angle += by(3, 0.06);
    if let Subject::Thing(thing) = &mut guess.subject {
        for (k, gene) in thing.shape.iter_mut().enumerate() {
            *gene = (*gene + by(4 + k, 0.5)).clamp(0.0, 1.0);
        }
        thing.skin.phase = (thing.skin.phase + by(7, 0.5)).rem_euclid(1.0);
    }
    guess
}

/// The colour of each row at the picture's edges: what is behind the subject, roughly.
fn behind(picture: &RgbImage) -> Vec<[f32; 3]> {
    picture
        .rows()
        .map(|row| {
            let row: Vec<_> = row.collect();
            std::array::from_fn(|channel| {
                let edges = row[..EDGE].iter().chain(&row[row.len() - EDGE..]);
                let mut levels: Vec<u8> = edges.map(|pixel| pixel.0[channel]).collect();
                levels.sort_unstable();
                f32::from(levels[levels.len() / 2])
            })
        })
        .collect()
}

/// How much nearer to the picture the thing is than what is behind it, summed over the thing.
fn explained(guess: &Scene, tint: [f32; 3], picture: &RgbImage, behind: &[[f32; 3]]) -> f32 {
    let figure = guess.figure();
    let pixels = figure.pixels.iter().zip(picture.pixels()).enumerate();
    let nearer = pixels.filter(|(_, (own, _))| own[3] > 0.5).map(|(k, (own, seen))| {
        let behind = behind[k / SIZE as usize];
        let channel = |c: usize| {
            let (seen, own) = (f32::from(seen.0[c]), own[c] * tint[c] * 255.0);
            (seen - behind[c]).abs() - (seen - own).abs()
        };
        channel(0) + channel(1) + channel(2)
    });
    nearer.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Style, World};

    #[test]
    fn true_pictures_show_the_pattern_that_they_have() {
        let photos = (0..).map(|k| crate::sample(World::Bold, 21, k).0).filter(|scene| {
            matches!(scene.subject, Subject::Thing(_)) && scene.style == Style::Photo
        });
        let (mut right, mut asked) = (0, 0);
        for scene in photos.take(16) {
            let Subject::Thing(thing) = scene.subject else { continue };
            let found = pattern(&scene, &scene.draw()).expect("a thing");
            println!("{:?} {:?} {found:?}", thing.class, thing.skin);
            right += u32::from(found == thing.skin.pattern);
            asked += 1;
        }
        assert!(right * 16 >= asked * 13, "{right} of {asked}");
    }
}
