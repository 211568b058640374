//! The concepts of a request: their files, and how each is to be drawn.

use std::path::{Path, PathBuf};

use embeddings::file::{ConceptFile, hex};
use embeddings::{Adjustment, Concept, Mixed, PromptError, check_placeholder, same_word};
use sha2::{Digest as _, Sha256};
use tch::Tensor;

use crate::config::Table;
use crate::picture::UsedConcept;
use crate::{Base, Error};

/// The options that may follow a file, each as `,key=value`.
const OPTIONS: [&str; 4] = ["strength", "truncate", "bypass", "layers"];

/// A concept file and what was said of it.
#[derive(Debug, Default, PartialEq)]
struct ConceptUse {
    name: Option<String>,
    path: PathBuf,
    strength: Option<f64>,
    truncation: Option<i64>,
    bypass: Option<f64>,
    /// Cross-attention layers, from 0; nothing for all that no other file takes.
    layers: Option<Vec<usize>>,
    /// The options as they were given.
    options: String,
}

/// The words that files are called by and what each is an example of, where its file says it: what [`Concepts`] will
/// find, for who makes prompts of them. Nothing is checked against a base.
pub(crate) fn words(
    given: &[(Option<String>, PathBuf)],
) -> Result<Vec<(String, Option<String>)>, Error> {
    let mut words = Vec::<(String, Option<String>)>::new();
    for (name, path) in given {
        let wanted = ConceptUse::parse(name.as_deref(), path)?;
        let record = ConceptFile::read(&wanted.path)?.record;
        let word = wanted.name.unwrap_or(record.token);
        match words.iter_mut().find(|(known, _)| same_word(known, &word)) {
            Some((_, class)) => *class = class.take().or(record.class),
            None => words.push((word, record.class)),
        }
    }
    Ok(words)
}

/// The concepts of a request, checked against the base.
pub(super) struct Concepts {
    pub concepts: Vec<Box<dyn Concept>>,
    /// What each is an example of, where its file says it; of several files under one word the first that does.
    pub classes: Vec<Option<String>>,
    pub used: Vec<UsedConcept>,
    pub warnings: Vec<String>,
}

impl Concepts {
    /// Reads the files and refuses what does not go together.
    pub fn read(
        given: &[(Option<String>, PathBuf)],
        clip_skip: usize,
        base: &mut Base,
    ) -> Result<Self, Error> {
        let uses = given.iter().map(|(name, path)| ConceptUse::parse(name.as_deref(), path));
        let uses = uses.collect::<Result<Vec<_>, _>>()?;
        let mut files = Vec::new();
        for concept in &uses {
            let mut file = ConceptFile::read(&concept.path)?;
            base.check_concept(&file)?;
            if let Some(name) = &concept.name {
                file.record.token.clone_from(name);
            }
            files.push(file);
        }
        base.check_weights()?;
        let told = |file| [base.compare_vocabulary(file), compare_clip_skip(file, clip_skip)];
        let warnings = files.iter().flat_map(told).flatten().collect();
        let (mut words, mut used) = (Vec::<Word>::new(), Vec::new());
        for (wanted, file) in uses.into_iter().zip(&files) {
            let concept = wanted.concept(file, base)?;
            let word = concept.placeholder().to_owned();
            let bytes =
                torch_ext::file::read(&wanted.path).map_err(Error::io(&wanted.path, "read"))?;
            let hash = hex(&Sha256::digest(bytes));
            used.push(UsedConcept { placeholder: word.clone(), hash, options: wanted.options });
            let (part, class) = ((concept, wanted.layers), file.record.class.clone());
            match words.iter_mut().find(|w| same_word(&w.word, &word)) {
                Some(known) => {
                    known.parts.push(part);
                    known.class = known.class.take().or(class);
                }
                None => words.push(Word { word, class, parts: vec![part] }),
            }
        }
        let layers = base.folder.unet.cross_attention_layers() as usize;
        let classes = words.iter().map(|w| w.class.clone()).collect();
        let concepts = words.into_iter().map(|w| w.concept(layers)).collect::<Result<_, _>>()?;
        Ok(Self { concepts, classes, used, warnings })
    }
}

/// A warning where a concept's file says that it was trained with another clip skip.
fn compare_clip_skip(file: &ConceptFile, clip_skip: usize) -> Option<String> {
    let config: Table = file.record.config.parse().ok()?;
    let trained = config.get("clip_skip")?.as_integer()?;
    (trained != clip_skip as i64).then(|| {
        format!(
            "the concept {} was trained with --clip-skip {trained} and is drawn with {clip_skip}; it may not look the same",
            file.record.token
        )
    })
}

impl ConceptUse {
    /// `path` may carry options behind commas; a file that is called so is taken as it is.
    fn parse(name: Option<&str>, path: &Path) -> Result<Self, Error> {
        let mut found =
            Self { name: name.map(str::to_owned), path: path.to_owned(), ..Self::default() };
        let text = path.to_string_lossy();
        let Some((file, options)) = text.split_once(',') else { return Ok(found) };
        if path.exists() {
            return Ok(found);
        }
        (found.path, found.options) = (file.into(), options.to_owned());
        for option in options.split(',') {
            let refuse = |expected: &str| {
                Err(Error::Usage(format!("--concept {text}: '{option}' is no option; {expected}")))
            };
            let Some((key, value)) = option.split_once('=') else {
                return refuse("write key=value, as in cat.safetensors,strength=0.8");
            };
            match key.trim() {
                "strength" => match number(value, 2.0) {
                    None => {
                        return refuse(
                            "strength is a number from 0 (the class) to 2, 1 is as learnt",
                        );
                    }
                    strength => found.strength = strength,
                },
                "bypass" => match number(value, 10.0) {
                    None => return refuse("bypass is a number from 0 to 10"),
                    bypass => found.bypass = bypass,
                },
                "truncate" => match value.trim().parse() {
                    Ok(units) => found.truncation = Some(units),
                    Err(_) => return refuse("truncate is a number of hidden units, such as 32"),
                },
                "layers" => match layers(value) {
                    None => {
                        return refuse(
                            "layers are numbers from 0, as in layers=4-9 or layers=0-3+10-15",
                        );
                    }
                    layers => found.layers = layers,
                },
                _ => return refuse(&format!("known: {}", OPTIONS.join(", "))),
            }
        }
        Ok(found)
    }

    /// The concept as it is to be drawn.
    fn concept(&self, file: &ConceptFile, base: &Base) -> Result<Box<dyn Concept>, Error> {
        let word = &file.record.token;
        check_placeholder(word).map_err(|e| match &self.name {
            Some(_) => Error::from(e),
            None => {
                Error::Usage(format!("{e}, as in --concept '<my-cat>={}'", self.path.display()))
            }
        })?;
        let mut concept = file.concept();
        let class_vectors = match (&self.strength, &file.record.class) {
            (Some(_), Some(class)) => class_vectors(class, base)?,
            _ => None,
        };
        let adjustment = Adjustment {
            strength: self.strength,
            class_vectors,
            truncation: self.truncation,
            bypass: self.bypass,
        };
        let refusal = |why| Error::Usage(format!("the concept {word} {why}"));
        concept.adjust(&adjustment).map_err(refusal)?;
        Ok(concept)
    }
}

/// The token vectors of a class, `[k, D]`; nothing where it has no tokens.
fn class_vectors(class: &str, base: &Base) -> Result<Option<Tensor>, Error> {
    let ids = base.folder.tokenizer()?.encode(class);
    let rows: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
    let numbers = base.folder.token_sketch(&rows, usize::MAX)?;
    let table = (!rows.is_empty()).then(|| Tensor::from_slice(&numbers));
    Ok(table.map(|numbers| numbers.reshape([rows.len() as i64, -1])))
}

/// A file's concept and the layers that it was given.
type Part = (Box<dyn Concept>, Option<Vec<usize>>);

/// One word of the prompts, and the files that stand behind it.
struct Word {
    word: String,
    class: Option<String>,
    parts: Vec<Part>,
}

impl Word {
    /// Its only file, or several that share the layers of the base.
    fn concept(mut self, layers: usize) -> Result<Box<dyn Concept>, Error> {
        if self.parts.iter().all(|(_, layers)| layers.is_none()) {
            return match self.parts.len() {
                1 => Ok(self.parts.swap_remove(0).0),
                _ => Err(PromptError::SamePlaceholder { word: self.word }.into()),
            };
        }
        let word = &self.word;
        let refuse = |what: String| Err(Error::Usage(format!("the concepts called {word} {what}")));
        if self.parts.iter().any(|(part, _)| !part.words().is_empty()) {
            return refuse(
                "enter after the text encoder, the same for all layers; leave layers= out".into(),
            );
        }
        let tokens = self.parts[0].0.num_tokens();
        if self.parts.iter().any(|(part, _)| part.num_tokens() != tokens) {
            return refuse("have different numbers of vectors; mix concepts of the same".into());
        }
        let rest: Vec<usize> =
            (0..self.parts.len()).filter(|&i| self.parts[i].1.is_none()).collect();
        let mut part_of_layer = match rest[..] {
            [] => vec![None; layers],
            [rest] => vec![Some(rest as i64); layers],
            _ => {
                return refuse(
                    "leave more than one without layers=; name the layers of all but one".into(),
                );
            }
        };
        let mut taken = vec![false; layers];
        for (i, (_, wanted)) in self.parts.iter().enumerate() {
            for &layer in wanted.iter().flatten() {
                if layer >= layers {
                    return refuse(format!(
                        "ask for layer {layer}, but the base has 0 to {}",
                        layers - 1
                    ));
                }
                if std::mem::replace(&mut taken[layer], true) {
                    return refuse(format!(
                        "ask for layer {layer} twice; give each layer to one file"
                    ));
                }
                part_of_layer[layer] = Some(i as i64);
            }
        }
        let Some(part_of_layer) = part_of_layer.iter().copied().collect::<Option<Vec<_>>>() else {
            let layer = part_of_layer.iter().position(Option::is_none).unwrap_or(0);
            return refuse(format!(
                "leave layer {layer} without a concept; add a file for the other layers, as in --concept '{word}=FILE'"
            ));
        };
        let parts = self.parts.into_iter().map(|(part, _)| part).collect();
        Ok(Box::new(Mixed::new(parts, part_of_layer)))
    }
}

/// A number from 0 to `most`.
fn number(text: &str, most: f64) -> Option<f64> {
    text.trim().parse().ok().filter(|number| (0.0..=most).contains(number))
}

/// `4-9`, `6`, or several of them joined by `+`.
fn layers(text: &str) -> Option<Vec<usize>> {
    let mut layers = Vec::new();
    for range in text.split('+') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > 255 {
            return None;
        }
        layers.extend(first..=last);
    }
    Some(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConceptUse, String> {
        ConceptUse::parse(None, Path::new(text)).map_err(|e| e.to_string())
    }

    #[test]
    fn options_follow_the_file_behind_commas() {
        let found = parse("a/cat.safetensors,strength=0.7,truncate=32,layers=0-2+5").unwrap();
        assert_eq!(found.path, Path::new("a/cat.safetensors"));
        assert_eq!((found.strength, found.truncation, found.bypass), (Some(0.7), Some(32), None));
        assert_eq!(found.layers, Some(vec![0, 1, 2, 5]));
    }

    #[test]
    fn options_that_mean_nothing_are_named() {
        for (text, reason) in [
            ("c,strenght=1", "known: strength"),
            ("c,strength=3", "from 0"),
            ("c,strength=NaN", "from 0"),
            ("c,bypass=-1", "from 0 to 10"),
            ("c,truncate=x", "hidden units"),
            ("c,layers=9-4", "layers=4-9"),
            ("c,strength", "key=value"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_file_with_a_comma_in_its_name_is_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cat,strength=1");
        std::fs::write(&path, b"").unwrap();
        let found = ConceptUse::parse(None, &path).unwrap();
        assert_eq!((found.path, found.strength), (path, None));
    }
}
