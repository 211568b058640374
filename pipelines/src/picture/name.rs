//! File names from prompts.

use std::collections::{HashMap, HashSet};

use embeddings::composed;
use embeddings::file::hex;
use sha2::{Digest as _, Sha256};

/// Bytes of the prompt's part: with seed, number and extension a name stays under the 143 of encrypted file systems.
const MAX_BYTES: usize = 100;
/// Digits of a prompt's hash that tell it from others of the same words.
const DIGITS: usize = 8;

/// The prompt's part of its pictures' names, for each of `prompts`: its words, and a few digits of its hash where the words
/// are cut, `reserved`, or those of another prompt too. So no two prompts share a name, whatever their order.
///
/// Names count as one where a file system that ignores case or the composition of letters would take them for one.
pub fn names<'a>(prompts: impl Iterator<Item = &'a str> + Clone, reserved: &[&str]) -> Vec<String> {
    let mut prompts_of = HashMap::<String, HashSet<_>>::new();
    for prompt in prompts.clone() {
        prompts_of.entry(folded(&words(prompt).0)).or_default().insert(composed(prompt));
    }
    let name = |prompt: &str| {
        let (words, whole) = words(prompt);
        let key = folded(&words);
        // Of several prompts the one that is spelt as the name keeps it.
        let own = prompts_of[&key].len() == 1
            || (words == key && *composed(prompt) == words.replace('-', " "));
        let plain = whole && own && !reserved.contains(&key.as_str());
        if plain { words } else { hashed(&words, prompt) }
    };
    prompts.map(name).collect()
}

/// A file name without extension: the name of a prompt by itself, and the seed, which keeps names that a system reserves
/// (`con`, `nul`) ordinary.
pub fn slug(prompt: &str, seed: u64) -> String {
    format!("{}-{seed}", names(std::iter::once(prompt), &[])[0])
}

/// The words of a prompt in lower case, joined by `-`, and whether that is all of them. Letters and digits of every script
/// stay; all else, the placeholder's `<` and `>` included, separates words.
fn words(prompt: &str) -> (String, bool) {
    let (mut words, mut whole) = (String::new(), true);
    for character in composed(prompt).chars().flat_map(char::to_lowercase) {
        let kept = character.is_alphanumeric() || is_mark(character);
        let next = if kept { character } else { '-' };
        if words.len() + next.len_utf8() > MAX_BYTES {
            whole = false;
            break;
        }
        if kept || !(words.is_empty() || words.ends_with('-')) {
            words.push(next);
        }
    }
    words.truncate(words.trim_end_matches('-').len());
    if words.is_empty() {
        words.push_str("picture");
    }
    (words, whole)
}

/// Words cut to leave room for digits of the prompt's hash.
fn hashed(words: &str, prompt: &str) -> String {
    let digits = hex(&Sha256::digest(composed(prompt).as_bytes()));
    let room = MAX_BYTES - 1 - DIGITS;
    let end = (0..=words.len().min(room)).rfind(|&i| words.is_char_boundary(i)).unwrap_or(0);
    format!("{}-{}", words[..end].trim_end_matches('-'), &digits[..DIGITS])
}

/// A name as file systems compare it that ignore case: `ς` and `σ` are one there, and so are `ß` and `ss`.
fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Marks that belong to the letter before them and are no letters themselves: accents, viramas, tone marks.
fn is_mark(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36f}' | '\u{900}'..='\u{963}' | '\u{981}'..='\u{dff}' | '\u{e31}'..='\u{fbc}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prompt_becomes_words_and_seed() {
        assert_eq!(
            slug("A photo of <my-cat>, in the (snow:1.3)!", 7),
            "a-photo-of-my-cat-in-the-snow-1-3-7"
        );
        assert_eq!(slug("../../etc/passwd", 1), "etc-passwd-1");
        assert_eq!(slug("", 3), "picture-3");
        assert_eq!(slug("CON", 0), "con-0");
    }

    #[test]
    fn prompts_of_other_scripts_keep_their_letters() {
        assert_eq!(slug("雪の中の<猫>", 1), "雪の中の-猫-1");
        assert_eq!(slug("Кот в снегу", 1), "кот-в-снегу-1");
        assert_eq!(slug("हिन्दी बिल्ली", 1), "हिन्दी-बिल्ली-1");
        assert_eq!(slug("cafe\u{301} noir", 1), "caf\u{e9}-noir-1");
        assert_eq!(slug("cafe\u{301} noir", 1), slug("caf\u{e9} noir", 1));
    }

    fn names_of(prompts: &[&str]) -> Vec<String> {
        names(prompts.iter().copied(), &["grid"])
    }

    #[test]
    fn prompts_of_the_same_words_have_names_of_their_own_whatever_their_order() {
        let prompts = ["a b", "a-b", "A b", "a  b", "a b!", "a <b>", "c", "a b"];
        let found = names_of(&prompts);
        assert_eq!((found[0].as_str(), found[6].as_str()), ("a-b", "c"));
        assert_eq!(found[0], found[7], "one prompt, one name");
        let different: HashSet<_> = found.iter().collect();
        assert_eq!(different.len(), 7, "{found:?}");
        let backwards: Vec<_> = prompts.iter().rev().copied().collect();
        let mut again = names_of(&backwards);
        again.reverse();
        assert_eq!(again, found);
    }

    #[test]
    fn prompts_that_begin_alike_and_names_that_are_taken_get_names_of_their_own() {
        let long = "snow ".repeat(40);
        let found = names_of(&[&format!("{long} one"), &format!("{long} two"), "grid", "Grid"]);
        let different: HashSet<_> = found.iter().chain([&"grid".to_owned()]).cloned().collect();
        assert_eq!(different.len(), 5, "{found:?}");
        assert_eq!(found[0], names_of(&[&format!("{long} one")])[0], "also by itself");
    }

    #[test]
    fn names_differ_where_case_does_not_count() {
        for (one, other) in [("όσος", "όσοσ"), ("weiße maus", "weisse maus"), ("Кот", "кот")]
        {
            let found = names_of(&[one, other]);
            assert_ne!(folded(&found[0]), folded(&found[1]), "{found:?}");
        }
        let found = names_of(&["caf\u{e9}", "cafe\u{301}"]);
        assert_eq!(found[0], found[1], "which are one prompt");
    }

    #[test]
    fn two_long_prompts_differ_by_seed() {
        assert_ne!(slug(&"word ".repeat(100), 1), slug(&"word ".repeat(100), 2));
    }

    proptest! {
        #[test]
        fn a_slug_is_a_safe_file_name(prompt in any::<String>(), seed in any::<u64>()) {
            let name = slug(&prompt, seed);
            prop_assert!(name.len() <= MAX_BYTES + 21);
            prop_assert!(!name.starts_with(['-', '.']) && !name.contains("--"));
            let unsafe_character = |c: char| c.is_control() || c.is_whitespace() || "<>:\"/\\|?*.".contains(c);
            prop_assert!(!name.contains(unsafe_character), "{name:?}");
            let end = format!("-{seed}");
            prop_assert!(name.ends_with(&end), "{name:?}");
        }
    }
}
