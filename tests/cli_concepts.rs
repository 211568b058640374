//! Concepts of several methods as a user meets them: trained, resumed, drawn, mixed and looked at.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cli::{
    base, changed_base, finish, generate, personalize, run, scratch, spawn, state, step_lines,
    train, write_tensor,
};
use embeddings::file::ConceptFile;
use serde_json::Value;
use tch::{Kind, Tensor};

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

const SMALL: [&str; 4] = ["--set", "hidden_units=16", "--set", "batch_size=1"];

const METHODS: [&str; 4] = ["ti", "xti", "neti", "cones"];

/// A concept of this method, trained for two steps; its word is `<cat>`.
fn concept(method: &str) -> &'static str {
    static FILES: [OnceLock<PathBuf>; 4] = [const { OnceLock::new() }; 4];
    let at = METHODS.iter().position(|m| *m == method).expect("a method");
    path(FILES[at].get_or_init(|| {
        let out = scratch(&format!("learnt-{method}"));
        let small: &[&str] = if method == "neti" { &SMALL } else { &[] };
        let more = ["--method", method, "--gradient-accumulation", "1", "--lr", "0.01"];
        let more = [&more[..], &["--set", "warmup_steps=0", "--batch-size", "1"]].concat();
        let trained = train(&out, &[&more, small].concat());
        assert_eq!(trained.err, "");
        trained.paths().remove(0)
    }))
}

fn pixels(file: &Path) -> Vec<u8> {
    image::open(file).expect("a picture").into_rgb8().into_raw()
}

fn drawn(name: &str, arguments: &[&str]) -> Vec<u8> {
    let run = generate(&scratch(name), arguments);
    let found = pixels(&run.paths()[0]);
    assert_eq!(run.err, "");
    found
}

#[test]
fn a_mapper_goes_on_from_its_state_to_the_same_weights_to_the_bit() {
    let (stopped, whole) = (scratch("stopped"), scratch("whole"));
    let settings = ["--method", "neti", "--gradient-accumulation", "2", "--flip"];
    let settings = [&settings[..], &SMALL].concat();
    train(&stopped, &[&settings[..], &["--steps", "2"]].concat()).paths();
    train(&stopped, &[&settings[..], &["--steps", "4", "--resume"]].concat()).paths();
    train(&whole, &[&settings[..], &["--steps", "4"]].concat()).paths();
    let weights = |folder: &Path| -> Vec<(String, Tensor)> {
        let file = ConceptFile::read(&folder.join("cat.safetensors")).expect("a concept");
        file.tensors().map(|(name, tensor)| (name.to_owned(), tensor.copy())).collect()
    };
    assert_eq!(weights(&stopped), weights(&whole));
    assert_eq!(weights(&whole).len(), 14, "twelve weights, the frequencies, the class");
    assert_eq!(state(&stopped), state(&whole));
}

#[test]
fn a_run_begins_with_the_values_of_a_file() {
    let tensors = |file: &Path| -> Vec<(String, Tensor)> {
        let file = ConceptFile::read(file).expect("a concept");
        file.tensors().map(|(name, tensor)| (name.to_owned(), tensor.copy())).collect()
    };
    let out = scratch("warm");
    let from = |method: &str, file: &str, more: &[&str]| {
        let small: &[&str] = if method == "neti" { &SMALL } else { &[] };
        // Another seed: another mapper's frequencies, were they not the file's. At a rate of 0 nothing moves.
        let own = ["--method", method, "--warm-start", file, "--lr", "0", "--steps", "1"];
        let own = [&own[..], &["--batch-size", "1"]].concat();
        train(&out, &[&own[..], small, &["--seed", "9", "--force"], more].concat())
    };
    for method in METHODS {
        let found = from(method, concept(method), &[]).paths().remove(0);
        assert_eq!(tensors(&found), tensors(Path::new(concept(method))), "{method}");
    }
    from("neti", concept("ti"), &[]).refused(4, &["cannot be gone on with", "method ti"]);
    from("neti", concept("neti"), &["--set", "hidden_units=8"]).refused(4, &["is to be trained"]);
    from("neti", concept("neti"), &["--set", "bypass_strength=0.1"])
        .refused(4, &["its bypass_strength is another"]);
    from("ti", "nowhere.safetensors", &[]).refused(3, &["nowhere.safetensors"]);
}

#[test]
fn every_method_draws_with_any_number_of_steps_and_any_sampler() {
    for method in METHODS {
        let plain = ["--prompt", "a photo of <cat>", "--concept", concept(method)];
        for (i, more) in [
            ["--steps", "1"],
            ["--steps", "7"],
            ["--sampler", "heun"],
            ["--sampler", "euler_a"],
            ["--precision", "bf16"],
        ]
        .iter()
        .enumerate()
        {
            drawn(&format!("{method}-{i}"), &[&plain[..], more].concat());
        }
    }
}

#[test]
fn a_text_encoder_in_half_precision_leaves_a_finite_concept() {
    for method in ["xti", "neti"] {
        let out = scratch(&format!("half-{method}"));
        let half = ["--method", method, "--gradient-accumulation", "1", "--precision", "bf16"];
        let half = [&half[..], &["--batch-size", "1"]].concat();
        train(&out, &[&half[..], if method == "neti" { &SMALL } else { &[] }].concat()).paths();
        for record in step_lines(&out) {
            assert!(record["gradient_norm"].as_f64() > Some(0.0), "{method}: {record}");
        }
        let file = ConceptFile::read(&out.join("cat.safetensors")).expect("a concept");
        for (name, tensor) in file.tensors() {
            let sum = tensor.sum(Kind::Double).double_value(&[]);
            assert!(sum.is_finite(), "{method}: {name}");
        }
    }
}

#[test]
fn samples_of_a_mapper_are_drawn_while_it_is_trained() {
    let out = scratch("sampled");
    let sampling =
        ["--sample-prompt", "a {} at sea", "--sample-every", "1", "--set", "sample_steps=3"];
    train(&out, &[&["--method", "neti"], &SMALL[..], &sampling].concat()).paths();
    assert!(out.join("samples/000002-0.png").is_file());
}

#[test]
fn concepts_of_different_methods_share_a_prompt_and_the_negative_prompt() {
    let named = METHODS.map(|m| format!("<{m}>={}", concept(m)));
    let all: Vec<&str> = named.iter().flat_map(|n| ["--concept", n.as_str()]).collect();
    let with = |name: &str, prompt: &str, negative: &str| {
        let prompts = ["--prompt", prompt, "--negative-prompt", negative];
        let run = generate(&scratch(name), &[&prompts[..], &all].concat());
        pixels(&run.paths()[0])
    };
    let all_four = with("four", "<ti> and <xti> on a <neti> in <cones>", "");
    assert!(all_four != with("swapped", "<neti> and <xti> on a <ti> in <cones>", ""));
    let plain = with("plain", "snow", "");
    for word in ["<ti>", "<xti>", "<neti>", "<cones>"] {
        assert!(plain != with(&format!("no-{}", &word[1..3]), "snow", word), "{word} is avoided");
    }
    // In the negative prompt a mapper stands for its class.
    assert_eq!(with("no-neti", "snow", "<neti>"), with("no-class", "snow", "cat"));
}

#[test]
fn a_strength_goes_from_the_class_to_the_concept() {
    for method in METHODS {
        let at = |strength: &str| {
            let file = format!("{},strength={strength}", concept(method));
            drawn(&format!("{method}-{strength}"), &["--prompt", "a <cat>", "--concept", &file])
        };
        let learnt =
            drawn(&format!("{method}-own"), &["--prompt", "a <cat>", "--concept", concept(method)]);
        let class = drawn(&format!("{method}-class"), &["--prompt", "a cat"]);
        let far = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(far(&at("1"), &learnt) <= Some(1), "{method}");
        assert!(far(&at("0"), &class) <= Some(1), "{method}");
        assert!(at("0.5") != learnt && at("0.5") != class, "{method}");
    }
}

#[test]
fn truncation_and_bypass_are_a_mapper_s_own() {
    let with = |option: &str| {
        let file = format!("{},{option}", concept("neti"));
        generate(&scratch(&option.replace('=', "-")), &["--prompt", "a <cat>", "--concept", &file])
    };
    let own = drawn("own", &["--prompt", "a <cat>", "--concept", concept("neti")]);
    assert_eq!(pixels(&with("truncate=16").paths()[0]), own, "all units");
    assert_ne!(pixels(&with("truncate=2").paths()[0]), own);
    assert_eq!(pixels(&with("bypass=0.2").paths()[0]), own, "the strength of its training");
    assert_ne!(pixels(&with("bypass=0").paths()[0]), own);
    with("truncate=17").refused(2, &["<cat>", "has 16 hidden units", "give 1 to 16"]);
    with("bypass=11").refused(2, &["bypass is a number from 0 to 10"]);
    with("color=1").refused(2, &["known: strength, truncate, bypass, layers"]);
    let file = format!("{},truncate=2", concept("xti"));
    generate(&scratch("x"), &["--prompt", "a <cat>", "--concept", &file])
        .refused(2, &["<cat>", "no NeTI concept"]);
}

#[test]
fn two_files_share_a_word_by_layers() {
    let mix = |name: &str, first: &str, second: &str| {
        let files = [format!("<mix>={first}"), format!("<mix>={second}")];
        let arguments = ["--prompt", "a <mix>", "--concept", &files[0], "--concept", &files[1]];
        generate(&scratch(name), &arguments)
    };
    let (shape, look) = (concept("xti"), concept("neti"));
    let inner = format!("{shape},layers=4-9");
    let outer = format!("{look},layers=0-3+10-15");
    let mixed = pixels(&mix("mix", &inner, look).paths()[0]);
    assert_eq!(mixed, pixels(&mix("explicit", &outer, &inner).paths()[0]));
    let alone = |name: &str, file: &str| {
        drawn(name, &["--prompt", "a <x>", "--concept", &format!("<x>={file}")])
    };
    assert!(mixed != alone("shape", shape) && mixed != alone("look", look));
    mix("gap", &inner, &format!("{look},layers=0-3")).refused(2, &["layer 10 without a concept"]);
    mix("twice", &inner, &format!("{look},layers=9")).refused(2, &["layer 9 twice"]);
    mix("beyond", &format!("{shape},layers=16"), look).refused(2, &["layer 16", "0 to 15"]);
    mix("none", shape, look).refused(2, &["two concepts are called <mix>"]);
}

#[test]
fn a_base_with_other_layers_is_refused() {
    let fewer = changed_base("sd1", "fewer", |folder| {
        let file = folder.join("unet/config.json");
        let text = fs::read_to_string(&file).expect("a configuration");
        let changed = text.replacen("\"CrossAttnDownBlock2D\"", "\"DownBlock2D\"", 1);
        fs::write(file, changed).expect("written");
    });
    for method in ["xti", "neti"] {
        let arguments =
            ["--prompt", "a <cat>", "--concept", concept(method), "--base", path(&fewer)];
        generate(&scratch("other"), &arguments)
            .refused(4, &["16 cross-attention layers", "has 14"]);
    }
}

#[test]
fn what_a_mapper_cannot_learn_from_is_refused() {
    let out = scratch("refused");
    let with = |more: &[&str]| train(&out, &[&["--method", "neti"], more].concat());
    with(&["--vectors", "2"]).refused(2, &["vectors is 2", "NeTI learns 1"]);
    with(&["--init", "two words"]).refused(2, &["one token", "--init object"]);
    with(&["--init-random"]).refused(2, &["from a word"]);
    with(&["--set", "time_anchors=3"]).refused(2, &["time_anchors is 3", "divide 1000"]);
    with(&["--set", "nested_dropout=2"]).refused(2, &["nested_dropout is 2"]);
    with(&["--set", "norm_mode=some"]).refused(2, &["norm_mode", "joint"]);
    train(&out, &["--set", "norm_mode=joint"]).refused(2, &["'norm_mode' is unknown"]);
}

#[test]
fn a_residual_is_learnt_in_every_slot_and_goes_on_to_the_bit() {
    let rows = |folder: &Path, key: &str| -> Tensor {
        let file = ConceptFile::read(&folder.join("cat.safetensors")).expect("a concept");
        file.tensors().find(|(name, _)| *name == key).expect("rows").1.copy()
    };
    let with = |name: &str, more: &[&str]| {
        let out = scratch(name);
        let all = ["--method", "cones", "--set", "warmup_steps=0", "--gradient-accumulation", "1"];
        let sampling = ["--sample-prompt", "{}", "--sample-every", "1", "--set", "sample_steps=2"];
        train(&out, &[&all, &sampling[..], more].concat()).paths();
        assert!(out.join("samples/000002-0.png").is_file());
        out
    };
    for (slots, key, count) in [
        ("noun", "noun_residual", 1),
        ("noun-replace", "noun_rows", 1),
        ("noun+tail:4", "tail", 4),
        ("prompt", "prompt_rows", 77),
    ] {
        let name = slots.replace([':', '+'], "-");
        let learnt = rows(&with(&name, &["--slots", slots]), key);
        assert_eq!(learnt.size(), [count, 64], "{slots}");
        let start = with(&format!("{name}-start"), &["--slots", slots, "--lr", "0"]);
        assert_ne!(learnt, rows(&start, key), "{slots}");
    }
    let constant = ["--slots", "noun+tail:2", "--lr-schedule", "constant"];
    let stopped = with("cones-stopped", &constant);
    train(
        &stopped,
        &[
            &["--method", "cones", "--set", "warmup_steps=0", "--gradient-accumulation", "1"],
            &constant[..],
            &["--resume", "--steps", "4"],
        ]
        .concat(),
    )
    .paths();
    let whole = with("cones-whole", &[&constant[..], &["--steps", "4"]].concat());
    for key in ["noun_residual", "tail"] {
        assert_eq!(rows(&stopped, key), rows(&whole, key), "{key}");
    }
    let out = scratch("cones-refused");
    let refused = |more: &[&str]| train(&out, &[&["--method", "cones"], more].concat());
    refused(&["--slots", "verb"]).refused(2, &["noun+tail:4", "noun-replace"]);
    refused(&["--slots", "prompt+tail:4"]).refused(2, &["no such tail"]);
    refused(&["--init-random"]).refused(2, &["words of a class"]);
}

#[test]
fn a_residual_is_distilled_to_a_token_that_is_nearer_to_it_than_its_class() {
    let file = scratch("token.safetensors");
    let command =
        ["concept", "distill", concept("cones"), "--base", path(base("sd1")), "--steps", "60"];
    let output = ["--output", path(&file), "--lr", "0.001", "--device", "cpu"];
    let run = cli::run(&[&command[..], &output].concat());
    assert_eq!(run.code, 0, "{}", run.err);
    let share = run.err.split("misses ").nth(1).and_then(|text| text.split('%').next());
    let share: f64 = share.expect("a share").parse().expect("a number");
    assert!(share < 90.0, "{share}% missed");
    let token = ConceptFile::read(&file).expect("a concept");
    assert_eq!((token.record.method.as_str(), token.num_vectors()), ("ti", 1));
    drawn("distilled", &["--prompt", "a <cat>", "--concept", path(&file)]);
    cli::run(&[&command[..], &output].concat()).refused(2, &["is there already", "--force"]);
    let plain = ["concept", "distill", concept("ti"), "--base", path(base("sd1"))];
    cli::run(&[&plain[..], &["--output", "x.safetensors"]].concat()).refused(2, &["only ConES"]);
}

#[test]
fn inspect_measures_and_names_the_nearest_words() {
    for (method, layers) in [("ti", Value::Null), ("xti", 16.into()), ("neti", 16.into())] {
        let arguments =
            ["concept", "inspect", concept(method), "--base", path(base("sd1")), "--json"];
        let report: Value = serde_json::from_str(&run(&arguments).out).expect("JSON");
        let measured = &report["measured"];
        assert_eq!(measured["layers"], layers);
        let norms = measured["norms"].as_array().expect("norms").len();
        assert_eq!(
            norms,
            match method {
                "ti" => 1,
                "xti" => 16,
                _ => 160,
            }
        );
        let rank = measured["effective_rank"].as_f64();
        assert!(rank.is_none_or(|rank| (1.0..64.1).contains(&rank)), "{rank:?}");
        assert_eq!(rank.is_none(), method == "ti");
        assert_eq!(measured["vocabulary"]["nearest"].as_array().expect("words").len(), 5);
        assert!(measured["vocabulary"]["class_cosine"].as_f64().expect("a number") <= 1.0);
    }
    // The variable stands in for --base; without either, no vocabulary is known but the built-in base's.
    let mut command = personalize();
    command.args(["concept", "inspect", concept("ti")]).env("PERSONALIZE_BASE", base("sd1"));
    assert!(finish(spawn(command)).out.contains("nearest     cat 0."));
    assert!(!run(&["concept", "inspect", concept("ti")]).out.contains("nearest"));
    let out = scratch("built-in");
    let toybox = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/toybox");
    train(&out, &["--base", toybox, "--steps", "1"]).paths();
    let text = run(&["concept", "inspect", path(&out.join("cat.safetensors"))]);
    assert!(text.out.contains("nearest     cat 0.") || text.out.contains("nearest     cat 1."));
    // A concept that is a word's vector is nearest to that word.
    let text = run(&["concept", "inspect", concept("ti"), "--base", path(base("sd1"))]);
    assert!(text.out.contains("nearest     cat 0."), "{}", text.out);
    let wide = scratch("wide.safetensors");
    write_tensor(&wide, "emb_params", &[1, 96], 0.1);
    run(&["concept", "inspect", path(&wide), "--base", path(base("sd1"))])
        .refused(4, &["96", "64"]);
}
