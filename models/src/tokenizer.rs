//! CLIP's byte-pair tokenizer, from `vocab.json` and `merges.txt` or from `tokenizer.json`.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{
    Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer as HfTokenizer};

use crate::ModelError;

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
    length: usize,
}

/// A special token in `tokenizer_config.json`: a word, or an object that holds it.
#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Word(String),
    Object { content: String },
}

#[derive(Deserialize, Default)]
struct TokenizerConfig {
    pad_token: Option<SpecialToken>,
    model_max_length: Option<f64>,
}

impl Tokenizer {
    /// Reads a `tokenizer/` folder: `vocab.json` and `merges.txt`, or the `tokenizer.json` that transformers 5
    /// writes instead; the pad token and the length from `tokenizer_config.json` or
    /// `special_tokens_map.json`.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let path = |name: &str| folder.join(name);
        let (mut inner, source) = if path("vocab.json").is_file() && path("merges.txt").is_file() {
            (from_vocabulary(folder)?, path("vocab.json"))
        } else if path("tokenizer.json").is_file() {
            (from_saved(&path("tokenizer.json"))?, path("tokenizer.json"))
        } else {
            return Err(ModelError::Missing {
                path: folder.to_owned(),
                what: "CLIP's vocabulary".into(),
                hint: "a model folder has tokenizer/vocab.json and tokenizer/merges.txt, or \
                       tokenizer/tokenizer.json"
                    .into(),
            });
        };
        let config = Self::config(folder)?;
        let pad = match config.pad_token {
            Some(SpecialToken::Word(word) | SpecialToken::Object { content: word }) => word,
            None => END.to_owned(),
        };
        let id = |token: &str| {
            inner.token_to_id(token).map(i64::from).ok_or_else(|| {
                ModelError::invalid(&source, format!("the token {token} is not in it"))
            })
        };
        let (start_id, end_id, pad_id) = (id(START)?, id(END)?, id(&pad)?);
        // A pad token is special wherever it stands: with that of SD 2.x each `!` of a prompt is padding.
        let special = [START, END, &pad].map(|token| AddedToken::from(token, true));
        inner
            .add_special_tokens(special)
            .map_err(|e| ModelError::invalid(&source, e.to_string()))?;
        // Some files hold 1e30 for "no limit".
        let length = config.model_max_length.filter(|n| (1.0..1e4).contains(n)).unwrap_or(77.0);
        Ok(Self { start: start_id, end: end_id, pad: pad_id, length: length as usize, inner })
    }

    fn config(folder: &Path) -> Result<TokenizerConfig, ModelError> {
        let mut config = TokenizerConfig::default();
        for name in ["special_tokens_map.json", "tokenizer_config.json"] {
            let path = folder.join(name);
            if !path.is_file() {
                continue;
            }
            let text =
                torch_ext::file::read_to_string(&path).map_err(|e| ModelError::io(&path, e))?;
            let read: TokenizerConfig = serde_json::from_str(&text)
                .map_err(|e| ModelError::invalid(&path, format!("not a tokenizer's: {e}")))?;
            config.pad_token = read.pad_token.or(config.pad_token);
            config.model_max_length = read.model_max_length.or(config.model_max_length);
        }
        Ok(config)
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

    /// S, the length of a padded prompt, start and end included: 77.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// CLIP's tokenizer from its two published files.
fn from_vocabulary(folder: &Path) -> Result<HfTokenizer, ModelError> {
    let invalid = |e: &dyn std::fmt::Display| {
        ModelError::invalid(folder, format!("vocab.json or merges.txt are not CLIP's: {e}"))
    };
    let text = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let bpe = BPE::from_file(&text("vocab.json"), &text("merges.txt"))
        .unk_token(END.to_owned())
        .end_of_word_suffix("</w>".to_owned())
        .continuing_subword_prefix(String::new())
        .build()
        .map_err(|e| invalid(&e))?;
    let mut tokenizer = HfTokenizer::new(bpe);
    let spaces =
        Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(|e| invalid(&e))?;
    let normalizers = vec![NFC.into(), spaces.into(), Lowercase.into()];
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(|e| invalid(&e))?;
    let words =
        Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)
            .map_err(|e| invalid(&e))?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    Ok(tokenizer)
}

/// The same from one file with all stages in it.
fn from_saved(path: &Path) -> Result<HfTokenizer, ModelError> {
    let invalid =
        |e: &dyn std::fmt::Display| ModelError::invalid(path, format!("not a tokenizer: {e}"));
    let mut tokenizer = HfTokenizer::from_file(path).map_err(|e| invalid(&e))?;
    // Saved after a padded call, the file would pad and cut every text.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| invalid(&e))?;
    Ok(tokenizer)
}
