//! A prompt with a concept beside the same prompt with its class: the context of both is the same words.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;

use embeddings::{Concept, Overflow, PromptError, PromptPair, PromptTokens, TextualInversion};
use models::tokenizer::Tokenizer;
use tch::{Device, Kind, Tensor};

fn tokenizer(family: &str) -> Tokenizer {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    Tokenizer::open(&fixtures.join(family).join("tokenizer")).unwrap()
}

fn concept(placeholder: &str, vectors: i64) -> TextualInversion {
    TextualInversion::new(placeholder, &Tensor::zeros([vectors, 4], (Kind::Float, Device::Cpu)))
}

fn pair(
    prompt: &str,
    concepts: &[&dyn Concept],
    classes: &[Vec<i64>],
    tokenizer: &Tokenizer,
) -> Result<PromptPair, PromptError> {
    let object = PromptTokens::new(prompt, concepts, tokenizer, Overflow::Refuse).unwrap();
    PromptPair::new(object, prompt, classes, tokenizer)
}

fn at(tokens: &PromptTokens, positions: &[i64]) -> Vec<i64> {
    positions.iter().map(|&position| tokens.ids[position as usize]).collect()
}

#[test]
fn contexts_are_the_same_words_for_all_lengths_and_places() {
    // The families differ in their padding: the end token, and `!`.
    for family in ["sd1", "sd2"] {
        let tokenizer = tokenizer(family);
        for prompt in ["<x> asleep in the snow", "a photo of <x> at night", "a drawing of <x>"] {
            let words = prompt.replace("<x>", "");
            let around = tokenizer.encode(&words);
            for (vectors, words) in (1..=3).flat_map(|v| (1..=3).map(move |r| (v, r))) {
                let class = vec![300; words];
                let x = concept("<x>", vectors);
                let pair = pair(prompt, &[&x], &[class], &tokenizer).unwrap();

                let expected = [&[tokenizer.start()], &around[..], &[tokenizer.end()]].concat();
                assert_eq!(at(&pair.object, &pair.object_context), expected);
                assert_eq!(at(&pair.reference, &pair.reference_context), expected);
                assert_eq!(pair.object.end, around.len() + 1 + vectors as usize);
                assert_eq!(pair.reference.end, around.len() + 1 + words);
                assert_eq!(pair.object_context.last(), Some(&(pair.object.end as i64)));
                assert_eq!(pair.reference_context.last(), Some(&(pair.reference.end as i64)));
                assert!(pair.reference.slots.is_empty());
                assert_eq!(pair.reference.ids.iter().filter(|&&id| id == 300).count(), words);
                let rest = &pair.reference.ids[pair.reference.end + 1..];
                assert!(rest.iter().all(|&id| id == tokenizer.pad()));
            }
        }
    }
}

#[test]
fn the_reference_is_the_prompt_with_its_class_as_a_user_would_type_it() {
    let tokenizer = tokenizer("sd1");
    let (x, y) = (concept("<x>", 2), concept("<y>", 1));
    let classes = [tokenizer.encode("teddy bear"), tokenizer.encode("dog")];
    let prompt = "a <x> with <y> and a second <x> behind";
    let pair = pair(prompt, &[&x, &y], &classes, &tokenizer).unwrap();
    let typed = "a teddy bear with dog and a second teddy bear behind";
    let typed = PromptTokens::new(typed, &[], &tokenizer, Overflow::Refuse).unwrap();
    assert_eq!(pair.reference, typed);
}

#[test]
fn a_class_that_does_not_fit_is_refused() {
    let tokenizer = tokenizer("sd1");
    let x = concept("<x>", 1);
    let error = pair("a <x>", &[&x], &[vec![300; 75]], &tokenizer).unwrap_err().to_string();
    assert!(error.contains("'a <x>'") && error.contains("75 fit"), "{error}");
}
