//! The process in its surroundings: terminals that are closed, readers that go away, full disks, signals, and inputs that are
//! no files.

#[expect(dead_code, reason = "shared by the tests of the command line")]
mod cli;

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cli::{
    base, finish, generate_command, log_lines, photos, scratch, spawn, state, train_command,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A place where every write fails, as on a full disk.
fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("Linux has it")
}

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn ended(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(sent.expect("kill is there").success());
}

/// Waits until a run has logged some steps.
fn wait_for_steps(run: &Path, child: &mut Child, mut meanwhile: impl FnMut()) {
    let start = Instant::now();
    while !run.join("log.jsonl").exists() || cli::log_lines(run).len() < 4 {
        assert!(start.elapsed() < Duration::from_secs(120), "no step in two minutes");
        assert!(child.try_wait().expect("a child").is_none(), "it ended before its time");
        meanwhile();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A long run, its steps told.
fn long_run(out: &Path, through: &str) -> Command {
    let train = train_command(out, &["--steps", "100000", "--validate-every", "0"]);
    let mut command = Command::new("sh");
    command.args(["-c", through, "sh"]).arg(train.get_program());
    command.args(train.get_args().filter(|argument| *argument != "--quiet"));
    command.envs(train.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// A terminal of its own: our end and the program's.
fn terminal() -> (File, File) {
    let ours =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&ours).expect("a terminal");
    unlockpt(&ours).expect("a terminal");
    let name = ptsname(&ours, Vec::new()).expect("a name");
    let theirs = OpenOptions::new().read(true).write(true).open(name.to_str().expect("ASCII"));
    (File::from(ours), theirs.expect("a terminal"))
}

#[test]
fn work_goes_on_where_nobody_reads_stderr() {
    for (name, stderr) in [("full", Stdio::from(full())), ("unread", unread())] {
        let out = scratch("no-stderr").join(name);
        let mut train = train_command(&out, &["--save-every", "1", "--verbose"]);
        let train = ended(train.stderr(stderr));
        assert_eq!(code(&train), 0, "{name}");
        assert!(out.join("cat.safetensors").is_file(), "{name}");
    }
    let mut generate = generate_command(&scratch("no-stderr-drawn"), &["--prompt", "x"]);
    assert_eq!(code(&ended(generate.stderr(full()))), 0);
    let mut refused = cli::personalize();
    assert_eq!(code(&ended(refused.args(["report", "nowhere"]).stderr(full()))), 2);
    let mut mistyped = cli::personalize();
    assert_eq!(code(&ended(mistyped.arg("--nonsense").stderr(unread()))), 2);
}

#[test]
fn results_that_cannot_be_written_are_a_failure_of_every_command() {
    let run = scratch("full-stdout");
    let concept = run.join("cat.safetensors");
    let trained = ended(train_command(&run, &["--json"]).stdout(full()));
    assert_eq!(code(&trained), 1);
    assert!(concept.is_file(), "the work itself is done");
    let drawn = scratch("full-stdout-drawn");
    let commands: [&[&str]; 8] = [
        &["train", "--print-config"],
        &["concept", "inspect", path(&concept)],
        &["concept", "inspect", "--json", path(&concept)],
        &["report", path(&run)],
        &["doctor"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ];
    let mut outputs = vec![trained];
    outputs.push(ended(generate_command(&drawn, &["--prompt", "x"]).stdout(full())));
    for arguments in commands {
        outputs.push(ended(cli::personalize().args(arguments).stdout(full())));
    }
    let left = ended(cli::personalize().args(commands[2]).stdout(unread()));
    assert_eq!((code(&left), text(&left.stderr).as_str()), (0, ""), "`| head` has seen enough");
    for output in outputs {
        let told = "error: stdout: cannot be written: No space left on device (os error 28); free some space or use \
                    another place\n";
        assert_eq!((code(&output), text(&output.stderr).as_str()), (1, told));
    }
}

#[test]
fn a_terminal_that_is_closed_ends_a_run_in_order() {
    let out = scratch("closed");
    let (mut ours, theirs) = terminal();
    let mut command = long_run(&out, "exec setsid --ctty \"$@\"");
    let place = || theirs.try_clone().expect("a file");
    command.stdin(place()).stdout(place()).stderr(place());
    let mut child = command.spawn().expect("the program starts");
    drop((command, theirs));
    let mut seen = [0; 4096];
    wait_for_steps(&out, &mut child, || {
        let _ = ours.read(&mut seen); // a terminal that is full would hold the program up
    });
    drop(ours);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(out.join("cat.safetensors").is_file());
    assert!(!state(&out).is_empty());
}

#[test]
fn a_hangup_that_is_sent_twice_is_one_request() {
    let out = scratch("hung-up");
    let mut child = spawn(long_run(&out, "exec \"$@\""));
    wait_for_steps(&out, &mut child, || {});
    for name in ["-HUP", "-TERM", "-HUP"] {
        signal(&child, name);
    }
    assert_eq!(finish(child).code, 130);
    assert!(!state(&out).is_empty());
}

#[test]
fn signals_that_were_ignored_at_the_start_stay_ignored() {
    let out = scratch("ignored");
    let mut child = spawn(long_run(&out, "trap '' HUP INT; exec \"$@\""));
    wait_for_steps(&out, &mut child, || {});
    signal(&child, "-HUP");
    signal(&child, "-INT");
    let before = log_lines(&out).len();
    let start = Instant::now();
    while log_lines(&out).len() < before + 4 {
        assert!(child.try_wait().expect("a child").is_none(), "it ended");
        assert!(start.elapsed() < Duration::from_secs(60), "it stands still");
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&child, "-TERM");
    assert_eq!(finish(child).code, 130);
}

#[test]
fn a_working_directory_that_is_gone_is_told() {
    let folder = scratch("gone");
    fs::create_dir_all(&folder).expect("a folder");
    for arguments in [&["generate", "--prompt", "x"] as &[_], &["train"], &["doctor"]] {
        let mut command = Command::new("sh");
        command.args(["-c", "cd \"$0\" && rmdir \"$0\" && exec \"$@\""]).arg(&folder);
        command.arg(cli::personalize().get_program()).args(arguments);
        let output = ended(&mut command);
        let told = text(&output.stderr);
        assert_eq!(code(&output), 2, "{told}");
        assert!(told.starts_with("error: the working directory has been removed"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        fs::create_dir_all(&folder).expect("a folder");
    }
}

/// Runs a command that must not wait for ever.
#[track_caller]
fn refused_soon(mut command: Command, words: &[&str]) {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.spawn().expect("the program starts");
    let start = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().expect("it runs");
            panic!("it waits: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let run = finish(child);
    assert!([2, 3].contains(&run.code), "{}: {}", run.code, run.err);
    run.refused(run.code, words);
}

#[test]
fn pipes_and_devices_are_refused_wherever_a_file_is_read() {
    let folder = scratch("no-files");
    fs::create_dir_all(&folder).expect("a folder");
    let pipe = |name: &str| -> PathBuf {
        let pipe = folder.join(name);
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is there").success());
        pipe
    };
    let (concept, weights, pose) = (pipe("c.safetensors"), pipe("w.safetensors"), pipe("p.txt"));
    let (photo, any, zero) = (pipe("photo.jpg"), pipe("any"), "/dev/zero");
    let pipe_words = ["it is a pipe, but a file was expected"];
    let device_words = ["it is a device, but a file was expected"];
    let photo_0 = photos().join("0.jpg");
    let drawn = folder.join("drawn");

    let generate = |more: &[&str]| generate_command(&drawn, more);
    let with_concept = ["--prompt", "a <cat>", "--concept", path(&concept)];
    refused_soon(generate(&with_concept), &pipe_words);
    refused_soon(generate(&["--prompt-file", path(&any)]), &pipe_words);
    refused_soon(generate(&["--prompt-file", zero]), &device_words);
    let train = |more: &[&str]| train_command(&folder.join("run"), more);
    refused_soon(train(&["--config", path(&any)]), &pipe_words);
    refused_soon(train(&["--config", zero]), &device_words);
    refused_soon(train(&["--templates", path(&any)]), &pipe_words);
    refused_soon(train(&["--warm-start", path(&concept)]), &pipe_words);
    let pose_check = |photo: &Path, pose: &Path| {
        let mut command = cli::personalize();
        command.args(["pose", "check", "--photo"]).arg(photo).arg("--pose").arg(pose);
        command.args(["--frame", "pixels", "--output"]).arg(folder.join("seen.png"));
        command
    };
    refused_soon(pose_check(&photo_0, &pose), &pipe_words);
    refused_soon(pose_check(&photo, &pose), &pipe_words);
    let mut command = cli::personalize();
    command.args(["pose", "generate", "--source"]).arg(&photo_0).args(["--pose"]).arg(&pose);
    command.arg("--weights").arg(&weights).arg("--output").arg(&drawn);
    refused_soon(command, &pipe_words);
    let mut command = cli::personalize();
    command.args(["evaluate", "--compare"]).args([&any, &any]);
    refused_soon(command, &pipe_words);
    for part in [
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ] {
        let base = cli::changed_base("sd1", &part.replace('/', "-"), |base| {
            fs::remove_file(base.join(part)).expect("a file");
            std::os::unix::fs::symlink(&any, base.join(part)).expect("a link");
        });
        refused_soon(generate(&["--prompt", "x", "--base", path(&base)]), &pipe_words);
    }
    let _ = base("sd1");
}

#[test]
fn what_a_foreign_file_says_does_not_steer_the_terminal() {
    let folder = scratch("steering");
    fs::create_dir_all(&folder).expect("a folder");
    let steering = "\u{1b}]0;x\u{7}\u{9b}2J\u{202e}gpj.\u{7f}";
    let named = folder.join(format!("a{steering}\nerror: b.safetensors"));
    fs::write(&named, "no concept").expect("written");
    let config = folder.join("c.toml");
    fs::write(&config, format!("\"{steering}\" = 1\n")).expect("written");
    let mut commands = [cli::personalize(), cli::personalize(), cli::personalize()];
    commands[0].args(["concept", "inspect"]).arg(&named);
    commands[1].arg("train").arg("--config").arg(&config);
    commands[2].args(["concept", "inspect", "x"]).arg(&named); // clap's own words
    for command in &mut commands {
        let output = ended(command);
        let told = text(&output.stderr);
        assert_ne!(code(&output), 0);
        assert!(
            !told.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')),
            "{told:?}"
        );
    }
    let output = ended(&mut commands[0]);
    let told = text(&output.stderr);
    assert_eq!(
        told.lines().count(),
        1,
        "a name with an end of line in it is told on one line: {told}"
    );
    assert!(told.contains(r"a\u001b]0;x\u0007\u009b2J\u202egpj.\u007f\nerror: b"), "{told}");
}

#[test]
fn what_a_foreign_file_says_is_spelt_out_on_a_terminal_and_kept_in_a_pipe() {
    let folder = scratch("steering-results");
    let named = folder.join("a\u{202e}b");
    let drawn = ended(&mut generate_command(&named, &["--prompt", "x"]));
    assert!(text(&drawn.stdout).contains("a\u{202e}b"), "another program finds the file");
    let (mut ours, theirs) = terminal();
    let mut command = generate_command(&named, &["--prompt", "x"]);
    let mut child = command.stdout(theirs).spawn().expect("the program starts");
    drop(command);
    assert!(child.wait().expect("it ends").success());
    let mut seen = [0; 4096];
    let count = ours.read(&mut seen).expect("a path");
    assert!(text(&seen[..count]).contains(r"a\u202eb"), "{}", text(&seen[..count]));
}
