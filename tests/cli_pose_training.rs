//! FPDM's two stages and what they draw, as a user meets them: trained for a few steps on a small folder, gone on with,
//! drawn; and what is refused.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cli::people::{data, lines, path, photo, written};
use cli::{Run, base, finish, interrupt, personalize, run, scratch, spawn};
use image::{Rgb, RgbImage};

/// Small networks from nothing, pictures of 32 pixels, batches of two.
const SMALL: [&str; 14] = [
    "--preset",
    "toybox",
    "--frame",
    "pixels",
    "--size",
    "32x32",
    "--batch-size",
    "2",
    "--steps",
    "2",
    "--device",
    "cpu",
    "--quiet",
    "--force",
];
const ENCODER: [&str; 12] = [
    "--set",
    "encoder=",
    "--set",
    "new_encoder.blocks=1",
    "--set",
    "new_encoder.width=16",
    "--set",
    "new_encoder.image_size=32",
    "--set",
    "new_encoder.embedding=16",
    "--set",
    "warmup_steps=0",
];
const BUILT_IN: [&str; 4] = ["--set", "encoder=built-in", "--set", "new_encoder.blocks=0"];
const UNET: [&str; 14] = [
    "--set",
    "new_unet.channels=[8, 16]",
    "--set",
    "new_unet.attention=[true, false]",
    "--set",
    "new_unet.norm_groups=4",
    "--set",
    "new_unet.heads=2",
    "--set",
    "new_unet.context=16",
    "--set",
    "stem_channels=[4, 4, 8, 8]",
    "--set",
    "source_side=32",
];

fn train_fusion(data: &Path, output: &Path, more: &[&str]) -> Run {
    let own = ["pose", "train-fusion", "--data", path(data), "--output", path(output)];
    run(&[&own[..], &SMALL[..], &ENCODER[..], more].concat())
}

fn train_generator(data: &Path, fusion: &Path, output: &Path, more: &[&str]) -> Run {
    let own = ["pose", "train-generator", "--data", path(data), "--fusion", path(fusion)];
    let own = [&own[..], &["--output", path(output)]].concat();
    run(&[&own[..], &SMALL[..], &UNET[..], more].concat())
}

/// Both stages, trained once for all tests: the folder, the first file, the second.
fn trained() -> &'static [PathBuf; 3] {
    static FILES: OnceLock<[PathBuf; 3]> = OnceLock::new();
    FILES.get_or_init(|| {
        let people = data("people", 3);
        let fusion = scratch("fusion");
        let first = fusion.join("fusion.safetensors");
        assert_eq!(train_fusion(&people, &fusion, &[]).paths(), std::slice::from_ref(&first));
        let output = scratch("pose");
        let second = output.join("pose.safetensors");
        assert_eq!(
            train_generator(&people, &first, &output, &[]).paths(),
            std::slice::from_ref(&second)
        );
        [people, first, second]
    })
}

fn tensors(file: &Path) -> HashMap<String, tch::Tensor> {
    tch::Tensor::read_safetensors(file).expect("a file of weights").into_iter().collect()
}

fn her() -> PathBuf {
    let file = scratch("her.png");
    photo(&file, 9);
    file
}

fn generate(pose: &Path, output: &Path, more: &[&str]) -> Run {
    let [.., weights] = trained();
    let source = her();
    let own = ["pose", "generate", "--source", path(&source), "--pose", path(pose)];
    let how = ["--weights", path(weights), "--output", path(output), "--steps", "2", "--quiet"];
    run(&[&own[..], &how[..], more].concat())
}

#[test]
fn both_stages_write_their_file_and_a_log_with_retrieval() {
    let [_, fusion, pose] = trained();
    let log = fs::read_to_string(fusion.with_file_name("log.jsonl")).expect("a log");
    assert_eq!(log.lines().count(), 2);
    for word in ["top-1", "top-5", "mean rank"] {
        assert!(log.contains(word), "{log}");
    }
    let log = fs::read_to_string(pose.with_file_name("log.jsonl")).expect("a log");
    assert!(log.lines().count() == 2 && log.contains("reconstruction"), "{log}");
    // The small preset's file is of halves.
    assert!(2 * fs::metadata(pose).expect("a file").len() < 4 * 600_000);
}

#[test]
fn the_first_stage_goes_on_from_the_first_blocks_of_an_encoder() {
    let [people, ..] = trained();
    let output = scratch("built-in");
    let how = ["--set", "encoder_blocks=1", "--steps", "1", "--lr", "1e-12"];
    let ended = train_fusion(people, &output, &[&BUILT_IN[..], &how[..]].concat());
    assert_eq!(ended.code, 0, "{}", ended.err);
    let found = tensors(&output.join("fusion.safetensors"));
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/toybox/clip");
    let whole = tensors(&clip.join("model.safetensors"));
    let layer = |block: u32| format!("vision_model.encoder.layers.{block}.mlp.fc1.weight");
    let first = &found[&format!("image_encoder.{}", layer(0))];
    let apart = (first - whole[&layer(0)].to_kind(first.kind())).abs().max();
    assert!(apart.double_value(&[]) < 1e-9, "{apart}");
    assert!(!found.contains_key(&format!("image_encoder.{}", layer(1))));
}

#[test]
fn a_warm_start_stands_in_for_the_first_stage() {
    let [people, fusion, second] = trained();
    let output = scratch("warm");
    let start = |file: &Path, more: &[&str]| {
        let own = ["pose", "train-generator", "--data", path(people), "--warm-start", path(file)];
        run(&[&own[..], &["--output", path(&output)], &SMALL, &UNET, more].concat())
    };
    assert_eq!(start(second, &[]).paths(), [output.join("pose.safetensors")]);
    // With one of its own the second stage goes on beside another first one.
    let other = scratch("other-fusion");
    assert_eq!(train_fusion(people, &other, &["--seed", "8"]).code, 0);
    let other = other.join("fusion.safetensors");
    assert_eq!(start(second, &["--fusion", path(&other)]).code, 0);
    let (mixed, first) = (tensors(&output.join("pose.safetensors")), tensors(&other));
    for (name, tensor) in first {
        assert_eq!(tensor.to_kind(mixed[&name].kind()), mixed[&name], "{name}");
    }
    start(fusion, &[]).refused(3, &["first stage"]);
    start(
        second,
        &["--set", "new_unet.channels=[32, 64]", "--set", "new_unet.attention=[true, true]"],
    )
    .refused(3, &["pose.safetensors", "another shape"]);
}

#[test]
fn a_stopped_stage_goes_on_to_the_bit() {
    let [people, fusion, _] = trained();
    let (whole, parts) = (scratch("whole"), scratch("parts"));
    assert_eq!(train_generator(people, fusion, &whole, &["--steps", "3"]).code, 0);
    // A schedule that does not depend on the length, so that two steps are the first two of three.
    let constant = ["--lr-schedule", "constant"];
    let at = |output: &Path, more: &[&str]| {
        let run = train_generator(people, fusion, output, &[&constant[..], more].concat());
        assert_eq!(run.code, 0, "{}", run.err);
    };
    at(&whole, &["--steps", "3"]);
    at(&parts, &["--steps", "2"]);
    // What it was told stands in its folder.
    let config = parts.join("config.toml");
    let goes_on =
        ["pose", "train-generator", "--config", path(&config), "--steps", "3", "--resume"];
    run(&[&goes_on[..], &["--set", "mirror=true"]].concat())
        .refused(2, &["another configuration", "config.toml"]);
    let resumed = run(&goes_on);
    assert_eq!(resumed.code, 0, "{}", resumed.err);
    assert_eq!(cli::state(&whole), cli::state(&parts));
}

#[test]
fn ctrl_c_saves_and_exits_with_130() {
    let [people, ..] = trained();
    let output = scratch("interrupted");
    let own = ["pose", "train-fusion", "--data", path(people), "--output", path(&output)];
    let mut command = personalize();
    command.args([&own[..], &SMALL[..], &ENCODER[..], &["--steps", "100000"]].concat());
    let child = spawn(command);
    let log = output.join("log.jsonl");
    while !fs::read_to_string(&log).is_ok_and(|log| log.lines().count() > 1) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    interrupt(&child);
    let ended = finish(child);
    assert_eq!(ended.code, 130, "{}", ended.err);
    assert!(
        output.join("fusion.safetensors").is_file() && output.join("state.safetensors").is_file()
    );
}

#[test]
fn a_pose_as_text_and_as_a_picture_draws_the_same_and_the_seed_matters() {
    let pose = written(&scratch("stand/1.txt"), &lines(0));
    let frame = ["--frame", "pixels:128x128", "--seed", "3"];
    let output = scratch("drawn.png");
    assert_eq!(generate(&pose, &output, &frame).paths(), std::slice::from_ref(&output));
    let drawn = image::open(&output).expect("a picture").into_rgb8();
    assert_eq!(drawn.dimensions(), (32, 32));
    let skeleton = scratch("skeleton.png");
    let size = ["--size", "32x32", "--output", path(&skeleton)];
    let own = ["pose", "render", "--pose", path(&pose), "--frame", "pixels:128x128"];
    run(&[&own[..], &size[..]].concat()).paths();
    let again = scratch("again.png");
    generate(&skeleton, &again, &["--seed", "3"]).paths();
    assert_eq!(image::open(&again).expect("a picture").into_rgb8(), drawn);
    let other = scratch("other.png");
    generate(&pose, &other, &["--frame", "pixels:128x128", "--seed", "4"]).paths();
    assert_ne!(image::open(&other).expect("a picture").into_rgb8(), drawn);
}

#[test]
fn a_folder_of_poses_becomes_a_sheet_and_an_animation() {
    let poses = scratch("walk");
    for step in [1, 2, 10] {
        written(&poses.join(format!("{step}.txt")), &lines(step));
    }
    let output = scratch("walked");
    let how = ["--frame", "pixels:128x128", "--seed", "1", "--batch-size", "2"];
    let found = generate(&poses, &output, &how);
    let names = ["1.png", "2.png", "10.png", "sheet.png", "sequence.gif"];
    assert_eq!(found.paths(), names.map(|name| output.join(name)));
    generate(&poses, &scratch("one.png"), &how).refused(2, &["folder of poses", "give a folder"]);
}

#[test]
fn bad_poses_sizes_and_photos_are_refused_in_one_sentence() {
    let output = scratch("never");
    let frame = ["--frame", "pixels:128x128"];
    let pose = written(&scratch("bad/good.txt"), &lines(0));
    let seventeen = written(&scratch("bad/seventeen.txt"), &lines(0)[..17]);
    generate(&seventeen, &output, &frame)
        .refused(3, &["seventeen.txt", "18 lines", "17 were found"]);
    let mut changed = lines(0);
    changed[3] = "nan 4".into();
    let nan = written(&scratch("bad/nan.txt"), &changed);
    generate(&nan, &output, &frame).refused(3, &["nan.txt:4", "nan"]);
    generate(&pose, &output, &["--frame", "pixels:64x64"]).refused(3, &["good.txt", "outside"]);
    generate(&pose, &output, &[]).refused(2, &["never guessed", "--frame"]);
    generate(&pose, &output, &["--frame", "pixels"]).refused(2, &["pixels:750x1101", "--size"]);
    generate(&pose, &output, &[&frame[..], &["--guidance", "nan"]].concat())
        .refused(2, &["--guidance is NaN"]);
    generate(&pose, &output, &[&frame[..], &["--size", "36x32"]].concat())
        .refused(2, &["width is 36 pixels", "multiple of 8"]);
    let black = scratch("bad/black.png");
    RgbImage::new(32, 32).save(&black).expect("saved");
    generate(&black, &output, &[]).refused(3, &["black.png", "no skeleton"]);
    let bright = scratch("bad/bright.png");
    RgbImage::from_fn(32, 32, |x, _| Rgb([200, x as u8, 90])).save(&bright).expect("saved");
    generate(&bright, &output, &[]).refused(3, &["bright.png"]);
    generate(&pose, &output, &[&frame[..], &["--source", "nobody.png"]].concat())
        .refused(3, &["nobody.png"]);
    generate(&pose, &output, &[&frame[..], &["--sampler", "euler"]].concat())
        .refused(2, &["'euler'", "ddpm or ddim"]);
    assert!(!output.exists());
}

#[test]
fn weights_of_the_first_stage_without_a_combiner_or_for_another_base_are_refused() {
    let [_, fusion, weights] = trained();
    let output = scratch("never-either");
    let pose = written(&scratch("bad/good.txt"), &lines(0));
    let with = |file: &Path, more: &[&str]| {
        let how = ["--frame", "pixels:128x128", "--weights", path(file)];
        generate(&pose, &output, &[&how[..], more].concat())
    };
    with(fusion, &[]).refused(3, &["first stage", "train-generator"]);
    with(weights, &["--base", path(base("sd1"))]).refused(4, &["base"]);
    let cut = scratch("cut.safetensors");
    let record = pipelines::pose::PoseWeights::open(weights).expect("weights").record;
    let kept = tch::Tensor::read_safetensors(weights).expect("tensors").into_iter();
    let kept = kept.filter(|(name, _)| !name.starts_with("combiner.")).collect();
    record.write(&cut, kept).expect("written");
    with(&cut, &[]).refused(3, &["without the combiner", "train-fusion"]);
    let concept =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sd2/concept.safetensors");
    with(&concept, &[]).refused(3, &["without pose weights"]);
}

#[test]
fn runs_that_cannot_be_are_refused_before_they_begin() {
    let [people, fusion, _] = trained();
    let output = scratch("no-run");
    train_fusion(people, &output, &["--size", "36x32"]).refused(2, &["36", "multiple of 8"]);
    train_fusion(people, &output, &["--frame", "auto"]).refused(2, &["frame 'auto'"]);
    train_fusion(people, &output, &["--frame", "256x176", "--set", "data=nowhere"])
        .refused(2, &["nowhere", "not a folder"]);
    train_fusion(people, &output, &["--set", "dropout=2"]).refused(2, &["dropout is 2"]);
    train_fusion(people, &output, &["--set", "new_encoder.embedding=0"])
        .refused(2, &["new_encoder.embedding is 0"]);
    train_fusion(people, &output, &["--set", "encoder=built-in"])
        .refused(2, &["both given", "--set encoder="]);
    let blocks = ["--set", "encoder_blocks=9"];
    train_fusion(people, &output, &[&BUILT_IN[..], &blocks[..]].concat())
        .refused(2, &["encoder_blocks is 9", "has 4", "0 for all"]);
    for (setting, words) in [
        ("offset_noise=nan", "offset_noise is NaN"),
        ("figure_weight=0", "figure_weight is 0"),
        ("new_unet.context=0", "new_unet.context is 0"),
        ("new_unet.norm_groups=0", "new_unet.norm_groups is 0"),
        ("source_side=4", "source_side is 4"),
    ] {
        train_generator(people, fusion, &output, &["--set", setting]).refused(2, &[words]);
    }
    train_fusion(people, &output, &["--set", "temprature=1"]).refused(2, &["temperature?"]);
    let plain = ["pose", "train-fusion", "--data", path(people), "--frame", "pixels"];
    run(&[&plain[..], &["--output", path(&output)]].concat()).refused(2, &["--encoder DIR"]);
    let missing = data("pairs-without-photos", 3);
    fs::remove_file(missing.join("img/0.png")).expect("removed");
    train_fusion(&missing, &output, &[])
        .refused(3, &["train_pairs_data.json:2", "source photo ./img/0.png is not there"]);
    train_generator(people, &scratch("none.safetensors"), &output, &[])
        .refused(3, &["none.safetensors"]);
    train_generator(people, fusion, &output, &["--set", "stem_channels=[4, 8]"])
        .refused(4, &["shrunk by 2"]);
    train_generator(people, fusion, &output, &["--set", "new_unet.heads=3"])
        .refused(3, &["block_out_channels"]);
    assert!(!output.exists());
    let taken = fusion.parent().expect("a folder");
    let own = ["pose", "train-fusion", "--data", path(people), "--output", path(taken)];
    run(&[&own[..], &SMALL[..SMALL.len() - 1], &ENCODER[..]].concat())
        .refused(2, &["earlier run", "--resume", "--force"]);
}
