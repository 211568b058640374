//! The vocabulary: byte-pair encoding learnt on captions, in CLIP's layout.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pipelines::Error;
use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::{Model as _, Trainer as _};

use super::data;
use super::run::Options;

/// Entries, specials included.
const ENTRIES: usize = 1024;

/// Learns the merges from captions and writes `tokenizer/vocab.json` and `merges.txt`: 256 bytes, the same at
/// the end of a word, merges, fillers, the two specials. Any text can be encoded.
pub(super) fn learn(options: &Options) -> Result<PathBuf, Error> {
    let bytes = byte_alphabet();
    let captions = data::samples(options.world, options.seed, 0, 20_000);
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(ENTRIES)
        .min_frequency(2)
        .end_of_word_suffix("</w>".to_owned())
        .initial_alphabet(bytes.iter().copied().collect())
        .show_progress(false)
        .build();
    let fault = |e: &dyn std::fmt::Display| Error::Torch(format!("the vocabulary: {e}"));
    let words = |caption: &str| Ok(caption.split(' ').map(str::to_owned).collect());
    trainer.feed(captions.iter().map(|s| &s.caption), words).map_err(|e| fault(&e))?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(|e| fault(&e))?;

    let folder = options.base.join("tokenizer");
    let scratch = options.work.join("tokenizer");
    for path in [&folder, &scratch] {
        std::fs::create_dir_all(path).map_err(|source| io(path, "created", source))?;
    }
    model.save(&scratch, None).map_err(|e| fault(&e))?;
    let path = scratch.join("merges.txt");
    let text = std::fs::read_to_string(&path).map_err(|source| io(&path, "read", source))?;
    let (vocabulary, merges) = layout(&bytes, text.lines().filter(|l| !l.starts_with('#')));
    for (name, text) in [("vocab.json", vocabulary), ("merges.txt", merges)] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|source| io(&path, "written", source))?;
    }
    Ok(folder)
}

/// `vocab.json` and `merges.txt` from merges in the order of their learning.
fn layout<'a>(bytes: &[char], merges: impl Iterator<Item = &'a str>) -> (String, String) {
    let mut entries: Vec<String> = bytes.iter().map(char::to_string).collect();
    entries.extend(bytes.iter().map(|byte| format!("{byte}</w>")));
    let mut kept = String::from("#version: 0.2\n");
    for merge in merges {
        let joined = merge.replace(' ', "");
        if entries.len() + 2 < ENTRIES && !entries.contains(&joined) {
            entries.push(joined);
            let _ = writeln!(kept, "{merge}"); // writing to a string does not fail
        }
    }
    let fillers = ENTRIES - 2 - entries.len();
    entries.extend((0..fillers).map(|i| format!("<|filler{i}|>")));
    entries.extend(["<|startoftext|>".to_owned(), "<|endoftext|>".to_owned()]);
    let ids: Map<String, Value> =
        entries.into_iter().enumerate().map(|(id, entry)| (entry, id.into())).collect();
    (Value::Object(ids).to_string(), kept)
}

/// The 256 printable stand-ins of bytes that byte-level encodings use, in CLIP's order.
fn byte_alphabet() -> Vec<char> {
    let plain = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || b >= 174;
    let mut shifted = 256;
    let mut rest = Vec::new();
    let mut printable = Vec::new();
    for byte in 0..256u32 {
        if plain(byte) {
            printable.push(char::from_u32(byte).expect("a Latin-1 character"));
        } else {
            rest.push(char::from_u32(shifted).expect("a Latin Extended character"));
            shifted += 1;
        }
    }
    printable.extend(rest);
    printable
}

fn io(path: &Path, verb: &'static str, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), verb, source }
}
