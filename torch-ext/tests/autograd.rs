//! The checkpoint node and `grad` against plain tch.
#![allow(clippy::unwrap_used)] // a test may panic

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use torch_ext::{Generator, Weight, checkpoint, grad};

/// Two layers with a residual, as a network's block is.
struct Block {
    into: Weight,
    out: Weight,
}

impl Block {
    fn new(seed: u64, learns: bool) -> Arc<Self> {
        let g = Generator::cpu(seed);
        let weight = || Weight::from((g.randn(&[24, 24]) * 0.2).set_requires_grad(learns));
        Arc::new(Self { into: weight(), out: weight() })
    }
}

fn forward(block: &Block, inputs: &[Tensor]) -> Tensor {
    let (x, context) = (&inputs[0], &inputs[1]);
    x + (x.matmul(&block.into) + context).silu().matmul(&block.out)
}

fn inputs(seed: u64) -> [Tensor; 2] {
    let g = Generator::cpu(seed);
    let leaf = || g.randn(&[5, 24]).set_requires_grad(true);
    [leaf(), leaf()]
}

#[test]
fn checkpoint_gives_the_same_bits_as_the_plain_graph() {
    let blocks = [Block::new(1, false), Block::new(2, false), Block::new(3, false)];
    let run = |checkpointed: bool| {
        let [x, context] = inputs(4);
        let mut h = &x * 1.5;
        for block in &blocks {
            let arguments = [h, context.shallow_clone()];
            h = if checkpointed {
                checkpoint(block, &arguments, forward)
            } else {
                forward(block, &arguments)
            };
        }
        let loss = h.square().mean(Kind::Float);
        loss.backward();
        (loss, x.grad(), context.grad())
    };
    let (plain, kept) = (run(false), run(true));
    assert!(plain.0.equal(&kept.0));
    assert!(plain.1.equal(&kept.1) && plain.1.abs().sum(Kind::Float).double_value(&[]) > 0.0);
    assert!(plain.2.equal(&kept.2) && plain.2.abs().sum(Kind::Float).double_value(&[]) > 0.0);
    assert!(
        blocks.iter().all(|b| !b.into.grad().defined()),
        "a frozen weight was given a gradient"
    );
}

#[test]
fn checkpoint_gives_inner_weights_that_learn_their_gradient() {
    let run = |checkpointed: bool| {
        let block = Block::new(1, true);
        let arguments = inputs(2);
        let y = if checkpointed {
            checkpoint(&block, &arguments, forward)
        } else {
            forward(&block, &arguments)
        };
        y.square().sum(Kind::Float).backward();
        (block.into.grad(), block.out.grad(), arguments[0].grad())
    };
    let (plain, kept) = (run(false), run(true));
    assert!(plain.0.equal(&kept.0) && plain.1.equal(&kept.1) && plain.2.equal(&kept.2));
}

#[test]
fn checkpoint_serves_inputs_of_which_only_one_learns() {
    let block = Block::new(1, false);
    let [x, context] = inputs(2);
    let y = checkpoint(&block, &[x.detach(), context.shallow_clone()], forward);
    let expected = forward(&block, &[x.detach(), context.shallow_clone()]);
    let kept = grad(&[&y.sum(Kind::Float)], &[&context, &x], None, false).unwrap();
    let plain = grad(&[&expected.sum(Kind::Float)], &[&context, &x], None, false).unwrap();
    assert!(kept[0].as_ref().unwrap().equal(plain[0].as_ref().unwrap()));
    assert!(kept[1].is_none());
    assert!(!context.grad().defined(), "grad must not touch .grad");
}

#[test]
fn checkpoint_without_gradients_is_the_plain_call() {
    let block = Block::new(1, false);
    let learning = inputs(2);
    let y = tch::no_grad(|| checkpoint(&block, &learning, forward));
    assert!(!y.requires_grad());
    let y = checkpoint(&block, &learning.each_ref().map(Tensor::detach), forward);
    assert!(!y.requires_grad());
    assert_eq!(Arc::strong_count(&block), 1);
}

#[test]
fn a_graph_that_is_dropped_lets_go_of_its_module() {
    let block = Block::new(1, false);
    let y = checkpoint(&block, &inputs(2), forward);
    assert_eq!(Arc::strong_count(&block), 2);
    drop(y);
    assert_eq!(Arc::strong_count(&block), 1);
}

#[test]
fn a_segment_that_panics_in_the_backward_pass_is_an_error_of_that_pass() {
    fn only_once(block: &Block, inputs: &[Tensor]) -> Tensor {
        let y = forward(block, inputs);
        assert!(!y.requires_grad(), "no second time");
        y
    }
    let block = Block::new(1, false);
    let arguments = inputs(2);
    let y = checkpoint(&block, &arguments, only_once).sum(Kind::Float);
    let message = grad(&[&y], &[&arguments[0]], None, false).unwrap_err().to_string();
    assert!(message.contains("no second time"), "{message}");
}

#[test]
fn a_segment_that_panics_in_the_forward_pass_leaves_gradients_on() {
    fn never(_: &Block, _: &[Tensor]) -> Tensor {
        panic!("not even once")
    }
    let block = Block::new(1, false);
    let arguments = inputs(2);
    assert!(catch_unwind(AssertUnwindSafe(|| checkpoint(&block, &arguments, never))).is_err());
    assert!((&arguments[0] * 2.0).requires_grad());
}

#[test]
fn the_backward_pass_works_once_unless_the_graph_is_retained() {
    let block = Block::new(1, false);
    let arguments = inputs(2);
    let y = checkpoint(&block, &arguments, forward).sum(Kind::Float);
    let first = grad(&[&y], &[&arguments[0]], None, true).unwrap();
    let second = grad(&[&y], &[&arguments[0]], None, false).unwrap();
    assert!(first[0].as_ref().unwrap().equal(second[0].as_ref().unwrap()));
    let message = grad(&[&y], &[&arguments[0]], None, false).unwrap_err().to_string();
    assert!(message.contains("second time"), "{message}");
}

#[test]
fn an_input_changed_in_place_after_the_forward_pass_is_refused() {
    let block = Block::new(1, false);
    let [x, context] = inputs(2);
    let mut h = &x * 1.0;
    let y = checkpoint(&block, &[h.shallow_clone(), context], forward).sum(Kind::Float);
    let _ = tch::no_grad(|| h.g_add_scalar_(1.0));
    let message = grad(&[&y], &[&x], None, false).unwrap_err().to_string();
    assert!(message.contains("inplace operation"), "{message}");
}

#[test]
fn a_checkpointed_graph_can_be_walked_on_another_thread() {
    let block = Block::new(1, false);
    let arguments = inputs(2);
    let expected = {
        let y = forward(&block, &arguments).sum(Kind::Float);
        grad(&[&y], &[&arguments[0]], None, false).unwrap().remove(0).unwrap()
    };
    let y = checkpoint(&block, &arguments, forward).sum(Kind::Float);
    std::thread::spawn(move || y.backward()).join().unwrap();
    assert!(arguments[0].grad().equal(&expected));
}

#[test]
fn grad_weighs_outputs_and_passes_over_unused_inputs() {
    torch_ext::init();
    let leaf = |values: &[f32]| Tensor::from_slice(values).set_requires_grad(true);
    let (a, b, unused) = (leaf(&[1.0, 2.0]), leaf(&[3.0, 4.0]), leaf(&[0.0]));
    let (product, sum) = (&a * &b, &a + &b);
    let weights = [Tensor::from_slice(&[1.0_f32, 10.0]), Tensor::from_slice(&[100.0_f32, 1000.0])];
    let found =
        grad(&[&product, &sum], &[&a, &b, &unused], Some(&[&weights[0], &weights[1]]), false)
            .unwrap();
    assert_eq!(Vec::<f32>::try_from(found[0].as_ref().unwrap()).unwrap(), [103.0, 1040.0]);
    assert_eq!(Vec::<f32>::try_from(found[1].as_ref().unwrap()).unwrap(), [101.0, 1020.0]);
    assert!(found[2].is_none());
    assert!(!a.grad().defined());
}

#[test]
fn grad_says_what_is_wrong_instead_of_panicking() {
    torch_ext::init();
    let x = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let y = &x * 2.0;
    let message = grad(&[&y], &[&x], None, false).unwrap_err().to_string();
    assert!(message.contains("scalar"), "{message}");
    let message = grad(&[&y], &[&x], Some(&[]), false).unwrap_err().to_string();
    assert!(message.contains("1 outputs need as many output gradients, not 0"), "{message}");
    let constant = Tensor::ones([1], (Kind::Float, Device::Cpu));
    assert!(grad(&[&constant], &[&x], None, false).is_err());
}

#[test]
fn undefined_tensors_are_refused() {
    torch_ext::init();
    let (x, undefined) = (Tensor::ones([1], (Kind::Float, Device::Cpu)), Tensor::new());
    let x = x.set_requires_grad(true);
    assert!(grad(&[&undefined], &[&x], None, false).is_err());
    assert!(grad(&[&x], &[&undefined], None, false).is_err());
    let run = || checkpoint(&Arc::new(()), &[x], |(), _| Tensor::new());
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
}
