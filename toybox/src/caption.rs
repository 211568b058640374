//! What a scene is called: the class always, everything else sometimes, so that what is not named stays free.

use crate::accessory::Accessory;
use crate::people::{Bottom, Looks};
use crate::rng::Rng;
use crate::scene::{Scene, Subject};
use crate::skin::{Pattern, Skin};
use crate::style::Style;
use crate::things::Thing;

/// Every word that a caption can hold.
#[rustfmt::skip]
pub const VOCABULARY: [&str; 65] = [
    "a", "an", "and", "art", "at", "backpack", "beach", "bear", "black", "blue", "boat", "brown", "bun", "car",
    "cat", "checkered", "city", "curly", "desert", "dog", "dotted", "floor", "forest", "grass", "gray", "green",
    "hair", "hat", "house", "in", "kitchen", "lamp", "long", "mug", "night", "of", "on", "orange", "person",
    "photo", "pink", "pixel", "plant", "purple", "red", "robot", "shirt", "short", "shorts", "sketch", "skirt",
    "snow", "striped", "sunglasses", "teal", "teapot", "the", "trousers", "water", "watercolor", "wearing", "white",
    "with", "wooden", "yellow",
];

/// "an" before a vowel, else "a".
fn with_article(words: &str) -> String {
    let article = if words.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {words}")
}

/// Decides, each time with a probability, whether something is named.
type Says<'a> = &'a mut dyn FnMut(f32) -> bool;

/// "red and white striped": colour and pattern, each perhaps unsaid; ends with a space unless empty.
fn skin_words(skin: Skin, says: Says) -> String {
    let mut words = String::new();
    let colour = says(0.78);
    let pattern = skin.pattern != Pattern::Plain && says(0.70);
    if colour {
        words += skin.main.name();
        words.push(' ');
        if pattern && says(0.35) {
            words += "and ";
            words += skin.second.name();
            words.push(' ');
        }
    }
    if pattern {
        words += skin.pattern.name();
        words.push(' ');
    }
    words
}

fn thing_words(thing: &Thing, says: Says) -> String {
    with_article(&format!("{}{}", skin_words(thing.skin, says), thing.class.name()))
}

fn person_words(looks: &Looks, says: Says) -> String {
    let mut words = String::from("a person");
    if says(0.35) {
        let hair = match looks.hair_shape.name() {
            Some(shape) => format!(" with {shape} {} hair", looks.hair.name()),
            None => format!(" with {} hair in a bun", looks.hair.name()),
        };
        words += &hair;
    }
    let top = says(0.70).then(|| with_article(&format!("{}shirt", skin_words(looks.top, says))));
    let bottom = says(0.55).then(|| {
        let named = format!("{}{}", skin_words(looks.bottom, says), looks.bottom_shape.name());
        if looks.bottom_shape == Bottom::Skirt { with_article(&named) } else { named }
    });
    let clothes: Vec<String> = top.into_iter().chain(bottom).collect();
    if !clothes.is_empty() {
        words += " in ";
        words += &clothes.join(" and ");
    }
    words
}

impl Scene {
    /// A caption that names the class, and each other attribute with some probability.
    pub fn caption(&self, rng: &mut Rng) -> String {
        self.words(&mut |probability| rng.chance(probability))
    }

    /// The caption that names everything that can be named.
    pub fn full_caption(&self) -> String {
        self.words(&mut |_| true)
    }

    fn words(&self, says: Says) -> String {
        let subject = match &self.subject {
            Subject::Thing(thing) => thing_words(thing, says),
            Subject::Person(person) => person_words(&person.looks, says),
        };
        self.around(&subject, says)
    }

    /// Style, accessory and background around a subject's words: also for a placeholder in the subject's stead.
    fn around(&self, subject: &str, says: Says) -> String {
        let mut words = String::new();
        // A photo is the default, so it may go unsaid; the other styles mostly do not.
        if says(if self.style == Style::Photo { 0.70 } else { 0.93 }) {
            words += self.style.phrase();
            words.push(' ');
        }
        words += subject;
        if let Some(accessory) = self.accessory
            && says(0.88)
        {
            words += " wearing ";
            words += &match accessory {
                Accessory::Hat(colour) if says(0.90) => {
                    with_article(&format!("{} hat", colour.name()))
                }
                Accessory::Hat(_) => "a hat".to_owned(),
                Accessory::Sunglasses => "sunglasses".to_owned(),
            };
        }
        if says(0.82) {
            words.push(' ');
            words += self.background.phrase();
        }
        words
    }

    /// The prompt that asks for this scene with `subject` (say, "a <my-teapot>") in the subject's stead.
    pub fn prompt(&self, subject: &str) -> String {
        self.around(subject, &mut |_| true)
    }
}
