//! The prompts that a concept is trained with: lines with `{}` where the concept's word goes.

use std::io;
use std::path::{Path, PathBuf};

use embeddings::replace_word;

use crate::photos::PhotoSet;

mod context;
mod evaluation;

/// Where a template's word goes.
pub const SLOT: &str = "{}";

/// One or more prompts with a slot each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    lines: Vec<String>,
}

/// Why templates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file that cannot be read, or is not UTF-8.
    #[error("template file {file} cannot be read: {source}{}", models::advice(.source))]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file without a template.
    #[error(
        "template file {file} holds no template; write one a line, with {SLOT} where the concept stands"
    )]
    Empty {
        /// The file.
        file: String,
    },
    /// A template without a slot.
    #[error("{place}: \"{template}\" does not say where the concept stands; put {SLOT} there")]
    NoSlot {
        /// File and line.
        place: String,
        /// The line.
        template: String,
    },
    /// A letter or digit right beside the slot.
    #[error(
        "{place}: \"{template}\" has a letter or digit glued to {SLOT}, which would make another word; put a space between them"
    )]
    Glued {
        /// File and line.
        place: String,
        /// The line.
        template: String,
    },
    /// A photo without a caption where captions are the prompts.
    #[error("{photo} has no caption; write one line with {placeholder} into {}", .photo.with_extension("txt").display())]
    NoCaption {
        /// The photo.
        photo: PathBuf,
        /// The concept's word.
        placeholder: String,
    },
    /// A caption that does not name the concept.
    #[error(
        "caption \"{caption}\" of {photo} does not name the concept; put {placeholder} (or {SLOT}) where it stands"
    )]
    CaptionWithoutConcept {
        /// The photo.
        photo: PathBuf,
        /// Its caption.
        caption: String,
        /// The concept's word.
        placeholder: String,
    },
}

impl Templates {
    /// The 27 templates for an object.
    pub fn object() -> Self {
        Self::parse(include_str!("../../configs/prompts/object.txt"), "configs/prompts/object.txt")
            .expect("the embedded file is tested")
    }

    /// The 19 templates for a style.
    pub fn style() -> Self {
        Self::parse(include_str!("../../configs/prompts/style.txt"), "configs/prompts/style.txt")
            .expect("the embedded file is tested")
    }

    /// The one template of CoRe's reconstruction.
    pub fn photo() -> Self {
        Self { lines: vec!["a photo of a {}".to_owned()] }
    }

    /// The templates of a file: one a line; empty lines and lines that begin with `#` do not count.
    pub fn from_file(file: &Path) -> Result<Self, TemplateError> {
        let text = torch_ext::file::read_to_string(file)
            .map_err(|source| TemplateError::Unreadable { file: file.into(), source })?;
        Self::parse(&text, &file.to_string_lossy())
    }

    /// The captions of `set` as templates, template i for photo i; each must hold `placeholder` or a slot.
    pub fn from_captions(set: &PhotoSet, placeholder: &str) -> Result<Self, TemplateError> {
        let template = |photo: &crate::photos::Photo| {
            let (path, placeholder) = (photo.path.clone(), placeholder.to_owned());
            let Some(caption) = photo.caption.clone() else {
                return Err(TemplateError::NoCaption { photo: path, placeholder });
            };
            let template = replace_word(&caption, &placeholder, SLOT);
            if !template.contains(SLOT) {
                return Err(TemplateError::CaptionWithoutConcept {
                    photo: path,
                    caption,
                    placeholder,
                });
            }
            checked(&template, || path.with_extension("txt").display().to_string())
        };
        Ok(Self { lines: set.photos.iter().map(template).collect::<Result<_, _>>()? })
    }

    fn parse(text: &str, file: &str) -> Result<Self, TemplateError> {
        let lines: Vec<_> = prompt_lines(text)
            .map(|(number, line)| checked(line, || format!("{file}:{number}")))
            .collect::<Result<_, _>>()?;
        if lines.is_empty() {
            return Err(TemplateError::Empty { file: file.into() });
        }
        Ok(Self { lines })
    }

    /// How many templates there are, at least one.
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// The templates as they were written.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Template `index` (below [`Self::count`]) with `placeholder` in each of its slots.
    pub fn fill(&self, index: usize, placeholder: &str) -> String {
        self.lines[index].replace(SLOT, placeholder)
    }
}

/// The prompts of a file's text with the numbers of their lines, from 1: one a line, without space around it. Empty lines
/// and lines that begin with `#` do not count.
pub fn prompt_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(str::trim);
    (1..).zip(lines).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The template if it has a slot with nothing glued to it.
fn checked(template: &str, place: impl Fn() -> String) -> Result<String, TemplateError> {
    let pieces: Vec<&str> = template.split(SLOT).collect();
    if pieces.len() < 2 {
        return Err(TemplateError::NoSlot { place: place(), template: template.into() });
    }
    let glued = pieces.windows(2).any(|around| {
        around[0].ends_with(char::is_alphanumeric) || around[1].starts_with(char::is_alphanumeric)
    });
    if glued {
        return Err(TemplateError::Glued { place: place(), template: template.into() });
    }
    Ok(template.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::photos::{Photo, Rectangle};

    fn message(text: &str) -> String {
        Templates::parse(text, "my.txt").unwrap_err().to_string()
    }

    #[test]
    fn the_lists_have_the_papers_counts_and_every_template_fills() {
        let (object, style) = (Templates::object(), Templates::style());
        assert_eq!((object.count(), style.count()), (27, 19));
        assert_eq!(object.fill(26, "<cat>"), "a photo of a small <cat>");
        assert_eq!(style.fill(0, "<ink>"), "a painting in the style of <ink>");
    }

    #[test]
    fn a_file_may_have_comments_blank_lines_bom_crlf_and_several_slots() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\u{feff}# mine\r\n\r\n  {}, only {}'s #1  \r\n").unwrap();
        let templates = Templates::from_file(file.path()).unwrap();
        assert_eq!(templates.count(), 1);
        assert_eq!(templates.fill(0, "<cat>"), "<cat>, only <cat>'s #1");
    }

    #[test]
    fn a_template_without_slot_is_named_by_file_and_line() {
        assert!(
            message("a photo of {}\n\na photo\n").starts_with("my.txt:3: \"a photo\" does not say")
        );
    }

    #[test]
    fn a_letter_glued_to_the_slot_is_refused_on_either_side() {
        for text in ["two {}s", "super{}", "{} and {}2", "{}é"] {
            assert!(
                message(text).starts_with("my.txt:1: ") && message(text).contains("glued"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_file_of_comments_is_empty() {
        assert!(message("# nothing\n").starts_with("template file my.txt holds no template"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Templates::from_file(Path::new("nowhere/t.txt")).unwrap_err().to_string();
        assert!(error.starts_with("template file nowhere/t.txt cannot be read"), "{error}");
    }

    fn captioned(caption: Option<&str>) -> PhotoSet {
        let photo = Photo {
            path: "in/a.jpg".into(),
            caption: caption.map(Into::into),
            pixels: image::RgbImage::new(8, 8),
            original: (8, 8),
            part: Rectangle { x: 0, y: 0, width: 8, height: 8 },
        };
        PhotoSet { photos: vec![photo], report: Vec::new() }
    }

    #[test]
    fn captions_take_the_placeholder_or_a_slot() {
        for caption in ["<cat> and <cat> asleep", "<CAT> and <cat> asleep", "{} and {} asleep"] {
            let templates = Templates::from_captions(&captioned(Some(caption)), "<cat>").unwrap();
            assert_eq!(templates.fill(0, "<dog>"), "<dog> and <dog> asleep");
        }
    }

    #[test]
    fn a_caption_must_exist_and_name_the_concept() {
        let error = |caption| {
            Templates::from_captions(&captioned(caption), "<cat>").unwrap_err().to_string()
        };
        assert_eq!(error(None), "in/a.jpg has no caption; write one line with <cat> into in/a.txt");
        assert!(error(Some("asleep")).contains("\"asleep\" of in/a.jpg does not name the concept"));
        assert!(error(Some("two <cat>s")).starts_with("in/a.txt: "));
    }
}
