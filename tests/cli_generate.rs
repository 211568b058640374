//! Drawing as a user meets it: where pictures go, what is told, and what is kept when it ends early.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cli::{base, finish, generate, generate_command, interrupt, scratch, spawn, write_tensor};
use serde_json::Value;

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A concept of two vectors as other tools write it; its word is `<dots>`.
fn concept() -> &'static str {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    path(FILE.get_or_init(|| {
        let file = scratch("dots.safetensors");
        write_tensor(&file, "emb_params", &[2, 64], 0.1);
        file
    }))
}

fn pixels(file: &Path) -> Vec<u8> {
    image::open(file).expect("a picture").into_rgb8().into_raw()
}

#[test]
fn every_picture_and_the_grid_are_printed_and_nothing_else() {
    let out = scratch("grid");
    let drawn = generate(&out, &["--prompt", "a cat", "--count", "2", "--grid"]);
    let expected = ["a-cat-1.png", "a-cat-2.png", "grid-1.png"].map(|name| out.join(name));
    assert_eq!(drawn.paths(), expected);
    assert_eq!(drawn.err, "");
    let json =
        generate(&out, &["--prompt", "a cat", "--count", "2", "--grid", "--json", "--force"]);
    let report: Value = serde_json::from_str(&json.out).expect("one JSON object");
    assert_eq!(report["pictures"], serde_json::json!(expected));
    assert_eq!((report["seed"].as_i64(), report["interrupted"].as_bool()), (Some(1), Some(false)));
}

#[test]
fn a_picture_is_never_overwritten_without_force() {
    let out = scratch("again");
    let first = generate(&out, &["--prompt", "x"]).paths();
    let before = fs::read(&first[0]).expect("a picture");
    let second = generate(&out, &["--prompt", "x", "--guidance", "2"]).paths();
    assert_eq!(second, [out.join("x-1-1.png")]);
    assert_eq!(fs::read(&first[0]).expect("a picture"), before);
    assert_eq!(generate(&out, &["--prompt", "x", "--guidance", "2", "--force"]).paths(), first);
    assert_eq!(pixels(&first[0]), pixels(&second[0]));
}

#[test]
fn a_folder_named_like_a_picture_is_a_folder() {
    let out = scratch("folder.png");
    fs::create_dir_all(&out).expect("a folder");
    assert_eq!(generate(&out, &["--prompt", "x"]).paths(), [out.join("x-1.png")]);
}

#[test]
fn concepts_act_wherever_they_stand_and_whatever_they_are_called() {
    let drawn = |name: &str, arguments: &[&str]| {
        let run = generate(&scratch(name), arguments);
        (pixels(&run.paths()[0]), run.err)
    };
    let named = format!("<spots>={}", concept());
    let (plain, _) = drawn("plain", &["--prompt", "a cat"]);
    let (own, quiet) = drawn("own", &["--prompt", "a <dots> cat", "--concept", concept()]);
    let (other, _) = drawn("renamed", &["--prompt", "a <SPOTS> cat", "--concept", &named]);
    let (twice, _) = drawn("twice", &["--prompt", "a <dots> <dots> cat", "--concept", concept()]);
    let negative = ["--prompt", "a cat", "--negative-prompt", "<dots>", "--concept", concept()];
    let (negative, _) = drawn("negative", &negative);
    let (unused, warning) = drawn("unused", &["--prompt", "a cat", "--concept", concept()]);
    assert_eq!((own == other, quiet.as_str()), (true, ""));
    assert_eq!(plain, unused);
    assert!(warning.contains("<dots> is in no prompt"), "{warning}");
    assert!(plain != own && own != twice && plain != negative);
}

#[test]
fn two_concepts_of_one_name_and_useless_names_are_refused() {
    let out = scratch("names");
    let twice = ["--prompt", "<dots>", "--concept", concept(), "--concept", concept()];
    generate(&out, &twice).refused(2, &["two concepts are called <dots>", "NAME=FILE"]);
    let odd = scratch("my dots (v2).safetensors");
    fs::copy(concept(), &odd).expect("copied");
    generate(&out, &["--prompt", "x", "--concept", path(&odd)])
        .refused(2, &["holds white space", "--concept '<my-cat>="]);
    let named = format!("<v2>={}", path(&odd));
    generate(&out, &["--prompt", "a <v2>", "--concept", &named]).paths();
}

#[test]
fn a_prompt_that_is_too_long_is_cut_on_request_and_never_through_a_concept() {
    let long = "snow ".repeat(90);
    let out = scratch("long");
    generate(&out, &["--prompt", &long])
        .refused(2, &["75 fit", "beyond the end: 'snow", "--truncate"]);
    generate(&out, &["--prompt", &long, "--truncate"]).paths();
    let cut = format!("{long} <dots>");
    generate(&out, &["--prompt", &cut, "--truncate", "--concept", concept()])
        .refused(2, &["cuts <dots> off", "move it to the front"]);
}

#[test]
fn half_precision_and_both_families_draw() {
    for family in ["sd1", "sd2"] {
        for precision in ["bf16", "f16"] {
            let out = scratch(&format!("{family}-{precision}"));
            let settings = ["--base", path(base(family)), "--precision", precision];
            let drawn = generate(&out, &[&["--prompt", "a cat"], &settings as &[_]].concat());
            let levels = pixels(&drawn.paths()[0]);
            assert!(
                levels.iter().any(|level| *level != levels[0]),
                "{family} {precision}: one colour"
            );
        }
    }
}

#[test]
fn an_interrupt_keeps_the_pictures_that_are_done() {
    let out = scratch("stopped");
    let mut child = spawn(generate_command(&out, &["--prompt", "x", "--count", "200", "--grid"]));
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let first = lines.next().expect("a line").expect("text");
    interrupt(&child);
    let rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
    let ended = finish(child);
    assert_eq!(ended.code, 130, "{}", ended.err);
    assert!(rest.len() < 100, "{} more pictures", rest.len());
    for file in rest.iter().chain([&first]) {
        assert_eq!(pixels(Path::new(file)).len(), 32 * 32 * 3);
    }
    let written = fs::read_dir(&out).expect("a folder").count();
    assert_eq!(written, rest.len() + 1, "only whole pictures lie there");
}

#[test]
fn a_reader_that_has_gone_ends_nothing() {
    let out = scratch("gone");
    let mut child = spawn(generate_command(&out, &["--prompt", "x", "--count", "3"]));
    drop(child.stdout.take());
    let ended = finish(child);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert_eq!(fs::read_dir(&out).expect("a folder").count(), 3);
}
