//! The prompts at which CoRe compares a concept with its class: three lists of our own, by what the class is.

use std::path::Path;

use super::{TemplateError, Templates};

/// The lists, by name.
const SETS: [(&str, &str); 3] = [
    ("animate", include_str!("../../../configs/prompts/animate.txt")),
    ("inanimate", include_str!("../../../configs/prompts/inanimate.txt")),
    ("person", include_str!("../../../configs/prompts/person.txt")),
];

const PERSONS: &str = "actor actress artist baby boy bride child dancer face father girl gentleman groom kid king lady \
                       man model mother musician people person portrait prince princess queen singer teenager toddler \
                       woman";

const ANIMALS: &str = "animal bear bee bird bunny butterfly camel cat chicken cow creature deer dinosaur dog dolphin \
                       dragon duck duckling eagle elephant fish fox frog giraffe goat goldfish guinea hamster hedgehog \
                       hen horse kitten kitty koala lamb leopard lion lizard monkey monster mouse otter owl panda \
                       parrot penguin pet pig pigeon plushie pony puppy rabbit rat raccoon rooster seal shark sheep \
                       snail snake spider squirrel swan tiger tortoise turtle whale wolf zebra corgi poodle terrier \
                       retriever beagle bulldog husky dachshund chihuahua shepherd";

impl Templates {
    /// The list of this name, `auto` for the one that suits `class`, or those of a file; and the list's name.
    pub fn context(name: &str, class: &str) -> Result<(Self, String), TemplateError> {
        let name = if name == "auto" { suited_to(class) } else { name };
        let templates = match SETS.iter().find(|(set, _)| *set == name) {
            Some((set, text)) => Self::parse(text, &format!("configs/prompts/{set}.txt"))?,
            None => Self::from_file(Path::new(name))?,
        };
        Ok((templates, name.to_owned()))
    }
}

/// What a class is, as far as prompts differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Person,
    Animal,
    Thing,
}

/// By the class's last word, which names what it is ("guinea pig", "old oil lamp"); things where it is unknown.
pub(super) fn kind_of(class: &str) -> Kind {
    let head = class.split_whitespace().last().unwrap_or_default().to_lowercase();
    let holds = |list: &str| list.split_whitespace().any(|word| word == head);
    if holds(PERSONS) {
        Kind::Person
    } else if holds(ANIMALS) {
        Kind::Animal
    } else {
        Kind::Thing
    }
}

/// The list that suits a class.
fn suited_to(class: &str) -> &'static str {
    match kind_of(class) {
        Kind::Person => "person",
        Kind::Animal => "animate",
        Kind::Thing => "inanimate",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn set(name: &str) -> Templates {
        Templates::context(name, "").unwrap().0
    }

    #[test]
    fn each_list_has_a_hundred_different_prompts_with_one_slot_and_words_behind_it() {
        for (name, _) in SETS {
            let lines = set(name).lines;
            let mut different = lines.clone();
            different.sort_unstable();
            different.dedup();
            assert_eq!((lines.len(), different.len()), (100, 100), "{name}");
            assert!(lines.iter().all(|line| line.matches("{}").count() == 1), "{name}");
            assert!(lines.iter().all(|line| *line == line.to_lowercase()), "{name}");
            let mut behind: Vec<usize> = lines
                .iter()
                .map(|line| line.split_once("{}").unwrap().1.split_whitespace().count())
                .collect();
            behind.sort_unstable();
            assert!(behind[0] >= 2 && behind[50] >= 5, "{name}: {behind:?}");
        }
    }

    #[test]
    fn prompts_are_so_short_that_every_tokenizer_has_room_for_them() {
        // Even where each letter is a token, 75 fit; a concept of 8 and a long class stay below that.
        for (name, _) in SETS {
            let longest = set(name).lines.iter().map(|l| l.replace(' ', "").len()).max();
            assert!(longest <= Some(48), "{name}: {longest:?}");
        }
    }

    /// The words that a prompt is about.
    fn content(prompt: &str) -> HashSet<&str> {
        let words = prompt.split(|c: char| !c.is_alphabetic());
        words
            .filter(|w| w.len() > 2 && !["the", "and", "with", "from", "its"].contains(w))
            .collect()
    }

    /// Whether two prompts share more than half of the content of the shorter; one word ("green") makes no likeness.
    fn alike(a: &str, b: &str) -> bool {
        let (a, b) = (content(a), content(b));
        let shared = a.intersection(&b).count();
        shared > 1 && 2 * shared > a.len().min(b.len())
    }

    #[test]
    fn no_prompt_is_like_one_that_concepts_are_judged_with() {
        assert!(alike("a {} near a steaming cup of tea", "a {} beside a cup of tea"));
        assert!(alike("a {} in a knight's shining armour", "a {} in the armour of a knight"));
        for (protocol, class) in [("core", "teapot"), ("core", "cat"), ("custom101", "")] {
            let judging = Templates::evaluation(protocol, class).unwrap().0.lines;
            for (name, _) in SETS {
                for line in set(name).lines {
                    let like = judging.iter().find(|judging| alike(&line, judging));
                    assert_eq!(like, None, "{name}: {line}");
                }
            }
        }
    }

    #[test]
    fn the_class_s_last_word_chooses_the_list() {
        for (class, expected) in [
            ("cat", "animate"),
            ("German Shepherd", "animate"),
            ("old woman", "person"),
            ("teapot", "inanimate"),
            ("cat bowl", "inanimate"),
        ] {
            assert_eq!(Templates::context("auto", class).unwrap().1, expected, "{class}");
        }
    }

    #[test]
    fn any_other_name_is_a_file() {
        let error = Templates::context("nowhere.txt", "cat").unwrap_err().to_string();
        assert!(error.starts_with("template file nowhere.txt cannot be read"), "{error}");
    }
}
