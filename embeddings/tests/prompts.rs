//! Prompts with concepts in them: where slots stand, what is refused, and what CLIP is given.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::{Path, PathBuf};
use std::rc::Rc;

use embeddings::{
    Concept, Conditioner, Overflow, PromptError, PromptTokens, TextualInversion, check_placeholder,
    placeholders_in,
};
use models::clip::{ClipText, ClipTextConfig};
use models::params::Params;
use models::seeded::Seeded;
use models::tokenizer::Tokenizer;
use models::unet::CrossAttnContext;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

const WIDTH: i64 = 64;

fn fixtures(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(family)
}

fn tokenizer(family: &str) -> Tokenizer {
    Tokenizer::open(&fixtures(family).join("tokenizer")).unwrap()
}

fn concept(placeholder: &str, vectors: i64) -> TextualInversion {
    let values = Generator::cpu(3).randn(&[vectors, WIDTH]) * 0.02;
    TextualInversion::new(placeholder, &values)
}

fn tokens(prompt: &str, concepts: &[&dyn Concept]) -> Result<PromptTokens, PromptError> {
    PromptTokens::new(prompt, concepts, &tokenizer("sd1"), Overflow::Refuse)
}

fn conditioner() -> Conditioner {
    let config = std::fs::read_to_string(fixtures("sd1").join("text_encoder/config.json")).unwrap();
    let config: ClipTextConfig = serde_json::from_str(&config).unwrap();
    let source = Seeded::new("text_encoder", Seeded::BASE_SEED, Kind::Float, Device::Cpu);
    let clip = ClipText::new(&Params::root(&source), &config);
    Conditioner::new(tokenizer("sd1"), clip, 0)
}

fn shared(context: CrossAttnContext) -> Tensor {
    match context {
        CrossAttnContext::Shared(kv) => kv.key,
        CrossAttnContext::PerLayer(_) => panic!("textual inversion has one context"),
    }
}

#[test]
fn a_concept_takes_as_many_positions_as_it_has_vectors() {
    let cat = concept("<cat>", 3);
    let found = tokens("a photo of <cat> in the snow", &[&cat]).unwrap();
    let positions: Vec<usize> = found.slots.iter().map(|s| s.position).collect();
    let vectors: Vec<usize> = found.slots.iter().map(|s| s.vector).collect();
    let before = tokenizer("sd1").encode("a photo of").len() + 1;
    assert_eq!(positions, [before, before + 1, before + 2]);
    assert_eq!(vectors, [0, 1, 2]);
    assert_eq!(found.ids[found.end], tokenizer("sd1").end());
}

#[test]
fn the_words_around_a_concept_are_those_around_any_word() {
    let cat = concept("<cat>", 1);
    let with = tokens("a photo of <cat> in the snow", &[&cat]).unwrap();
    let without = tokens("a photo of a in the snow", &[]).unwrap();
    let slot = with.slots[0].position;
    for (i, (a, b)) in with.ids.iter().zip(&without.ids).enumerate() {
        assert!(i == slot || a == b, "position {i}");
    }
}

#[test]
fn a_concept_may_stand_first_last_and_twice_and_in_capitals() {
    let cat = concept("<cat>", 1);
    let found = tokens("<cat> beside <CAT>", &[&cat]).unwrap();
    assert_eq!(found.slots.len(), 2);
    assert_eq!((found.slots[0].position, found.slots[1].position + 1), (1, found.end));
}

#[test]
fn a_concept_is_found_in_either_case_of_any_script_and_however_its_letters_are_composed() {
    let (cat, cafe) = (concept("<КОТ>", 1), concept("<cafe\u{301}>", 1));
    let found = tokens("<кот> in a <CAF\u{c9}>", &[&cat, &cafe]).unwrap();
    assert_eq!(found.slots.iter().map(|s| s.concept).collect::<Vec<_>>(), [0, 1]);
    let error = tokens("a <cafe>", &[&cafe]).unwrap_err();
    assert!(matches!(error, PromptError::UnknownConcept { .. }), "{error}");
}

#[test]
fn a_prompt_is_the_same_however_its_letters_are_composed() {
    let (one, two) = (tokens("a caf\u{e9}", &[]).unwrap(), tokens("a cafe\u{301}", &[]).unwrap());
    assert_eq!(one, two);
}

#[test]
fn the_longer_of_two_names_wins_and_a_plain_word_must_stand_alone() {
    let (cat, category) = (concept("cat", 1), concept("cat-toy", 1));
    let found = tokens("a cat-toy and a cat in a category", &[&cat, &category]).unwrap();
    assert_eq!(found.slots.iter().map(|s| s.concept).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn a_word_in_brackets_that_is_no_concept_is_named() {
    let cat = concept("<cat>", 1);
    let error = tokens("a <dog> and a <cat>", &[&cat]).unwrap_err().to_string();
    assert!(error.contains("<dog>") && error.contains("<cat>"), "{error}");
    assert!(tokens("3 < 5 and 7 > 5, <>", &[&cat]).is_ok());
}

#[test]
fn a_prompt_that_is_too_long_names_what_is_beyond_the_end() {
    let prompt = format!("{} the very last words", "snow ".repeat(80));
    let error = tokens(&prompt, &[]).unwrap_err();
    let PromptError::TooLong { limit, beyond, .. } = error else { panic!("{error}") };
    assert_eq!(limit, 75);
    assert!(beyond.ends_with("the very last words"), "{beyond}");
}

#[test]
fn truncation_keeps_the_end_token_and_refuses_to_cut_a_concept() {
    let (cat, tokenizer) = (concept("<cat>", 1), tokenizer("sd1"));
    let cut = |prompt: &str| PromptTokens::new(prompt, &[&cat], &tokenizer, Overflow::Truncate);
    let found = cut(&"snow ".repeat(80)).unwrap();
    assert_eq!((found.ids.len(), found.end, found.ids[76]), (77, 76, tokenizer.end()));
    assert_eq!(found.cut, "snow snow snow snow snow");
    assert_eq!(cut("snow").unwrap().cut, "");
    let lost = cut(&format!("{}<cat>", "snow ".repeat(80))).unwrap_err();
    assert!(matches!(lost, PromptError::ConceptCutOff { .. }), "{lost}");
}

#[test]
fn what_does_not_help_against_a_long_prompt_is_not_advised() {
    let (cat, many, half) = (concept("<cat>", 1), concept("<many>", 80), concept("<half>", 40));
    let said = |prompt: &str, overflow| {
        let concepts: [&dyn Concept; 3] = [&cat, &many, &half];
        PromptTokens::new(prompt, &concepts, &tokenizer("sd1"), overflow).unwrap_err().to_string()
    };
    let snow = "snow ".repeat(80);
    assert!(said(&snow, Overflow::Refuse).contains("--truncate"));
    let behind = said(&format!("{snow}<cat>"), Overflow::Refuse);
    assert!(behind.contains("shorten") && !behind.contains("--truncate"), "{behind}");
    for overflow in [Overflow::Refuse, Overflow::Truncate] {
        let alone = said("a <many>", overflow);
        assert!(alone.contains("<many> has 80 vectors, but a prompt has room for 75"), "{alone}");
        let both = said("<half> <half>", overflow);
        assert!(both.contains("take 80 tokens together, but 75 fit"), "{both}");
        for said in [alone, both] {
            assert!(!said.contains("shorten") && !said.contains("truncate"), "{said}");
        }
    }
}

#[test]
fn padding_is_the_end_token_in_sd1_and_an_exclamation_mark_in_sd2() {
    let last = |family: &str| {
        let tokenizer = tokenizer(family);
        let ids = PromptTokens::new("snow", &[], &tokenizer, Overflow::Refuse).unwrap().ids;
        (ids[76], tokenizer.end())
    };
    let (pad, end) = last("sd1");
    assert_eq!(pad, end);
    assert_eq!(last("sd2").0, 0);
}

#[test]
fn the_gradient_reaches_every_vector_of_a_concept_and_nothing_else() {
    let conditioner = conditioner();
    let cat = concept("<cat>", 2).trainable();
    let prompt = tokens("a <cat> beside a <cat>", &[&cat]).unwrap();
    let context = shared(conditioner.encode(&[&prompt], &[&cat]));
    let loss = context.square().sum(Kind::Float);
    let gradient = &Tensor::run_backward(&[loss], &[cat.vectors()], false, false)[0];
    let norms = gradient.norm_scalaropt_dim(2, [-1], false);
    assert!(norms.min().double_value(&[]) > 1e-3, "{norms}");
    assert!(!conditioner.token_table().requires_grad());
}

#[test]
fn the_vectors_of_ordinary_words_give_the_context_of_those_words() {
    let conditioner = conditioner();
    let ids = tokenizer("sd1").encode("cat");
    let row = conditioner.token_table().index_select(0, &Tensor::from_slice(&ids));
    let cat = TextualInversion::new("<x>", &row);
    let with = tokens("a photo of <x> in the snow", &[&cat]).unwrap();
    let plain = tokens("a photo of cat in the snow", &[]).unwrap();
    let (with, plain) = (conditioner.encode(&[&with], &[&cat]), conditioner.encode(&[&plain], &[]));
    let apart = (shared(with) - shared(plain)).abs().max().double_value(&[]);
    assert!(apart < 1e-6, "{apart}");
}

#[test]
fn a_prompt_without_concepts_does_not_depend_on_its_neighbours_in_a_batch() {
    let conditioner = conditioner();
    let cat = concept("<cat>", 2);
    let (with, plain) = (tokens("a <cat>", &[&cat]).unwrap(), tokens("a dog", &[&cat]).unwrap());
    let both = shared(conditioner.encode(&[&with, &plain], &[&cat]));
    let alone = shared(conditioner.encode(&[&plain], &[&cat]));
    let apart = (both.narrow(0, 1, 1) - alone).abs().max().double_value(&[]);
    assert!(apart < 1e-5, "{apart}");
}

#[test]
fn names_that_no_tokenizer_could_find_are_refused() {
    for name in ["", " ", "<a b>", "<|endoftext|>", "../x", "<>", "a\u{7}"] {
        assert!(check_placeholder(name).is_err(), "{name:?}");
    }
    for name in ["<cat>", "sks", "*cat*", "<猫>"] {
        assert!(check_placeholder(name).is_ok(), "{name:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_tokenising_panic(text in "\\PC{0,400}", name in "[<a-z>]{1,6}") {
        let cat = concept(&name, 2);
        for overflow in [Overflow::Refuse, Overflow::Truncate] {
            let tokenizer = TOKENIZER.with(Rc::clone);
            if let Ok(found) = PromptTokens::new(&text, &[&cat], &tokenizer, overflow) {
                prop_assert_eq!(found.ids.len(), 77);
                prop_assert!(found.slots.iter().all(|slot| slot.position < found.end));
            }
        }
        let _ = placeholders_in(&text).count();
    }
}

thread_local! {
    static TOKENIZER: Rc<Tokenizer> = Rc::new(tokenizer("sd1"));
}
