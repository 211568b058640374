//! Scenes that differ from a scene in one attribute only, itself among them: what a judge of captions chooses from.

use crate::{Accessory, Class, Colour, Rng, Scene, Skin, Style, Subject, Thing};

/// A scene that differs from this one in one attribute, and is called otherwise.
pub(crate) fn other(scene: &Scene, rng: &mut Rng) -> Scene {
    let called = scene.full_caption();
    loop {
        let choices = rng.pick(&[classes, backgrounds, styles, colours, accessories])(scene);
        if let Some(other) = (!choices.is_empty()).then(|| rng.pick(&choices))
            && other.full_caption() != called
        {
            return other;
        }
    }
}

/// A thing with every class; nothing for people, who have other words.
pub(crate) fn classes(scene: &Scene) -> Vec<Scene> {
    let Subject::Thing(thing) = scene.subject else { return Vec::new() };
    let with = |class| Scene { subject: Subject::Thing(Thing { class, ..thing }), ..*scene };
    Class::ALL.map(with).into()
}

pub(crate) fn backgrounds(scene: &Scene) -> Vec<Scene> {
    let all = scene.world.backgrounds().iter();
    all.map(|&background| Scene { background, ..*scene }).collect()
}

pub(crate) fn styles(scene: &Scene) -> Vec<Scene> {
    scene.world.styles().iter().map(|&style| Scene { style, ..*scene }).collect()
}

/// A thing in every main colour; nothing for people, and for sketches, which are grey.
pub(crate) fn colours(scene: &Scene) -> Vec<Scene> {
    let Subject::Thing(thing) = scene.subject else { return Vec::new() };
    if scene.style == Style::Sketch {
        return Vec::new();
    }
    let with = |main| {
        let skin = Skin { main, ..thing.skin };
        Scene { subject: Subject::Thing(Thing { skin, ..thing }), ..*scene }
    };
    Colour::ALL.map(with).into()
}

/// No accessory, sunglasses, and a hat: the scene's own, or a red one.
pub(crate) fn accessories(scene: &Scene) -> Vec<Scene> {
    let hat = match scene.accessory {
        Some(hat @ Accessory::Hat(_)) => hat,
        _ => Accessory::Hat(Colour::Red),
    };
    [None, Some(Accessory::Sunglasses), Some(hat)]
        .map(|accessory| Scene { accessory, ..*scene })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::World;

    #[test]
    fn another_scene_is_called_otherwise_and_draws_another_picture_of_the_same_rest() {
        for k in 0..200 {
            let scene = Scene::sample(World::ALL[k as usize % 2], &mut Rng::nth(7, k));
            let other = other(&scene, &mut Rng::nth(8, k));
            assert_ne!(scene.full_caption(), other.full_caption());
            assert_eq!(scene.placement, other.placement);
            let same = [
                scene.background == other.background,
                scene.style == other.style,
                scene.accessory == other.accessory,
                scene.subject == other.subject,
            ];
            assert_eq!(same.iter().filter(|same| !**same).count(), 1, "{scene:?}, {other:?}");
        }
    }
}
