//! What a run would do, without doing it: its plan, some of its prompts as the text encoder reads them, and the memory
//! that it will need.

use std::path::{Path, PathBuf};

use embeddings::{Overflow, PromptTokens};
use models::tokenizer::Tokenizer;
use serde::Serialize;

use super::plan::TrainPlan;
use crate::Error;
use crate::photos::{self, Photo, Rectangle};
use crate::picture::{self, Existing};

/// How many prompts a preview shows.
const PROMPTS: usize = 5;

/// A run that was not run.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// The plan in a few lines.
    pub plan: Vec<String>,
    /// Its photos, and what is kept of them.
    pub photos: Vec<PhotoPreview>,
    /// Some of its prompts, of each list the first ones.
    pub prompts: Vec<PromptPreview>,
    /// An estimate of the peak memory in bytes: of the GPU where there is one.
    pub memory: u64,
}

/// A photo as the training sees it.
#[derive(Debug, Serialize)]
pub struct PhotoPreview {
    /// The file.
    pub file: PathBuf,
    /// Its width and height, upright.
    pub size: (u32, u32),
    /// The part that is kept, in its pixels.
    pub part: Rectangle,
}

/// A prompt as the text encoder reads it.
#[derive(Debug, Serialize)]
pub struct PromptPreview {
    /// The text.
    pub prompt: String,
    /// Its ids from the start token to the end token; the concept's vectors by its word.
    pub tokens: Vec<String>,
    /// The same with the class in place of the concept, where the method compares the two.
    pub reference: Option<Vec<String>>,
}

impl TrainPlan {
    /// Shows the run without reading a weight or writing a file.
    pub fn preview(&self) -> Result<Preview, Error> {
        let tokenizer = self.base.folder.tokenizer()?;
        let context = self.context.as_ref().map_or(&[] as &[String], |context| &context.prompts);
        let trained = if context.is_empty() { PROMPTS } else { 1 };
        let trained = self.prompts.iter().take(trained).map(|p| self.prompt(p, &tokenizer));
        let compared = context.iter().map(|p| self.pair(p, &tokenizer));
        Ok(Preview {
            plan: self.summary(),
            photos: self.photos.photos.iter().map(shown).collect(),
            prompts: trained.chain(compared).take(PROMPTS).collect::<Result<_, _>>()?,
            memory: self.memory()?,
        })
    }

    /// Writes a picture of all photos with what is kept of each; returns its path.
    pub fn write_crop_sheet(&self, file: &Path) -> Result<PathBuf, Error> {
        let sheet = photos::sheet(&self.photos)?;
        Ok(picture::write(file, &sheet, None, Existing::Replace)?)
    }

    fn prompt(&self, prompt: &str, tokenizer: &Tokenizer) -> Result<PromptPreview, Error> {
        let concept = self.stand_in(tokenizer);
        let tokens = PromptTokens::new(prompt, &[&*concept], tokenizer, Overflow::Refuse)?;
        let tokens = self.shown(&tokens);
        Ok(PromptPreview { prompt: prompt.to_owned(), tokens, reference: None })
    }

    fn pair(&self, prompt: &str, tokenizer: &Tokenizer) -> Result<PromptPreview, Error> {
        let context = self.context.as_ref().expect("only a context plan has such prompts");
        let pair = context.pair(prompt, &*self.stand_in(tokenizer), tokenizer)?;
        Ok(PromptPreview {
            prompt: prompt.to_owned(),
            tokens: self.shown(&pair.object),
            reference: Some(self.shown(&pair.reference)),
        })
    }

    fn shown(&self, tokens: &PromptTokens) -> Vec<String> {
        let slot = |position| tokens.slots.iter().find(|slot| slot.position == position);
        // Of ConES it is the words of the class that tell how many places there are, not `vectors`.
        let several = tokens.slots.iter().any(|slot| slot.vector > 0);
        let show = |position: usize| match slot(position) {
            Some(slot) if several => {
                format!("{}[{}]", self.config.concept, slot.vector)
            }
            Some(_) => self.config.concept.clone(),
            None => tokens.ids[position].to_string(),
        };
        (0..=tokens.end).map(show).collect()
    }
}

fn shown(Photo { path, original, part, .. }: &Photo) -> PhotoPreview {
    PhotoPreview { file: path.clone(), size: *original, part: *part }
}
