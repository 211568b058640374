//! CLIP's byte-pair tokenizer, from `vocab.json` and `merges.txt` or from `tokenizer.json`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::normalizers::{
    Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use crate::ModelError;
use crate::config::read_text;

const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Text to token ids and back.
pub struct Tokenizer {
    inner: HfTokenizer,
    start: i64,
    end: i64,
    pad: i64,
    disputed: bool,
    length: usize,
}

/// A token that stands apart from the vocabulary's: a special one, or a word that was added to it.
#[derive(Deserialize)]
struct Added {
    /// In a list; elsewhere the key that it stands under.
    #[serde(default)]
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

/// What `tokenizer_config.json` says; `special_tokens_map.json` has the tokens alone.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Settings {
    #[serde(deserialize_with = "word")]
    bos_token: Option<String>,
    #[serde(deserialize_with = "word")]
    eos_token: Option<String>,
    #[serde(deserialize_with = "word")]
    unk_token: Option<String>,
    #[serde(deserialize_with = "word")]
    pad_token: Option<String>,
    model_max_length: Option<f64>,
    added_tokens_decoder: Option<BTreeMap<u32, Added>>,
}

/// A token is a word, or an object that holds it.
fn word<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Token {
        Word(String),
        Object { content: String },
    }
    let token = Option::<Token>::deserialize(from)?;
    Ok(token.map(|token| match token {
        Token::Word(word) | Token::Object { content: word } => word,
    }))
}

/// The special tokens by both files of settings.
struct Special {
    start: String,
    end: String,
    unknown: String,
    pad: String,
    /// Whether the files name different padding.
    disputed: bool,
}

impl Special {
    /// As transformers 4 and 5 do it: `special_tokens_map.json` counts, unless the other file lists added tokens, as those
    /// do that were saved since 2023. The published SD 2.x pad with `!` by the map alone.
    fn new(config: &Settings, map: &Settings) -> Self {
        let listed = config.added_tokens_decoder.is_some();
        let pick = |key: fn(&Settings) -> &Option<String>, default: &str| {
            let (config, map) = (key(config).as_ref(), key(map).as_ref());
            let counts = if listed { config } else { map.or(config) };
            counts.map_or(default, String::as_str).to_owned()
        };
        Self {
            start: pick(|settings| &settings.bos_token, START),
            end: pick(|settings| &settings.eos_token, END),
            unknown: pick(|settings| &settings.unk_token, END),
            pad: pick(|settings| &settings.pad_token, END),
            disputed: config.pad_token.is_some()
                && map.pad_token.is_some()
                && config.pad_token != map.pad_token,
        }
    }
}

/// The byte-pair model of a `tokenizer.json`: all else in it is CLIP's own, or transformers does not read it.
#[derive(Deserialize)]
struct Saved {
    model: SavedModel,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct SavedModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// A pair, or both of it in one text, as older files have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Text(String),
}

impl Tokenizer {
    /// Reads a `tokenizer/` folder: `vocab.json` and `merges.txt`, or the `tokenizer.json` that transformers 5
    /// writes instead; special and added tokens and the length from `tokenizer_config.json`,
    /// `special_tokens_map.json` and `added_tokens.json`.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let config: Settings = optional(folder, "tokenizer_config.json")?.unwrap_or_default();
        let map: Settings = optional(folder, "special_tokens_map.json")?.unwrap_or_default();
        let special = Special::new(&config, &map);
        let (vocabulary, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
        let mut added = Vec::new();
        let (model, source) = if vocabulary.is_file() && merges.is_file() {
            let text = |path: &Path| path.to_string_lossy().into_owned();
            (BPE::from_file(&text(&vocabulary), &text(&merges)), vocabulary)
        } else if let Some(saved) = optional::<Saved>(folder, "tokenizer.json")? {
            let source = folder.join("tokenizer.json");
            if saved.model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
                let what = "not CLIP's: its model is no byte-pair encoding; use the tokenizer of the model";
                return Err(ModelError::invalid(&source, what));
            }
            added = saved.added_tokens;
            (saved.model.builder(), source)
        } else {
            let broken =
                [&vocabulary, &merges].into_iter().find_map(|path| ModelError::dangling(path));
            return Err(broken.unwrap_or_else(|| ModelError::Missing {
                path: folder.to_owned(),
                what: "CLIP's vocabulary".into(),
                hint: "a model folder has tokenizer/vocab.json and tokenizer/merges.txt, or \
                       tokenizer/tokenizer.json"
                    .into(),
            }));
        };
        let mut inner = clip(model, &special.unknown)
            .map_err(|e| ModelError::invalid(&source, format!("not CLIP's vocabulary: {e}")))?;
        let id = |token: &str| {
            inner.token_to_id(token).map(i64::from).ok_or_else(|| {
                ModelError::invalid(&source, format!("the token {token} is not in it"))
            })
        };
        id(&special.unknown)?;
        let (start, end, pad) = (id(&special.start)?, id(&special.end)?, id(&special.pad)?);
        match config.added_tokens_decoder {
            Some(listed) => {
                added = listed.into_iter().map(|(id, token)| Added { id, ..token }).collect();
            }
            None => added.extend(added_words(folder)?),
        }
        add(&mut inner, added, &special).map_err(|what| ModelError::invalid(folder, what))?;
        let length = match config.model_max_length {
            // 1e30 is how Python writes that there is no limit.
            None => 77,
            Some(length) if length >= 1e4 => 77,
            Some(length) if length >= 3.0 => length as usize,
            Some(length) => {
                let what = format!(
                    "model_max_length is {length}, but a prompt has at least 3 tokens; use the file of the model"
                );
                return Err(ModelError::invalid(&folder.join("tokenizer_config.json"), what));
            }
        };
        Ok(Self { inner, start, end, pad, disputed: special.disputed, length })
    }

    /// The ids of a text alone: no start, no end, no padding, no limit.
    pub fn encode(&self, text: &str) -> Vec<i64> {
        self.encode_spans(text).into_iter().map(|(id, _)| id).collect()
    }

    /// [`Tokenizer::encode`] with the bytes of `text` that each token stands for.
    pub fn encode_spans(&self, text: &str) -> Vec<(i64, Range<usize>)> {
        let encoding = self.inner.encode(text, false);
        let encoding = encoding.expect("byte-level BPE with an unknown token encodes any text");
        let spans = encoding.get_offsets().iter().map(|&(from, to)| from..to);
        encoding.get_ids().iter().map(|&id| i64::from(id)).zip(spans).collect()
    }

    /// The word, or the part of one, behind an id; nothing where there is none.
    pub fn word(&self, id: i64) -> Option<String> {
        let token = self.inner.id_to_token(u32::try_from(id).ok()?)?;
        Some(token.trim_end_matches("</w>").to_owned())
    }

    /// How many ids there are: one more than the largest.
    pub fn ids(&self) -> i64 {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| i64::from(id) + 1)
    }

    /// The id before every prompt.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The id after every prompt.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The id that fills a prompt up: the end token in SD 1.x, `!` in SD 2.x.
    pub fn pad(&self) -> i64 {
        self.pad
    }

    /// Whether `tokenizer_config.json` and `special_tokens_map.json` name different padding. Programs differ in which of
    /// them they follow, and so did this one.
    pub fn pad_is_disputed(&self) -> bool {
        self.disputed
    }

    /// S, the length of a padded prompt, start and end included: 77.
    pub fn length(&self) -> usize {
        self.length
    }
}

impl SavedModel {
    fn builder(self) -> BpeBuilder {
        let merges = self.merges.into_iter().map(|merge| match merge {
            Merge::Pair(left, right) => (left, right),
            Merge::Text(both) => {
                let (left, right) = both.split_once(' ').unwrap_or((&both, ""));
                (left.to_owned(), right.to_owned())
            }
        });
        let vocab: Vocab = self.vocab.into_iter().collect();
        BPE::builder().vocab_and_merges(vocab, merges.collect::<Vec<_>>())
    }
}

/// The stages of CLIP's tokenizer around its vocabulary.
fn clip(model: BpeBuilder, unknown: &str) -> tokenizers::Result<HfTokenizer> {
    let model = model
        .unk_token(unknown.to_owned())
        .end_of_word_suffix("</w>".to_owned())
        .continuing_subword_prefix(String::new())
        .build()?;
    let mut tokenizer = HfTokenizer::new(model);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    let normalizers = vec![NFC.into(), spaces.into(), Lowercase.into()];
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)))?;
    let words =
        Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    Ok(tokenizer)
}

/// The words of `added_tokens.json`, which older versions of transformers wrote.
fn added_words(folder: &Path) -> Result<Vec<Added>, ModelError> {
    let words: BTreeMap<String, u32> = optional(folder, "added_tokens.json")?.unwrap_or_default();
    let plain = |(content, id)| Added {
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: true,
        special: false,
    };
    Ok(words.into_iter().map(plain).collect())
}

/// Sets the special tokens and those of `added` apart from the vocabulary, in the order of their ids. A pad token is
/// special wherever it stands: with that of SD 2.x each `!` of a prompt is padding.
fn add(inner: &mut HfTokenizer, mut added: Vec<Added>, special: &Special) -> Result<(), String> {
    let Special { start, end, pad, .. } = special;
    let set = [start, end, pad].map(|token| AddedToken::from(token, true));
    inner.add_special_tokens(set).map_err(|e| e.to_string())?;
    added.sort_by_key(|token| token.id);
    for Added { id, content, single_word, lstrip, rstrip, normalized, special } in added {
        let token = AddedToken::from(content.as_str(), special)
            .single_word(single_word)
            .lstrip(lstrip)
            .rstrip(rstrip)
            .normalized(normalized);
        inner.add_tokens([token]).map_err(|e| e.to_string())?;
        let found = inner.token_to_id(&content);
        if found != Some(id) {
            return Err(format!(
                "the added token {content} is to have the id {id}, but the next that is free is {}; use files of one \
                 tokenizer",
                found.unwrap_or_default()
            ));
        }
    }
    Ok(())
}

/// What a file of the folder holds, where it is there.
fn optional<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, ModelError> {
    let path = folder.join(name);
    if !path.exists() {
        return ModelError::dangling(&path).map_or(Ok(None), Err);
    }
    let unlike = |e: serde_json::Error| {
        let advice = if e.is_data() { "use a file of the model" } else { "fetch it again" };
        ModelError::invalid(&path, format!("not a tokenizer's: {e}; {advice}"))
    };
    serde_json::from_str(&read_text(&path)?).map(Some).map_err(unlike)
}
