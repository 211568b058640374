//! The tokenizer and prompts against transformers' `CLIPTokenizer` (`scripts/fixtures/tokens.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use embeddings::{Overflow, PromptTokens, TextualInversion};
use models::tokenizer::Tokenizer;
use parity::FAMILIES;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

#[derive(Deserialize)]
struct Told {
    cases: Vec<Case>,
    concept_cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    /// Start and end included, neither padded nor cut.
    ids: Vec<i64>,
    /// Cut or padded to 77.
    #[serde(default)]
    padded: Vec<i64>,
}

fn told(family: &str) -> Told {
    let family = if family.contains('/') { family.to_owned() } else { format!("{family}/") };
    let file = parity::path(&format!("{family}tokenizer_cases.json"));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn tokenizer(family: &str) -> Tokenizer {
    Tokenizer::open(&parity::path(&format!("{family}/tokenizer"))).unwrap()
}

fn framed(tokenizer: &Tokenizer, text: &str) -> Vec<i64> {
    let mut ids = tokenizer.encode(text);
    ids.insert(0, tokenizer.start());
    ids.push(tokenizer.end());
    ids
}

#[test]
fn awkward_texts_get_python_s_ids() {
    for family in FAMILIES {
        let (told, tokenizer) = (told(family), tokenizer(family));
        assert!(told.cases.len() >= 30);
        for case in told.cases {
            assert_eq!(framed(&tokenizer, &case.text), case.ids, "{family} {:?}", case.text);
        }
    }
}

#[test]
fn a_tokenizer_that_transformers_saved_gives_the_same_ids() {
    for family in FAMILIES {
        let folder = parity::path(&format!("{family}/saved_tokenizer"));
        let (saved, published) = (Tokenizer::open(&folder).unwrap(), tokenizer(family));
        assert_eq!(saved.pad(), published.pad());
        assert_eq!(saved.length(), published.length());
        for case in told(family).cases {
            assert_eq!(framed(&saved, &case.text), case.ids, "{family} {:?}", case.text);
        }
    }
}

/// As published `special_tokens_map.json` says what pads; where transformers listed added tokens it is
/// `tokenizer_config.json`.
#[test]
fn the_file_that_python_follows_says_what_pads() {
    let published = tokenizer("sd2");
    assert_eq!((published.pad(), published.pad_is_disputed()), (0, true));
    let resaved = Tokenizer::open(&parity::path("sd2/resaved_tokenizer")).unwrap();
    assert_eq!((resaved.pad(), resaved.pad_is_disputed()), (resaved.end(), true));
    assert!(!tokenizer("sd1").pad_is_disputed());
}

#[test]
fn added_tokens_have_the_places_that_python_gives_them() {
    let tokenizer = Tokenizer::open(&parity::path("sd2/resaved_tokenizer")).unwrap();
    for case in told("sd2/resaved_").cases {
        assert_eq!(framed(&tokenizer, &case.text), case.ids, "{:?}", case.text);
    }
}

#[test]
fn prompts_are_cut_and_padded_as_python_does() {
    for family in FAMILIES {
        let tokenizer = tokenizer(family);
        // `<|…|>` in a prompt is refused as a concept that is not loaded.
        for case in told(family).cases.into_iter().filter(|case| !case.text.contains("<|")) {
            let prompt =
                PromptTokens::new(&case.text, &[], &tokenizer, Overflow::Truncate).unwrap();
            assert_eq!(prompt.ids, case.padded, "{family} {:?}", case.text);
        }
    }
}

#[test]
fn a_concept_of_two_vectors_takes_the_places_of_python_s_added_tokens() {
    let vectors = Tensor::zeros([2, 8], (Kind::Float, Device::Cpu));
    let concept = TextualInversion::new("<cat>", &vectors);
    for family in FAMILIES {
        let tokenizer = tokenizer(family);
        for case in told(family).concept_cases {
            let prompt =
                PromptTokens::new(&case.text, &[&concept], &tokenizer, Overflow::Refuse).unwrap();
            let mut ids = prompt.ids[..=prompt.end].to_vec();
            for slot in &prompt.slots {
                ids[slot.position] = 1024 + slot.vector as i64; // Python's ids for <cat> and <cat>_1
            }
            assert_eq!(ids, case.ids, "{family} {:?}", case.text);
        }
    }
}
