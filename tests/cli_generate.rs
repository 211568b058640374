//! Drawing as a user meets it: where pictures go, what is told, and what is kept when it ends early.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cli::{
    base, changed_base, finish, generate, generate_command, interrupt, scratch, spawn, train,
    write_tensor,
};
use pipelines::generate::{GeneratePlan, GenerateRequest, Progress};
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

/// The text of a PNG under `parameters`.
fn a1111(file: &Path) -> String {
    let file = BufReader::new(fs::File::open(file).expect("a picture"));
    let reader = png::Decoder::new(file).read_info().expect("a PNG");
    let chunks = &reader.info().uncompressed_latin1_text;
    chunks.iter().find(|chunk| chunk.keyword == "parameters").expect("the text").text.clone()
}

/// What the flags of a command have to be for the picture that a text tells of, as readers of A1111's take it apart.
fn flags(text: &str) -> Vec<String> {
    let (prompts, settings) = text.rsplit_once('\n').expect("a line of settings");
    let (prompt, negative) = prompts.split_once("\nNegative prompt:").expect("its line");
    let mut known = HashMap::new();
    let mut rest = settings;
    while let Some((key, after)) = rest.split_once(": ") {
        let end = match after.strip_prefix('"') {
            Some(quoted) => quoted.find('"').expect("a closing quote") + 2,
            None => after.find(", ").unwrap_or(after.len()),
        };
        known.insert(key, after[..end].trim_matches('"'));
        rest = after[end..].trim_start_matches(", ");
    }
    let size = known["Size"].split_once('x').expect("width and height");
    let number = |key: &str| known.get(key).map_or(0, |n| n.parse::<u64>().expect("a number"));
    let first = number("Seed").wrapping_sub(number("Batch pos")).to_string();
    let batch = number("Batch size").max(1).to_string();
    let mut flags: Vec<String> = [
        ["--prompt", prompt],
        ["--negative-prompt", negative.trim_start()],
        ["--steps", known["Steps"]],
        ["--sampler", known["Sampler"]],
        ["--guidance", known["CFG scale"]],
        ["--seed", &first],
        ["--count", &batch],
        ["--batch-size", &batch],
        ["--width", size.0],
        ["--height", size.1],
        ["--clip-skip", known.get("Clip skip").unwrap_or(&"1")],
        ["--spacing", known["Timestep spacing"]],
        ["--guidance-rescale", known.get("CFG rescale").unwrap_or(&"0")],
        ["--precision", known["Precision"]],
        ["--device", known["Device"]],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect();
    if known.get("Schedule type") == Some(&"Karras") {
        flags.push("--karras".to_owned());
    }
    flags
}

#[test]
fn a_picture_is_drawn_again_from_the_text_in_it_alone() {
    let karras = changed_base("sd1", "karras", |folder| {
        let file = folder.join("scheduler/scheduler_config.json");
        let mut config: Value =
            serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
        config["use_karras_sigmas"] = true.into();
        fs::write(file, config.to_string()).expect("written");
    });
    let asked: [&[&str]; 4] = [
        &["--sampler", "euler", "--clip-skip", "2", "--spacing", "trailing", "--count", "2"],
        &["--sampler", "Euler a", "--guidance", "0.5", "--negative-prompt", "dark: red, blurry"],
        &[
            "--guidance-rescale",
            "0.7",
            "--batch-size",
            "3",
            "--count",
            "3",
            "--seed",
            "9223372036854775806",
        ],
        &["--karras", "--sampler", "unipc"],
    ];
    for (i, asked) in asked.into_iter().enumerate() {
        // The base's Karras levels are not asked for by anyone, and a plain base has none: the text has to say it.
        let base_of = |again: bool| if again { base("sd1") } else { karras.as_path() };
        let concept = ["--concept", concept(), "--prompt", "a <dots> cat", "--steps", "3"];
        let draw = |name: String, again: bool, flags: &[&str]| {
            let given = ["--base", path(base_of(again))];
            generate(&scratch(&name), &[&given, flags].concat()).paths()
        };
        for picture in draw(format!("told-{i}"), false, &[&concept, asked].concat()) {
            let text = a1111(&picture);
            let mut flags = flags(&text);
            flags.extend(concept[..2].iter().map(|&flag| flag.to_owned()));
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let name = picture.file_name().expect("a name");
            let folder = format!(
                "again-{i}-{}",
                path(Path::new(name).file_stem().expect("a stem").as_ref())
            );
            let again = draw(folder, true, &flags);
            let same = again.iter().find(|path| path.file_name() == Some(name));
            let same = same.unwrap_or_else(|| panic!("{again:?} has no {name:?}: {text}"));
            assert_eq!(pixels(&picture), pixels(same), "{text}");
        }
    }
}

#[test]
fn prompts_of_the_same_words_do_not_write_one_file() {
    let out = scratch("alike");
    let prompts = ["--prompt", "a b", "--prompt", "a-b", "--prompt", "A b"];
    let first = generate(&out, &prompts).paths();
    assert_eq!(first[0], out.join("a-b-1.png"));
    assert_eq!(fs::read_dir(&out).expect("a folder").count(), 3);
    let backwards = ["--prompt", "A b", "--prompt", "a-b", "--prompt", "a b", "--force"];
    let mut again = generate(&out, &backwards).paths();
    again.reverse();
    assert_eq!(again, first, "a prompt keeps its name");
    let grid = ["--prompt", "grid", "--prompt", "x", "--grid", "--force"];
    assert_eq!(generate(&scratch("grids"), &grid).paths().len(), 3);
    assert_eq!(fs::read_dir(scratch("grids")).expect("a folder").count(), 3);
}

#[test]
fn every_seed_that_is_drawn_can_be_given_again() {
    for (seed, next) in
        [("9223372036854775807", "9223372036854775808"), ("18446744073709551615", "0")]
    {
        let out = scratch(&format!("seed-{seed}"));
        let both = generate(&out, &["--prompt", "x", "--seed", seed, "--count", "2"]).paths();
        assert_eq!(both, [out.join(format!("x-{seed}.png")), out.join(format!("x-{next}.png"))]);
        let alone =
            generate(&scratch(&format!("alone-{next}")), &["--prompt", "x", "--seed", next]);
        assert_eq!(pixels(&alone.paths()[0]), pixels(&both[1]));
    }
    let random = generate(&scratch("random"), &["--prompt", "x", "--seed", "-1"]).paths();
    assert_eq!(random.len(), 1);
    for seed in ["-2", "18446744073709551616", "1.5"] {
        let run = generate(&scratch("no-seed"), &["--prompt", "x", "--seed", seed]);
        assert!(run.code == 2 && run.err.contains("from 0 to 18446744073709551615"), "{}", run.err);
    }
}

#[test]
fn a_guidance_of_one_or_less_draws_the_prompt_alone_and_says_so() {
    let draw = |name: &str, more: &[&str]| {
        let run = generate(&scratch(name), &[&["--prompt", "a cat"], more].concat());
        (pixels(&run.paths()[0]), run.err)
    };
    let (one, quiet) = draw("one", &["--guidance", "1"]);
    assert_eq!(quiet, "");
    for (name, guidance, told) in
        [("zero", "0", "is no guidance"), ("half", "0.5", "A1111"), ("minus", "-1e-3", "A1111")]
    {
        let (drawn, said) = draw(name, &["--guidance", guidance]);
        assert!(drawn == one && said.contains(told) && said.lines().count() == 1, "{said}");
    }
    assert_ne!(draw("two", &["--guidance", "2"]).0, one);
    let (same, said) = draw("idle", &["--guidance", "1", "--negative-prompt", "snow"]);
    assert!(same == one && said.contains("the negative prompt has no effect"), "{said}");
    let idle = ["--guidance", "1", "--negative-prompt", "<dots>", "--concept", concept()];
    assert!(draw("idle-concept", &idle).1.contains("<dots> is in no prompt and has no effect"));
}

#[test]
fn what_is_cut_from_a_prompt_is_told_and_many_cuts_are_counted() {
    let long = format!("{}the beach", "snow ".repeat(75));
    let run = generate(&scratch("cut"), &["--prompt", &long, "--truncate"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("this was cut off: 'the beach'"), "{}", run.err);
    let file = scratch("long-prompts.txt");
    fs::write(&file, format!("{long}\n").repeat(40)).expect("written");
    let many = ["--prompt-file", path(&file), "--truncate", "--steps", "1"];
    let run = generate(&scratch("cuts"), &many);
    assert!(run.err.contains("30 more prompts are longer"), "{}", run.err);
    assert_eq!(run.err.lines().count(), 11);
}

#[test]
fn a_picture_is_of_the_kind_that_its_name_ends_in() {
    for (name, format) in [
        ("a.jpg", image::ImageFormat::Jpeg),
        ("b.JPEG", image::ImageFormat::Jpeg),
        ("c.webp", image::ImageFormat::WebP),
    ] {
        let out = scratch(name);
        assert_eq!(generate(&out, &["--prompt", "a cat"]).paths(), std::slice::from_ref(&out));
        let bytes = fs::read(&out).expect("a picture");
        assert_eq!(image::guess_format(&bytes).expect("a picture"), format);
        let text: Vec<u8> = "a cat\nNegative prompt: \nSteps: 2, Sampler: DPM++ 2M"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        assert!(bytes.windows(text.len()).any(|window| window == text), "{name}");
        let bare = generate(&out, &["--prompt", "a cat", "--no-metadata", "--force"]).paths();
        let bytes = fs::read(&bare[0]).expect("a picture");
        assert!(!bytes.windows(text.len()).any(|window| window == text), "{name}");
    }
    generate(&scratch("a.gif"), &["--prompt", "a cat"]).refused(2, &["a.gif", ".jpg or .webp"]);
    let two = ["--prompt", "a cat", "--count", "2"];
    generate(&scratch("two.jpg"), &two).refused(2, &["names one picture"]);
}

#[test]
fn a_file_of_prompts_may_begin_with_a_byte_order_mark() {
    let file = scratch("windows.txt");
    fs::write(&file, "\u{feff}# mine\r\na cat\r\n").expect("written");
    let out = scratch("windows");
    let drawn = generate(&out, &["--prompt-file", path(&file)]).paths();
    assert_eq!(drawn, [out.join("a-cat-1.png")]);
    assert!(a1111(&drawn[0]).starts_with("a cat\n"));
}

#[test]
fn more_than_any_machine_can_draw_is_refused_at_once() {
    let out = scratch("bombs");
    let refused = |more: &[&str], words: &[&str]| {
        generate(&out, &[&["--prompt", "x"], more].concat()).refused(2, words);
    };
    refused(&["--count", "4294967295"], &["4294967295 pictures", "at most"]);
    refused(&["--count", "1000000", "--batch-size", "4294967295"], &["lower --batch-size"]);
    refused(&["--count", "1000000", "--grid"], &["a grid of 1000000 pictures"]);
    refused(&["--steps", "4294967295"], &["4294967295 steps", "1 to 1000"]);
    refused(&["--width", "9223372036854775807"], &["at most 8192"]);
    refused(&["-W", "-64"], &["the width is -64 pixels", "use 8"]);
}

#[test]
fn a_concept_drawn_with_another_clip_skip_than_it_learnt_with_is_told() {
    let out = scratch("skipped");
    let trained = train(&out, &["--clip-skip", "2", "--steps", "1"]);
    assert_eq!(trained.code, 0, "{}", trained.err);
    let file = out.join("cat.safetensors");
    let draw = |more: &[&str]| {
        let concept = ["--prompt", "a <cat>", "--concept", path(&file)];
        generate(&scratch("skip"), &[&concept, more].concat()).err
    };
    let told = draw(&[]);
    assert!(told.contains("trained with --clip-skip 2 and is drawn with 1"), "{told}");
    assert_eq!(draw(&["--clip-skip", "2"]), "");
}

#[test]
fn many_prompts_are_encoded_as_they_are_drawn_and_can_be_stopped_meanwhile() {
    let request = GenerateRequest {
        base: base("sd1").to_owned(),
        variant: None,
        concepts: Vec::new(),
        prompts: (0..66).map(|i| format!("a cat {i}")).collect(),
        negative_prompt: String::new(),
        count: 1,
        batch_size: 1,
        seed: 1,
        steps: 1,
        guidance: 1.0,
        guidance_rescale: 0.0,
        sampler: "ddim".into(),
        spacing: None,
        karras: false,
        width: Some(32),
        height: Some(32),
        clip_skip: 1,
        refine: 0,
        truncate: false,
        grid: false,
        no_metadata: true,
        force: true,
        device: pipelines::DeviceChoice::Cpu,
        precision: pipelines::Precision::F32,
        output: scratch("many"),
    };
    let plan = GeneratePlan::new(request).expect("a plan");
    let run = |stop_after: usize| {
        let (mut waiting, mut most, mut encoded) = (0, 0, 0);
        let drawn = pipelines::generate::generate(&plan, &mut |event| {
            match event {
                Progress::Encoded => (waiting, encoded) = (waiting + 1, encoded + 1),
                Progress::Picture(_) => waiting -= 1,
                _ => {}
            }
            most = most.max(waiting);
            if encoded == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let drawn = drawn.expect("pictures");
        (drawn.paths.len(), drawn.interrupted, most)
    };
    assert_eq!(run(3), (0, true, 3));
    let (pictures, interrupted, most) = run(usize::MAX);
    assert_eq!((pictures, interrupted), (66, false));
    assert!(most <= 64, "{most} encoded prompts wait to be drawn");
}
