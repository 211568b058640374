//! The prompts as CLIP reads them.

use embeddings::replace_word;

use super::{ClipTextPolicy, Metric};
use crate::templates::SLOT;

/// The prompts as CLIP reads them: by the policy, and always with the concepts dropped.
pub(super) fn texts(
    templates: &[String],
    words: &[(String, Option<String>)],
    policy: ClipTextPolicy,
) -> Vec<(Metric, Vec<String>)> {
    let with = |policy: ClipTextPolicy| {
        let stand_in = |(word, class): &(String, Option<String>)| match policy {
            ClipTextPolicy::Class => class.clone().unwrap_or_default(),
            ClipTextPolicy::Drop => String::new(),
            ClipTextPolicy::Literal => word.clone(),
        };
        let text = |template: &String| {
            let first = words.first().map(stand_in).unwrap_or_default();
            let filled = template.replace(SLOT, &first);
            let rest = words.iter().skip(1);
            let all = rest.fold(filled, |text, word| replace_word(&text, &word.0, &stand_in(word)));
            all.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        templates.iter().map(text).collect::<Vec<_>>()
    };
    let mut texts = Vec::new();
    match policy {
        ClipTextPolicy::Class => texts.push((Metric::ClipTClass, with(policy))),
        ClipTextPolicy::Literal => texts.push((Metric::ClipTLiteral, with(policy))),
        ClipTextPolicy::Drop => {}
    }
    texts.push((Metric::ClipTDrop, with(ClipTextPolicy::Drop)));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_concept_s_place_takes_the_class_nothing_or_the_word() {
        let templates = ["a {} in the <Ink> style".to_owned()];
        let words = [("<cat>".to_owned(), Some("cat".to_owned())), ("<ink>".to_owned(), None)];
        let text = |policy, metric| {
            let all = texts(&templates, &words, policy);
            all.into_iter().find(|(found, _)| *found == metric).unwrap().1[0].clone()
        };
        assert_eq!(text(ClipTextPolicy::Class, Metric::ClipTClass), "a cat in the style");
        assert_eq!(text(ClipTextPolicy::Class, Metric::ClipTDrop), "a in the style");
        assert_eq!(text(ClipTextPolicy::Drop, Metric::ClipTDrop), "a in the style");
        assert_eq!(
            text(ClipTextPolicy::Literal, Metric::ClipTLiteral),
            "a <cat> in the <ink> style"
        );
    }
}
