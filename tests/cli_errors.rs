//! Bad input ends with one sentence that says what was expected, what was found and what to do.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::fs;
use std::path::Path;

use cli::{base, changed_base, generate, personalize, photos, run, scratch, train, write_tensor};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn train_on_photos(name: &str, files: &[(&str, &[u8])]) -> cli::Run {
    let folder = scratch(name);
    fs::create_dir_all(&folder).expect("a folder");
    for (file, bytes) in files {
        fs::write(folder.join(file), bytes).expect("written");
    }
    train(&scratch("out"), &["--photos", path(&folder)])
}

#[test]
fn folders_without_photos_are_named() {
    train(&scratch("out"), &["--photos", "nowhere"])
        .refused(3, &["nowhere does not exist", "give the folder"]);
    train_on_photos("empty", &[]).refused(3, &["empty", "put at least one photo"]);
    train_on_photos("texts", &[("notes.md", b"hi")])
        .refused(3, &["no photo", "notes.md", "put at least"]);
    let photo = photos().join("0.jpg");
    train(&scratch("out"), &["--photos", path(&photo)])
        .refused(3, &["is a file", "folder of photos is expected"]);
}

#[test]
fn damaged_photos_are_named() {
    let jpeg = fs::read(photos().join("0.jpg")).expect("a photo");
    train_on_photos("cut", &[("a.jpg", &jpeg[..jpeg.len() / 2])])
        .refused(3, &["a.jpg is incomplete", "copy it again"]);
    train_on_photos("zero", &[("a.jpg", b"")]).refused(3, &["a.jpg is empty"]);
    train_on_photos("text", &[("a.jpg", b"no picture")])
        .refused(3, &["a.jpg is named like a picture"]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    png.extend([0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20, 8, 2, 0, 0, 0]); // 20,000 by 20,000
    png.extend(0x6c12_d16e_u32.to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    train_on_photos("huge", &[("a.png", &png)])
        .refused(3, &["a.png is 20000×20000 pixels, more than", "scale it down"]);
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_any_work() {
    let file = scratch("a-file");
    fs::write(&file, "").expect("written");
    train(&file, &[]).refused(2, &["a-file is a file", "another --output"]);
    generate(&file, &["--prompt", "x"]).refused(2, &["a-file is a file", "another --output"]);
    train(&file.join("run"), &[]).refused(1, &["a-file/run: cannot be created"]);
    generate(&file.join("x.png"), &["--prompt", "x"]).refused(2, &["a-file is a file"]);
    let nowhere = Path::new("/proc/personalize");
    train(nowhere, &[]).refused(1, &["/proc/personalize: cannot be created", "check the path"]);
    generate(nowhere, &["--prompt", "x"]).refused(1, &["/proc/personalize: cannot be created"]);
}

#[test]
fn a_model_id_that_is_not_here_says_that_nothing_is_fetched() {
    let words = ["owner/name", "nothing is fetched", "hf download owner/name"];
    train(&scratch("out"), &["--base", "owner/name"]).refused(6, &words);
    generate(&scratch("out"), &["--base", "owner/name", "--prompt", "x"]).refused(6, &words);
    run(&["doctor", "--base", "owner/name"]).refused(6, &words);
    generate(&scratch("out"), &["--base", "./owner/name", "--prompt", "x"])
        .refused(3, &["is missing"]);
}

#[test]
fn a_base_that_lacks_parts_is_named() {
    let drawn =
        |folder: &Path| generate(&scratch("out"), &["--prompt", "x", "--base", path(folder)]);
    let without = |name: &str, what: &str| {
        changed_base("sd1", name, |folder| {
            let part = folder.join(what);
            if part.is_dir() { fs::remove_dir_all(part) } else { fs::remove_file(part) }
                .expect("removed");
        })
    };
    drawn(&without("no-unet", "unet")).refused(3, &["unet/ is missing", "a model folder"]);
    drawn(&without("no-config", "unet/config.json"))
        .refused(3, &["unet/config.json: cannot be read"]);
    drawn(&without("no-weights", UNET))
        .refused(3, &["diffusion_pytorch_model.safetensors is missing"]);
    drawn(&without("no-words", "tokenizer/vocab.json"))
        .refused(3, &["CLIP's vocabulary is missing"]);
    drawn(&base("sd1").join("model_index.json")).refused(3, &["a file, but a folder"]);
}

/// Bytes of a safetensors file with this header before the data of another.
fn with_header(file: &[u8], header: &str) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(&file[8 + length..]);
    bytes
}

#[test]
fn lying_weight_files_are_named_before_any_work() {
    let whole = fs::read(base("sd1").join(UNET)).expect("weights");
    let length = u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    let header = String::from_utf8(whole[8..8 + length].to_vec()).expect("JSON");
    let relabelled = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut map = serde_json::from_str(&header).expect("JSON");
        change(&mut map);
        with_header(&whole, &serde_json::to_string(&map).expect("JSON"))
    };
    let huge = [&(1u64 << 62).to_le_bytes(), &whole[8..]].concat();
    let past = relabelled(&|map| {
        map["conv_in.bias"]["data_offsets"] = [1u64 << 40, (1 << 40) + 128].into();
    });
    let overlap = relabelled(&|map| map["conv_in.bias"] = map["conv_out.bias"].clone());
    let cases: [(&str, &[u8], &str); 7] = [
        ("truncated", &whole[..whole.len() / 2], "not a whole safetensors file"),
        ("huge-header", &huge, "header too large"),
        ("empty", b"", "an empty file"),
        ("pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("page", b"<!DOCTYPE html><html>not found</html>", "not a whole safetensors file"),
        ("past-the-end", &past, "invalid offset"),
        ("overlapping", &overlap, "invalid offset"),
    ];
    for (name, bytes, words) in cases {
        let folder = changed_base("sd1", name, |folder| {
            fs::write(folder.join(UNET), bytes).expect("written");
        });
        let out = scratch("never-made");
        let arguments = ["--base", path(&folder)];
        // Both commands look at the base in the same way.
        let run = match name {
            "truncated" | "pointer" => train(&out, &arguments),
            _ => generate(&out, &[&["--prompt", "x"], &arguments as &[_]].concat()),
        };
        run.refused(3, &[UNET, words]);
        assert!(!out.exists(), "{name}: work had begun");
    }
}

#[test]
fn missing_and_misshapen_tensors_are_named_with_their_shapes() {
    let drawn = |name: &str, from: &str, to: &str| {
        let folder = changed_base("sd1", name, |folder| {
            let whole = fs::read(folder.join(UNET)).expect("weights");
            let length = u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
            let header = String::from_utf8(whole[8..8 + length].to_vec()).expect("JSON");
            assert!(header.contains(from), "{header}");
            let bytes = with_header(&whole, &header.replace(from, to));
            fs::write(folder.join(UNET), bytes).expect("written");
        });
        generate(&scratch("out"), &["--prompt", "x", "--base", path(&folder)])
    };
    drawn("renamed", "\"conv_in.weight\"", "\"conv_im.weight\"")
        .refused(3, &["1 of ", "conv_in.weight [32, 4, 3, 3] (nearest: conv_im.weight)"]);
    drawn("reshaped", "[32,4,3,3]", "[16,8,3,3]")
        .refused(3, &["conv_in.weight is [16, 8, 3, 3] and not [32, 4, 3, 3]"]);
}

#[test]
fn impossible_configurations_are_named() {
    for (name, file, from, to, words) in [
        ("no-json", "unet/config.json", "{", "", "not the configuration"),
        (
            "negative",
            "unet/config.json",
            "\"in_channels\": 4",
            "\"in_channels\": -4",
            "in_channels is -4",
        ),
        (
            "no-heads",
            "text_encoder/config.json",
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 0",
            "num_attention_heads is 0",
        ),
        (
            "odd-heads",
            "text_encoder/config.json",
            "\"num_attention_heads\": 4",
            "\"num_attention_heads\": 5",
            "num_attention_heads is 5",
        ),
        ("no-object", "scheduler/scheduler_config.json", "{", "[", "scheduler"),
    ] {
        let folder = changed_base("sd1", name, |folder| {
            let text = fs::read_to_string(folder.join(file)).expect("JSON");
            assert!(text.contains(from), "{text}");
            fs::write(folder.join(file), text.replacen(from, to, 1)).expect("written");
        });
        generate(&scratch("out"), &["--prompt", "x", "--base", path(&folder)]).refused(3, &[words]);
    }
}

#[test]
fn a_concept_for_another_base_is_refused_before_weights_are_read() {
    let concept = scratch("other.safetensors");
    write_tensor(&concept, "emb_params", &[1, 96], 0.01);
    let bare = changed_base("sd1", "bare", |folder| {
        for file in
            ["text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors", UNET]
        {
            fs::remove_file(folder.join(file)).expect("removed");
        }
    });
    let arguments = ["--prompt", "<other>", "--base", path(&bare), "--concept", path(&concept)];
    generate(&scratch("out"), &arguments)
        .refused(4, &["<other> is for", "96", "64", "use the base"]);
}

#[test]
fn files_that_are_no_concepts_are_named() {
    let file = |name: &str, bytes: &[u8]| {
        let file = scratch(name);
        fs::write(&file, bytes).expect("written");
        file
    };
    let tensor = |name: &str, shape: &[usize], value: f32| {
        let file = scratch(name);
        write_tensor(&file, "emb_params", shape, value);
        file
    };
    let cases = [
        (file("zip.pt", b"PK\x03\x04..."), "a pickle, which can run programs"),
        (file("old.safetensors", b"\x80\x02}q\0"), "a pickle, which can run programs"),
        (file("none.safetensors", b""), "an empty file"),
        (file("short.safetensors", b"\x09\0\0\0\0\0\0\0{"), "not a whole safetensors file"),
        (tensor("nan.safetensors", &[2, 64], f32::NAN), "vector 1 holds NaN"),
        (tensor("flat.safetensors", &[1, 2, 64], 0.0), "shape [vectors, width]"),
        (scratch("nowhere.safetensors"), "check the path"),
        (photos().to_owned(), "give a file"),
    ];
    for (file, words) in cases {
        run(&["concept", "inspect", path(&file)]).refused(3, &[path(&file), words]);
    }
    let pickle = scratch("zip.pt");
    generate(&scratch("out"), &["--prompt", "x", "--concept", path(&pickle)])
        .refused(3, &["zip.pt: a pickle", "scripts/convert_neti.py"]);
}

#[test]
fn words_that_cannot_stand_for_a_concept_are_refused() {
    let long = format!("<{}>", "a".repeat(200));
    for (word, why) in [
        ("", "is empty"),
        ("<a b>", "white space"),
        ("../x", "file names cannot have"),
        ("<cat", "angle bracket"),
        ("<>", "angle bracket"),
        ("<|endoftext|>", "special token"),
        ("...", "no letter or digit"),
        (&long, "longer"),
    ] {
        let arguments = [&format!("--concept={word}") as &str];
        train(&scratch("out"), &arguments).refused(2, &[why, "use a word such as <my-cat>"]);
    }
}

#[test]
fn training_settings_that_no_run_can_use_are_named() {
    for (arguments, words) in [
        (&["--steps", "0"] as &[&str], "steps is 0"),
        (&["--set", "steps=many"], "expected a whole number of 0 or more in `steps`"),
        (&["--set", "lerning_rate=1"], "did you mean learning_rate?"),
        (&["--set", "steps"], "--set key=value"),
        (&["--lr", "nan"], "learning_rate is NaN"),
        (
            &["--resolution", "33"],
            "the resolution is 33 pixels, but this base needs a multiple of 8; use 32",
        ),
        (&["--vectors", "80"], "vectors is 80, but a prompt has room for 75"),
        (&["--clip-skip", "4"], "has 3 blocks"),
        (&["--method", "lora"], "method 'lora' is unknown; known: core, ti"),
        (&["--device", "gpu"], "use auto, cpu, cuda"),
        (&["--precision", "f8"], "f8"),
        (&["--class", " "], "--class cat"),
        (&["--init", "<dog>"], "use ordinary words"),
        (&["--templates", "nowhere.txt"], "nowhere.txt cannot be read"),
        (&["--templates", "captions"], "has no caption; write one line with <cat>"),
        (&["--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (&["--sample-prompt", "a <dog>"], "holds <dog>, but the loaded concepts are <cat>"),
        (&["--sample-prompt", "a {}", "--set", "sample_steps=0"], "cannot take 0 steps"),
        (&["--resume"], "no state to resume from; start without --resume"),
    ] {
        train(&scratch("never"), arguments).refused(2, &[words]);
    }
    assert!(!scratch("never").exists());
}

#[test]
fn drawing_settings_that_make_no_picture_are_named() {
    let long = "snow ".repeat(80) + "castle";
    for (arguments, words) in [
        (
            &["--prompt", "x", "--width", "33"] as &[&str],
            "the width is 33 pixels, but this base needs a multiple of 8; use 32",
        ),
        (&["--prompt", "x", "--height", "0"], "the height is 0 pixels"),
        (&["--prompt", "x", "--steps", "0"], "cannot take 0 steps"),
        (&["--prompt", "x", "--count", "0"], "--count is 0; give 1 or more"),
        (&["--prompt", "x", "--guidance", "nan"], "--guidance is NaN"),
        (&["--prompt", "x", "--sampler", "foo"], "no sampler `foo`; the samplers are ddim"),
        (&["--prompt", "x", "--clip-skip", "4"], "has 3 blocks"),
        (&["--prompt", "a <dog>"], "holds <dog>, but no concept is loaded"),
        (&["--prompt", "x", "--negative-prompt", "<dog>"], "holds <dog>, but no concept is loaded"),
        (&["--prompt", &long], "75 fit; beyond the end: 'snow snow"),
        (&[], "no prompt is given"),
    ] {
        generate(&scratch("never"), arguments).refused(2, &[words]);
    }
    assert!(!scratch("never").exists());
}

#[test]
fn cuda_where_there_is_none_is_refused() {
    let mut command = personalize();
    command
        .env("CUDA_VISIBLE_DEVICES", "")
        .args(["generate", "--prompt", "x", "--device", "cuda", "--base"]);
    let output = command.arg(base("sd1")).output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("cuda:0 was asked for") && text.contains("use --device cpu"), "{text}");
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&["completions", shell]);
        assert_eq!((script.code, script.err.as_str()), (0, ""));
        assert!(script.out.contains("negative-prompt"), "{shell}");
    }
}
