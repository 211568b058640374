//! Frozen layers against tch's plain ones, values and gradients.
#![allow(clippy::unwrap_used)] // a test may panic

use tch::{Device, Kind, Tensor};
use torch_ext::{FrozenConv2d, FrozenLinear, Generator, grad};

/// The largest difference, relative to the largest value expected.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!((found.size(), found.kind()), (expected.size(), expected.kind()));
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    ((found - &expected).abs().max() / expected.abs().max()).double_value(&[])
}

/// Checks `y = frozen(x)` and its gradient for x against those of `plain`.
fn assert_same(
    kind: Kind,
    x: &Tensor,
    frozen: impl Fn(&Tensor) -> Tensor,
    plain: impl Fn(&Tensor) -> Tensor,
) {
    let tolerance = if kind == Kind::BFloat16 { 1e-2 } else { 1e-5 }; // bf16 keeps 8 bits
    let x = x.to_kind(kind).set_requires_grad(true);
    let (found, expected) = (frozen(&x), plain(&x));
    assert!(difference(&found, &expected) < tolerance);
    let seed = Generator::cpu(9).randn(&expected.size()).to_kind(kind);
    let gradient =
        |y: &Tensor| grad(&[y], &[&x], Some(&[&seed]), false).unwrap().remove(0).unwrap();
    assert!(difference(&gradient(&found), &gradient(&expected)) < tolerance);
}

#[test]
fn a_frozen_linear_layer_is_the_plain_one_for_every_shape_and_kind() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double] {
        let g = Generator::cpu(0);
        let (w, b) = (g.randn(&[40, 24]).to_kind(kind), g.randn(&[40]).to_kind(kind));
        for bias in [None, Some(&b)] {
            let layer = FrozenLinear::new(&w, bias).unwrap();
            // One layer, several shapes: packed for the first, right for all.
            for size in [vec![7, 24], vec![2, 3, 24], vec![1, 24], vec![24], vec![130, 24]] {
                assert_same(kind, &g.randn(&size), |x| layer.forward(x), |x| x.linear(&w, bias));
            }
            assert_eq!(layer.forward(&Tensor::zeros([0, 24], (kind, Device::Cpu))).size(), [0, 40]);
        }
    }
}

#[test]
fn a_frozen_convolution_is_the_plain_one_for_every_shape_and_kind() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Double] {
        // Size, stride, padding: a U-Net's own, and those that have no convolution as their gradient.
        for (k, stride, padding) in [(3, 1, 1), (1, 1, 0), (3, 2, 1), (3, 1, 0), (1, 1, 2)] {
            let g = Generator::cpu(0);
            let w = g.randn(&[20, 12, k, k]).to_kind(kind);
            let b = g.randn(&[20]).to_kind(kind);
            let layer = FrozenConv2d::new(&w, Some(&b), stride, padding).unwrap();
            let plain = |x: &Tensor| x.conv2d(&w, Some(&b), [stride; 2], [padding; 2], [1, 1], 1);
            for size in [[1, 12, 8, 8], [2, 12, 9, 5]] {
                let x = g.randn(&size);
                assert_same(kind, &x, |x| layer.forward(x), plain);
                assert_same(kind, &torch_ext::channels_last(&x), |x| layer.forward(x), plain);
            }
        }
    }
}

#[test]
fn a_large_weight_that_meets_few_rows_is_the_plain_one_too() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let g = Generator::cpu(0);
        let (w, b) = (g.randn(&[96, 64]).to_kind(kind), g.randn(&[96]).to_kind(kind));
        let layer = FrozenLinear::new(&w, Some(&b)).unwrap();
        for size in [vec![1, 64], vec![2, 3, 64]] {
            assert_same(kind, &g.randn(&size), |x| layer.forward(x), |x| x.linear(&w, Some(&b)));
        }
        for (k, stride, padding) in [(3, 1, 1), (1, 1, 0), (3, 2, 1), (3, 1, 0), (1, 1, 2)] {
            let w = g.randn(&[192, 160, k, k]).to_kind(kind);
            let b = g.randn(&[192]).to_kind(kind);
            let layer = FrozenConv2d::new(&w, Some(&b), stride, padding).unwrap();
            let plain = |x: &Tensor| x.conv2d(&w, Some(&b), [stride; 2], [padding; 2], [1, 1], 1);
            for size in [[1, 160, 3, 2], [2, 160, 5, 4]] {
                let size = size.map(|n| n + i64::from(padding == 0 && k == 3 && n < 3));
                let x = g.randn(&size);
                assert_same(kind, &x, |x| layer.forward(x), plain);
                assert_same(kind, &torch_ext::channels_last(&x), |x| layer.forward(x), plain);
                let in_place = |mut y: Tensor| y.g_add_scalar_(1.0);
                assert_same(kind, &x, |x| in_place(layer.forward(x)), |x| in_place(plain(x)));
            }
        }
    }
}

#[test]
fn a_frozen_layer_keeps_no_graph_where_x_needs_none() {
    let g = Generator::cpu(0);
    let layer = FrozenLinear::new(&g.randn(&[4, 4]).set_requires_grad(true), None).unwrap();
    assert!(!layer.forward(&g.randn(&[2, 4])).requires_grad());
    let learns = g.randn(&[2, 4]).set_requires_grad(true);
    assert!(!tch::no_grad(|| layer.forward(&learns)).requires_grad());
    assert!(layer.forward(&learns).requires_grad());
}

#[test]
fn a_graph_outlives_its_layer() {
    let g = Generator::cpu(0);
    let x = g.randn(&[2, 4]).set_requires_grad(true);
    let y = FrozenLinear::new(&g.randn(&[4, 4]), None).unwrap().forward(&x);
    y.sum(Kind::Float).backward();
    assert!(x.grad().defined());
}

#[test]
fn weights_of_the_wrong_rank_are_refused() {
    let w = Generator::cpu(0).randn(&[4, 4, 3]);
    assert!(FrozenLinear::new(&w, None).is_err());
    assert!(FrozenConv2d::new(&w, None, 1, 1).is_err());
}
