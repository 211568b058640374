//! Frozen layers against tch's plain ones, values and gradients.
#![allow(clippy::unwrap_used)] // a test may panic

use std::panic::{AssertUnwindSafe, catch_unwind};

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
    let off = difference(&found, &expected);
    assert!(off < tolerance, "{kind:?} {:?} {:?} {off}", x.size(), x.stride());
    let seed = Generator::cpu(9).randn(&expected.size()).to_kind(kind);
    let gradient =
        |y: &Tensor| grad(&[y], &[&x], Some(&[&seed]), false).unwrap().remove(0).unwrap();
    let off = difference(&gradient(&found), &gradient(&expected));
    assert!(off < tolerance, "{kind:?} {:?} {:?} {off}", x.size(), x.stride());
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

const CPU: Device = Device::Cpu;

fn ones(size: &[i64], kind: Kind) -> Tensor {
    torch_ext::init();
    Tensor::ones(size, (kind, CPU))
}

/// Whether `forward` refuses, as tch does.
fn refuses(forward: impl FnOnce() -> Tensor) -> bool {
    catch_unwind(AssertUnwindSafe(forward)).is_err()
}

#[test]
fn strides_and_paddings_that_make_no_convolution_are_refused() {
    let w = ones(&[2, 3, 3, 3], Kind::Float);
    for (stride, padding) in [(0, 1), (-1, 1), (1, -1), (i64::MAX, 1), (1, i64::MAX)] {
        assert!(FrozenConv2d::new(&w, None, stride, padding).is_err(), "{stride} {padding}");
    }
    let layer = FrozenConv2d::new(&w, None, 100, 1000).unwrap();
    assert_eq!(layer.forward(&ones(&[1, 3, 6, 6], Kind::Float)).size(), [1, 2, 21, 21]);
}

#[test]
fn a_bias_of_another_length_kind_or_rank_is_refused() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let (matrix, kernel) = (ones(&[8, 4], kind), ones(&[8, 4, 3, 3], kind));
        let other = if kind == Kind::Float { Kind::BFloat16 } else { Kind::Float };
        for bias in [
            ones(&[1], kind),
            ones(&[64], kind),
            ones(&[0], kind),
            ones(&[2, 4], kind),
            ones(&[8], other),
        ] {
            assert!(FrozenLinear::new(&matrix, Some(&bias)).is_err(), "{bias:?}");
            assert!(FrozenConv2d::new(&kernel, Some(&bias), 1, 1).is_err(), "{bias:?}");
        }
    }
}

#[test]
fn inputs_that_the_weight_does_not_serve_are_refused_before_and_after_it_is_laid_out() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let linear = FrozenLinear::new(&ones(&[8, 4], kind), None).unwrap();
        let conv = FrozenConv2d::new(&ones(&[8, 4, 3, 3], kind), None, 1, 0).unwrap();
        for _ in 0..2 {
            for x in
                [ones(&[2, 5], kind), ones(&[], kind), ones(&[2, 4], Kind::Double), Tensor::new()]
            {
                assert!(refuses(|| linear.forward(&x)), "{x:?}");
            }
            let small = ones(&[1, 4, 2, 2], kind);
            for x in [
                ones(&[1, 5, 6, 6], kind),
                ones(&[4, 6, 6], kind),
                ones(&[1, 4, 6, 6], Kind::Int64),
                small,
                ones(&[1, 4, 6, 6], Kind::Float).to_sparse_sparse_dim(2),
            ] {
                assert!(refuses(|| conv.forward(&x)), "{x:?}");
            }
            assert_eq!(linear.forward(&ones(&[2, 4], kind)).size(), [2, 8]);
            assert_eq!(conv.forward(&ones(&[1, 4, 6, 6], kind)).size(), [1, 8, 4, 4]);
        }
    }
}

#[test]
fn rows_that_share_memory_or_have_none_are_the_numbers_that_they_read_as() {
    let g = Generator::cpu(0);
    for kind in [Kind::Float, Kind::BFloat16] {
        let made_up = |size: &[i64]| Tensor::internal_efficientzerotensor(size, (kind, CPU));
        let w = g.randn(&[1, 24]).to_kind(kind).expand([40, 24], false);
        let b = g.randn(&[1]).to_kind(kind).expand([40], false);
        let (dense_w, dense_b) = (w.contiguous(), b.contiguous());
        let layer = FrozenLinear::new(&w, Some(&b)).unwrap();
        let plain = |x: &Tensor| x.linear(&dense_w, Some(&dense_b));
        for x in [g.randn(&[7, 1]).expand([7, 24], false), g.randn(&[1, 24]).expand([7, 24], false)]
        {
            assert_same(kind, &x, |x| layer.forward(x), plain);
        }
        let zeros = ones(&[7, 24], kind).zeros_like();
        assert!(layer.forward(&made_up(&[7, 24])).equal(&layer.forward(&zeros)));

        let w = g.randn(&[40, 1, 3, 3]).to_kind(kind).expand([40, 24, 3, 3], false);
        let dense = w.contiguous();
        let layer = FrozenConv2d::new(&w, Some(&b), 1, 1).unwrap();
        let plain = |x: &Tensor| x.conv2d(&dense, Some(&dense_b), [1, 1], [1, 1], [1, 1], 1);
        for x in [g.randn(&[1, 24, 1, 1]), g.randn(&[1, 1, 5, 5])] {
            assert_same(kind, &x.expand([1, 24, 5, 5], false), |x| layer.forward(x), plain);
        }
        let zeros = ones(&[1, 24, 5, 5], kind).zeros_like();
        assert!(layer.forward(&made_up(&[1, 24, 5, 5])).equal(&layer.forward(&zeros)));
        assert!(FrozenLinear::new(&made_up(&[4, 24]), None).is_ok_and(|layer| {
            layer.forward(&ones(&[2, 24], kind)).count_nonzero(0).sum(Kind::Int64).int64_value(&[])
                == 0
        }));
    }
}

#[test]
fn an_empty_input_is_served_however_the_weight_lies() {
    let g = Generator::cpu(0);
    let (w, learns) =
        (g.randn(&[192, 160, 3, 3]), g.randn(&[1, 160, 3, 2]).set_requires_grad(true));
    let layer = FrozenConv2d::new(&w, None, 1, 1).unwrap();
    let empty = ones(&[0, 160, 8, 8], Kind::Float);
    assert_eq!(layer.forward(&empty).size(), [0, 192, 8, 8]);
    let _ = layer.forward(&learns); // it lies as a matrix from here on
    assert_eq!(layer.forward(&empty).size(), [0, 192, 8, 8]);
}

#[test]
fn threads_that_meet_an_unpacked_layer_do_not_disturb_each_other() {
    for _ in 0..20 {
        let layer = FrozenConv2d::new(&ones(&[64, 64, 3, 3], Kind::Float), None, 1, 1).unwrap();
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let empty = ones(&[0, 64, 8, 8], Kind::Float);
                start.wait();
                for _ in 0..100 {
                    assert_eq!(layer.forward(&empty).size(), [0, 64, 8, 8]);
                }
            });
            scope.spawn(|| {
                let x = ones(&[1, 64, 8, 8], Kind::Float);
                start.wait();
                let expected = ones(&[1], Kind::Float) * 576.0;
                assert_eq!(layer.forward(&x).max().reshape([1]), expected);
            });
        });
    }
}

#[test]
fn weights_of_the_wrong_rank_are_refused() {
    let w = Generator::cpu(0).randn(&[4, 4, 3]);
    assert!(FrozenLinear::new(&w, None).is_err());
    assert!(FrozenConv2d::new(&w, None, 1, 1).is_err());
}
