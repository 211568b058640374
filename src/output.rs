//! Results on stdout, the rest on stderr: the only place that writes to either, so that a write that fails ends no work
//! and nothing of a foreign file steers the terminal.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// The first failure to write a result.
static LOST: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes lines of results to stdout. What fails is told by [`end`], so that long work is not lost for it.
pub fn line(text: impl Display) {
    let mut text = text.to_string();
    if io::stdout().is_terminal() {
        text = text.split('\n').map(shown).collect::<Vec<_>>().join("\n");
    }
    wrote(writeln!(io::stdout(), "{text}"));
}

/// Writes one line to stderr. Where nobody reads it, on a closed terminal or a full disk, the work goes on.
pub fn say(text: impl Display) {
    let _ = io::stderr().write_all((shown(&text.to_string()) + "\n").as_bytes());
}

/// Keeps a failure to write to stdout for [`end`]. A reader that has gone (`| head`) wants no more, and that is none.
pub fn wrote(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Gives the exit code of a command that ended with `code`: a success whose results could not be written is none.
pub fn end(code: ExitCode) -> ExitCode {
    wrote(io::stdout().flush());
    let Some(source) = LOST.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return code;
    };
    let error = pipelines::Error::Io { path: "stdout".into(), verb: "written", source };
    say(format_args!("error: {error}"));
    if code == ExitCode::SUCCESS { ExitCode::from(error.exit_code()) } else { code }
}

/// Spells out what would steer a terminal, as JSON does: control characters, the ends of lines among them, and the marks
/// that turn the direction of writing. Inside JSON it means the same as before.
fn shown(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let spelt = |c: char| match c {
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        c if steers(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.into(),
    };
    text.chars().map(spelt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_spelt_out_and_the_rest_is_not() {
        let text = "a\u{1b}[31m b\u{7f} c\u{9b}2J d\u{202e}e\u{2066} f\n\tg";
        let spelt = r"a\u001b[31m b\u007f c\u009b2J d\u202ee\u2066 f\n\tg";
        assert_eq!(shown(text), spelt);
        let innocent = "größe 猫 क्\u{200d}ष \\ \"x\" 👩\u{200d}🎨";
        assert_eq!(shown(innocent), innocent);
    }

    #[test]
    fn json_means_the_same_when_it_is_spelt_out() {
        let value = serde_json::json!({ "path": "a\u{202e}b\u{9b}c\u{7f}\n\"" });
        let text = shown(&value.to_string());
        assert!(!text.contains(['\u{202e}', '\u{9b}', '\u{7f}']), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }
}
