//! The built program as a user runs it: tiny bases with random weights, tiny photos, one thread.

pub mod people;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use image::{Rgb, RgbImage};
use serde_json::Value;
use tch::Kind;

/// What became of a command.
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// The paths of stdout, where the command succeeded.
    #[track_caller]
    pub fn paths(&self) -> Vec<PathBuf> {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out.lines().map(PathBuf::from).collect()
    }

    /// Asserts that the command ended with this code, nothing on stdout and one sentence that holds all of `words`.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "stderr: {}", self.err);
        assert_eq!(self.out, "");
        let told = |line: &&str| !line.starts_with("warning: ");
        let lines: Vec<&str> = self.err.lines().filter(told).collect();
        let [sentence] = lines[..] else { panic!("not one line: {}", self.err) };
        assert!(sentence.starts_with("error: "), "{sentence}");
        for word in words {
            assert!(sentence.contains(word), "'{word}' is not in: {sentence}");
        }
        for noise in ["panicked", "RUST_BACKTRACE", "frame #", "Exception raised", "called `"] {
            assert!(!sentence.contains(noise), "{sentence}");
        }
    }
}

/// The program, not started. A trace that the environment asks for must not reach a user.
pub fn personalize() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_personalize"));
    command.env("OMP_NUM_THREADS", "1").env("RUST_BACKTRACE", "1");
    command.env("HF_HOME", scratch("no-cache"));
    for variable in ["PERSONALIZE_BASE", "PERSONALIZE_DEVICE", "PERSONALIZE_CONFIG"] {
        command.env_remove(variable);
    }
    command
}

/// Runs the program with these arguments.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Run {
    Run::new(&personalize().args(arguments).output().expect("the program starts"))
}

/// `train --method ti` on the small photos and the SD 1.x base, two steps of 32 pixels; later arguments win.
pub fn train_command(output: &Path, more: &[&str]) -> Command {
    let mut command = personalize();
    command
        .args(["train", "--method", "ti"])
        .arg("--photos")
        .arg(photos())
        .arg("--base")
        .arg(base("sd1"));
    command.args(["--concept", "<cat>", "--class", "cat", "--steps", "2", "--resolution", "32"]);
    command.arg("--quiet").arg("--output").arg(output).args(more);
    command
}

/// [`train_command`], run.
pub fn train(output: &Path, more: &[&str]) -> Run {
    Run::new(&train_command(output, more).output().expect("the program starts"))
}

/// `generate` with the SD 1.x base, two steps of 32 pixels; later arguments win.
pub fn generate_command(output: &Path, more: &[&str]) -> Command {
    let mut command = personalize();
    command.arg("generate").arg("--base").arg(base("sd1"));
    command.args(["--width", "32", "--height", "32", "--steps", "2", "--seed", "1"]);
    command.arg("--quiet").arg("--output").arg(output).args(more);
    command
}

/// [`generate_command`], run.
pub fn generate(output: &Path, more: &[&str]) -> Run {
    Run::new(&generate_command(output, more).output().expect("the program starts"))
}

/// A command with its stdout and stderr to read.
pub fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// What Ctrl-C sends.
pub fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill is there").success());
}

/// What became of a spawned command.
pub fn finish(child: Child) -> Run {
    Run::new(&child.wait_with_output().expect("it ends"))
}

/// The lines of a run's log.
pub fn log_lines(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("log.jsonl")).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Those of steps; the others tell of measurements.
pub fn step_lines(folder: &Path) -> Vec<Value> {
    log_lines(folder).into_iter().filter(|line| line["loss"].is_number()).collect()
}

/// A folder of this test binary's own for `name`, empty at its start.
pub fn scratch(name: &str) -> PathBuf {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME"));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("a folder");
        root
    });
    root.join(name)
}

/// A base with random weights of the family `sd1` or `sd2`, whose text widths differ.
pub fn base(family: &str) -> &'static Path {
    static BASES: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
    BASES[usize::from(family == "sd2")].get_or_init(|| {
        let like = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(family);
        let folder = scratch(family);
        models::seeded::write_model(&like, &folder, Kind::Float).expect("a base");
        folder
    })
}

/// The base of a family with `change` done to a copy.
pub fn changed_base(family: &str, name: &str, change: impl FnOnce(&Path)) -> PathBuf {
    let folder = scratch(name);
    copy(base(family), &folder);
    change(&folder);
    folder
}

/// Four photos of 48 pixels that nobody takes for the same.
pub fn photos() -> &'static Path {
    static PHOTOS: OnceLock<PathBuf> = OnceLock::new();
    PHOTOS.get_or_init(|| {
        let folder = scratch("photos");
        fs::create_dir_all(&folder).expect("a folder");
        for i in 0..4u32 {
            let paint = |x: u32, y: u32| {
                let square = (x / 8) * 7 + (y / 8) * 3;
                Rgb([40, 90, 160].map(|tint: u32| (square * (2 * i + 5) * tint % 256) as u8))
            };
            let photo = RgbImage::from_fn(48, 48, paint);
            photo.save(folder.join(format!("{i}.jpg"))).expect("a photo");
        }
        folder
    })
}

/// A safetensors file of one F32 tensor.
pub fn write_tensor(path: &Path, name: &str, shape: &[usize], value: f32) {
    let data: Vec<u8> =
        vec![value; shape.iter().product()].into_iter().flat_map(f32::to_le_bytes).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &data);
    let bytes = safetensors::serialize([(name, view.expect("a tensor"))], None).expect("a file");
    fs::write(path, bytes).expect("written");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let (path, target) = entry.map(|e| (e.path(), to.join(e.file_name()))).expect("an entry");
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// All tensors of a run's state, as bytes by name.
pub fn state(run: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(run.join("state.safetensors")).expect("a state");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a state");
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

/// The names of what lies in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
