//! Judging concepts as a user meets it: scores, going on, comparing, and what is refused.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cli::{Run, base, personalize, photos, run, scratch, write_tensor};
use models::clip::{Clip, ClipConfig};
use models::params::Params;
use models::seeded::Seeded;
use models::tokenizer::Tokenizer;
use models::weights;
use serde_json::Value;
use tch::{Device, Kind};

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A concept of one vector with this word, as other tools write it.
fn concept(name: &str, width: usize, value: f32) -> PathBuf {
    let file = scratch(&format!("{name}.safetensors"));
    write_tensor(&file, "emb_params", &[1, width], value);
    file
}

fn prompts(name: &str, lines: &str) -> PathBuf {
    let file = scratch(name);
    fs::write(&file, lines).expect("written");
    file
}

/// A CLIP with random weights, made of the fixtures' configurations and tokenizer.
fn clip() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let folder = scratch("clip");
        fs::create_dir_all(&folder).expect("a folder");
        let files = ["clip/config.json", "clip/preprocessor_config.json"];
        let words = ["sd1/tokenizer/vocab.json", "sd1/tokenizer/merges.txt"];
        for file in files.iter().chain(&words) {
            let name = Path::new(file).file_name().expect("a name");
            fs::copy(fixtures.join(file), folder.join(name)).expect("copied");
        }
        let config = ClipConfig::read(&folder).expect("a configuration");
        let source = Seeded::new("clip", Seeded::BASE_SEED, Kind::Float, Device::Cpu);
        drop(Clip::new(&Params::root(&source), &config, Tokenizer::open(&folder).expect("words")));
        weights::write(&folder.join("model.safetensors"), source.into_drawn()).expect("written");
        folder
    })
}

/// A copy of [`clip`] in which one text of a file is another.
fn changed_clip(name: &str, file: &str, from: &str, to: &str) -> PathBuf {
    let folder = scratch(name);
    fs::create_dir_all(&folder).expect("a folder");
    for entry in fs::read_dir(clip()).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
    }
    let text = fs::read_to_string(folder.join(file)).expect("text");
    assert!(text.contains(from), "{text}");
    fs::write(folder.join(file), text.replacen(from, to, 1)).expect("written");
    folder
}

/// Two prompts, one picture of 32 pixels each, two steps, on the random base; later arguments win.
fn evaluate(output: &Path, more: &[&str]) -> Run {
    let (dots, set) = (concept("dots", 64, 0.1), prompts("two.txt", "a {} at sea\na red {}\n"));
    let mut command = personalize();
    command.args(["evaluate", "--class", "cat", "--images", "1", "--steps", "2", "--quiet"]);
    command.args(["--width", "32", "--height", "32"]);
    for (flag, value) in [
        ("--base", base("sd1")),
        ("--clip", clip()),
        ("--photos", photos()),
        ("--prompts", &set),
        ("--output", output),
    ] {
        command.arg(flag).arg(value);
    }
    if !more.contains(&"--concept") {
        command.arg("--concept").arg(dots);
    }
    let output = command.args(more).output().expect("the program starts");
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn results(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("results.json")).expect("results");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_built_in_base_is_judged_by_its_own_clip_and_an_ended_run_goes_on() {
    let bear = concept("bear", 128, 0.05);
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/toybox/concepts/bear");
    let set = prompts("toys.txt", "a photo of a {} in the snow\na sketch of a {}\n");
    let out = scratch("built-in");
    let arguments = [
        ["evaluate", "--concept", path(&bear)].as_slice(),
        &["--class", "bear", "--photos", path(&photos), "--prompts", path(&set)],
        &["--images", "1", "--steps", "2", "--output", path(&out)],
    ]
    .concat();
    let first = run(&arguments);
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.out.contains("CLIP-I") && first.out.ends_with("report.html\n"), "{}", first.out);
    let written = fs::read(out.join("results.json")).expect("results");
    let found = results(&out);
    let photo = found["photos"]["clip_i"].as_f64().expect("a likeness of the photos");
    assert!(photo > 0.5 && photo < 1.0, "the photos show one bear: {photo}");
    for metric in ["clip_i", "clip_t_class", "clip_t_drop", "unet_likeness"] {
        let values: Vec<f64> = (0..2)
            .map(|i| found["prompts"][i]["scores"][metric].as_f64().expect("a score"))
            .collect();
        assert!(
            values.iter().all(|x| x.abs() <= 1.0) && (values[0] - values[1]).abs() > 1e-9,
            "{values:?}"
        );
        let mean = found["summary"][metric]["mean"].as_f64().expect("a mean");
        assert!((mean - f64::midpoint(values[0], values[1])).abs() < 1e-12);
    }
    assert!(found["summary"].get("diversity").is_none(), "one picture has no diversity");

    // As after Ctrl-C: one picture and the results are missing.
    let pictures = ["a-photo-of-a-bear-in-the-snow-0.png", "a-sketch-of-a-bear-0.png"]
        .map(|name| out.join("pictures").join(name));
    let lost = fs::read(&pictures[1]).expect("a picture");
    let kept = fs::metadata(&pictures[0]).expect("a picture").modified().expect("a time");
    fs::remove_file(&pictures[1]).expect("removed");
    fs::remove_file(out.join("results.json")).expect("removed");
    let second = run(&arguments);
    assert_eq!(second.code, 0, "{}", second.err);
    assert!(!second.err.contains("in-the-snow") && second.err.contains("a-sketch"));
    assert_eq!(fs::metadata(&pictures[0]).expect("kept").modified().expect("a time"), kept);
    assert_eq!(fs::read(&pictures[1]).expect("drawn again"), lost);
    assert_eq!(fs::read(out.join("results.json")).expect("results"), written);
}

#[test]
fn methods_are_compared_prompt_by_prompt_and_protocols_must_agree() {
    let (a, b, c) = (scratch("a"), scratch("b"), scratch("c"));
    let other = format!("<dots>={}", path(&concept("other", 64, -0.3)));
    assert_eq!(evaluate(&a, &[]).code, 0);
    assert_eq!(evaluate(&b, &["--concept", &other]).code, 0);
    assert_eq!(evaluate(&c, &["--steps", "3"]).code, 0);
    let files = [&a, &b, &c].map(|folder| folder.join("results.json"));
    let compare =
        |files: &[&str]| run(&[["evaluate", "--json", "--compare"].as_slice(), files].concat());
    let report = compare(&[path(&files[0]), path(&files[1])]);
    assert_eq!(report.code, 0, "{}", report.err);
    let report: Value = serde_json::from_str(&report.out).expect("one JSON object");
    let clip_i = report["metrics"]
        .as_array()
        .expect("metrics")
        .iter()
        .find(|found| found["metric"] == "clip_i")
        .expect("CLIP-I");
    let score = |results: &Value, i: usize| {
        results["prompts"][i]["scores"]["clip_i"].as_f64().expect("a score")
    };
    let (first, second) = (results(&a), results(&b));
    let pairs = [0, 1].map(|i| score(&second, i) - score(&first, i));
    assert!(pairs[0].abs() > 1e-9, "another concept gives other pictures");
    let mean = clip_i["differences"][0]["mean"].as_f64().expect("a mean");
    assert!((mean - f64::midpoint(pairs[0], pairs[1])).abs() < 1e-12, "{mean} of {pairs:?}");
    // Two values d apart: deviation d / √2, interval ± 12.706 · d / 2.
    let low = clip_i["differences"][0]["interval"][0].as_f64().expect("an interval");
    assert!((mean - low - 12.706 * (pairs[0] - pairs[1]).abs() / 2.0).abs() < 1e-9);

    compare(&[path(&files[0]), path(&files[2])])
        .refused(2, &["cannot be compared", "sampling.steps (2, 3)", "in the same way"]);
    compare(&[path(&files[0])]).refused(2, &["two or more", "1 are given"]);
    let cut = scratch("cut.json");
    fs::write(&cut, &fs::read(&files[0]).expect("results")[..200]).expect("written");
    compare(&[path(&files[0]), path(&cut)]).refused(2, &["cut.json does not hold results"]);
    compare(&["nowhere.json", path(&cut)]).refused(3, &["nowhere.json: cannot be read"]);
}

#[test]
fn what_cannot_be_judged_is_refused_before_any_work() {
    let out = scratch("refused");
    evaluate(&out, &["--photos", "nowhere"]).refused(3, &["nowhere does not exist"]);
    let none = prompts("none.txt", "# nothing\n");
    evaluate(&out, &["--prompts", path(&none)]).refused(2, &["none.txt holds no template"]);
    let twice = prompts("twice.txt", "a {}\nA {}!\n");
    evaluate(&out, &["--prompts", path(&twice)]).refused(2, &["'A <dots>!' is there twice"]);
    evaluate(&out, &["--prompts", "dreambench"]).refused(2, &["dreambench cannot be read"]);
    evaluate(&out, &["--images", "0"]).refused(2, &["--images is 0"]);
    evaluate(&out, &["--clip-text", "none"]).refused(2, &["class, drop or literal"]);
    evaluate(&out, &["--clip", path(photos())]).refused(2, &["holds no config.json"]);
    assert!(!out.join("plan.json").exists(), "nothing was planned");

    let dots = concept("dots", 64, 0.1);
    let bare = [
        ["evaluate", "--concept", path(&dots), "--photos", path(photos())].as_slice(),
        &["--prompts", "core", "--output", path(&out), "--base", path(base("sd1"))],
    ]
    .concat();
    run(&bare).refused(2, &["does not say what it is an example of", "--class cat"]);
    run(&[bare.as_slice(), &["--class", "cat"]].concat())
        .refused(2, &["has no CLIP with a vision tower", "pass --clip DIR"]);
}

#[test]
fn encoders_of_another_shape_are_named_before_a_picture_is_drawn() {
    let judged = |name: &str, file: &str, from: &str, to: &str| {
        let folder = changed_clip(name, file, from, to);
        let out = scratch(&format!("by-{name}"));
        let judged = evaluate(&out, &["--clip", path(&folder)]);
        let drawn = out.join("pictures").read_dir().map_or(0, Iterator::count);
        assert_eq!(drawn, 0, "{name}");
        judged
    };
    judged("narrow", "config.json", "\"projection_dim\": 48", "\"projection_dim\": 40")
        .refused(3, &["projection.weight is [48", "not [40", "config.json that belong together"]);
    judged("crop", "preprocessor_config.json", "\"height\": 32", "\"height\": 24")
        .refused(3, &["the crop is 32x24", "squares of 32"]);
    judged("none", "config.json", "\"patch_size\": 8", "\"patch_size\": 0")
        .refused(3, &["patch_size is 0"]);
    judged("words", "config.json", "\"vocab_size\": 1024", "\"vocab_size\": 1000")
        .refused(3, &["the tokenizer has 1024 tokens", "knows 1000"]);
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let out = scratch("foreign");
    fs::create_dir_all(out.join("pictures")).expect("a folder");
    fs::write(out.join("pictures/mine.png"), b"mine").expect("written");
    evaluate(&out, &[]).refused(2, &["holds files and no evaluation", "another --output"]);
    assert_eq!(fs::read(out.join("pictures/mine.png")).expect("still there"), b"mine");

    let out = scratch("half");
    assert_eq!(evaluate(&out, &[]).code, 0);
    evaluate(&out, &["--steps", "3"])
        .refused(2, &["holds another evaluation", "sampling.steps (2, 3)", "another --output"]);
    evaluate(&out, &["--images", "2"]).refused(2, &["seeds (1 entries, 2 entries)"]);
    let picture = out.join("pictures/a-dots-at-sea-0.png");
    let other = fs::read(out.join("pictures/a-red-dots-0.png")).expect("a picture");
    let whole = fs::read(&picture).expect("a picture");
    fs::write(&picture, &other).expect("written");
    evaluate(&out, &[])
        .refused(2, &["a picture of another plan", "prompt (a red <dots>, a <dots> at sea)"]);
    fs::write(&picture, &whole[..whole.len() - 200]).expect("written");
    evaluate(&out, &[]).refused(3, &["a-dots-at-sea-0.png"]);
    fs::write(out.join("plan.json"), "{").expect("written");
    evaluate(&out, &[]).refused(2, &["plan.json does not hold the plan", "another folder"]);
}
