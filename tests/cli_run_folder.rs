//! A run's folder as a user meets it: whose it is, what of an earlier run stays there, and what may change when a run goes
//! on.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::fs;
use std::io::{BufRead as _, BufReader};

use cli::{finish, interrupt, names, run, scratch, spawn, step_lines, train, train_command};
use embeddings::file::ConceptFile;

/// Samples and snapshots at every step.
const SHOWN: [&str; 8] = [
    "--sample-prompt",
    "a {}",
    "--sample-every",
    "1",
    "--set",
    "sample_steps=1",
    "--save-every",
    "1",
];

#[test]
fn a_second_run_into_a_folder_in_use_is_refused_and_a_report_is_not() {
    let out = scratch("in-use");
    let mut child =
        spawn(train_command(&out, &["--json", "--steps", "100000", "--save-every", "1"]));
    let mut events = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(events.any(|line| line.expect("text").contains(r#""event":"saved""#)));
    let process = format!("process {}", child.id());
    for how in [&[] as &[&str], &["--force"], &["--resume"]] {
        train(&out, how).refused(2, &["in-use", "in use", &process, "another --output"]);
    }
    let report = run(&["report", out.to_str().expect("UTF-8")]);
    assert_eq!(report.paths(), [out.join("report.html")]);
    interrupt(&child);
    events.for_each(drop);
    assert_eq!(finish(child).code, 130);
    let steps = (step_lines(&out).len() + 1).to_string();
    train(&out, &["--resume", "--steps", &steps, "--save-every", "1"]).paths();
    assert!(!names(&out).iter().any(|name| name.starts_with('.')), "{:?}", names(&out));
}

#[test]
fn what_a_killed_run_left_half_written_is_gone_with_the_next() {
    let out = scratch("strays");
    train(&out, &["--steps", "1"]).paths();
    for name in [".7-0.tmp", ".personalize.lock", ".mine.tmp", "notes.txt"] {
        fs::write(out.join(name), "7").expect("written");
    }
    train(&out, &["--steps", "2", "--resume", "--no-report"]).paths();
    let left = names(&out);
    assert!(left.contains(&".mine.tmp".to_owned()) && left.contains(&"notes.txt".to_owned()));
    assert!(!left.iter().any(|name| name == ".7-0.tmp" || name == ".personalize.lock"), "{left:?}");
}

#[test]
fn no_concept_takes_the_name_of_its_run_s_state_and_all_others_go_on() {
    for word in ["<state>", "state", "<State>"] {
        let out = scratch("named-state");
        train(&out, &["--concept", word]).refused(2, &[word, "state.safetensors", "<my-state>"]);
        assert!(!out.exists());
    }
    for word in ["<config>", "<log>", "<report>", "<samples>"] {
        let out = scratch(&format!("named-{}", &word[1..4]));
        train(&out, &["--concept", word, "--steps", "1"]).paths();
        train(&out, &["--concept", word, "--steps", "2", "--resume"]).paths();
        let file = out.join(format!("{}.safetensors", &word[1..word.len() - 1]));
        let record = ConceptFile::read(&file).expect("a concept").record;
        assert_eq!((record.token.as_str(), record.steps), (word, 2));
    }
}

#[test]
fn force_takes_away_what_the_run_before_left_and_nothing_else_once_it_begins() {
    let out = scratch("forced");
    train(&out, &[&["--concept", "<dog>", "--class", "dog", "--steps", "3"], &SHOWN[..]].concat())
        .paths();
    for name in ["notes.txt", "samples/best.png", "snapshots/kept.safetensors"] {
        fs::write(out.join(name), "mine").expect("written");
    }
    let before = ["samples", "snapshots", ""].map(|folder| names(&out.join(folder)));
    // A plan that is refused has taken nothing away.
    train(&out, &["--force", "--steps", "0"]).refused(2, &["steps is 0"]);
    train(&out, &["--force", "--sample-prompt", "a <hen>"]).refused(2, &["<hen>"]);
    assert_eq!(["samples", "snapshots", ""].map(|folder| names(&out.join(folder))), before);
    train(&out, &[&["--force", "--steps", "2"], &SHOWN[..]].concat()).paths();
    assert_eq!(names(&out.join("samples")), ["000001-0.png", "000002-0.png", "best.png"]);
    assert_eq!(names(&out.join("snapshots")), ["cat-000001.safetensors", "kept.safetensors"]);
    assert!(out.join("notes.txt").exists() && !out.join("dog.safetensors").exists());
    let report = fs::read_to_string(out.join("report.html")).expect("a report");
    assert!(report.contains("after step 2") && !report.contains("after step 3"));
}

#[test]
fn a_concept_without_its_state_can_be_overwritten_and_no_refusal_sends_to_another() {
    let out = scratch("no-state");
    train(&out, &[]).paths();
    fs::remove_file(out.join("state.safetensors")).expect("removed");
    let said = |how: &[&str], not: &str| {
        let refused = train(&out, how);
        refused.refused(2, &["cat.safetensors", "--force", "another --output"]);
        assert!(!refused.err.contains(not), "{}", refused.err);
    };
    said(&[], "--resume");
    said(&["--resume"], "without --resume");
    train(&out, &["--force"]).paths();
    train(&out, &["--resume", "--steps", "3"]).paths();
}

#[test]
fn going_on_with_other_settings_names_them_and_what_changes_nothing_may_change() {
    let out = scratch("other-settings");
    train(&out, &["--seed", "1"]).paths();
    let config = fs::read(out.join("config.toml")).expect("a configuration");
    train(&out, &["--seed", "1", "--resume", "--lr", "0.1", "--flip"]).refused(
        2,
        &[
            "another configuration",
            "learning_rate (0.0005, 0.1)",
            "flip (false, true)",
            "config.toml",
            "--force",
        ],
    );
    train(&out, &["--resume", "--seed", "2"]).refused(2, &["seed (1, 2)"]);
    let fewer = scratch("fewer-photos");
    fs::create_dir_all(&fewer).expect("a folder");
    fs::copy(cli::photos().join("0.jpg"), fewer.join("0.jpg")).expect("copied");
    let other = fewer.to_str().expect("UTF-8");
    let refused = train(&out, &["--seed", "1", "--resume", "--photos", other]);
    refused.refused(2, &["which differs in photos ("]);
    assert_eq!(fs::read(out.join("config.toml")).expect("a configuration"), config);
    let harmless = [
        "--save-every",
        "7",
        "--validate-every",
        "3",
        "--gradient-checkpointing",
        "--device",
        "cpu",
    ];
    train(&out, &[&["--seed", "1", "--resume", "--steps", "3"], &SHOWN[..6], &harmless].concat())
        .paths();
    assert_eq!(step_lines(&out).len(), 3);
}

#[test]
fn a_warm_up_that_takes_the_whole_run_is_warned_of() {
    let out = scratch("warm-up");
    let warned = train(&out, &["--set", "warmup_steps=5", "--dry-run"]);
    assert!(
        warned.err.contains("warmup_steps") && warned.err.contains("the run has 2"),
        "{}",
        warned.err
    );
    let quiet = train(&out, &["--set", "warmup_steps=1", "--dry-run"]);
    assert_eq!(quiet.err, "");
}

#[test]
fn a_run_that_diverges_after_a_save_says_what_is_there() {
    let out = scratch("diverged");
    let wild = ["--steps", "9", "--max-grad-norm", "0", "--lr", "1e30", "--save-every", "1"];
    train(&out, &wild)
        .refused(7, &["step 2 is not finite", "the last good concept is in", "cat.safetensors"]);
    let kept = ConceptFile::read(&out.join("cat.safetensors")).expect("a concept");
    assert_eq!(kept.record.steps, 0, "the step that ruined it is taken back");
}
