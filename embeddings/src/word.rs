//! Finding a concept's word in a text, whatever its case and however its letters are composed.

use std::borrow::Cow;
use std::ops::Range;

use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// Composes letters with their accents (NFC), as CLIP's tokenizer does: keyboards and systems write `é` as one character
/// or as two.
pub fn composed(text: &str) -> Cow<'_, str> {
    if is_nfc(text) { text.into() } else { text.nfc().collect::<String>().into() }
}

/// Says whether a prompt takes two words for the same.
pub fn same_word(a: &str, b: &str) -> bool {
    lower(&composed(a)).eq(lower(&composed(b)))
}

/// Puts `replacement` wherever `word` stands in a text, which is composed besides.
pub fn replace_word(text: &str, word: &str, replacement: &str) -> String {
    let (text, word) = (composed(text), composed(word));
    let (mut replaced, mut rest) = (String::new(), 0);
    while let Some(found) = find(&text, rest, &word) {
        replaced.push_str(&text[rest..found.start]);
        replaced.push_str(replacement);
        rest = found.end;
    }
    replaced + &text[rest..]
}

/// Finds `word` at or after a byte of `text`; both are composed.
fn find(text: &str, from: usize, word: &str) -> Option<Range<usize>> {
    let at = |(offset, _)| {
        let start = from + offset;
        Some(start..start + length_at(text, start, word)?)
    };
    text[from..].char_indices().find_map(at)
}

/// The bytes that `word` takes where it stands at a byte of `text`; both are composed. A word without brackets must stand
/// alone: "cat" is not in "category".
pub(crate) fn length_at(text: &str, at: usize, word: &str) -> Option<usize> {
    let length = prefix(&text[at..], word)?;
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let next = text[at + length..].chars().next();
    let before = letter(text[..at].chars().next_back()) && letter(word.chars().next());
    let after =
        (letter(next) || next.is_some_and(is_combining_mark)) && letter(word.chars().next_back());
    (!before && !after).then_some(length)
}

/// The bytes of `text` that are `word` but for case; `None` where it begins otherwise.
fn prefix(text: &str, word: &str) -> Option<usize> {
    let mut wanted = lower(word).peekable();
    for (at, character) in text.char_indices() {
        if wanted.peek().is_none() {
            return Some(at);
        }
        if !character.to_lowercase().all(|small| wanted.next() == Some(small)) {
            return None;
        }
    }
    wanted.peek().is_none().then_some(text.len())
}

fn lower(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_composition_do_not_count_in_any_script() {
        for (a, b) in [
            ("<Cat>", "<cAT>"),
            ("<КОТ>", "<кот>"),
            ("<café>", "<CAFE\u{301}>"),
            ("<v\u{ea}\u{323}t>", "<vệt>"), // as a Vietnamese keyboard writes it
            ("<각>", "<\u{1100}\u{1161}\u{11a8}>"),
        ] {
            assert!(same_word(a, b) && same_word(b, a), "{a} {b}");
        }
        assert!(!same_word("<cat>", "<cats>") && !same_word("<cafe>", "<café>"));
    }

    #[test]
    fn a_word_is_replaced_where_it_stands_alone() {
        assert_eq!(
            replace_word("Cat, a cat in a category", "cat", "dog"),
            "dog, a dog in a category"
        );
        assert_eq!(replace_word("two <CAFE\u{301}>s", "<café>", "{}"), "two {}s");
        assert_eq!(replace_word("a cat\u{353} here", "cat", "dog"), "a cat\u{353} here");
        assert_eq!(replace_word("nothing", "<x>", "y"), "nothing");
    }
}
