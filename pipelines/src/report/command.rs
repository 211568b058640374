//! Commands that do again what was done, quoted for a shell.

use std::path::{Path, PathBuf};

use maud::{Markup, html};

use super::{home, page};
use crate::config::word;
use crate::evaluate::EvaluateRequest;

/// A command, a flag with its value on each line.
struct Command(Vec<String>);

impl Command {
    fn new(verb: &str) -> Self {
        Self(vec![format!("personalize {verb}")])
    }

    fn switch(&mut self, flag: &str, on: bool) {
        if on {
            self.0.push(flag.to_owned());
        }
    }

    fn flag(&mut self, flag: &str, value: &str) {
        let quoted = quoted(value, home::folder().as_deref());
        let between = if value.starts_with('-') { '=' } else { ' ' };
        self.0.push(format!("{flag}{between}{quoted}"));
    }

    fn optional(&mut self, flag: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.flag(flag, value);
        }
    }

    fn path(&mut self, flag: &str, path: &Path) {
        self.flag(flag, &path.to_string_lossy());
    }

    fn text(&self) -> String {
        self.0.join(" \\\n  ")
    }
}

/// Quotes a value for a shell; the home folder, which a report that is passed on should not name, as the variable that holds it.
fn quoted(value: &str, home: Option<&str>) -> String {
    // A NUL is the only thing that cannot be quoted, and no argument that arrived holds one.
    let quoted = |text: &str| match text {
        "" => String::new(),
        text => shlex::try_quote(text).map_or_else(|_| text.to_owned(), Into::into),
    };
    match home.and_then(|home| home::split(value, home)) {
        Some((before, after)) => format!("{}\"$HOME\"{}", quoted(before), quoted(after)),
        None if value.is_empty() => "''".to_owned(),
        None => quoted(value),
    }
}

/// A folder beside `folder`: the command would refuse to repeat in the same one.
fn another(folder: &Path) -> PathBuf {
    let mut name = folder.components().as_path().as_os_str().to_owned();
    name.push("-again");
    name.into()
}

/// Trains as the configuration in this folder says.
pub(super) fn train(folder: &Path) -> String {
    let mut command = Command::new("train");
    command.path("--config", &folder.join("config.toml"));
    command.path("--output", &another(folder));
    command.text()
}

/// Goes on with the run in this folder.
pub(super) fn resume(folder: &Path) -> String {
    let mut command = Command::new("train");
    command.path("--config", &folder.join("config.toml"));
    command.switch("--resume", true);
    command.text()
}

/// Evaluates as this request says, beside `folder`.
pub(super) fn evaluate(request: &EvaluateRequest, folder: &Path) -> String {
    let drawing = &request.drawing;
    let mut command = Command::new("evaluate");
    for (name, path) in &drawing.concepts {
        let path = path.to_string_lossy();
        let concept = name.as_ref().map_or(path.to_string(), |name| format!("{name}={path}"));
        command.flag("--concept", &concept);
    }
    command.path("--photos", &request.photos);
    command.flag("--prompts", &request.prompts);
    command.optional("--class", request.class.as_ref());
    command.optional("--clip-text", word(&request.clip_text).as_ref());
    let folders =
        [("--clip", &request.clip), ("--dino", &request.dino), ("--masks", &request.masks)];
    for (flag, folder) in folders {
        if let Some(folder) = folder {
            command.path(flag, folder);
        }
    }
    if !drawing.base.as_os_str().is_empty() {
        command.path("--base", &drawing.base);
    }
    command.optional("--variant", drawing.variant.as_ref());
    command.flag("--images", &drawing.count.to_string());
    command.flag("--seed", &drawing.seed.to_string());
    command.flag("--sampler", &drawing.sampler);
    command.optional("--spacing", word(&drawing.spacing).as_ref());
    command.switch("--karras", drawing.karras);
    command.flag("--steps", &drawing.steps.to_string());
    command.flag("--guidance", &drawing.guidance.to_string());
    command.flag("--guidance-rescale", &drawing.guidance_rescale.to_string());
    if !drawing.negative_prompt.is_empty() {
        command.flag("--negative-prompt", &drawing.negative_prompt);
    }
    command.optional("--width", drawing.width.map(|w| w.to_string()).as_ref());
    command.optional("--height", drawing.height.map(|h| h.to_string()).as_ref());
    command.flag("--clip-skip", &drawing.clip_skip.to_string());
    command.flag("--refine", &drawing.refine.to_string());
    command.switch("--truncate", drawing.truncate);
    command.flag("--batch-size", &drawing.batch_size.to_string());
    command.optional("--precision", word(&drawing.precision).as_ref());
    command.optional("--device", word(&drawing.device).as_ref());
    command.path("--output", &another(folder));
    command.text()
}

/// A command with what has to be known to run it.
pub(super) fn shown(text: &str) -> Markup {
    html! {
        (page::command(text))
        p.caption { "Paths are as they were typed, from the folder in which it was done." }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_read_otherwise_is_quoted() {
        let text = train(Path::new("my runs/a 'cat'/"));
        let words = shlex::split(&text.replace("\\\n", "")).unwrap();
        assert_eq!(
            words,
            [
                "personalize",
                "train",
                "--config",
                "my runs/a 'cat'/config.toml",
                "--output",
                "my runs/a 'cat'-again"
            ]
        );
        assert_eq!(quoted("", None), "''");
        let mut command = Command::new("evaluate");
        command.flag("--negative-prompt", "-dark <b>");
        assert_eq!(
            shlex::split(&command.text().replace("\\\n", "")).unwrap()[2..],
            ["--negative-prompt=-dark <b>"]
        );
    }

    #[test]
    fn the_home_folder_is_the_shell_s_variable() {
        let home = Some("/home/my name");
        for (value, shown) in [
            ("/home/my name/runs/cat", r#""$HOME"/runs/cat"#),
            ("/home/my name", r#""$HOME""#),
            ("<my cat>=/home/my name/a b", r#"'<my cat>='"$HOME"'/a b'"#),
            ("/home/my names/cat", "'/home/my names/cat'"),
            ("/mnt/home/my name/cat", "'/mnt/home/my name/cat'"),
        ] {
            assert_eq!(quoted(value, home), shown);
        }
        assert_eq!(quoted("/mnt/cat", None), "/mnt/cat");
    }
}
