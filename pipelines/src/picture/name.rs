//! File names from prompts.

/// Bytes of the prompt's part: with seed, number and extension a name stays under the 143 of encrypted file systems.
const MAX_BYTES: usize = 100;

/// A file name without extension: the prompt's words in lower case, joined by `-`, and the seed.
///
/// Letters and digits of every script stay; all else, the placeholder's `<` and `>` included, separates words. The seed
/// at the end keeps names that a system reserves (`con`, `nul`) ordinary.
pub fn slug(prompt: &str, seed: u64) -> String {
    let mut words = String::new();
    for character in prompt.chars().flat_map(char::to_lowercase) {
        let kept = character.is_alphanumeric() || is_mark(character);
        let next = if kept { character } else { '-' };
        if words.len() + next.len_utf8() > MAX_BYTES {
            break;
        }
        if kept || !(words.is_empty() || words.ends_with('-')) {
            words.push(next);
        }
    }
    let words = words.trim_end_matches('-');
    format!("{}-{seed}", if words.is_empty() { "picture" } else { words })
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
        assert_eq!(slug("cafe\u{301} noir", 1), "cafe\u{301}-noir-1");
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
