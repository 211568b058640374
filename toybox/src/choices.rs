//! Scenes that differ from a scene in one attribute only, itself among them: what a judge of captions chooses from.

use crate::{Accessory, Background, Class, Colour, Scene, Skin, Style, Subject, Thing};

/// Every attribute that can be asked for.
pub(crate) const ATTRIBUTES: [fn(&Scene) -> Vec<Scene>; 5] =
    [classes, backgrounds, styles, colours, accessories];

/// A thing with every class; nothing for people, who have other words.
pub(crate) fn classes(scene: &Scene) -> Vec<Scene> {
    let Subject::Thing(thing) = scene.subject else { return Vec::new() };
    let with = |class| Scene { subject: Subject::Thing(Thing { class, ..thing }), ..*scene };
    Class::ALL.map(with).into()
}

pub(crate) fn backgrounds(scene: &Scene) -> Vec<Scene> {
    Background::ALL.map(|background| Scene { background, ..*scene }).into()
}

pub(crate) fn styles(scene: &Scene) -> Vec<Scene> {
    Style::ALL.map(|style| Scene { style, ..*scene }).into()
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
