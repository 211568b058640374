//! CoRe as a user meets it: the default method, its presets and prompts, dry runs, and refining at test time.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;

use cli::{
    Run, base, finish, generate, interrupt, personalize, photos, run, scratch, spawn, step_lines,
    train, train_command, write_tensor,
};
use embeddings::file::ConceptFile;
use image::{Rgb, RgbImage};
use serde_json::Value;

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Two steps of CoRe on two samples each.
const SMALL: [&str; 6] = ["--method", "core", "--batch-size", "2", "--set", "core.views=2"];

fn train_core(out: &Path, more: &[&str]) -> Run {
    train(out, &[&SMALL, more].concat())
}

fn numbers(folder: &Path, key: &str) -> Vec<f64> {
    step_lines(folder).iter().map(|record| record[key].as_f64().expect("a number")).collect()
}

fn concept(folder: &Path) -> ConceptFile {
    ConceptFile::read(&folder.join("cat.safetensors")).expect("a concept")
}

fn vectors(folder: &Path) -> Vec<f32> {
    let concept = concept(folder).concept();
    let vectors = concept.token_vectors().expect("a concept of token vectors");
    Vec::try_from(vectors.reshape([-1])).expect("numbers")
}

/// A concept of CoRe for the SD 1.x base, a little away from its class.
fn trained() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let out = scratch("trained");
        train_core(&out, &["--lr", "0.02"]).paths();
        out.join("cat.safetensors")
    })
}

#[test]
fn the_default_method_logs_each_term_by_name_and_starts_both_regularisers_at_zero() {
    let out = scratch("default");
    let arguments = [
        &["train", "--photos", path(photos()), "--base", path(base("sd1"))] as &[_],
        &["--concept", "<cat>", "--class", "cat", "--steps", "2", "--resolution", "32"],
        &["--batch-size", "2", "--quiet", "--output", path(&out)],
    ];
    run(&arguments.concat()).paths();
    let records = step_lines(&out);
    let term = |record: &Value, i: usize| {
        let [name, value] = [0, 1].map(|j| record["terms"][i][j].clone());
        (name.as_str().expect("a name").to_owned(), value.as_f64().expect("a number"))
    };
    for (i, name) in
        ["reconstruction", "context_embedding", "context_attention"].into_iter().enumerate()
    {
        assert!(records.iter().all(|record| term(record, i).0 == name), "{records:?}");
        assert!(records.iter().all(|record| record["gradient_norms"][i][0] == name));
    }
    let cosine = |record: &Value| record["measures"][0][1].as_f64().expect("a number");
    assert_eq!(records[0]["measures"][0][0], "cosine_to_class");
    assert!(cosine(&records[1]) < cosine(&records[0]) && cosine(&records[0]) < 1.0);
    assert!(term(&records[0], 1).1.abs() < 1e-6 && term(&records[0], 2).1 < 1e-10);
    assert!(term(&records[1], 1).1 > 1e-6 && term(&records[1], 2).1 > 1e-10);
    for record in &records {
        let weighted = term(record, 0).1 + 1.5e-4 * term(record, 1).1 + 0.3 * term(record, 2).1;
        let loss = record["loss"].as_f64().expect("a number");
        assert!((loss - weighted).abs() < 1e-6, "{loss} is not {weighted}");
    }
    let file = concept(&out);
    assert_eq!((file.record.method.as_str(), file.record.class.as_deref()), ("core", Some("cat")));
    assert_eq!(file.num_vectors(), 1, "as many as the class has tokens");
}

#[test]
fn a_class_of_several_tokens_gets_as_many_vectors_and_other_numbers_are_warned_of() {
    let out = scratch("words");
    let trained = train_core(&out, &["--class", "old toy cat", "--vectors", "0"]);
    trained.paths();
    let words = concept(&out).num_vectors();
    assert!(words >= 3 && !trained.err.contains("vector(s)"), "{words} {}", trained.err);
    let config = fs::read_to_string(out.join("config.toml")).expect("a configuration");
    assert!(config.contains(&format!("vectors = {words}")), "{config}");
    let unequal = train_core(&scratch("unequal"), &["--class", "old toy cat", "--vectors", "1"]);
    unequal.paths();
    assert!(unequal.err.contains("1 vector(s) are compared with"), "{}", unequal.err);
    assert!(unequal.err.contains("--vectors 0 takes"), "{}", unequal.err);
    let neti = ["--method", "neti", "--preset", "core", "--dry-run", "--init", "cat"];
    let neti = train(&scratch("one"), &[&neti[..], &["--class", "old toy cat"]].concat());
    assert!(neti.err.contains("so give a class of one token"), "{}", neti.err);
}

#[test]
fn a_regulariser_that_counts_keeps_its_loss_low() {
    let late = |name: &str, weight: &str| -> f64 {
        let out = scratch(name);
        let weights = ["--set", weight, "--set", "core.lambda_attn=0", "--steps", "32"];
        // Norms of this base's few pixels give gradients of 100 times the usual now and then, which would stop Adam.
        train_core(&out, &[&weights[..], &["--max-grad-norm", "1"]].concat()).paths();
        let term = |record: &Value| record["terms"][1][1].as_f64().expect("a number");
        step_lines(&out)[16..].iter().map(term).sum()
    };
    let (free, bound) =
        (late("unbound", "core.lambda_emb=1e-12"), late("bound", "core.lambda_emb=100"));
    assert!(bound < 0.2 * free, "{bound:e} with the regulariser, {free:e} without");
}

#[test]
fn long_runs_plain_runs_and_mirrored_faces_are_warned_of() {
    let out = scratch("warned");
    let warned = train_core(&out, &["--dry-run", "--steps", "700", "--class", "woman"]);
    for words in ["700 steps are more than twice the 300", "--set flip=false"] {
        assert!(warned.err.contains(words), "{words} is not in {}", warned.err);
    }
    let parts = ["--batch-size", "1", "--gradient-accumulation", "6"];
    let summed = ["--dry-run", "--preset", "official-compat"];
    let warned = train_core(&out, &[&summed[..], &parts].concat());
    assert!(warned.err.contains("1/6 of the weight"), "{}", warned.err);
    assert!(!train_core(&out, &summed).err.contains("batch_sum"));
    let plain = ["--dry-run", "--set", "core.lambda_emb=0", "--set", "core.lambda_attn=0"];
    let plain = train_core(&out, &plain);
    assert!(plain.err.contains("plain Textual Inversion"), "{}", plain.err);
    assert!(!plain.err.contains("flip") && !plain.err.contains("twice"), "{}", plain.err);
}

#[test]
fn every_preset_trains_both_families_in_either_precision() {
    for (preset, family, precision) in [
        ("paper_literal", "sd1", "f32"),
        ("official-compat", "sd2", "bf16"),
        ("fast", "sd1", "bf16"),
        ("fast", "sd2", "f32"),
        ("default", "sd2", "f16"),
    ] {
        let out = scratch(&format!("{preset}-{family}"));
        let settings = ["--preset", preset, "--base", path(base(family)), "--precision", precision];
        train_core(&out, &settings).paths();
        let names = |record: &Value| {
            let terms = record["terms"].as_array().expect("a list");
            terms.iter().map(|term| term[0].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&step_lines(&out)[1]).len(), 3, "{preset}");
        assert!(numbers(&out, "loss").iter().all(|loss| loss.is_finite()), "{preset}");
    }
}

#[test]
fn the_norm_is_held_in_the_window_and_a_run_resumed_inside_it_is_the_same_to_the_bit() {
    let (whole, stopped) = (scratch("whole"), scratch("stopped"));
    // The norm after step 4 is that of steps 5 to 8.
    let window = ["--set", "core.norm_end=0.8", "--lr", "0.02", "--set", "core.lambda_attn=0"];
    let all = [&["--steps", "10"], &window as &[_]].concat();
    train_core(&whole, &all).paths();
    let norms = numbers(&whole, "norm");
    let moves = |i: usize| (norms[i] - norms[i - 1]).abs() / norms[i];
    assert!((1..4).all(|i| moves(i) > 1e-4), "free before: {norms:?}");
    assert!((4..8).all(|i| (norms[i] - norms[3]).abs() < 1e-6 * norms[3]), "held: {norms:?}");
    assert!((8..10).all(|i| moves(i) > 1e-4), "free behind: {norms:?}");

    let mut child = spawn(train_command(&stopped, &[&SMALL, &all[..], &["--json"]].concat()));
    interrupt_after(&mut child, 5);
    let ended = finish(child);
    assert_eq!(ended.code, 130, "{}", ended.err);
    let done = step_lines(&stopped).len();
    assert!((5..8).contains(&done), "it ended after step {done}, which is not in the window");
    train_core(&stopped, &[&all[..], &["--resume"]].concat()).paths();
    assert_eq!(numbers(&stopped, "loss"), numbers(&whole, "loss"));
    assert_eq!(vectors(&stopped), vectors(&whole));
}

/// Interrupts a run that reports JSON after this step.
fn interrupt_after(child: &mut Child, step: u64) {
    let events = BufReader::new(child.stdout.take().expect("piped")).lines();
    for line in events {
        if line.expect("text").contains(&format!(r#""event":"step","step":{step},"#)) {
            interrupt(child);
        }
    }
}

#[test]
fn what_core_needs_is_asked_for_before_any_work() {
    let out = scratch("refused");
    train_core(&out, &["--class=", "--init", "cat"])
        .refused(2, &["compares the concept with its class", "--class cat", "--method ti"]);
    train_core(&out, &["--set", "core.prompts=nowhere.txt"])
        .refused(2, &["nowhere.txt cannot be read"]);
    train_core(&out, &["--preset", "quick"]).refused(2, &["no preset 'quick'", "paper-literal"]);
    train_core(&out, &["--set", "core.lambda_emd=1"]).refused(2, &["did you mean core.lambda_emb"]);
    train_core(&out, &["--set", "core.norm_start=2"])
        .refused(2, &["core.norm_start is 2", "0 to 1"]);
    train_core(&out, &["--set", "core.emb_axis=rows"]).refused(2, &["rows", "feature"]);
    train(&out, &["--set", "core.views=2"]).refused(2, &["'core' is unknown"]);
    let prompts = scratch("own.txt");
    let own = format!("core.prompts={}", path(&prompts));
    for (text, words) in [
        ("a {} here\nno slot", ["own.txt:2", "put {} there"]),
        ("two {}s", ["own.txt:1", "glued"]),
        (&"snow ".repeat(80), ["own.txt:1", "put {} there"]),
        (&format!("a {{}} {}", "snow ".repeat(80)), ["beyond the end", "shorten it"]),
    ] {
        fs::write(&prompts, text).expect("written");
        train_core(&out, &["--set", &own]).refused(2, &words);
    }
    fs::write(&prompts, format!("a {{}} {}", "snow ".repeat(70))).expect("written");
    train_core(&out, &["--set", &own, "--class", "a very long old toy cat", "--vectors", "1"])
        .refused(2, &["with the class in the concept's place", "75 fit"]);
    fs::write(&prompts, "# mine\na {} in the snow\n{} at night with another {}\n")
        .expect("written");
    train_core(&out, &["--set", &own]).paths();
}

#[test]
fn a_dry_run_shows_five_prompts_with_their_ids_and_the_memory_and_writes_nothing() {
    let out = scratch("dry");
    let shown = train_core(&out, &["--dry-run", "--vectors", "2"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(!out.exists());
    let lines: Vec<&str> = shown.out.lines().collect();
    let count = |word: &str| lines.iter().filter(|line| line.starts_with(word)).count();
    assert_eq!((count("  tokens 1022 "), count("  class  1022 ")), (5, 4), "{}", shown.out);
    assert!(shown.out.contains("a photo of a <cat>\n  tokens 1022 "), "{}", shown.out);
    assert!(shown.out.contains("<cat>[0] <cat>[1]"), "{}", shown.out);
    for line in [
        "<cat>: core, 2 vector(s) of 'cat' from 4 photos",
        "attention by full_pass, norm window, augmentation safe",
    ] {
        assert!(shown.out.contains(line), "{line} is not in {}", shown.out);
    }
    assert!(
        lines.last().is_some_and(|line| line.starts_with("about ") && line.ends_with("memory"))
    );
    let json = train(&out, &["--dry-run", "--json"]);
    let report: Value = serde_json::from_str(&json.out).expect("one JSON object");
    assert_eq!(report["prompts"].as_array().map(Vec::len), Some(5));
    assert_eq!(report["photos"].as_array().map(Vec::len), Some(4));
    assert!(report["memory"].as_u64() > Some(1 << 20) && !out.exists());
}

#[test]
fn a_dry_run_shows_what_is_kept_of_each_photo() {
    let (wide, sheet) = (scratch("wide"), scratch("sheet.png"));
    fs::create_dir_all(&wide).expect("a folder");
    RgbImage::new(80, 40).save(wide.join("a.png")).expect("saved");
    RgbImage::from_pixel(40, 40, Rgb([90; 3])).save(wide.join("b.png")).expect("saved");
    let files = ["--photos", path(&wide), "--crop-sheet", path(&sheet)];
    let shown = train(&scratch("dry"), &[&files[..], &["--dry-run"]].concat());
    assert!(
        shown.out.contains("\na.png, 80x40: x 20 to 60\nb.png, 40x40: all of it\n"),
        "{}",
        shown.out
    );
    let drawn = image::open(&sheet).expect("a picture");
    assert_eq!((drawn.width(), drawn.height()), (2 * 320 + 4, 320));
    let alone = train(&scratch("dry"), &files);
    assert!(alone.code == 2 && alone.err.contains("--dry-run"), "{}", alone.err);
}

#[test]
fn the_memory_that_a_dry_run_tells_follows_what_is_kept_at_once() {
    let out = scratch("memory");
    let memory = |more: &[&str]| {
        let dry = ["--batch-size", "1", "--dry-run", "--json"];
        let shown = train(&out, &[&dry, more].concat());
        let report: Value = serde_json::from_str(&shown.out).expect("one JSON object");
        report["memory"].as_u64().expect("a number")
    };
    let checkpointed =
        |more: &[&str]| memory(&[more, &["--gradient-checkpointing"] as &[_]].concat());
    let (full, shared) = (["--method", "core"], ["--method", "core", "--preset", "fast"]);
    let (free, layers) = (["--method", "core", "--set", "core.lambda_attn=0"], ["--method", "xti"]);
    let both = ["--method", "xti", "--preset", "core"];
    // A pass that is probed is not checkpointed.
    for probed in [&full as &[_], &shared, &both] {
        assert_eq!(checkpointed(probed), memory(probed), "{probed:?}");
    }
    for plain in [&free as &[_], &layers] {
        assert!(checkpointed(plain) < memory(plain), "{plain:?}");
    }
    // As many prompts as layers, and twice as many where queries are shared.
    let (one, many, twice) = (memory(&free), memory(&layers), memory(&both));
    assert!(one < many && many < twice, "{one} {many} {twice}");
}

#[test]
fn refining_lowers_both_losses_without_a_photo_and_leaves_the_file_as_it_was() {
    let before = fs::read(trained()).expect("a concept");
    let prompt = ["--prompt", "a <cat> beside a boat at night", "--concept", path(trained())];
    let draw = |name: &str, more: &[&str]| {
        generate(&scratch(name), &[&prompt as &[_], &["--json"], more].concat())
    };
    let (plain, refined) = (draw("plain", &[]), draw("refined", &["--refine", "8"]));
    let again = draw("again", &["--refine", "8"]);
    let report = |run: &Run| serde_json::from_str::<Value>(&run.out).expect("JSON");
    assert_eq!(report(&plain)["refined"], serde_json::json!([]));
    let told = &report(&refined)["refined"][0];
    assert_eq!(*told, report(&again)["refined"][0], "a seed refines alike");
    for (i, name) in ["context_embedding", "context_attention"].into_iter().enumerate() {
        assert_eq!((&told["before"][i][0], &told["after"][i][0]), (&name.into(), &name.into()));
    }
    assert_eq!(told["before"].as_array().map(Vec::len), Some(2), "no photo's loss: {told}");
    let weighted = |which: &str| {
        let term = |i: usize| told[which][i][1].as_f64().expect("a number");
        1.5e-4 * term(0) + 0.3 * term(1)
    };
    assert!(weighted("after") < weighted("before"), "{told}");
    // The lowest loss on the way is kept, so that further steps never make it worse.
    let short = &report(&draw("short", &["--refine", "3"]))["refined"][0];
    let term = |i: usize| short["after"][i][1].as_f64().expect("a number");
    let least = 1.5e-4 * term(0) + 0.3 * term(1);
    assert!(weighted("after") <= 1.01 * least, "{told} is worse than {short}");
    let moved = told["moved"].as_f64().expect("a number");
    assert!(moved > 0.0 && moved <= 0.3 + 1e-6, "{moved}");
    let pixels = |run: &Run| {
        let file = report(run)["pictures"][0].as_str().expect("a path").to_owned();
        image::open(file).expect("a picture").into_rgb8().into_raw()
    };
    assert_ne!(pixels(&plain), pixels(&refined));
    assert_eq!(pixels(&refined), pixels(&again));
    assert_eq!(fs::read(trained()).expect("a concept"), before);
}

#[test]
fn refining_tells_people_what_it_did_and_what_it_cannot_do() {
    let out = scratch("told");
    let concept = ["--concept", path(trained()), "--refine", "3", "--guidance", "1"];
    let mut command = personalize();
    command.args(["generate", "--base", path(base("sd1")), "--width", "32", "--height", "32"]);
    command.args(["--steps", "1", "--seed", "1", "--output", path(&out)]).args(concept);
    command.args(["--prompt", "a <cat> at sea", "--prompt", "a boat at sea"]);
    let told = finish(spawn(command));
    assert_eq!(told.code, 0, "{}", told.err);
    for words in [
        "'a boat at sea' holds no concept, so --refine has no effect on it",
        "refined for 'a <cat> at sea' in 3 steps: moved by ",
        "context_embedding ",
        "context_attention ",
    ] {
        assert!(told.err.contains(words), "{words} is not in {}", told.err);
    }
    let foreign = scratch("dots.safetensors");
    write_tensor(&foreign, "emb_params", &[1, 64], 0.1);
    generate(&out, &["--prompt", "a <dots>", "--concept", path(&foreign), "--refine", "3"])
        .refused(2, &["<dots> names no class", "--class"]);
}

#[test]
fn refining_takes_token_vectors_only_and_leaves_prompts_of_others_alone() {
    let out = scratch("layered");
    train(&out, &["--method", "xti", "--batch-size", "1"]).paths();
    let layered = format!("<y>={}", path(&out.join("cat.safetensors")));
    let both = ["--concept", path(trained()), "--concept", &layered, "--refine", "2", "--json"];
    let draw = |prompts: &[&str]| {
        let prompts: Vec<&str> = prompts.iter().flat_map(|prompt| ["--prompt", prompt]).collect();
        generate(&scratch("mixed"), &[&both as &[_], &prompts].concat())
    };
    draw(&["a <cat> with <y>"]).refused(2, &["'a <cat> with <y>' holds <y>", "core and ti"]);
    let drawn = draw(&["a <cat> at sea", "a boat at sea"]);
    assert_eq!(drawn.code, 0, "{}", drawn.err);
    let report: Value = serde_json::from_str(&drawn.out).expect("JSON");
    assert_eq!(report["refined"].as_array().map(Vec::len), Some(1), "{report}");
}

#[test]
fn a_dry_run_shows_what_every_method_would_do() {
    for (method, shown) in
        [("ti", "<cat>"), ("xti", "<cat>"), ("neti", "<cat>"), ("cones", "<cat>[0] <cat>[1]")]
    {
        let out = scratch(&format!("dry-{method}"));
        let class = if method == "cones" { "toy cat" } else { "cat" };
        let preview = train(&out, &["--method", method, "--class", class, "--dry-run"]);
        assert_eq!(preview.code, 0, "{method}: {}", preview.err);
        assert!(preview.out.contains(&format!(" {shown} ")), "{method}: {}", preview.out);
        assert!(preview.out.starts_with(&format!("<cat>: {method}, ")), "{}", preview.out);
        assert_eq!(preview.out.contains("cones, slots noun of 'toy cat'"), method == "cones");
        assert!(!out.exists());
    }
}

#[test]
fn the_regularisers_go_with_layers_and_with_mappers() {
    for method in ["xti", "neti"] {
        let small = ["--method", method, "--gradient-accumulation", "2", "--batch-size", "1"];
        let mapper = ["--set", "hidden_units=16", "--set", "time_anchors=2"];
        let all = [&small as &[_], if method == "neti" { &mapper } else { &[] }].concat();
        let core = [&all[..], &["--preset", "core"]].concat();
        let (whole, stopped) = (scratch(method), scratch(&format!("{method}-stopped")));
        train(&whole, &[&core[..], &["--steps", "4"]].concat()).paths();
        let first = &step_lines(&whole)[0]["terms"];
        let term = |i: usize| first[i][1].as_f64().expect("a number");
        assert_eq!(
            (&first[1][0], &first[2][0]),
            (&"context_embedding".into(), &"context_attention".into())
        );
        assert!(term(1).abs() < 1e-6 && term(2) < 1e-10, "{method}: {first}");

        train(&stopped, &core).paths();
        train(&stopped, &[&core[..], &["--steps", "4", "--resume"]].concat()).paths();
        assert_eq!(numbers(&stopped, "loss"), numbers(&whole, "loss"), "{method}");

        // The configuration beside a run is one for the next, and a key alone asks for the rest.
        let again = scratch(&format!("{method}-again"));
        let config = whole.join("config.toml");
        train(&again, &[&all[..], &["--config", path(&config), "--steps", "4"]].concat()).paths();
        assert_eq!(numbers(&again, "loss"), numbers(&whole, "loss"), "{method}");
        let pass = ["--set", "core.attn_mode=full_pass", "--steps", "1"];
        let full = scratch(&format!("{method}-full"));
        train(&full, &[&all[..], &pass].concat()).paths();
        assert_eq!(step_lines(&full)[0]["terms"].as_array().map(Vec::len), Some(3), "{method}");
    }
}

#[test]
fn what_does_not_go_with_the_regularisers_is_refused() {
    let out = scratch("no-core");
    let neti = |more: &[&str]| train(&out, &[&["--method", "neti"], more].concat());
    neti(&["--preset", "core", "--set", "core.norm=window"]).refused(2, &["core.norm=none"]);
    neti(&["--set", "residual=true"]).refused(2, &["norm_mode=token"]);
    train(&out, &["--method", "cones", "--set", "core.views=2"]).refused(2, &["'core' is unknown"]);
    train(&out, &["--method", "cones", "--preset", "core"]).refused(2, &["no preset 'core'"]);
}
