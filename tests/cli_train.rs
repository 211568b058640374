//! Training as a user meets it: what is written, what is told, and what is kept when it ends early.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cli::{
    base, changed_base, finish, generate, interrupt, log_lines, names, photos, run, scratch, spawn,
    state, step_lines, train, train_command,
};
use embeddings::file::ConceptFile;
use serde_json::Value;

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The lines of a run's log that tell of measurements.
fn measured(folder: &Path) -> Vec<Value> {
    log_lines(folder).into_iter().filter(|line| !line["loss"].is_number()).collect()
}

fn losses(folder: &Path) -> Vec<f64> {
    step_lines(folder).iter().map(|record| record["loss"].as_f64().expect("a number")).collect()
}

/// The numbers of the concept in a run's folder.
fn vectors(folder: &Path) -> Vec<f32> {
    let file = ConceptFile::read(&folder.join("cat.safetensors")).expect("a concept");
    file.concept()
        .parameters()
        .iter()
        .flat_map(|p| Vec::<f32>::try_from(p.reshape([-1])).expect("numbers"))
        .collect()
}

#[test]
fn a_quiet_run_prints_the_concept_s_path_and_leaves_log_configuration_and_state() {
    let out = scratch("quiet");
    let trained = train(&out, &["--min-snr-gamma", "5", "--seed", "3"]);
    assert_eq!(trained.paths(), [out.join("cat.safetensors"), out.join("report.html")]);
    assert_eq!(trained.err, "");
    let files = ["cat.safetensors", "config.toml", "log.jsonl", "report.html", "state.safetensors"];
    assert_eq!(names(&out), files);
    let steps: Vec<_> = step_lines(&out).iter().map(|record| record["step"].as_u64()).collect();
    assert_eq!(steps, [Some(1), Some(2)]);
    let config = fs::read_to_string(out.join("config.toml")).expect("a configuration");
    for line in ["min_snr_gamma = 5.0", "seed = 3", "steps = 2", "adam_beta2 = 0.999"] {
        assert!(config.lines().any(|found| found == line), "{line} is not in {config}");
    }
    let again = run(&["train", "--config", path(&out.join("config.toml")), "--print-config"]);
    assert_eq!((again.code, again.out.trim()), (0, config.trim()));
}

#[test]
fn json_is_one_event_a_line_and_nothing_else_on_stdout() {
    let out = scratch("json");
    let sampling =
        ["--sample-prompt", "a {} at sea", "--sample-every", "1", "--set", "sample_steps=2"];
    let trained = train(&out, &[&["--json", "--save-every", "1"], &sampling as &[_]].concat());
    assert_eq!(trained.code, 0, "{}", trained.err);
    let events: Vec<Value> =
        trained.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    // What is saved has all behind it that its step made.
    let (first, second) =
        (["step", "sample", "measured", "saved"], ["step", "sample", "measured", "saved", "end"]);
    assert_eq!(kinds[..4], ["phase", "phase", "start", "measured"]);
    assert_eq!((&kinds[4..8], &kinds[8..]), (&first as &[_], &second as &[_]));
    assert_eq!(names(&out.join("samples")), ["000001-0.png", "000002-0.png"]);
    let last = &events[events.len() - 1];
    assert_eq!(
        (last["path"].as_str(), last["interrupted"].as_bool()),
        (out.join("cat.safetensors").to_str(), Some(false))
    );
    assert_eq!(last["report"].as_str(), out.join("report.html").to_str());
}

#[test]
fn the_validation_loss_is_of_the_same_samples_at_every_step() {
    let out = scratch("validated");
    let still = ["--steps", "3", "--lr", "0", "--validate-every", "2"];
    train(&out, &still).paths();
    let of = |out: &Path| -> Vec<(u64, f64)> {
        let number = |line: &Value| line["validation_loss"].as_f64().expect("a number");
        measured(out).iter().map(|m| (m["step"].as_u64().expect("a step"), number(m))).collect()
    };
    let found = of(&out);
    let steps: Vec<u64> = found.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [0, 2, 3], "at the start, at the interval and after the last step");
    let bits = |loss: &f64| loss.to_bits();
    assert!(
        found.iter().all(|(_, loss)| bits(loss) == bits(&found[0].1)),
        "nothing was learnt: {found:?}"
    );
    let wandering = losses(&out);
    assert_ne!(bits(&wandering[0]), bits(&wandering[1]), "while the training loss wanders");

    let learning = scratch("validated-learning");
    train(&learning, &["--steps", "20", "--lr", "0.01", "--validate-every", "20"]).paths();
    let found = of(&learning);
    assert!(found[1].1 < found[0].1, "what is learnt shows: {found:?}");
    let never = scratch("never-validated");
    train(&never, &["--steps", "20", "--lr", "0.01", "--validate-every", "0"]).paths();
    assert_eq!(measured(&never), [] as [Value; 0]);
    assert_eq!(vectors(&never), vectors(&learning), "looking on changes nothing");
}

#[test]
fn the_best_concept_stays_when_later_steps_ruin_it_also_in_a_resumed_run() {
    let out = scratch("best");
    let ruinous = ["--keep-best", "loss", "--validate-every", "1", "--lr", "3", "--set"];
    let ruinous = [&ruinous as &[_], &["weight_decay=0"]].concat();
    let best = |out: &Path| {
        let loss = |m: &&Value| m["validation_loss"].as_f64().expect("a number");
        let all = measured(out);
        let of_steps = all.iter().filter(|m| m["step"] != 0);
        let best = of_steps.min_by(|a, b| loss(a).total_cmp(&loss(b))).expect("a measurement");
        best["step"].as_u64().expect("a step")
    };
    let kept = |out: &Path| {
        ConceptFile::read(&out.join("cat.safetensors")).expect("a concept").record.steps
    };
    train(&out, &[&["--steps", "6"], &ruinous as &[_]].concat()).paths();
    assert!(best(&out) < 6, "such steps ruin it: {:?}", measured(&out));
    assert_eq!(kept(&out), best(&out));
    let vectors_then = vectors(&out);
    train(&out, &[&["--steps", "7", "--resume"], &ruinous as &[_]].concat()).paths();
    assert_eq!(step_lines(&out).len(), 7);
    assert_eq!(kept(&out), best(&out));
    assert!(best(&out) == 7 || vectors(&out) == vectors_then);
    let last = scratch("last");
    train(&last, &[&["--steps", "6", "--keep-best", "off"], &ruinous[2..]].concat()).paths();
    assert_eq!(kept(&last), 6);
}

#[test]
fn samples_are_judged_and_saves_leave_snapshots() {
    let out = scratch("judged");
    let sampling = [
        "--sample-prompt",
        "a {} at sea",
        "--sample-every",
        "1",
        "--set",
        "sample_steps=2",
        "--save-every",
        "1",
        "--keep-best",
        "balance",
        "--class",
        "cat",
        "--base",
        concat!(env!("CARGO_MANIFEST_DIR"), "/assets/toybox"),
    ];
    train(&out, &sampling).paths();
    for line in &measured(&out)[1..] {
        for key in ["likeness", "fidelity"] {
            let value = line[key].as_f64().expect("a number");
            assert!((-1.0..=1.0).contains(&value) && value != 0.0, "{line}");
        }
    }
    assert_eq!(names(&out.join("snapshots")), ["cat-000001.safetensors"]);
    let cosine = &step_lines(&out)[1]["measures"][0];
    assert_eq!(cosine[0], "cosine_to_class");
    let value = cosine[1].as_f64().expect("a number");
    assert!(value > 0.9 && value < 1.0, "two steps from the class: {value}");
}

#[test]
fn keeping_the_best_needs_what_it_is_measured_by() {
    let out = scratch("unmeasured");
    let sampled = ["--sample-prompt", "a {}", "--keep-best", "balance"];
    for (more, said) in [
        (&["--keep-best", "loss", "--validate-every", "0"] as &[_], "--validate-every"),
        (&["--keep-best", "likeness"], "--sample-prompt"),
        (&sampled, "--clip DIR"),
        (&["--keep-best", "beauty"], "keep_best"),
        (&["--clip", "nowhere"], "nowhere holds no config.json"),
    ] {
        train(&out, more).refused(2, &[said]);
    }
}

#[test]
fn a_used_folder_needs_force_or_resume() {
    let out = scratch("used");
    train(&out, &[]).paths();
    train(&out, &[]).refused(2, &["holds an earlier run", "--resume", "--force"]);
    let config = fs::read(out.join("config.toml")).expect("a configuration");
    train(&out, &["--resume", "--lr", "0.1"]).refused(2, &["another configuration", "--force"]);
    train(&out, &["--resume", "--steps", "1"]).refused(2, &["has 2 behind it", "--force"]);
    assert_eq!(fs::read(out.join("config.toml")).expect("a configuration"), config);
    assert_eq!(train(&out, &["--resume", "--force"]).code, 2);
    train(&out, &["--force", "--lr", "0.1", "--steps", "1"]).paths();
    assert_eq!(step_lines(&out).len(), 1);
    let state = out.join("state.safetensors");
    let whole = fs::read(&state).expect("a state");
    fs::write(&state, &whole[..whole.len() / 2]).expect("written");
    train(&out, &["--resume", "--lr", "0.1"])
        .refused(3, &["state.safetensors", "not whole", "--force"]);
}

#[test]
fn an_interrupted_run_saves_and_goes_on_to_the_same_concept_to_the_bit() {
    let (stopped, whole) = (scratch("stopped"), scratch("whole"));
    let settings =
        ["--batch-size", "2", "--gradient-accumulation", "2", "--flip", "--vectors", "2"];
    let started = [&["--json", "--steps", "1000"], &settings as &[_]].concat();
    let mut child = spawn(train_command(&stopped, &started));
    let events = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut last = String::new();
    for line in events {
        last = line.expect("text");
        if last.contains(r#""event":"step","step":3"#) {
            interrupt(&child);
        }
    }
    let ended = finish(child);
    assert_eq!(ended.code, 130, "{}", ended.err);
    assert!(last.contains(r#""event":"end""#) && last.contains(r#""interrupted":true"#), "{last}");
    let done = losses(&stopped).len();
    assert!((3..100).contains(&done), "{done} steps");
    let report = fs::read_to_string(stopped.join("report.html")).expect("a report");
    assert!(report.contains("maps were left out") && report.contains("--resume"), "{report}");

    let steps = (done + 2).to_string();
    let to_the_end = [&["--steps", &steps], &settings as &[_]].concat();
    train(&stopped, &[&["--resume"], &to_the_end as &[_]].concat()).paths();
    train(&whole, &to_the_end).paths();
    assert_eq!(losses(&stopped), losses(&whole));
    assert_eq!(vectors(&stopped), vectors(&whole));
    assert!(vectors(&whole)[..64] != vectors(&whole)[64..], "two vectors of one word must part");
    assert_eq!(state(&stopped), state(&whole));
}

#[test]
fn a_second_interrupt_ends_at_once_and_loses_no_file() {
    let out = scratch("twice");
    train(&out, &["--steps", "1"]).paths();
    let before = vectors(&out);
    // One step of many minutes.
    let long = ["--json", "--force", "--steps", "1", "--gradient-accumulation", "100000"];
    let mut child = spawn(train_command(&out, &long));
    let events = BufReader::new(child.stdout.take().expect("piped"));
    let begun = events.lines().any(|line| line.expect("text").contains(r#""event":"start""#));
    assert!(begun, "{}", finish(child).err);
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    interrupt(&child);
    let ended = finish(child);
    assert_eq!(ended.code, 130, "{}", ended.err);
    assert!(ended.err.contains("press Ctrl-C again"), "{}", ended.err);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(vectors(&out), before);
}

#[test]
fn a_run_that_diverges_keeps_the_last_good_concept() {
    let out = scratch("diverged");
    train(&out, &["--steps", "1"]).paths();
    let before = vectors(&out);
    let wild = ["--force", "--steps", "9", "--max-grad-norm", "0", "--lr"];
    train(&out, &[&wild as &[_], &["1e30"]].concat())
        .refused(7, &["step 2 is not finite", "lower --lr"]);
    assert_eq!(vectors(&out), before, "one ruinous step is not worth a file");
    let run = train(&out, &[&wild as &[_], &["1e10"]].concat());
    run.refused(7, &["not finite", "the last good concept is in", "cat.safetensors"]);
    let kept = ConceptFile::read(&out.join("cat.safetensors")).expect("a concept");
    let done = losses(&out).len() as u64;
    assert!(losses(&out).iter().all(|loss| loss.is_finite()));
    assert_eq!(kept.record.steps + 1, done, "the update after the last finite loss is taken back");
}

#[test]
fn a_base_that_gives_no_numbers_saves_nothing() {
    let broken = changed_base("sd1", "infinite", |folder| {
        let path = folder.join("unet/diffusion_pytorch_model.safetensors");
        let mut bytes = fs::read(&path).expect("weights");
        let (header, tensors) = safetensors::SafeTensors::read_metadata(&bytes).expect("weights");
        let start = 8 + header + tensors.info("conv_out.bias").expect("a bias").data_offsets.0;
        bytes[start..start + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        fs::write(path, bytes).expect("written");
    });
    let out = scratch("never-good");
    train(&out, &["--base", path(&broken)])
        .refused(7, &["step 1 is not finite", "nothing was saved"]);
    assert!(!out.join("cat.safetensors").exists() && !out.join("state.safetensors").exists());
}

#[test]
fn a_save_that_fails_keeps_the_files_of_the_last_one() {
    let out = scratch("full");
    train(&out, &[]).paths();
    let state = fs::read(out.join("state.safetensors")).expect("a state");
    let more = train_command(&out, &["--resume", "--steps", "4"]);
    // No file may grow beyond 3 KiB: the log and the concept fit, the state does not.
    let mut limited = Command::new("bash");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 3; exec \"$0\" \"$@\""]);
    limited.arg(more.get_program()).args(more.get_args());
    let ended = finish(spawn(limited));
    ended.refused(1, &["state.safetensors: cannot be written", "use another place"]);
    assert_eq!(fs::read(out.join("state.safetensors")).expect("a state"), state);
    assert_eq!(vectors(&out).len(), 64);
    assert!(names(&out).iter().all(|name| !name.ends_with(".tmp")), "{:?}", names(&out));
    train(&out, &["--resume", "--steps", "4"]).paths();
    assert_eq!(losses(&out).len(), 4);
}

#[test]
fn gradient_checkpointing_changes_memory_and_not_the_gradient() {
    let first = |name: &str, more: &[&str]| {
        let out = scratch(name);
        train(&out, &[&["--steps", "1"], more].concat()).paths();
        let record = step_lines(&out).swap_remove(0);
        ["loss", "gradient_norm"].map(|key| record[key].as_f64().expect("a number"))
    };
    let (plain, checkpointed) =
        (first("plain", &[]), first("checkpointed", &["--gradient-checkpointing"]));
    for ((a, b), apart) in plain.iter().zip(checkpointed).zip([1e-5, 1e-3]) {
        assert!((a - b).abs() < apart * a, "{a} is not {b}");
    }
}

#[test]
fn half_precision_trains_either_family_close_to_single() {
    for family in ["sd1", "sd2"] {
        let losses = ["f32", "bf16", "f16"].map(|precision| {
            let out = scratch(&format!("{family}-{precision}"));
            // At 32 pixels the innermost norms have so few numbers that a last bit changes gradients tenfold.
            let more = ["--precision", precision, "--resolution", "64"];
            train(&out, &[&["--base", path(base(family))], &more[..]].concat()).paths();
            losses(&out)
        });
        // bf16 has 8 bits of mantissa, f16 11.
        for (half, apart) in losses[1..].iter().zip([0.05, 0.005]) {
            for (a, b) in losses[0].iter().zip(half) {
                assert!((a - b).abs() < apart * a, "{family}: {losses:?}");
            }
        }
    }
}

#[test]
fn captions_own_templates_phrases_and_random_starts_are_taken() {
    let captioned = scratch("captioned");
    fs::create_dir_all(&captioned).expect("a folder");
    for i in 0..4 {
        fs::copy(photos().join(format!("{i}.jpg")), captioned.join(format!("{i}.jpg")))
            .expect("copied");
        fs::write(captioned.join(format!("{i}.txt")), format!("<cat> number {i}\n"))
            .expect("written");
    }
    let out = scratch("captions");
    train(&out, &["--photos", path(&captioned), "--templates", "captions"]).paths();
    let templates = scratch("mine.txt");
    fs::write(&templates, "# mine\na {} here\nthe {} there\n").expect("written");
    train(&scratch("templates"), &["--templates", path(&templates)]).paths();
    let phrase = scratch("phrase");
    train(&phrase, &["--init", "two words", "--vectors", "3", "--lr", "0"]).paths();
    assert_eq!(vectors(&phrase).len(), 3 * 64);
    let (one, other) = (scratch("random-1"), scratch("random-2"));
    train(&one, &["--init-random", "--class=", "--lr", "0", "--seed", "1"]).paths();
    train(&other, &["--init-random", "--class=", "--lr", "0", "--seed", "2"]).paths();
    assert_ne!(vectors(&one), vectors(&other));
}

/// The metadata of a concept file.
fn metadata(file: &Path) -> HashMap<String, String> {
    let bytes = fs::read(file).expect("a concept");
    let header = safetensors::SafeTensors::read_metadata(&bytes).expect("safetensors").1;
    header.metadata().clone().expect("metadata")
}

#[test]
fn a_concept_file_tells_no_place_on_disk_and_without_metadata_only_what_drawing_needs() {
    let (out, templates) = (scratch("told/run"), scratch("told/templates.txt"));
    fs::create_dir_all(&out).expect("a folder");
    fs::write(&templates, "a photo of a {}\n").expect("written");
    let named = ["--templates", path(&templates), "--save-every", "1"];
    train(&out, &named).paths();
    let folder = out.parent().expect("a folder").parent().expect("a folder");
    let tells = |file: &Path, what: &str| {
        String::from_utf8_lossy(&fs::read(file).expect("a file")).contains(what)
    };
    assert!(tells(&out.join("config.toml"), path(folder)), "a run may be repeated");
    for file in ["cat.safetensors", "snapshots/cat-000001.safetensors"].map(|file| out.join(file)) {
        assert!(tells(&file, "templates.txt"), "the names are there");
        for word in [path(folder), path(photos()), path(base("sd1")), env!("CARGO_MANIFEST_DIR")] {
            assert!(!tells(&file, word), "{} names {word}", file.display());
        }
    }

    let bare = ["--templates", path(&templates), "--no-metadata", "--force"];
    let file = train(&out, &bare).paths().remove(0);
    let told = metadata(&file);
    let mut keys: Vec<&String> = told.keys().collect();
    keys.sort();
    assert_eq!(keys, ["format", "personalize.concept", "personalize.format_version"]);
    let record: Value = serde_json::from_str(&told["personalize.concept"]).expect("JSON");
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().expect("a table").keys().cloned().collect()
    };
    assert_eq!(keys(&record), ["method", "token", "class", "base"]);
    assert!(!keys(&record["base"]).contains(&"name".to_owned()));
    assert!(!record["base"]["sketch"].as_array().expect("numbers").is_empty());
    let drawn =
        generate(&scratch("told/drawn"), &["--concept", path(&file), "--prompt", "a <cat>"]);
    drawn.paths();
    assert_eq!(drawn.err, "", "the base is known by its sketch");
    let shown = run(&["concept", "inspect", path(&file)]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(!shown.out.contains("seed") && shown.out.contains("<cat>"), "{}", shown.out);
    // What the file tells is no part of what is learnt.
    let on = ["--templates", path(&templates), "--resume", "--steps", "3"];
    assert!(metadata(&train(&out, &on).paths()[0])["personalize.concept"].contains("seed"));
}

#[test]
fn a_seed_of_64_bits_trains_and_goes_on() {
    let out = scratch("large-seed");
    let seed = ["--seed", "18446744073709551615"];
    train(&out, &seed).paths();
    let config = fs::read_to_string(out.join("config.toml")).expect("a configuration");
    assert!(config.contains("seed = \"18446744073709551615\""), "{config}");
    let longer = ["--steps", "3", "--resume"];
    train(&out, &[&seed[..], &longer].concat()).paths();
    let other = train(&out, &["--seed", "9223372036854775807", "--steps", "4", "--resume"]);
    other.refused(2, &[]);
    let refused = train(&scratch("no-seed"), &["--seed", "-1"]);
    assert!(refused.code == 2 && refused.err.contains("from 0 to"), "{}", refused.err);
}

#[test]
fn negative_numbers_are_values_and_told_as_such() {
    let out = scratch("negative");
    train(&out, &["--lr", "-1"]).refused(2, &["learning_rate is -1; give"]);
    train(&out, &["--lr", "-1e-3"]).refused(2, &["learning_rate is -0.001; give"]);
    train(&out, &["--max-grad-norm", "-0.5"]).refused(2, &["max_grad_norm is -0.5; give"]);
    for flag in ["--steps", "--batch-size", "--resolution", "--vectors"] {
        let run = train(&out, &[flag, "-8"]);
        let said = run.err.contains(&format!("invalid value '-8' for '{flag}"));
        assert!(run.code == 2 && said, "{}", run.err);
    }
}

#[test]
fn a_run_begins_with_the_values_of_any_file_that_can_be_drawn() {
    let draw = torch_ext::Generator::cpu(4);
    for (name, key, shape, count) in [
        ("key", "<foo-bar>", &[1, 64][..], "1"),
        ("one", "emb_params", &[64], "1"),
        ("web-ui", "*", &[2, 64], "2"),
    ] {
        let (file, values) = (scratch(&format!("{name}.safetensors")), draw.randn(shape) * 0.1);
        tch::Tensor::write_safetensors(&[(key, &values)], &file).expect("written");
        let out = scratch(&format!("from-{name}"));
        let more = ["--warm-start", path(&file), "--lr", "0", "--steps", "1", "--vectors"];
        train(&out, &[&more[..], &[count]].concat()).paths();
        let expected = Vec::<f32>::try_from(values.reshape([-1])).expect("numbers");
        assert_eq!(vectors(&out), expected, "{name}");
        train(&out, &[&more[..], &["3", "--force"]].concat())
            .refused(4, &["cannot be gone on with", "3 are to be trained", "--vectors"]);
    }
}
