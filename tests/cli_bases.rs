//! Bases that are not plain Stable Diffusion, or not whole: what is said of them.

#![allow(clippy::unwrap_used)] // a test may panic

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use cli::{
    Run, base, changed_base, finish, generate, generate_command, run, scratch, spawn, train,
    write_tensor,
};
use serde_json::{Value, json};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A base with a key of one of its files at another value.
fn with_key(name: &str, family: &str, file: &str, key: &str, value: Value) -> PathBuf {
    changed_base(family, name, |folder| {
        let file = folder.join(file);
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config[key] = value;
        fs::write(&file, config.to_string()).unwrap();
    })
}

fn drawn(base: &Path, more: &[&str]) -> Run {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let output = scratch(&format!("drawn-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    generate(&output, &[&["--prompt", "a cat", "--base", path(base)], more].concat())
}

/// [`drawn`] with no more memory, libtorch's libraries included, than this.
fn within_6_gb(base: &Path) -> Run {
    let command = generate_command(&scratch("none"), &["--prompt", "a cat", "--base", path(base)]);
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"ulimit -v 6000000; exec "$0" "$@""#]).arg(command.get_program());
    limited.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    finish(spawn(limited))
}

/// The picture of a base, where it is drawn without a word.
#[track_caller]
fn picture(base: &Path) -> Vec<u8> {
    let run = drawn(base, &["--no-metadata"]);
    assert_eq!(run.err, "");
    fs::read(&run.paths()[0]).unwrap()
}

#[test]
fn a_key_at_a_value_that_is_not_followed_is_refused_with_its_file() {
    for (i, (file, key, value)) in [
        ("unet/config.json", "conv_in_kernel", json!(5)),
        ("unet/config.json", "time_embedding_type", json!("fourier")),
        ("unet/config.json", "encoder_hid_dim", json!(8)),
        ("unet/config.json", "layers_per_block", json!([2, 2, 2, 2])),
        ("unet/config.json", "only_cross_attention", json!([true, false, false, false])),
        ("unet/config.json", "center_input_sample", json!(true)),
        ("vae/config.json", "act_fn", json!("mish")),
        ("vae/config.json", "_class_name", json!("AutoencoderTiny")),
        ("text_encoder/config.json", "use_attention_mask", json!(true)),
        ("text_encoder/config.json", "model_type", json!("bert")),
        ("scheduler/scheduler_config.json", "beta_schedule", json!("sigmoid")),
        (
            "scheduler/scheduler_config.json",
            "_class_name",
            json!("FlowMatchEulerDiscreteScheduler"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = with_key(&format!("unfollowed-{i}"), "sd1", file, key, value);
        let named = if key == "_class_name" { "of the class" } else { key };
        drawn(&folder, &[]).refused(3, &[file, named]);
    }
}

#[test]
fn null_is_drawn_as_the_default_and_an_unknown_key_is_told_of_once() {
    let plain = picture(base("sd1"));
    for (i, (file, key)) in [
        ("unet/config.json", "upcast_attention"),
        ("unet/config.json", "use_linear_projection"),
        ("unet/config.json", "norm_eps"),
        ("vae/config.json", "force_upcast"),
        ("vae/config.json", "scaling_factor"),
        ("text_encoder/config.json", "layer_norm_eps"),
        ("scheduler/scheduler_config.json", "rescale_betas_zero_snr"),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = with_key(&format!("null-{i}"), "sd1", file, key, Value::Null);
        assert_eq!(picture(&folder), plain, "{key}");
    }
    let folder = with_key("surprise", "sd1", "unet/config.json", "surprise", json!([1]));
    let run = drawn(&folder, &[]);
    assert_eq!(run.code, 0);
    let [warning] = run.err.lines().collect::<Vec<_>>()[..] else { panic!("{}", run.err) };
    assert!(
        warning.ends_with("unknown to UNet2DConditionModel and left out: surprise"),
        "{warning}"
    );
}

#[test]
fn numbers_beyond_any_model_are_refused_before_they_take_memory() {
    let many = json!(vec![32; 70]);
    for (i, (file, key, value)) in [
        ("scheduler/scheduler_config.json", "num_train_timesteps", json!(2_147_483_647i64)),
        ("scheduler/scheduler_config.json", "num_train_timesteps", json!(u64::MAX)),
        ("scheduler/scheduler_config.json", "beta_end", json!(1e308)),
        ("scheduler/scheduler_config.json", "beta_start", json!(-1.0)),
        ("scheduler/scheduler_config.json", "steps_offset", json!(1u64 << 40)),
        ("text_encoder/config.json", "num_hidden_layers", json!(4000)),
        ("text_encoder/config.json", "vocab_size", json!(1i64 << 40)),
        ("unet/config.json", "layers_per_block", json!(1_000_000)),
        ("unet/config.json", "transformer_layers_per_block", json!(100)),
        ("unet/config.json", "block_out_channels", many),
        ("unet/config.json", "sample_size", json!(1 << 30)),
        ("unet/config.json", "mid_block_scale_factor", json!(0)),
        ("vae/config.json", "scaling_factor", json!(0)),
        ("vae/config.json", "layers_per_block", json!(1i64 << 40)),
        ("tokenizer/tokenizer_config.json", "model_max_length", json!(1)),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = with_key(&format!("bomb-{i}"), "sd1", file, key, value);
        let words: &[&str] =
            if key == "transformer_layers_per_block" { &["layers"] } else { &[file, key] };
        within_6_gb(&folder).refused(3, words);
    }
    // Within the range of each number, but not what the weights are: told by the tables of contents.
    let deep = with_key("deep", "sd1", "text_encoder/config.json", "num_hidden_layers", json!(200));
    within_6_gb(&deep).refused(3, &["tensors that config.json asks for", "encoder.layers.3."]);
}

#[test]
fn doctor_accepts_what_generate_draws_and_nothing_else() {
    let doctor = |folder: &Path| run(&["doctor", "--base", path(folder)]);
    let whole = doctor(base("sd1"));
    assert!(whole.code == 0 && whole.out.contains("base"), "{}", whole.err);
    let without = |name: &str, file: &str| {
        changed_base("sd1", name, |folder| fs::remove_file(folder.join(file)).unwrap())
    };
    for file in ["tokenizer/vocab.json", "vae/diffusion_pytorch_model.safetensors"] {
        let folder = without(&format!("doctor-{}", &file[..3]), file);
        doctor(&folder).refused(3, &["is missing"]);
        drawn(&folder, &[]).refused(3, &["is missing"]);
    }
    let tensors = changed_base("sd1", "doctor-tensor", |folder| {
        write_tensor(&folder.join(UNET), "conv_in.weight", &[32, 4, 3, 3], 0.5);
    });
    doctor(&tensors).refused(3, &["unet: ", "tensors that config.json asks for are missing"]);
    let schedule =
        with_key("doctor-betas", "sd1", "scheduler/scheduler_config.json", "beta_end", json!(0.9));
    doctor(&schedule).refused(3, &["scheduler", "the noise schedule"]);
}

#[test]
fn a_tokenizer_that_was_cut_off_is_named() {
    let saved = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sd1/saved_tokenizer");
    let whole = fs::read_to_string(saved.join("tokenizer.json")).unwrap();
    let cuts = ["\"decoder\"", "\"model\"", "\"vocab\"", "\"merges\""];
    for cut in cuts.map(|key| whole.find(key).unwrap() + key.len() + 4) {
        let folder = changed_base("sd1", &format!("cut-{cut}"), |folder| {
            fs::remove_dir_all(folder.join("tokenizer")).unwrap();
            fs::create_dir(folder.join("tokenizer")).unwrap();
            fs::write(folder.join("tokenizer/tokenizer.json"), &whole[..cut]).unwrap();
        });
        drawn(&folder, &[]).refused(3, &["tokenizer/tokenizer.json", "fetch it again"]);
    }
}

#[test]
fn a_broken_cache_is_named_and_a_whole_file_is_never_to_be_fetched_again() {
    for file in [UNET, "tokenizer/special_tokens_map.json", "vae/config.json", "scheduler"] {
        let folder = changed_base("sd1", &format!("dangling-{}", file.len()), |folder| {
            let place = folder.join(file);
            if place.is_dir() { fs::remove_dir_all(&place) } else { fs::remove_file(&place) }
                .unwrap();
            symlink("../../blobs/0123", &place).unwrap();
        });
        drawn(&folder, &[]).refused(3, &[file, "a link to ../../blobs/0123, where nothing is"]);
    }
    let pickle = changed_base("sd1", "pickle", |folder| {
        fs::write(folder.join(UNET), b"PK\x03\x04 and so on").unwrap();
    });
    let run = drawn(&pickle, &[]);
    run.refused(3, &[UNET, "pickled weights"]);
    assert!(!run.err.contains("fetch"), "{}", run.err);
}

#[test]
fn variants_that_are_there_are_named_and_missing_ones_told_of() {
    let renamed = |folder: &Path, part: &str, stem: &str, variant: &str| {
        let folder = folder.join(part);
        let plain = folder.join(format!("{stem}.safetensors"));
        fs::copy(&plain, folder.join(format!("{stem}.{variant}.safetensors"))).unwrap();
        plain
    };
    let folder = changed_base("sd1", "variants", |folder| {
        fs::remove_file(renamed(folder, "unet", "diffusion_pytorch_model", "fp16")).unwrap();
    });
    assert_eq!(drawn(&folder, &[]).code, 0, "the only variant is taken");
    drawn(&folder, &["--variant", "bf16"]).refused(3, &["the variant bf16", "there are fp16"]);
    let told = drawn(&folder, &["--variant", "fp16"]);
    assert_eq!(told.code, 0);
    assert!(told.err.contains("no variant fp16 of text_encoder, vae"), "{}", told.err);
    fs::copy(
        folder.join("unet/diffusion_pytorch_model.fp16.safetensors"),
        folder.join("unet/diffusion_pytorch_model.ema.safetensors"),
    )
    .unwrap();
    drawn(&folder, &[]).refused(3, &["there are ema, fp16: pass --variant ema"]);
}

#[test]
fn every_sampler_draws_or_names_the_flag_that_makes_it_draw() {
    for (sampler, steps, flag) in [
        ("lms", "4", "--spacing linspace"),
        ("dpm2", "4", "--spacing linspace"),
        ("lms", "1", "--spacing linspace"),
    ] {
        let spacing = ["--sampler", sampler, "--steps", steps, "--spacing"];
        for other in ["leading", "trailing"] {
            drawn(base("sd1"), &[&spacing[..], &[other]].concat()).refused(2, &[other, flag]);
        }
    }
    drawn(base("sd1"), &["--sampler", "lms", "--steps", "1", "--spacing", "linspace"])
        .refused(2, &["lms cannot take 1 steps", "--steps"]);
    let runge_kutta = with_key(
        "runge-kutta",
        "sd1",
        "scheduler/scheduler_config.json",
        "skip_prk_steps",
        json!(false),
    );
    drawn(&runge_kutta, &["--sampler", "pndm", "--steps", "1"])
        .refused(2, &["pndm cannot take 1 steps", "--steps"]);
    for sampler in ["ddim", "pndm", "euler"] {
        let spacing = if sampler == "euler" { "linspace" } else { "leading" };
        let one = ["--sampler", sampler, "--steps", "1", "--spacing"];
        let noise = drawn(base("sd1"), &[&one[..], &[spacing]].concat());
        assert_eq!(noise.code, 0);
        assert!(noise.err.contains("pass --spacing trailing"), "{sampler}: {}", noise.err);
        assert_eq!(drawn(base("sd1"), &[&one[..], &["trailing"]].concat()).err, "");
    }
}

#[test]
fn concepts_of_another_padding_are_told_of() {
    let out = scratch("padded");
    let concept = train(&out, &["--base", path(base("sd2"))]).paths().remove(0);
    let concept = path(&concept);
    let with = |base: &Path, file: &str| {
        drawn(base, &["--prompt", "a <cat>", "--concept", &format!("<cat>={file}")])
    };
    // The base as published disagrees with itself; the file says what it was padded with.
    assert_eq!(with(base("sd2"), concept).err, "");
    let other = with_key(
        "other-pad",
        "sd2",
        "tokenizer/special_tokens_map.json",
        "pad_token",
        json!({ "content": "<|endoftext|>" }),
    );
    assert!(with(&other, concept).err.contains("padded otherwise"));
    // A file from before padding was written, and a base on which it may have been either.
    let bare = scratch("bare.safetensors");
    write_tensor(&bare, "emb_params", &[1, 96], 0.1);
    let warning = "does not say what its prompts were padded with";
    assert!(with(base("sd2"), path(&bare)).err.contains(warning));
    assert_eq!(with(&other, path(&bare)).err, "");
}

#[test]
fn a_base_that_is_told_the_guidance_has_no_use_for_a_negative_prompt_and_is_warned_of_in_training()
{
    // Its weights are drawn anew, by names and shapes.
    let like = changed_base("sd1", "told-like", |folder| {
        let file = folder.join("unet/config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config["time_cond_proj_dim"] = json!(16);
        fs::write(&file, config.to_string()).unwrap();
    });
    let told = scratch("told");
    let made = run(&["random-base", "--like", path(&like), "--output", path(&told)]);
    assert_eq!(made.code, 0, "{}", made.err);
    let plain = picture(&told);
    let negative = drawn(&told, &["--no-metadata", "--negative-prompt", "a dog"]);
    assert!(negative.err.contains("the negative prompt has no effect"), "{}", negative.err);
    assert_eq!(fs::read(&negative.paths()[0]).unwrap(), plain);
    let guided = drawn(&told, &["--no-metadata", "--guidance", "2"]);
    assert_ne!(fs::read(&guided.paths()[0]).unwrap(), plain);
    let trained = train(&scratch("told-run"), &["--base", path(&told)]);
    assert!(trained.err.contains("distilled to draw in few steps"), "{}", trained.err);
    assert_eq!(trained.code, 0);
}
