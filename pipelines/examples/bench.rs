//! Times our own steps: `bench train|denoise BASE f32|bf16|f16 WARMUP RUNS [THREADS]` writes one line of JSON.
//!
//! `train` is textual inversion and `denoise` draws without a concept; `train:METHOD`, `train:METHOD/PRESET` and
//! `denoise:METHOD` take another. It runs `train` and `generate` themselves and reads the clock between the steps
//! that they report; `scripts/bench.py` puts the figures beside PyTorch's, `scripts/bench_methods.py` beside those of
//! textual inversion. Each sample is wall seconds, own CPU seconds and the cores that others used
//! meanwhile; the peak is that of the timed steps. Linux only: it reads `/proc`.

use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pipelines::config::{Table, TrainConfig, Value};
use pipelines::generate::{GeneratePlan, GenerateRequest, Progress, generate};
use pipelines::train::{Event, Observer, Start, TrainPlan, train};
use pipelines::{DeviceChoice, Precision};

const TICKS_A_SECOND: f64 = 100.0;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, base, precision, warmup, runs, rest @ ..] = &args[..] else {
        return Err("give: train|denoise BASE f32|bf16|f16 WARMUP RUNS [THREADS]".into());
    };
    if let Some(threads) = rest.first() {
        torch_ext::set_threads(threads.parse()?);
    }
    let base = Path::new(base);
    let mut steps = Steps::new(warmup.parse()?, runs.parse()?);
    let scratch = tempfile::tempdir()?;
    let (verb, method) = what.split_once(':').map_or((&**what, None), |(v, m)| (v, Some(m)));
    let run = Run { base, precision, scratch: scratch.path() };
    match verb {
        "train" => drop(run.training(method.unwrap_or("ti"), &mut steps)?),
        "denoise" => run.denoising(method, &mut steps)?,
        other => return Err(format!("'{other}' is neither train nor denoise").into()),
    }
    println!("{}", steps.report(what, precision));
    Ok(())
}

/// What all runs share.
struct Run<'a> {
    base: &'a Path,
    precision: &'a str,
    scratch: &'a Path,
}

impl Run<'_> {
    /// A method on one photo with its defaults, but batch 1 without accumulation. The concept's file.
    fn training(&self, method: &str, steps: &mut Steps) -> Result<PathBuf, Box<dyn Error>> {
        let photos = self.scratch.join("photos");
        fs::create_dir(&photos)?;
        let photo = image::RgbImage::from_fn(512, 512, |x, y| {
            image::Rgb([(x / 2) as u8, (y / 2) as u8, ((x * y) / 1024) as u8])
        });
        photo.save(photos.join("photo.png"))?;
        let text = |s: &str| Value::String(s.to_owned());
        let path = |p: &Path| text(&p.to_string_lossy());
        let (method, preset) =
            method.split_once('/').map_or((method, None), |(m, preset)| (m, Some(preset)));
        let overrides = Table::from_iter(
            [
                ("photos", path(&photos)),
                ("concept", text("<toy>")),
                ("class", text("toy")),
                ("method", text(method)),
                ("base", path(self.base)),
                ("device", text("cpu")),
                ("precision", text(self.precision)),
                ("output", path(&self.scratch.join("run"))),
                ("steps", Value::Integer(steps.all() as i64)),
                ("batch_size", Value::Integer(1)),
                ("gradient_accumulation", Value::Integer(1)),
                ("save_every", Value::Integer(0)),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        let plan = TrainPlan::new(TrainConfig::resolve(preset, None, overrides)?, Start::New)?;
        train(&plan, steps)?;
        Ok(plan.concept_path())
    }

    /// DDIM with classifier-free guidance, stopped before the picture is decoded; with a concept of `method` that was
    /// trained for two steps.
    fn denoising(&self, method: Option<&str>, steps: &mut Steps) -> Result<(), Box<dyn Error>> {
        let concept = method.map(|m| self.training(m, &mut Steps::new(1, 1))).transpose()?;
        let prompt = concept.as_ref().map_or("a photo of a cat", |_| "a photo of <toy>");
        let plan = GeneratePlan::new(GenerateRequest {
            base: self.base.to_owned(),
            variant: None,
            concepts: concept.into_iter().map(|file| (None, file)).collect(),
            prompts: vec![format!("{prompt} on the beach")],
            negative_prompt: String::new(),
            count: 1,
            batch_size: 1,
            seed: 1,
            refine: 0,
            steps: steps.all() + 1,
            guidance: 7.5,
            guidance_rescale: 0.0,
            sampler: "ddim".to_owned(),
            spacing: None,
            karras: false,
            width: None,
            height: None,
            clip_skip: 1,
            truncate: false,
            grid: false,
            no_metadata: true,
            force: false,
            device: DeviceChoice::Cpu,
            precision: self.precision.parse::<Precision>()?,
            output: self.scratch.join("pictures"),
        })?;
        generate(&plan, &mut |progress| {
            if let Progress::Step { .. } = progress {
                return steps.step();
            }
            steps.start();
            ControlFlow::Continue(())
        })?;
        Ok(())
    }
}

impl Observer for Steps {
    fn on(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        match event {
            // The loop ends by itself after the last step.
            Event::Step(_) => drop(self.step()),
            Event::Phase { .. } | Event::Start { .. } => self.start(),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Clocks at one moment, in seconds.
#[derive(Clone, Copy)]
struct Clocks {
    wall: Instant,
    own: f64,
    machine: f64,
}

impl Clocks {
    fn now() -> Self {
        let all = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks = all.split_whitespace().skip(1).map(|n| n.parse().unwrap_or(0.0));
        let ticks: Vec<f64> = ticks.take(7).collect();
        // User, nice, system, irq, softirq; neither idle nor waiting for a disk.
        let busy = [0, 1, 2, 5, 6].iter().filter_map(|&i| ticks.get(i)).sum::<f64>();
        Self { wall: Instant::now(), own: own_seconds(), machine: busy / TICKS_A_SECOND }
    }
}

/// The CPU time of all our threads, to the nanosecond.
fn own_seconds() -> f64 {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split_whitespace().next()?.parse::<f64>().ok())
        .sum::<f64>()
        / 1e9
}

/// The samples of a run: a warm-up that is thrown away, then as many as were asked for.
struct Steps {
    warmup: usize,
    runs: usize,
    seen: usize,
    last: Clocks,
    first_s: f64,
    samples: Vec<[f64; 3]>,
    peak_mb: f64,
}

impl Steps {
    fn new(warmup: usize, runs: usize) -> Self {
        let last = Clocks::now();
        Self { warmup, runs, seen: 0, last, first_s: 0.0, samples: Vec::new(), peak_mb: 0.0 }
    }

    fn all(&self) -> usize {
        self.warmup + self.runs
    }

    fn start(&mut self) {
        self.last = Clocks::now();
    }

    /// A step has ended; stops after the last.
    fn step(&mut self) -> ControlFlow<()> {
        let (now, last) = (Clocks::now(), self.last);
        let wall = now.wall.duration_since(last.wall).as_secs_f64();
        let own = now.own - last.own;
        self.seen += 1;
        if self.seen == 1 {
            self.first_s = wall;
        }
        if self.seen > self.warmup {
            self.samples.push([wall, own, ((now.machine - last.machine - own) / wall).max(0.0)]);
            self.peak_mb = status_mb("VmHWM:");
        } else if self.seen == self.warmup {
            let _ = fs::write("/proc/self/clear_refs", "5"); // the peak starts anew
        }
        self.last = Clocks::now();
        if self.seen < self.all() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn report(&self, what: &str, precision: &str) -> serde_json::Value {
        let rounded: Vec<Vec<f64>> = self
            .samples
            .iter()
            .map(|s| s.iter().map(|x| (x * 1e4).round() / 1e4).collect())
            .collect();
        serde_json::json!({
            "cmd": what,
            "dtype": precision,
            "threads": torch_ext::threads(),
            "samples": rounded,
            "first_call_s": self.first_s,
            "peak_mb": self.peak_mb.round(),
        })
    }
}

fn status_mb(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}
