//! What the README tells people to type and to read.

#![allow(clippy::unwrap_used)] // a test that panics says so

use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");
const MAKEFILE: &str = include_str!("../Makefile");

/// The lines of the fenced blocks, those that end in a backslash joined with the next.
fn typed() -> Vec<String> {
    let blocks = README.split("```").skip(1).step_by(2).map(|b| b.split_once('\n').unwrap().1);
    blocks
        .flat_map(|b| b.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// The words of a command up to a redirection; quotes are single ones.
fn words(line: &str) -> Vec<String> {
    let line = line.split(" > ").next().unwrap();
    let parts = line.split('\'').enumerate().map(|(i, part)| match i % 2 {
        0 => part.to_owned(),
        _ => part.replace(' ', "\0"),
    });
    parts.collect::<String>().split_whitespace().map(|word| word.replace('\0', " ")).collect()
}

#[test]
fn every_command_parses() {
    let elsewhere = tempfile::tempdir().unwrap(); // no photo, base or concept is there
    let lines = typed();
    let commands: Vec<_> = lines.iter().filter(|line| line.starts_with("personalize ")).collect();
    assert!(commands.len() >= 8, "{commands:#?}");
    for line in commands {
        let mut arguments = words(line);
        let trains = arguments[1] == "train";
        if trains {
            arguments.push("--print-config".to_owned());
        }
        let ran = Command::new(env!("CARGO_BIN_EXE_personalize"))
            .args(&arguments[1..])
            .current_dir(&elsewhere)
            .env_remove("PERSONALIZE_CONFIG")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(!said.contains("For more information, try"), "{line}\n{said}"); // how clap ends
        assert!(ran.status.success() || !trains, "{line}\n{said}");
    }
}

#[test]
fn every_make_target_is_in_the_makefile() {
    let lines = typed();
    let targets: Vec<_> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("make ")?.split_whitespace().next())
        .collect();
    assert_eq!(targets, ["demo", "test"]);
    for target in targets {
        assert!(MAKEFILE.lines().any(|line| line.starts_with(&format!("{target}:"))), "{target}");
    }
}

/// What a link calls a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
    let text: String = heading.trim_start_matches('#').trim().chars().filter(kept).collect();
    text.to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_of_the_documents_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<_> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root.join(name)).into();
    for folder in ["docs", "docs/methods"] {
        let entries = root.join(folder).read_dir().unwrap().map(|entry| entry.unwrap().path());
        documents.extend(entries.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    let mut found = 0;
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if !target.starts_with("https://") {
                let (file, heading) = target.split_once('#').unwrap_or((target, ""));
                let path = document.parent().unwrap().join(file);
                let headings = |text: String| -> Vec<String> {
                    text.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
                };
                let known = || headings(std::fs::read_to_string(&path).unwrap());
                assert!(heading.is_empty() || known().contains(&heading.to_owned()), "{target}");
                assert!(path.is_file(), "{}: {target}", document.display());
                found += 1;
            }
        }
    }
    assert!(found >= 8, "{found} links");
}
