//! A prompt with concepts in it, as token ids and slots.
//!
//! The text is split at the placeholders first; what is between them goes through the tokenizer. So the
//! ids around a concept are the same whatever stands in its place.

use std::borrow::Cow;

use models::tokenizer::Tokenizer;

use crate::Concept;
use crate::word::{composed, length_at, same_word};

/// A tokenised prompt: start, words, end, padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptTokens {
    /// `S` ids; where a slot is, the id is what CLIP reads in the concept's place, or the padding's, which means
    /// nothing there.
    pub ids: Vec<i64>,
    /// Where concepts enter, in order.
    pub slots: Vec<Slot>,
    /// The position of the end token.
    pub end: usize,
    /// The text that was cut off the prompt's end; empty where all of it fits.
    pub cut: String,
}

/// One position of a prompt that a concept's vector fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Position in the prompt.
    pub position: usize,
    /// Index of the concept.
    pub concept: usize,
    /// Which of its vectors.
    pub vector: usize,
}

/// What to do with a prompt that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// An error that names the words beyond the end.
    Refuse,
    /// Cut them off.
    Truncate,
}

/// Bytes of a placeholder: with the extension and a temporary name's number it stays below what file systems
/// allow.
const LONGEST_PLACEHOLDER: usize = 100;

/// A prompt or placeholder that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// A word in angle brackets that is no loaded concept.
    #[error(
        "the prompt '{prompt}' holds {word}, but {known}; load that concept with --concept or take the word out"
    )]
    UnknownConcept {
        /// The prompt.
        prompt: String,
        /// The word.
        word: String,
        /// A list of what is loaded.
        known: String,
    },
    /// More tokens than the text encoder reads.
    #[error(
        "the prompt '{}' has {found} tokens, but {limit} fit; beyond the end: '{}'; shorten it{}",
        start_of(prompt), words_beyond(beyond), if *cuttable { " (generate cuts it with --truncate)" } else { "" }
    )]
    TooLong {
        /// The prompt.
        prompt: String,
        /// Its tokens, without start and end.
        found: usize,
        /// Those that fit.
        limit: usize,
        /// The text that does not.
        beyond: String,
        /// Whether no concept lies there, so that it can be cut off.
        cuttable: bool,
    },
    /// A concept that no prompt has room for.
    #[error(
        "the concept {placeholder} has {vectors} vectors, but a prompt has room for {limit} tokens in all; take a concept of fewer vectors, 1 to 8 are usual"
    )]
    ConceptTooLong {
        /// The concept's word.
        placeholder: String,
        /// Its vectors.
        vectors: usize,
        /// The tokens that fit.
        limit: usize,
    },
    /// Concepts that have no room together.
    #[error(
        "the concepts of the prompt '{}' take {found} tokens together, but {limit} fit; take one of them out",
        start_of(prompt)
    )]
    ConceptsTooLong {
        /// The prompt.
        prompt: String,
        /// The tokens of all its concepts.
        found: usize,
        /// Those that fit.
        limit: usize,
    },
    /// With the class in the concept's place the prompt is too long.
    #[error(
        "the prompt '{prompt}' has {found} tokens with the class in the concept's place, but {limit} fit; shorten the prompt or the class"
    )]
    ReferenceTooLong {
        /// The beginning of the prompt.
        prompt: String,
        /// Its tokens, without start and end.
        found: usize,
        /// Those that fit.
        limit: usize,
    },
    /// Truncation would cut a concept.
    #[error(
        "the prompt '{}' is cut at {limit} tokens, which cuts {placeholder} off; move it to the front",
        start_of(prompt)
    )]
    ConceptCutOff {
        /// The prompt.
        prompt: String,
        /// The tokens that fit.
        limit: usize,
        /// The concept's word.
        placeholder: String,
    },
    /// Other text beside a concept that is the whole prompt.
    #[error(
        "the prompt '{}' has other text beside {placeholder}, which was learnt as a whole prompt; give '{placeholder}' alone, or train with --slots noun",
        start_of(prompt)
    )]
    NotAlone {
        /// The prompt.
        prompt: String,
        /// The concept's word.
        placeholder: String,
    },
    /// A word that cannot stand for a concept.
    #[error("the concept's word '{}' {why}; use a word such as <my-cat>", start_of(&word.escape_debug().to_string()))]
    BadPlaceholder {
        /// The word.
        word: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two concepts under one word.
    #[error("two concepts are called {word}; give one another name with --concept NAME=FILE")]
    SamePlaceholder {
        /// The word.
        word: String,
    },
}

/// Enough of a prompt to know it by.
pub fn start_of(prompt: &str) -> String {
    shortened(prompt, 60)
}

/// Words that a prompt has no room for, as far as anyone reads them.
pub fn words_beyond(text: &str) -> String {
    shortened(text, 400)
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

/// Refuses words that a tokenizer could not find again in a prompt.
pub fn check_placeholder(word: &str) -> Result<(), PromptError> {
    let why = if word.is_empty() {
        "is empty"
    } else if word.chars().any(char::is_whitespace) {
        "holds white space"
    } else if word.chars().any(char::is_control) {
        "holds control characters"
    } else if word.len() > LONGEST_PLACEHOLDER {
        "is longer than the name of its file can be"
    } else if word.contains(['<', '>']) && placeholders_in(word).next() != Some(word) {
        "has an angle bracket that does not enclose it"
    } else if word.starts_with("<|") {
        "looks like a special token of the tokenizer"
    } else if word.contains(['/', '\\', '\0']) {
        "holds a character that file names cannot have"
    } else if !word.chars().any(char::is_alphanumeric) {
        "holds no letter or digit"
    } else {
        return Ok(());
    };
    Err(PromptError::BadPlaceholder { word: word.to_owned(), why })
}

/// The words in angle brackets of a prompt, in order.
pub fn placeholders_in(prompt: &str) -> impl Iterator<Item = &str> {
    prompt.match_indices('<').filter_map(|(start, _)| {
        let rest = &prompt[start..];
        let end = rest[1..].find(|c: char| c == '<' || c == '>' || c.is_whitespace())? + 1;
        (end > 1 && rest[end..].starts_with('>')).then(|| &rest[..=end])
    })
}

impl PromptTokens {
    /// Tokenises `prompt` with `concepts` in it; their order is that of [`Slot::concept`].
    pub fn new(
        prompt: &str,
        concepts: &[&dyn Concept],
        tokenizer: &Tokenizer,
        overflow: Overflow,
    ) -> Result<Self, PromptError> {
        let prompt = &*composed(prompt);
        refuse_unknown(prompt, concepts)?;
        let words: Vec<_> =
            concepts.iter().map(|concept| composed(concept.placeholder())).collect();
        let mut tails = Vec::new(); // concepts whose tail the prompt's end holds
        let mut tokens = Vec::new(); // (id or slot, the byte of the prompt where it starts)
        let mut rest = 0;
        while rest < prompt.len() {
            let found = next_concept(prompt, rest, &words);
            let text_end = found.map_or(prompt.len(), |(at, ..)| at);
            for (id, span) in tokenizer.encode_spans(&prompt[rest..text_end]) {
                tokens.push((Token::Word(id), rest + span.start));
            }
            let Some((at, length, concept)) = found else { break };
            let stand_ins = concepts[concept].words();
            let slot =
                |vector| Token::Slot { concept, vector, word: stand_ins.get(vector).copied() };
            let vectors = 0..concepts[concept].num_tokens();
            tokens.extend(vectors.map(|vector| (slot(vector), at)));
            rest = at + length;
            if !tails.contains(&concept) {
                tails.push(concept);
            }
        }
        let whole = tails.iter().copied().find(|&concept| concepts[concept].is_whole_prompt());
        if let Some(concept) = whole
            && tokens.len() != concepts[concept].num_tokens()
        {
            let placeholder = concepts[concept].placeholder().to_owned();
            return Err(PromptError::NotAlone { prompt: prompt.to_owned(), placeholder });
        }
        let tail = |concept: &usize| concepts[*concept].tail();
        let limit = (tokenizer.length() - 2).saturating_sub(tails.iter().map(tail).sum());
        let mut cut = String::new();
        if let Some(&(_, byte)) = tokens.get(limit) {
            refuse_without_room(prompt, concepts, &tokens, limit)?;
            // A token may be a part of a character.
            let start = (0..=byte).rfind(|&i| prompt.is_char_boundary(i)).unwrap_or(0);
            prompt[start..].trim().clone_into(&mut cut);
            let found = tokens.len();
            let lost = tokens.drain(limit..).find_map(|(token, _)| token.concept());
            if overflow == Overflow::Refuse {
                let (prompt, cuttable) = (prompt.to_owned(), lost.is_none());
                return Err(PromptError::TooLong { prompt, found, limit, beyond: cut, cuttable });
            }
            if let Some(concept) = lost {
                return Err(PromptError::ConceptCutOff {
                    prompt: prompt.to_owned(),
                    limit,
                    placeholder: concepts[concept].placeholder().to_owned(),
                });
            }
        }
        let mut framed = Self::framed(tokens.into_iter().map(|(token, _)| token), tokenizer);
        framed.cut = cut;
        match whole {
            Some(concept) => framed.take_over(concept),
            None => framed.append_tails(tails.into_iter().map(|i| (i, concepts[i]))),
        }
        Ok(framed)
    }

    /// Gives every position to one concept.
    fn take_over(&mut self, concept: usize) {
        let all = 0..self.ids.len();
        self.slots = all.map(|i| Slot { position: i, concept, vector: i }).collect();
    }

    /// Gives the last positions to the concepts' tails.
    fn append_tails<'a>(&mut self, concepts: impl Iterator<Item = (usize, &'a dyn Concept)>) {
        let mut position = self.ids.len();
        for (concept, learnt) in concepts {
            position -= learnt.tail();
            let first = learnt.num_tokens();
            let slot = |i| Slot { position: position + i, concept, vector: first + i };
            self.slots.extend((0..learnt.tail()).map(slot));
        }
    }

    pub(crate) fn framed(tokens: impl Iterator<Item = Token>, tokenizer: &Tokenizer) -> Self {
        let (mut ids, mut slots) = (vec![tokenizer.start()], Vec::new());
        for token in tokens {
            match token {
                Token::Word(id) => ids.push(id),
                Token::Slot { concept, vector, word } => {
                    slots.push(Slot { position: ids.len(), concept, vector });
                    ids.push(word.unwrap_or(tokenizer.pad()));
                }
            }
        }
        let end = ids.len();
        ids.push(tokenizer.end());
        ids.resize(tokenizer.length(), tokenizer.pad());
        Self { ids, slots, end, cut: String::new() }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Token {
    Word(i64),
    Slot { concept: usize, vector: usize, word: Option<i64> },
}

impl Token {
    /// The concept whose vector it is.
    fn concept(self) -> Option<usize> {
        match self {
            Self::Slot { concept, .. } => Some(concept),
            Self::Word(_) => None,
        }
    }
}

/// Refuses concepts that would not fit if the prompt held nothing else: then no shortening helps.
fn refuse_without_room(
    prompt: &str,
    concepts: &[&dyn Concept],
    tokens: &[(Token, usize)],
    limit: usize,
) -> Result<(), PromptError> {
    let found = tokens.iter().filter_map(|(token, _)| token.concept());
    if let Some(i) = found.clone().find(|&i| concepts[i].num_tokens() > limit) {
        let (placeholder, vectors) =
            (concepts[i].placeholder().to_owned(), concepts[i].num_tokens());
        return Err(PromptError::ConceptTooLong { placeholder, vectors, limit });
    }
    match found.count() {
        found if found > limit => {
            Err(PromptError::ConceptsTooLong { prompt: prompt.to_owned(), found, limit })
        }
        _ => Ok(()),
    }
}

fn refuse_unknown(prompt: &str, concepts: &[&dyn Concept]) -> Result<(), PromptError> {
    let known = |word: &str| concepts.iter().any(|c| same_word(c.placeholder(), word));
    match placeholders_in(prompt).find(|word| !known(word)) {
        None => Ok(()),
        Some(word) => {
            let names: Vec<&str> = concepts.iter().map(|c| c.placeholder()).collect();
            let known = match names.len() {
                0 => "no concept is loaded".to_owned(),
                _ => format!("the loaded concepts are {}", names.join(", ")),
            };
            let (prompt, word) = (prompt.to_owned(), word.to_owned());
            Err(PromptError::UnknownConcept { prompt, word, known })
        }
    }
}

/// The first place at or after `from` where one of these words stands, the bytes it takes and which it is; the longest
/// wins. All is composed.
fn next_concept(
    prompt: &str,
    from: usize,
    words: &[Cow<'_, str>],
) -> Option<(usize, usize, usize)> {
    prompt[from..].char_indices().find_map(|(offset, _)| {
        let at = from + offset;
        let here =
            (0..words.len()).filter_map(|i| Some((at, length_at(prompt, at, &words[i])?, i)));
        here.max_by_key(|&(_, length, _)| length)
    })
}
