//! Judging concepts as a user meets it: scores, going on, comparing, and what is refused.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cli::{Run, base, finish, interrupt, personalize, photos, run, scratch, spawn, write_tensor};
use image::{GrayImage, Luma};
use models::clip::{Clip, ClipConfig};
use models::params::Params;
use models::seeded::Seeded;
use models::tokenizer::Tokenizer;
use models::vit::{Dino, DinoConfig};
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

/// A DINO with random weights.
fn dino() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = scratch("dino");
        fs::create_dir_all(&folder).expect("a folder");
        let like = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dino/config.json");
        fs::copy(like, folder.join("config.json")).expect("copied");
        let config = DinoConfig::read(&folder).expect("a configuration");
        let source = Seeded::new("dino", Seeded::BASE_SEED, Kind::Float, Device::Cpu);
        drop(Dino::new(&Params::root(&source), &config));
        weights::write(&folder.join("model.safetensors"), source.into_drawn()).expect("written");
        folder
    })
}

/// A copy of an encoder's folder in which one text of a file is another.
fn changed(encoder: &Path, name: &str, file: &str, from: &str, to: &str) -> PathBuf {
    let folder = scratch(name);
    fs::create_dir_all(&folder).expect("a folder");
    for entry in fs::read_dir(encoder).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
    }
    let text = fs::read_to_string(folder.join(file)).expect("text");
    assert!(text.contains(from), "{text}");
    fs::write(folder.join(file), text.replacen(from, to, 1)).expect("written");
    folder
}

/// Masks of [`photos`]: their left half counts.
fn masks() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = scratch("masks");
        fs::create_dir_all(&folder).expect("a folder");
        let mask = GrayImage::from_fn(48, 48, |x, _| Luma([if x < 24 { 255 } else { 0 }]));
        for i in 0..4 {
            mask.save(folder.join(format!("{i}.png"))).expect("a mask");
        }
        folder
    })
}

/// Two prompts, one picture of 32 pixels each, two steps, on the random base; later arguments win.
fn evaluate(output: &Path, more: &[&str]) -> Run {
    let output =
        command(output, &[&["--quiet"], more].concat()).output().expect("the program starts");
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// [`evaluate`], not started, and not quiet.
fn command(output: &Path, more: &[&str]) -> Command {
    let (dots, set) = (concept("dots", 64, 0.1), prompts("two.txt", "a {} at sea\na red {}\n"));
    let mut command = personalize();
    command.args(["evaluate", "--class", "cat", "--images", "1", "--steps", "2"]);
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
    command.args(more);
    command
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
    let twice = prompts("twice.txt", "a {}\na {} \n");
    evaluate(&out, &["--prompts", path(&twice)]).refused(2, &["'a <dots>' is there twice"]);
    evaluate(&out, &["--prompts", "dreambench"]).refused(2, &["dreambench cannot be read"]);
    evaluate(&out, &["--images", "0"]).refused(2, &["--images is 0"]);
    evaluate(&out, &["--clip-text", "none"]).refused(2, &["class, drop or literal"]);
    evaluate(&out, &["--clip", path(photos())]).refused(2, &["holds no config.json"]);
    let torn = scratch("torn");
    fs::create_dir_all(&torn).expect("a folder");
    let whole = fs::read(photos().join("0.jpg")).expect("a photo");
    fs::write(torn.join("0.jpg"), &whole[..whole.len() / 2]).expect("written");
    evaluate(&out, &["--photos", path(&torn)]).refused(3, &["0.jpg is incomplete"]);
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
        let (flag, encoder) =
            if name.starts_with("dino") { ("--dino", dino()) } else { ("--clip", clip()) };
        let folder = changed(encoder, name, file, from, to);
        let out = scratch(&format!("by-{name}"));
        let judged = evaluate(&out, &[flag, path(&folder)]);
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
    judged("dino-kind", "config.json", "\"vit\"", "\"dinov2\"")
        .refused(3, &["a model of type 'dinov2'", "(vit)", "dino-vits16"]);
    judged("dino-wide", "config.json", "\"hidden_size\": 32", "\"hidden_size\": 64")
        .refused(3, &["cls_token is [1, 1, 32] and not [1, 1, 64]", "belong together"]);
    judged("dino-patch", "config.json", "\"patch_size\": 8", "\"patch_size\": 80")
        .refused(3, &["patches of 80 pixels do not fit into pictures of 32"]);
    let out = scratch("by-nothing");
    evaluate(&out, &["--dino", path(photos())])
        .refused(2, &["holds no config.json", "the folder of a ViTModel"]);
    evaluate(&out, &["--dino", path(clip())]).refused(3, &["a model of type 'clip'", "(vit)"]);
    evaluate(&out, &["--clip", path(dino())]).refused(3, &["a model of type 'vit'", "(clip)"]);
    evaluate(&out, &["--masks", "nowhere"]).refused(3, &["nowhere is no folder of masks"]);
}

#[test]
fn dino_and_masks_join_pictures_that_are_drawn_already() {
    let out = scratch("judged-twice");
    assert_eq!(evaluate(&out, &[]).code, 0);
    let picture = out.join("pictures/a-dots-at-sea-0.png");
    let drawn = fs::metadata(&picture).and_then(|m| m.modified()).expect("a time");
    let (before, plain) = (fs::read(out.join("results.json")).expect("results"), results(&out));
    assert!(plain["summary"].get("dino").is_none() && plain["protocol"]["dino"].is_null());

    let more = ["--dino", path(dino()), "--masks", path(masks())];
    let again = evaluate(&out, &more);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.out.lines().any(|line| line.starts_with("DINO ")), "{}", again.out);
    for word in ["are judged anew, since", "dino (none, given)", "masks (0 entries, 4 entries)"] {
        assert!(again.err.contains(word), "{}", again.err);
    }
    assert_eq!(fs::metadata(&picture).and_then(|m| m.modified()).expect("a time"), drawn);
    assert_eq!(fs::read(out.join("results-1.json")).expect("the results before"), before);
    let found = results(&out);
    assert_eq!(found["protocol"]["dino"]["sha256"].as_str().expect("a hash").len(), 64);
    assert_eq!(found["protocol"]["masks"].as_array().expect("masks").len(), 4);
    let score = |results: &Value, metric: &str| {
        results["prompts"][0]["scores"][metric].as_f64().expect("a score")
    };
    let dino_score = score(&found, "dino");
    assert!(dino_score.abs() <= 1.0, "{dino_score}");
    // Masks change what pictures are compared with and nothing that concerns the pictures alone.
    for metric in ["clip_i", "unet_likeness"] {
        assert!((score(&found, metric) - score(&plain, metric)).abs() > 1e-6, "{metric}");
    }
    let text = |results: &Value| results["prompts"][0]["scores"]["clip_t_class"].clone();
    assert_eq!(text(&found), text(&plain));
    let html = fs::read_to_string(out.join("report.html")).expect("a report");
    assert!(html.contains(">DINO<") && html.contains("--dino") && html.contains("--masks"));

    let files = [out.join("results-1.json"), out.join("results.json")];
    run(&["evaluate", "--compare", path(&files[0]), path(&files[1])])
        .refused(2, &["protocols differ in", "dino (none, given)"]);
    let same = run(&["evaluate", "--compare", path(&files[1]), path(&files[1])]);
    assert!(same.code == 0 && same.out.contains("DINO\n"), "{}", same.out);

    fs::remove_file(masks().join("3.png")).expect("removed");
    evaluate(&scratch("unmasked"), &more).refused(3, &["holds no mask for the photo", "3.jpg"]);
}

#[test]
fn ctrl_c_keeps_the_pictures_and_the_same_command_goes_on() {
    let (stopped, whole) = (scratch("stopped"), scratch("whole"));
    let many = ["--images", "20", "--no-report"];
    let mut child = spawn(command(&stopped, &many));
    let mut told = Vec::new();
    for line in BufReader::new(child.stderr.take().expect("piped")).lines() {
        told.push(line.expect("text"));
        if told.last().is_some_and(|line| line.ends_with("-1.png")) {
            interrupt(&child);
        }
    }
    assert_eq!(finish(child).code, 130, "{told:?}");
    assert_eq!(told.last().expect("a line"), "interrupted; the same command goes on from here");
    let pictures = |folder: &Path| {
        let mut files: Vec<_> = fs::read_dir(folder.join("pictures"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        files
    };
    let kept = pictures(&stopped);
    assert!((2..30).contains(&kept.len()), "{} pictures of 40", kept.len());
    assert!(!stopped.join("results.json").exists());
    let drawn: Vec<_> =
        kept.iter().map(|p| fs::metadata(p).and_then(|m| m.modified()).unwrap()).collect();

    assert_eq!(evaluate(&stopped, &many).code, 0);
    assert_eq!(evaluate(&whole, &many).code, 0);
    let after: Vec<_> =
        kept.iter().map(|p| fs::metadata(p).and_then(|m| m.modified()).unwrap()).collect();
    assert_eq!(drawn, after, "what was there is not drawn again");
    assert_eq!(pictures(&stopped).len(), 40);
    assert_eq!(results(&stopped), results(&whole));
}

#[test]
fn a_file_that_cannot_be_written_is_told_and_nothing_is_lost() {
    let out = scratch("limited");
    let arguments = ["--images", "8", "--no-report"];
    assert_eq!(evaluate(&out, &arguments).code, 0);
    let written = fs::read(out.join("results.json")).expect("results");
    fs::remove_file(out.join("results.json")).expect("removed");
    // Room for every picture and the plan, but not for the results; blocks are of 512 bytes.
    let whole = command(&out, &[&["--quiet"], &arguments[..]].concat());
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -f {}; exec \"$@\"", (written.len() - 1) / 512), "sh"]);
    shell.arg(whole.get_program()).args(whole.get_args());
    for (name, value) in whole.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    finish(spawn(shell)).refused(1, &["results.json: cannot be written", "raise the limit"]);
    assert_eq!(fs::read_dir(out.join("pictures")).expect("a folder").count(), 16);
    let left =
        fs::read_dir(&out).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let left: BTreeSet<_> = left.collect();
    assert_eq!(
        left,
        BTreeSet::from(["pictures".into(), "plan.json".into()]),
        "no half-written file"
    );
    assert_eq!(evaluate(&out, &arguments).code, 0);
    assert_eq!(fs::read(out.join("results.json")).expect("results"), written);
}

#[test]
fn what_a_killed_process_leaves_behind_is_no_obstacle() {
    let out = scratch("killed");
    fs::create_dir_all(out.join("pictures")).expect("a folder");
    fs::write(out.join(".123-0.tmp"), b"{").expect("written");
    fs::write(out.join("pictures/.123-1.tmp"), b"half a picture").expect("written");
    assert_eq!(evaluate(&out, &[]).code, 0);
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
    fs::write(&picture, "").expect("written");
    let again = evaluate(&out, &[]);
    assert!(again.code == 0 && again.err.contains("is empty and is drawn again"), "{}", again.err);
    fs::write(&picture, &whole[..whole.len() - 200]).expect("written");
    evaluate(&out, &[]).refused(3, &["a-dots-at-sea-0.png"]);
    fs::write(out.join("plan.json"), "{").expect("written");
    evaluate(&out, &[]).refused(2, &["plan.json does not hold the plan", "another folder"]);
}

#[test]
fn an_evaluation_into_a_folder_in_use_is_refused() {
    let out = scratch("in-use");
    let lock = pipelines::FolderLock::take(&out).expect("a free folder");
    evaluate(&out, &[]).refused(2, &["in use", &format!("process {}", std::process::id())]);
    drop(lock);
    assert!(!out.join("plan.json").exists());
}
