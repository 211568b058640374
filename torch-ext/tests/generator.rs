//! Our own generators against libtorch's global one, which draws what Python draws.
#![allow(clippy::unwrap_used)] // a test may panic

use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

/// The global generator belongs to the whole process; one test at a time may use it.
static GLOBAL: Mutex<()> = Mutex::new(());

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
const LONG: (Kind, Device) = (Kind::Int64, Device::Cpu);

#[test]
fn a_generator_draws_what_the_global_one_draws_for_the_same_seed() {
    torch_ext::init();
    let _alone = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
    for seed in [0, 42, u64::MAX >> 1] {
        tch::manual_seed(i64::try_from(seed).unwrap());
        let g = Generator::cpu(seed);
        // A size below 16 takes another path in libtorch than a larger one.
        for size in [vec![3], vec![1, 4, 8, 8], vec![0], vec![]] {
            assert!(g.randn(&size).equal(&Tensor::randn(&size[..], FLOAT)), "randn {size:?}");
            assert!(g.rand(&size).equal(&Tensor::rand(&size[..], FLOAT)), "rand {size:?}");
            assert!(g.randint(-3, 1000, &size).equal(&Tensor::randint_low(
                -3,
                1000,
                &size[..],
                LONG
            )));
        }
        assert!(g.randperm(50).equal(&Tensor::randperm(50, LONG)));
    }
}

#[test]
fn a_generator_draws_what_python_draws() {
    // torch.randn(3, generator=torch.Generator("cpu").manual_seed(0)), torch 2.11
    let drawn = Vec::<f32>::try_from(Generator::cpu(0).randn(&[3])).unwrap();
    assert_eq!(drawn, [1.540_996_1, -0.293_428_9, -2.178_789_4]);
}

#[test]
fn a_state_continues_the_sequence_where_it_was_taken() {
    let g = Generator::cpu(7);
    let _ = g.randn(&[5]); // an odd count leaves half a pair of normal numbers in the state
    let state = g.state();
    let expected = (g.randn(&[3]), g.rand(&[20]));
    let other = Generator::cpu(0);
    other.set_state(&state).unwrap();
    assert_eq!(other.state(), state);
    assert!(other.randn(&[3]).equal(&expected.0) && other.rand(&[20]).equal(&expected.1));
}

#[test]
fn bytes_that_are_no_state_are_refused_and_change_nothing() {
    let g = Generator::cpu(7);
    let state = g.state();
    for wrong in [&b""[..], b"short", &vec![0; state.len() + 1], &vec![0xff; state.len()]] {
        assert!(g.set_state(wrong).is_err(), "{} bytes", wrong.len());
        assert_eq!(g.state(), state);
    }
}

/// Where a state keeps how many numbers are left, which of 624 is next, and the flag of a spare normal number.
const LEFT: usize = 8;
const NEXT: usize = 16;
const SPARE: usize = 5052;

#[test]
fn a_state_that_would_read_behind_its_numbers_is_refused_and_changes_nothing() {
    let g = Generator::cpu(7);
    let _ = g.rand(&[3]);
    let state = g.state();
    let left = u32::from_le_bytes(state[LEFT..LEFT + 4].try_into().unwrap());
    let next = u64::from_le_bytes(state[NEXT..NEXT + 8].try_into().unwrap());
    assert_eq!(u64::from(left) + next, 625, "the places are still where they were");
    let forged = |left: u32, next: u64| {
        let mut forged = state.clone();
        forged[LEFT..LEFT + 4].copy_from_slice(&left.to_le_bytes());
        forged[NEXT..NEXT + 8].copy_from_slice(&next.to_le_bytes());
        forged
    };
    for (left, next) in [(624, 624), (left + 1, next), (624, 2), (0, 0), (u32::MAX, 0), (1, 625)] {
        assert!(g.set_state(&forged(left, next)).is_err(), "{left} left, {next} next");
    }
    assert!(g.set_state(&forged(left, next | 1 << 32)).is_err(), "it is cut to 32 bits");
    let mut flagged = state.clone();
    flagged[SPARE] = 2; // neither true nor false
    assert!(g.set_state(&flagged).is_err());
    assert_eq!(g.state(), state);
}

#[test]
fn every_state_that_a_generator_gives_is_taken() {
    let g = Generator::cpu(3);
    for count in [0, 1, 2, 15, 16, 600, 21, 1, 1, 1300] {
        let _ = (g.randn(&[count]), g.rand(&[count % 3]));
        let other = Generator::cpu(0);
        other.set_state(&g.state()).unwrap();
        assert!(other.twin().randn(&[700]).equal(&g.twin().randn(&[700])));
    }
}

#[test]
fn generators_share_nothing() {
    let _alone = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
    let (a, b) = (Generator::cpu(1), Generator::cpu(1));
    let _ = a.randn(&[100]);
    tch::manual_seed(3);
    let _ = Tensor::randn([100], FLOAT);
    assert!(b.randn(&[4]).equal(&Generator::cpu(1).randn(&[4])));
}
