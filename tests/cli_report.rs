//! The report as a user meets it: what is in the file, that it needs nothing else, and that its commands do it again.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cli::{base, finish, personalize, photos, run, scratch, spawn, train, train_command};
use serde_json::Value;

/// Something that would be a picture, a script or an entity if it were not escaped.
const WILD: &str = r#"a {} & "co" <img src=x onerror=alert(1) "#;

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn report(folder: &Path) -> String {
    fs::read_to_string(folder.join("report.html")).expect("a report")
}

fn toybox(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/toybox").join(name)
}

/// A run with samples of two prompts at two steps, on the built-in base.
fn a_run() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let out = scratch("a run");
        let photos = toybox("concepts/teapot");
        let trained = run(&[
            ["train", "--method", "core", "--photos", path(&photos), "--concept", "<pot>"]
                .as_slice(),
            &["--class", "teapot", "--steps", "2", "--sample-prompt", WILD, "--sample-prompt"],
            &["a red {}", "--sample-every", "1", "--set", "sample_steps=2", "--quiet"],
            &["--output", path(&out)],
        ]
        .concat());
        assert_eq!(trained.paths(), [out.join("pot.safetensors"), out.join("report.html")]);
        assert!(!trained.err.contains("no report"), "{}", trained.err);
        out
    })
}

/// An evaluation of [`a_run`]'s concept in two prompts of two seeds.
fn an_evaluation() -> &'static Path {
    static EVALUATION: OnceLock<PathBuf> = OnceLock::new();
    EVALUATION.get_or_init(|| {
        let (out, set) = (scratch("an evaluation"), scratch("two prompts.txt"));
        fs::write(&set, "a {} in the snow\na sketch of a {} & <i\n").expect("written");
        let concept = format!("<my-pot>={}", path(&a_run().join("pot.safetensors")));
        let photos = toybox("concepts/teapot");
        let evaluated = run(&[
            ["evaluate", "--concept", &concept, "--photos", path(&photos), "--prompts"].as_slice(),
            &[path(&set), "--images", "2", "--steps", "2", "--seed", "5", "--karras", "--json"],
            &["--negative-prompt=-dark 'n' \"dull\"", "--quiet", "--output", path(&out)],
        ]
        .concat());
        assert_eq!(evaluated.code, 0, "{}", evaluated.err);
        let told: Value = serde_json::from_str(&evaluated.out).expect("one JSON object");
        assert_eq!(told["report"], path(&out.join("report.html")));
        out
    })
}

/// What stands between two marks, as a reader sees it.
fn read(html: &str, from: &str, to: &str) -> Vec<String> {
    let parts = html.split(from).skip(1).filter_map(|rest| rest.split_once(to));
    let plain = |text: &str| {
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&amp;", "&")]
            .iter()
            .fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
    };
    parts.map(|(text, _)| plain(text)).collect()
}

/// The first command of a report, done in a shell.
fn do_again(folder: &Path) -> PathBuf {
    do_again_at(folder, &[])
}

/// [`do_again`] with these variables.
fn do_again_at(folder: &Path, variables: &[(&str, &Path)]) -> PathBuf {
    let html = report(folder);
    let command = read(&html, "<pre class=\"command\" tabindex=\"0\"><code>", "</code>").remove(0);
    let program = Path::new(env!("CARGO_BIN_EXE_personalize"));
    let programs = program.parent().expect("a folder").display();
    let search = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).env("PATH", search).env("OMP_NUM_THREADS", "1");
    for variable in ["PERSONALIZE_BASE", "PERSONALIZE_DEVICE", "PERSONALIZE_CONFIG"] {
        shell.env_remove(variable);
    }
    let done = shell.envs(variables.iter().copied()).output().expect("a shell");
    assert!(done.status.success(), "{command}\n{}", String::from_utf8_lossy(&done.stderr));
    PathBuf::from(format!("{}-again", folder.display()))
}

#[track_caller]
fn needs_nothing_else(html: &str) {
    for word in ["http:", "https:", "@import", "url(", "src=\"/", "<iframe", "<script src"] {
        assert!(!html.contains(word), "{word} is in the report");
    }
    for address in read(html, " src=\"", "\"").iter().chain(&read(html, " href=\"", "\"")) {
        assert!(address.starts_with("data:") || address.starts_with('#'), "{address}");
    }
    assert!(html.contains("default-src &#39;none&#39;") || html.contains("default-src 'none'"));
}

#[test]
fn a_run_s_report_shows_photos_samples_attention_and_every_logged_quantity() {
    let html = report(a_run());
    needs_nothing_else(&html);
    let names: Vec<String> = read(&html, " alt=\"", "\"");
    let count = |start: &str| names.iter().filter(|name| name.starts_with(start)).count();
    assert_eq!(count("photo "), 5);
    for step in [1, 2] {
        for prompt in [WILD.replace("{}", "<pot>"), "a red <pot>".to_owned()] {
            let name = format!("{prompt}, after step {step}");
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
    }
    assert_eq!(count("attention on <pot>: "), 2);
    assert!(html.contains("&lt;img src=x onerror") && !html.contains("<img src=x"));
    assert_eq!(read(&html, "data-viewer=\"", "\""), ["1 2"]);

    let mut logged = BTreeSet::new();
    for line in fs::read_to_string(a_run().join("log.jsonl")).expect("a log").lines() {
        let line: serde_json::Map<String, Value> = serde_json::from_str(line).expect("JSON");
        for (key, value) in line.iter().filter(|(key, _)| *key != "step") {
            match value.as_array() {
                None => drop(logged.insert(key.clone())),
                Some(pairs) => {
                    let name = |pair: &Value| pair[0].as_str().expect("a name").to_owned();
                    logged.extend(pairs.iter().map(|pair| format!("{key}.{}", name(pair))));
                }
            }
        }
    }
    assert!(logged.len() > 8 && logged.contains("terms.context_embedding"), "{logged:?}");
    assert_eq!(BTreeSet::from_iter(read(&html, "data-quantity=\"", "\"")), logged);
}

#[test]
fn an_evaluation_s_report_shows_scores_a_grid_attention_and_the_protocol() {
    let html = report(an_evaluation());
    needs_nothing_else(&html);
    let text = fs::read_to_string(an_evaluation().join("results.json")).expect("results");
    let results: Value = serde_json::from_str(&text).expect("JSON");
    for summary in results["summary"].as_object().expect("metrics").values() {
        let mean = format!("<td>{:.4}</td>", summary["mean"].as_f64().expect("a mean"));
        assert!(html.contains(&mean), "{mean}");
    }
    for prompt in results["prompts"].as_array().expect("prompts") {
        for score in prompt["scores"].as_object().expect("scores").values() {
            let score = format!("<td>{:.4}</td>", score.as_f64().expect("a score"));
            assert!(html.contains(&score), "{score}");
        }
    }
    let names = read(&html, " alt=\"", "\"");
    for prompt in ["a <my-pot> in the snow", "a sketch of a <my-pot> & <i"] {
        for seed in [5, 6] {
            assert!(names.contains(&format!("{prompt}, seed {seed}")), "{names:?}");
        }
        assert!(names.contains(&format!("attention on <my-pot>: {prompt}, seed 5")), "{names:?}");
    }
    assert_eq!(names.iter().filter(|name| name.starts_with("photo ")).count(), 5);
    for hash in ["base", "clip"].map(|part| results["protocol"][part]["sha256"].as_str()) {
        assert!(html.contains(hash.expect("a hash")));
    }
}

#[test]
fn the_command_in_a_report_does_the_same_again() {
    let again = do_again(a_run());
    for file in ["samples/000002-0.png", "samples/000001-1.png"] {
        let read = |folder: &Path| fs::read(folder.join(file)).expect("a picture");
        assert!(read(a_run()) == read(&again), "{file} is another");
    }
    let again = do_again(an_evaluation());
    let read = |folder: &Path| fs::read(folder.join("results.json")).expect("results");
    assert!(read(an_evaluation()) == read(&again), "other results");
}

#[test]
fn attention_is_shown_for_every_method_and_on_the_photos_where_there_is_no_sample() {
    for (method, more) in [
        ("ti", ["--vectors", "2"].as_slice()),
        ("xti", &["--batch-size", "1"]),
        ("neti", &[]),
        ("cones", &[]),
        ("cones", &["--slots", "prompt"]),
    ] {
        let out = scratch(&format!("{method}{}", more.len()));
        train(&out, &[&["--method", method, "--steps", "1"], more].concat()).paths();
        let names = read(&report(&out), " alt=\"", "\"");
        let maps = names.iter().filter(|name| name.starts_with("attention on <cat>: ")).count();
        assert_eq!(maps, 4, "{method} {more:?}: {names:?}");
    }
}

#[test]
fn a_report_is_made_again_for_a_folder_and_says_what_is_gone() {
    let (out, own) = (scratch("alone"), scratch("own photos"));
    fs::create_dir_all(&own).expect("a folder");
    for entry in fs::read_dir(photos()).expect("photos") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), own.join(entry.file_name())).expect("copied");
    }
    train(&out, &["--photos", path(&own), "--no-report"]).paths();
    assert!(!out.join("report.html").exists());
    let made = run(&["report", path(&out)]);
    assert_eq!(made.paths(), [out.join("report.html")]);
    let whole = report(&out);
    assert!(whole.contains("As the training saw them") && !whole.contains("class=\"notice\""));

    fs::remove_file(own.join("0.jpg")).expect("removed");
    run(&["report", path(&out)]).paths();
    assert!(report(&out).contains("not the photos that the concept was trained on"));
    fs::remove_dir_all(&own).expect("removed");
    let config = fs::read_to_string(out.join("config.toml")).expect("a configuration");
    let gone = config.replace(path(base("sd1")), "/gone/base");
    fs::write(out.join("config.toml"), gone).expect("written");
    run(&["report", path(&out)]).paths();
    let html = report(&out);
    assert!(html.contains("The photos cannot be shown any more"), "{html}");
    assert!(html.contains("There are no attention maps") && html.contains("/gone/base"));
    assert!(html.contains("data-quantity=\"loss\""));
}

#[test]
fn a_report_s_configuration_is_checked_as_that_of_a_run_is() {
    let out = scratch("absurd");
    train(&out, &["--no-report"]).paths();
    let config = fs::read_to_string(out.join("config.toml")).expect("a configuration");
    let log = out.join("log.jsonl");
    let line = "{\"step\":3,\"loss\":1e308}\n{\"step\":4,\"loss\":-1e308}\n";
    fs::write(&log, fs::read_to_string(&log).expect("a log") + line).expect("written");
    run(&["report", path(&out)]).paths(); // numbers that no axis has room for are left out
    for base in [path(base("sd1")), "/gone/base"] {
        let absurd = config.replace("resolution = 32", "resolution = 4294967295");
        let absurd = absurd.replace(path(cli::base("sd1")), base);
        fs::write(out.join("config.toml"), absurd).expect("written");
        let found = run(&["report", path(&out)]);
        let told = if found.code == 0 { report(&out) } else { found.err };
        assert!(told.contains("resolution is 4294967295"), "{told}");
    }
}

#[test]
fn a_folder_of_neither_is_refused_and_a_report_that_fails_ends_no_run() {
    let empty = scratch("neither");
    fs::create_dir_all(&empty).expect("a folder");
    run(&["report", path(&empty)]).refused(2, &["neither config.toml of a run", "--output"]);

    let out = scratch("taken");
    fs::create_dir_all(out.join("report.html/by a folder")).expect("a folder");
    let trained = train(&out, &["--json"]);
    assert_eq!(trained.code, 0, "{}", trained.err);
    assert!(trained.err.starts_with("warning: there is no report: "), "{}", trained.err);
    let end: Value =
        serde_json::from_str(trained.out.lines().last().expect("events")).expect("JSON");
    assert_eq!(
        (&end["path"], &end["report"]),
        (&path(&out.join("cat.safetensors")).into(), &Value::Null)
    );
}

#[test]
fn a_browser_opens_both_reports_without_a_fault_and_the_slider_moves() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/check_report.py");
    let mut check = Command::new("python3");
    check.arg(script).args([a_run(), an_evaluation()].map(|folder| folder.join("report.html")));
    let Ok(checked) = check.output() else {
        return eprintln!("skipped: this machine has no python3 to drive a browser with");
    };
    let told = String::from_utf8_lossy(&checked.stderr);
    if checked.status.code() == Some(77) {
        return eprintln!("{told}");
    }
    assert!(checked.status.success(), "{told}");
}

#[test]
fn a_report_names_no_home_and_its_command_finds_it() {
    let home = scratch("the home of someone");
    fs::create_dir_all(home.join("my photos")).expect("a folder");
    for file in fs::read_dir(photos()).expect("photos") {
        let file = file.expect("a photo");
        fs::copy(file.path(), home.join("my photos").join(file.file_name())).expect("copied");
    }
    let out = home.join("runs/a cat's");
    let mut command = train_command(&out, &["--photos", path(&home.join("my photos"))]);
    command.env("HOME", &home);
    let trained = finish(spawn(command));
    assert_eq!(trained.paths()[0], out.join("cat.safetensors"));
    let named = |html: &str| html.contains(path(&home));
    assert!(!named(&report(&out)), "the report names the home");
    assert!(fs::read_to_string(out.join("config.toml")).expect("a file").contains(path(&home)));
    let again = do_again_at(&out, &[("HOME", &home)]);
    assert!(again.starts_with(&home) && again.join("cat.safetensors").is_file());
    // What is not there any more is said by its path, from the home on.
    fs::rename(home.join("my photos"), home.join("moved")).expect("renamed");
    let mut command = personalize();
    command.arg("report").arg(&out).env("HOME", &home);
    finish(spawn(command)).paths();
    assert!(!named(&report(&out)) && report(&out).contains("~/my photos"));
}
