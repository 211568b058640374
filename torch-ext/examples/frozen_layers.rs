//! Times frozen layers against tch's plain ones at the shapes of Stable Diffusion 1.5 on the CPU.
//!
//! `cargo run -p torch-ext --example frozen_layers [threads]`: for each shape the medians, in milliseconds, of the plain
//! layer, the plain layer channels last, and the frozen one, taken in turns, for the forward pass and x's gradient.

use std::time::Instant;

use tch::{Kind, Tensor};
use torch_ext::{FrozenConv2d, FrozenLinear, Generator, channels_last, grad};

type Forward<'a> = Box<dyn Fn(&Tensor) -> Tensor + 'a>;

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2);
    torch_ext::set_threads(threads);
    println!(
        "{threads} threads; ms: plain, plain channels last (convolutions), frozen; best plain / frozen"
    );
    let g = Generator::cpu(0);
    for kind in [Kind::Float, Kind::BFloat16] {
        println!("{kind:?}");
        for (rows, from, to) in [
            (4096, 320, 320),
            (4096, 320, 2560),
            (1024, 640, 5120),
            (256, 1280, 10240),
            (64, 1280, 1280),
            (77, 768, 320),
            (77, 768, 1280),
        ] {
            let w = (g.randn(&[to, from]) * 0.02).to_kind(kind);
            let b = g.randn(&[to]).to_kind(kind);
            let frozen = FrozenLinear::new(&w, Some(&b)).expect("a matrix");
            let x = g.randn(&[rows, from]).to_kind(kind);
            let layers: [(Tensor, Forward); 2] = [
                (x.copy(), Box::new(|x| x.linear(&w, Some(&b)))),
                (x, Box::new(|x| frozen.forward(x))),
            ];
            compare(&format!("linear {rows}x{from}->{to}"), &layers);
        }
        for (channels, side, k) in
            [(320, 64, 3), (640, 32, 3), (1280, 16, 3), (1280, 8, 3), (320, 64, 1), (1280, 16, 1)]
        {
            let w = (g.randn(&[channels, channels, k, k]) * 0.01).to_kind(kind);
            let w_last = channels_last(&w);
            let b = g.randn(&[channels]).to_kind(kind);
            let frozen = FrozenConv2d::new(&w, Some(&b), 1, k / 2).expect("rank four");
            let x = g.randn(&[1, channels, side, side]).to_kind(kind);
            let plain =
                |w: &Tensor, x: &Tensor| x.conv2d(w, Some(&b), [1, 1], [k / 2; 2], [1, 1], 1);
            let layers: [(Tensor, Forward); 3] = [
                (x.copy(), Box::new(|x| plain(&w, x))),
                (channels_last(&x), Box::new(|x| plain(&w_last, x))),
                (channels_last(&x), Box::new(|x| frozen.forward(x))),
            ];
            compare(&format!("conv {k}x{k} {channels} at {side}x{side}"), &layers);
        }
    }
}

fn compare<const N: usize>(name: &str, layers: &[(Tensor, Forward); N]) {
    const ROUNDS: usize = 15;
    let mut times = vec![[const { Vec::new() }; 2]; N];
    for round in 0..=ROUNDS {
        for (times, (x, forward)) in times.iter_mut().zip(layers) {
            let start = Instant::now();
            let _ = tch::no_grad(|| forward(x));
            let forward_time = start.elapsed();
            let x = x.detach().set_requires_grad(true);
            let y = forward(&x);
            let seed = y.detach().ones_like();
            let start = Instant::now();
            let _ = grad(&[&y], &[&x], Some(&[&seed]), false).expect("x reaches y");
            let backward_time = start.elapsed();
            if round > 0 {
                times[0].push(forward_time); // the first round packs
                times[1].push(backward_time);
            }
        }
    }
    for (pass, label) in ["forward", "grad x"].into_iter().enumerate() {
        let medians: Vec<f64> = times
            .iter_mut()
            .map(|t| {
                t[pass].sort();
                t[pass][ROUNDS / 2].as_secs_f64() * 1e3
            })
            .collect();
        let best = medians[..N - 1].iter().copied().fold(f64::INFINITY, f64::min);
        let listed: Vec<String> = medians.iter().map(|m| format!("{m:9.2}")).collect();
        println!("{name:28} {label}: {}  {:5.2}", listed.join(" "), best / medians[N - 1]);
    }
}
