//! The prompts that a concept is judged with: sets by name, or a file.

use std::path::Path;

use super::context::{Kind, kind_of};
use super::{TemplateError, Templates};

macro_rules! file {
    ($name:literal) => {
        (
            concat!("configs/prompts/evaluate/", $name, ".txt"),
            include_str!(concat!("../../../configs/prompts/evaluate/", $name, ".txt")),
        )
    };
}

/// Of each set the list for things and the one for people and animals: the file's name and its text.
const SETS: [(&str, [(&str, &str); 2]); 4] = [
    ("dreambooth", [file!("dreambooth-object"), file!("dreambooth-live")]),
    ("core", [file!("core-object"), file!("core-live")]),
    ("custom101", [file!("custom101"), file!("custom101")]),
    ("toybox", [file!("toybox"), file!("toybox")]),
];

impl Templates {
    /// The set of this name, in its version for what `class` is, or the lines of a file; and what it is called: the name
    /// of the embedded file, or of the given one without its folder.
    pub fn evaluation(name: &str, class: &str) -> Result<(Self, String), TemplateError> {
        let Some((_, lists)) = SETS.iter().find(|(set, _)| *set == name) else {
            let path = Path::new(name);
            let called = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok((Self::from_file(path)?, called));
        };
        let (file, text) = lists[usize::from(kind_of(class) != Kind::Thing)];
        let called = Path::new(file).file_stem().unwrap_or_default();
        Ok((Self::parse(text, file)?, called.to_string_lossy().into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_have_the_sizes_of_the_published_protocols_and_no_prompt_twice() {
        for (name, class, called, count) in [
            ("dreambooth", "teapot", "dreambooth-object", 25),
            ("dreambooth", "cat", "dreambooth-live", 25),
            ("core", "teapot", "core-object", 20),
            ("core", "old woman", "core-live", 20),
            ("custom101", "cat", "custom101", 20),
            ("toybox", "", "toybox", 12),
        ] {
            let (set, found) = Templates::evaluation(name, class).unwrap();
            let mut lines = set.lines;
            lines.sort_unstable();
            lines.dedup();
            assert_eq!((found.as_str(), lines.len()), (called, count), "{name} for {class}");
            assert!(lines.iter().all(|line| line.matches("{}").count() == 1), "{called}");
        }
    }

    #[test]
    fn dreambooth_s_kinds_have_the_published_counts() {
        let counts = |class: &str| {
            let file = SETS[0].1[usize::from(kind_of(class) != Kind::Thing)].1;
            let parts: Vec<&str> = file.split("# kind: ").skip(1).collect();
            let lines = |part: &&str| {
                let lines = part.lines().skip(1);
                lines.filter(|line| !line.is_empty() && !line.starts_with('#')).count()
            };
            parts.iter().map(lines).collect::<Vec<_>>()
        };
        assert_eq!(counts("teapot"), [20, 5]);
        assert_eq!(counts("dog"), [10, 10, 5]);
    }

    #[test]
    fn any_other_name_is_a_file() {
        let error = Templates::evaluation("nowhere/x.txt", "cat").unwrap_err().to_string();
        assert!(error.starts_with("template file nowhere/x.txt cannot be read"), "{error}");
    }
}
