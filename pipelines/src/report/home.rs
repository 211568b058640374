//! The user's home folder, which a report that is passed on does not name.

/// Finds the home folder; `None` where it is not known, or all of the disk.
pub(super) fn folder() -> Option<String> {
    let home = std::env::var("HOME").ok()?;
    let home = home.trim_end_matches('/');
    (home.starts_with('/')).then(|| home.to_owned())
}

/// Splits a value that is a path in `home`, alone or behind `WORD=`, into what stands before and after it.
pub(super) fn split<'a>(value: &'a str, home: &str) -> Option<(&'a str, &'a str)> {
    let (before, after) = value.split_once(home)?;
    let starts = before.is_empty() || before.ends_with('=');
    (starts && (after.is_empty() || after.starts_with('/'))).then_some((before, after))
}

/// Writes `~` for the home folder in a sentence.
pub(super) fn shortened(text: &str) -> String {
    folder().map_or_else(|| text.to_owned(), |home| text.replace(&format!("{home}/"), "~/"))
}
