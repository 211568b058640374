//! ConES as a search: a residual that made the targets is found again from zero.

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use embeddings::{Concept, Conditioner, Cones, ConesRows, ConesSettings, Overflow};
use models::unet::Conditioning;
use parity::{clip_text, folder, input, unet};
use pipelines::trainer::{AdamW, AdamWConfig};
use tch::{Kind, Tensor};
use torch_ext::Generator;

#[test]
fn a_hidden_residual_is_found_again() {
    let (base, unet) = (folder("sd1"), unet("sd1"));
    let mut conditioner = Conditioner::new(base.tokenizer().unwrap(), clip_text("sd1"), 0);
    let words = conditioner.words("cat");
    let settings =
        ConesSettings { rows: ConesRows::Noun, words, limits: Vec::new(), tail_strength: 1.0 };
    let hidden = input("cones/residual", &[1, 64]) * 0.5;
    let teacher = Cones::new("<x>", settings.clone(), &hidden, None);
    let student = Cones::new("<x>", settings, &hidden.zeros_like(), None);
    let prompts = ["a photo of <x>", "<x> in the snow", "a painting of a <x> on the beach"]
        .map(|p| conditioner.tokenize(p, &[&student], Overflow::Refuse).unwrap());
    conditioner.release_encoder(&prompts.each_ref());

    let loss = |draw: &Generator| {
        let prompt = &prompts[draw.randint(0, 3, &[1]).int64_value(&[0]) as usize];
        let x_t = draw.randn(&[1, 4, 8, 8]);
        let timestep = draw.randint(0, 1000, &[1]);
        let predict = |concept: &dyn Concept| {
            let context = conditioner.encode(&[prompt], &[concept]);
            unet.forward(&x_t, &timestep, &Conditioning::context(context))
        };
        let target = tch::no_grad(|| predict(&teacher));
        (predict(&student) - target).square().mean(Kind::Float)
    };
    let mean_loss = || {
        let draw = Generator::cpu(99); // the same samples each time
        tch::no_grad(|| (0..24).map(|_| loss(&draw).double_value(&[])).sum::<f64>())
    };
    let adam = AdamWConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    let mut optimizer = AdamW::new(student.parameters(), adam);
    let (draw, before) = (Generator::cpu(1), mean_loss());
    for _ in 0..250 {
        let gradient = Tensor::run_backward(&[loss(&draw)], &student.parameters(), false, false);
        optimizer.step(&gradient, 5e-3);
    }
    let relative = mean_loss() / before;
    let found = &student.parameters()[0];
    let cosine = (found * &hidden).sum(Kind::Float) / (found.norm() * hidden.norm());
    let cosine = cosine.double_value(&[]);
    println!("loss {relative:.3} of that of the class, cosine {cosine:.3}");
    assert!(relative < 0.5, "{relative}");
    assert!(cosine > 0.6, "{cosine}");
}
