//! People in poses as a user meets them: skeletons, checks of files and folders, scores; and what is refused.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::fs;
use std::path::{Path, PathBuf};

use cli::people::{data, lines, path, photo, written};
use cli::{Run, run, scratch};
use image::{Rgb, RgbImage};
use models::inception::Inception;
use models::lpips::Lpips;
use models::params::Params;
use models::seeded::Seeded;
use models::weights;
use serde_json::Value;
use tch::{Device, Kind};

fn check(root: &Path, frame: &str) -> Run {
    run(&["pose", "check", "--data", path(root), "--frame", frame])
}

/// Asserts that a folder has exactly this fault, at this place.
#[track_caller]
fn faulty(root: &Path, place: &str, words: &[&str]) {
    let found = check(root, "pixels");
    assert_eq!(found.code, 3, "{}{}", found.out, found.err);
    assert!(found.err.contains("1 fault, listed on stdout"), "{}", found.err);
    let faults: Vec<&str> = found.out.lines().skip(3).collect();
    let [fault] = faults[..] else { panic!("not one fault: {}", found.out) };
    assert!(fault.starts_with(&format!("{}/{place}: ", root.display())), "{fault}");
    for word in words {
        assert!(fault.contains(word), "'{word}' is not in: {fault}");
    }
}

#[test]
fn a_pose_becomes_a_picture_of_the_size_that_was_asked_for() {
    let pose = written(&scratch("stand.txt"), &lines(0));
    let render = |more: &[&str]| {
        let all = [&["pose", "render", "--pose", path(&pose)], more].concat();
        run(&all)
    };
    let output = scratch("stand.png");
    let found = render(&["--frame", "pixels", "--size", "128x128", "--output", path(&output)]);
    assert_eq!(found.paths(), std::slice::from_ref(&output));
    let drawn = image::open(&output).expect("a picture").into_rgb8();
    assert_eq!(drawn.dimensions(), (128, 128));
    assert!(drawn.pixels().any(|pixel| pixel[2] > 100));
    assert_eq!(drawn.get_pixel(2, 2).0, [0; 3]);
    // The same pose by another name of the same frame, at twice the size, into a folder.
    let jpeg = output.with_extension("jpg");
    let large = ["--frame", "pixels", "--size", "128x128", "--output", path(&jpeg)];
    assert_eq!(render(&large).paths(), std::slice::from_ref(&jpeg));
    let bytes = std::fs::read(&jpeg).expect("a picture");
    assert_eq!(image::guess_format(&bytes).expect("a picture"), image::ImageFormat::Jpeg);
    let folder = scratch("rendered");
    let large = ["--frame", "pixels:128x128", "--size", "256x256", "--output", path(&folder)];
    let file = folder.join("stand.png");
    assert_eq!(render(&large).paths(), std::slice::from_ref(&file));
    assert_eq!(image::open(&file).expect("a picture").into_rgb8().dimensions(), (256, 256));
    assert_eq!(render(&large).paths(), [folder.join("stand-1.png")]);
    assert_eq!(render(&[&large[..], &["--force"]].concat()).paths(), [file]);
    // DeepFashion's frames have a size of their own.
    let file = folder.join("a.png");
    let fashion = ["--frame", "256x176", "--output", path(&file)];
    let size = image::open(&render(&fashion).paths()[0]).expect("a picture").into_rgb8();
    assert_eq!(size.dimensions(), (352, 512));
}

#[test]
fn a_folder_of_poses_becomes_pictures_a_sheet_and_an_animation() {
    let poses = scratch("walk");
    for step in [1, 2, 10] {
        written(&poses.join(format!("{step}.txt")), &lines(step));
    }
    let output = scratch("walked");
    let found = run(&[
        "pose",
        "render",
        "--pose",
        path(&poses),
        "--frame",
        "pixels",
        "--size",
        "128x128",
        "--output",
        path(&output),
    ]);
    let names = ["1.png", "2.png", "10.png", "sheet.png", "sequence.gif"];
    assert_eq!(found.paths(), names.map(|name| output.join(name)));
    let sheet = image::open(output.join("sheet.png")).expect("a picture").into_rgb8();
    assert_eq!(sheet.dimensions(), (3 * 128 + 2 * 4, 128));
    let second = image::open(output.join("2.png")).expect("a picture").into_rgb8();
    let in_sheet = image::imageops::crop_imm(&sheet, 132, 0, 128, 128).to_image();
    assert_eq!(in_sheet, second);
    assert!(fs::read(output.join("sequence.gif")).expect("a file").starts_with(b"GIF89a"));
}

/// The same joints as OpenPose's JSON, in a list with the picture's size as `ControlNet`'s editors write it.
fn openpose(file: &Path, lines: &[String]) -> PathBuf {
    let numbers: Vec<String> = lines.iter().map(|line| line.replace(' ', ", ") + ", 0.9").collect();
    let text = format!(
        "[{{\"people\": [{{\"pose_keypoints_2d\": [{}]}}], \"canvas_width\": 128, \"canvas_height\": 128}}]",
        numbers.join(", ")
    );
    written(file, &[text])
}

#[test]
fn openpose_json_is_read_wherever_a_pose_is() {
    let (text, json) = (scratch("poses/a.txt"), scratch("poses-json/a_keypoints.json"));
    written(&text, &lines(0));
    openpose(&json, &lines(0));
    let render = |pose: &Path, output: &str| {
        let output = scratch(output);
        let frame = ["--frame", "pixels", "--size", "128x128"];
        let files = ["--pose", path(pose), "--output", path(&output)];
        let found = run(&[&["pose", "render"], &frame[..], &files[..]].concat());
        image::open(&found.paths()[0]).expect("a picture").into_rgb8()
    };
    assert_eq!(render(&json, "json.png"), render(&text, "text.png"));
    assert_eq!(render(json.parent().unwrap(), "jsons"), render(&text, "text-again.png"));

    let root = data("openpose", 1);
    fs::remove_file(root.join("pose/1.txt")).expect("removed");
    openpose(&root.join("pose/1.json"), &lines(1));
    assert_eq!(check(&root, "pixels").code, 0);
    openpose(&root.join("pose/1.json"), &lines(100));
    faulty(&root, "pose/1.json", &["outside the photo"]);
    written(&root.join("pose/1.json"), &["{\"people\": []}".into()]);
    faulty(&root, "pose/1.json", &["OpenPose", "no person"]);
}

#[test]
fn a_source_that_is_no_jpeg_or_png_is_named_with_a_way_to_convert_it() {
    let (heic, pose) = (scratch("her.heic"), written(&scratch("stand-1.txt"), &lines(0)));
    fs::write(&heic, b"\0\0\0\x18ftypheic").expect("written");
    let files = ["--source", path(&heic), "--pose", path(&pose)];
    let output = scratch("her-stands.png");
    let more = ["--frame", "pixels:128x128", "--output", path(&output)];
    run(&[&["pose", "generate"], &files[..], &more[..]].concat())
        .refused(3, &["her.heic is HEIC", "heif-convert"]);
}

#[test]
fn a_skeleton_is_laid_over_its_photo() {
    let (picture, pose) = (scratch("her.png"), written(&scratch("her.txt"), &lines(0)));
    photo(&picture, 9);
    let output = scratch("over.png");
    let found = run(&[
        "pose",
        "check",
        "--photo",
        path(&picture),
        "--pose",
        path(&pose),
        "--frame",
        "pixels",
        "--output",
        path(&output),
    ]);
    assert_eq!(found.paths(), std::slice::from_ref(&output));
    let (before, after) = (
        image::open(&picture).expect("one").into_rgb8(),
        image::open(&output).expect("one").into_rgb8(),
    );
    assert_eq!(before.get_pixel(5, 5), after.get_pixel(5, 5));
    assert_ne!(before.get_pixel(55, 36), after.get_pixel(55, 36)); // the right shoulder
}

#[test]
fn a_sound_folder_passes_and_counts_what_it_holds() {
    let root = data("sound", 3);
    let found = check(&root, "pixels");
    assert_eq!((found.code, found.err.as_str()), (0, ""));
    assert!(found.out.contains("3 to train, 0 to test"), "{}", found.out);
    let json = run(&["pose", "check", "--data", path(&root), "--frame", "pixels", "--json"]);
    let json: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(
        (&json["photos"], &json["poses"], &json["pairs"]),
        (&4.into(), &3.into(), &3.into())
    );
    assert_eq!(json["faults"], Value::Array(Vec::new()));
}

#[test]
fn a_pair_without_its_photo_is_named_with_its_line() {
    let root = data("missing", 3);
    fs::remove_file(root.join("img/0.png")).expect("removed");
    faulty(&root, "train_pairs_data.json:2", &["source photo ./img/0.png is not there"]);
}

#[test]
fn a_pair_without_its_pose_is_named_with_its_line() {
    let root = data("poseless", 3);
    fs::remove_file(root.join("pose/3.txt")).expect("removed");
    faulty(&root, "train_pairs_data.json:4", &["pose pose/3.txt", "is not there"]);
}

#[test]
fn files_of_seventeen_lines_and_nan_are_named() {
    let root = data("seventeen", 2);
    written(&root.join("pose/1.txt"), &lines(0)[..17]);
    faulty(&root, "pose/1.txt", &["18 lines", "17 were found"]);
    let root = data("nan", 2);
    let mut changed = lines(0);
    changed[6] = "nan 50".into();
    written(&root.join("pose/2.txt"), &changed);
    faulty(&root, "pose/2.txt:7", &["x of left_elbow is NaN", "-1 -1"]);
}

#[test]
fn joints_outside_the_photo_and_wrong_frames_are_named() {
    let root = data("outside", 2);
    let mut changed = lines(0);
    changed[4] = "140 62".into();
    written(&root.join("pose/2.txt"), &changed);
    faulty(&root, "pose/2.txt:5", &["right_wrist at 140 62", "x 0 to 128, y 0 to 128"]);
    // Coordinates of the margin frame, read as those of the narrow one: a wrist is beyond 176.
    let pose = written(&scratch("margin.txt"), &lines(130));
    let render = |frame: &str| {
        run(&[
            "pose",
            "render",
            "--pose",
            path(&pose),
            "--frame",
            frame,
            "--output",
            path(&scratch("never.png")),
        ])
    };
    render("256x176").refused(3, &["margin.txt:1", "outside", "pass --frame 256-margin-40"]);
    assert_eq!(render("256-margin-40").code, 0);
}

#[test]
fn a_photo_that_is_none_and_a_folder_without_lists_are_named() {
    let root = data("broken", 2);
    fs::write(root.join("img/0.png"), "no picture").expect("written");
    faulty(&root, "img/0.png", &["named like a picture"]);
    let empty = scratch("empty-data");
    fs::create_dir_all(&empty).expect("a folder");
    check(&empty, "pixels")
        .refused(3, &["empty-data", "no list of pairs", "train_pairs_data.json"]);
    check(Path::new("nowhere"), "pixels").refused(2, &["nowhere is not a folder"]);
    let broken = data("comma", 1);
    written(&broken.join("train_pairs_data.json"), &["[".into(), "{,]".into()]);
    let found = check(&broken, "pixels");
    assert_eq!(found.code, 3);
    assert!(found.out.contains("train_pairs_data.json:2: "), "{}", found.out);
}

#[test]
fn every_fault_of_a_folder_is_told() {
    let root = data("many", 5);
    fs::remove_file(root.join("img/0.png")).expect("removed");
    written(&root.join("pose/2.txt"), &lines(0)[..3]);
    let mut changed = lines(0);
    changed[0] = "inf 1".into();
    changed[17] = "1".into();
    written(&root.join("pose/4.txt"), &changed);
    let found = check(&root, "pixels");
    assert_eq!((found.code, found.out.lines().count()), (3, 3 + 4), "{}", found.out);
    assert!(found.err.contains("4 faults"), "{}", found.err);
    assert!(found.out.contains("2 to train"), "{}", found.out);
}

#[test]
fn the_csv_lists_are_read_and_their_faults_named() {
    let root = scratch("csv");
    for index in 0..2 {
        photo(&root.join(format!("img/WOMEN/Dresses/id_0000000{index}/01_1_front.png")), index);
    }
    let name = |index: u32| format!("fashionWOMENDressesid0000000{index}01_1front.png");
    let (x, y): (Vec<String>, Vec<String>) = lines(0)
        .iter()
        .map(|line| line.split_once(' ').map(|(x, y)| (x.to_owned(), y.to_owned())).expect("two"))
        .unzip();
    let annotation = |x: &[String], y: &[String]| {
        written(
            &root.join("fasion-resize-annotation-train.csv"),
            &[
                "name:keypoints_y:keypoints_x".into(),
                format!("{}:[{}]:[{}]", name(1), y.join(", "), x.join(", ")),
            ],
        )
    };
    written(
        &root.join("fasion-resize-pairs-train.csv"),
        &["from,to".into(), format!("{},{}", name(0), name(1))],
    );
    annotation(&x, &y);
    let found = check(&root, "256x176");
    assert!(found.code == 0 && found.out.contains("1 to train"), "{}{}", found.out, found.err);
    annotation(&x[..17], &y);
    let place = "fasion-resize-annotation-train.csv:2";
    let found = check(&root, "256x176");
    assert!(
        found.code == 3 && found.out.contains(place) && found.out.contains("17 numbers"),
        "{}",
        found.out
    );
    let far: Vec<String> =
        y.iter().map(|y| format!("{}", 130 + y.parse::<i32>().expect("a number"))).collect();
    annotation(&far, &x); // exchanged, since the list of y comes first
    let found = check(&root, "256x176");
    assert!(found.out.contains(place) && found.out.contains("exchanged"), "{}", found.out);
    annotation(&x, &y);
    written(
        &root.join("fasion-resize-pairs-train.csv"),
        &["from,to".into(), format!("{},{}", name(0), name(1)), format!("{},{}", name(7), name(1))],
    );
    let found = check(&root, "256x176");
    assert!(
        found.out.contains("fasion-resize-pairs-train.csv:3: the source photo"),
        "{}",
        found.out
    );
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let pose = written(&scratch("some.txt"), &lines(0));
    let poses = scratch("some-poses");
    written(&poses.join("1.txt"), &lines(0));
    let never = scratch("never-written");
    let render = |arguments: &[&str]| {
        run(&[&["pose", "render", "--output", path(&never), "--pose"], arguments].concat())
    };
    let some = path(&pose);
    render(&[some, "--frame", "auto"])
        .refused(2, &["frame 'auto' is unknown", "256-margin-40", "pixels"]);
    render(&[some, "--frame", "pixels"]).refused(2, &["size", "--size 352x512"]);
    render(&[some, "--frame", "256x176", "--size", "350x512"])
        .refused(2, &["width is 350 pixels", "multiple of 8", "use 352"]);
    render(&[some, "--frame", "256x176", "--size", "352"]).refused(2, &["'352'", "352x512"]);
    render(&["nowhere.txt", "--frame", "256x176"]).refused(3, &["nowhere.txt", "check the path"]);
    let file = scratch("one.png");
    run(&["pose", "render", "--pose", path(&poses), "--frame", "256x176", "--output", path(&file)])
        .refused(2, &["folder of poses", "give a folder"]);
    let none = scratch("no-poses");
    fs::create_dir_all(&none).expect("a folder");
    render(&[path(&none), "--frame", "256x176"]).refused(2, &["holds no pose"]);
    assert!(!never.exists() && !file.exists());
    let frameless = run(&["pose", "render", "--pose", some]); // never guessed
    assert!(frameless.code == 2 && frameless.err.contains("--frame"), "{}", frameless.err);
}

#[test]
fn drawn_pictures_are_scored_beside_the_source_copied() {
    let at = |folder: &str, name: &str| scratch("scores").join(folder).join(name);
    for (index, name) in ["a.png", "b.png"].iter().enumerate() {
        let level = 40 * index as u8;
        photo(&at("truth", name), level);
        photo(&at("drawn", name), level + 3);
        photo(&at("source", name), level + 100);
        let half = RgbImage::from_fn(128, 128, |x, _| Rgb([if x < 64 { 255 } else { 0 }; 3]));
        fs::create_dir_all(at("masks", "")).expect("a folder");
        half.save(at("masks", name)).expect("saved");
    }
    let folder = |name: &str| path(&scratch("scores").join(name)).to_owned();
    let (drawn, truth, source, masks) =
        (folder("drawn"), folder("truth"), folder("source"), folder("masks"));
    let evaluate = |more: &[&str]| {
        run(&[&["pose", "evaluate", "--drawn", &drawn, "--truth", &truth], more].concat())
    };
    let file = folder("scores.json");
    let found = evaluate(&["--source", &source, "--masks", &masks, "--output", &file]);
    assert_eq!(found.code, 0, "{}", found.err);
    let json: Value =
        serde_json::from_str(&fs::read_to_string(&file).expect("a file")).expect("JSON");
    assert_eq!(json["count"], 2);
    let of =
        |row: usize, metric: &str| json["rows"][row]["means"][metric].as_f64().expect("a number");
    assert_eq!(json["rows"][1]["name"], "source copied");
    assert!(
        (of(0, "l1") - 1.0 / 255.0).abs() < 1e-9
            && (of(0, "foreground_l1") - 1.0 / 255.0).abs() < 1e-9
    );
    assert!((of(1, "l1") - 100.0 / 3.0 / 255.0).abs() < 1e-9);
    assert!(of(0, "ssim_gaussian") > of(1, "ssim_gaussian") && of(0, "psnr") > of(1, "psnr"));
    assert!(found.out.starts_with("2 pictures"), "{}", found.out);
    for words in ["SSIM Gaussian", "SSIM uniform 51", "source copied", "foreground L1"] {
        assert!(found.out.contains(words), "{}", found.out);
    }
    // A folder of another name goes into the table, too.
    let beside = format!("codec={source}");
    let shown: Value =
        serde_json::from_str(&evaluate(&["--beside", &beside, "--json"]).out).expect("JSON");
    assert_eq!(shown["rows"][1]["name"], "codec");
    evaluate(&["--beside", "codec"]).refused(2, &["NAME=DIR"]);
    evaluate(&["--size", "100x100"]).refused(2, &["multiple of 8"]);
    fs::remove_file(at("source", "b.png")).expect("removed");
    evaluate(&["--source", &source]).refused(3, &["source", "no picture called b"]);
    RgbImage::new(64, 64).save(at("drawn", "b.png")).expect("saved");
    evaluate(&[]).refused(3, &["b.png", "64x64", "128x128", "--size"]);
}

#[test]
fn joints_are_scored_where_true_poses_are_given() {
    let at = |folder: &str, name: &str| scratch("joints").join(folder).join(name);
    for name in ["a", "b"] {
        photo(&at("truth", &format!("{name}.png")), 90);
        photo(&at("drawn", &format!("{name}.png")), 99);
        written(&at("poses", &format!("{name}.txt")), &lines(0));
    }
    let folder = |name: &str| path(&scratch("joints").join(name)).to_owned();
    let (drawn, truth, poses) = (folder("drawn"), folder("truth"), folder("poses"));
    let evaluate = |more: &[&str]| {
        run(&[&["pose", "evaluate", "--drawn", &drawn, "--truth", &truth], more].concat())
    };
    let with = ["--poses", &poses, "--frame", "pixels"];
    let shown: Value =
        serde_json::from_str(&evaluate(&[&with[..], &["--json"]].concat()).out).expect("JSON");
    assert_eq!(
        (&shown["rows"][0]["name"], &shown["rows"][1]["name"]),
        (&"truth".into(), &"drawn".into())
    );
    // Nobody is in these photos, so joints are anywhere; but they are found, and measured.
    assert!(shown["rows"][1]["means"]["joint_error"].as_f64().expect("a number") > 0.05);
    assert!(evaluate(&with).out.contains("joints near"));
    // Pixels are those of the true photo's file, whatever size is scored at.
    let sized = |frame: &str| {
        let how = ["--poses", &poses, "--frame", frame, "--size", "256x256", "--json"];
        let shown: Value = serde_json::from_str(&evaluate(&how).out).expect("JSON");
        shown["rows"][1]["means"]["joint_error"].as_f64().expect("a number")
    };
    let (plain, named) = (sized("pixels"), sized("pixels:128x128"));
    assert!((plain - named).abs() < 1e-12, "{plain}, {named}");
    assert_eq!(evaluate(&["--poses", &poses]).code, 2); // a frame is never guessed
    evaluate(&[&with[..], &["--joints", "nowhere.safetensors"]].concat()).refused(3, &["nowhere"]);
    fs::remove_file(at("poses", "b.txt")).expect("removed");
    evaluate(&with).refused(3, &["poses", "no pose b.txt"]);
    written(&at("poses", "b.txt"), &lines(0));
    for name in ["a.png", "b.png"] {
        RgbImage::new(60, 130).save(at("truth", name)).expect("saved");
    }
    evaluate(&with).refused(2, &["width is 60", "multiple of 8", "--size"]);
}

#[test]
fn lpips_and_frechet_distances_are_there_where_their_weights_are() {
    let at = |folder: &str, name: &str| scratch("perceptual").join(folder).join(name);
    for (k, name) in ["a.png", "b.png", "c.png"].iter().enumerate() {
        let level = 40 * k as u8;
        photo(&at("truth", name), level);
        photo(&at("near", name), level + 4);
        photo(&at("far", name), 200 - level);
    }
    photo(&at("single", "a.png"), 0);
    let folder = |name: &str| path(&scratch("perceptual").join(name)).to_owned();
    let draw = |component: &str, build: &dyn Fn(&Params)| {
        let source = Seeded::new(component, Seeded::BASE_SEED, Kind::Float, Device::Cpu);
        build(&Params::root(&source));
        let file = at("", &format!("{component}.safetensors"));
        weights::write(&file, source.into_drawn()).expect("written");
        path(&file).to_owned()
    };
    let lpips = draw("lpips", &|params| drop(Lpips::new(params)));
    let fid = draw("inception", &|params| drop(Inception::new(params)));
    let (truth, near, far) = (folder("truth"), folder("near"), folder("far"));
    let evaluate = |truth: &str, more: &[&str]| {
        let own = ["pose", "evaluate", "--drawn", &near, "--truth", truth, "--json"];
        run(&[&own[..], more].concat())
    };
    let (beside, single) = (format!("far={far}"), folder("single"));
    let all = ["--lpips", &lpips, "--fid", &fid, "--fid-reference", &far, "--beside", &beside];
    let found = evaluate(&truth, &all);
    assert_eq!(found.code, 0, "{}", found.err);
    let json: Value = serde_json::from_str(&found.out).expect("JSON");
    let of =
        |row: usize, metric: &str| json["rows"][row]["means"][metric].as_f64().expect("a number");
    assert!(of(0, "lpips").abs() < of(1, "lpips").abs());
    assert!(0.0 < of(0, "fid_truth") && of(0, "fid_truth") < of(1, "fid_truth"));
    // Pictures are at no distance from themselves.
    assert!(of(1, "fid_reference").abs() < 1e-6 * of(0, "fid_reference"));
    assert_eq!(json["fid_reference"]["count"], 3);
    assert!(json["fid"]["sha256"].is_string() && json["lpips"]["sha256"].is_string());
    evaluate(&single, &["--fid", &fid]).refused(3, &["single", "1 picture,", "at least 2"]);
    evaluate(&truth, &["--fid", "inception.pth"]).refused(3, &["inception.pth", ".safetensors"]);
    evaluate(&truth, &["--fid", &lpips])
        .refused(3, &["lpips.safetensors", "missing", "made for it"]);
    evaluate(&truth, &["--fid", "nowhere.safetensors"]).refused(3, &["nowhere.safetensors"]);
    evaluate(&truth, &["--fid", &fid, "--fid-reference", &single])
        .refused(3, &["1 picture,", "leave --fid-reference out"]);
    assert_eq!(evaluate(&truth, &["--fid-reference", &far]).code, 2);
}
