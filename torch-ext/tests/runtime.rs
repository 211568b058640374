//! Starting up, settings and memory.
#![allow(clippy::unwrap_used)] // a test may panic

use tch::{Device, Tensor};
use torch_ext::{Cuda, Generator};

#[test]
fn init_twice_gives_one_answer_and_a_reason_where_there_is_no_device() {
    let (first, second) = (torch_ext::init(), torch_ext::init());
    assert!(std::ptr::eq(first, second));
    match first {
        Cuda::Available { devices } => {
            assert!(*devices > 0 && tch::Cuda::is_available());
            assert!(
                torch_ext::memory_stats(Device::Cuda(0))
                    .is_some_and(|m| m.free <= m.total && m.total > 0)
            );
        }
        Cuda::Absent { reason } => {
            assert!(reason.ends_with('.') && reason.contains(' '), "{reason}");
            assert!(!tch::Cuda::is_available());
            assert_eq!(torch_ext::memory_stats(Device::Cuda(0)), None);
        }
    }
    assert_eq!(torch_ext::memory_stats(Device::Cpu), None);
}

#[test]
fn memory_calls_do_nothing_where_there_is_no_device() {
    torch_ext::empty_cache();
    torch_ext::reset_peak_memory(Device::Cpu);
    torch_ext::reset_peak_memory(Device::Cuda(999));
}

#[test]
fn settings_can_be_switched_on_and_off() {
    for on in [true, false] {
        torch_ext::set_tf32(on);
        torch_ext::set_deterministic(on);
        torch_ext::set_cudnn_benchmark(on);
    }
    torch_ext::set_threads(2);
    assert_eq!(torch_ext::threads(), 2);
    torch_ext::set_threads(0);
    assert_eq!(torch_ext::threads(), 1);
}

#[test]
fn the_version_is_the_one_that_tch_was_made_for() {
    assert_eq!(torch_ext::libtorch_version(), "2.11.0");
}

#[test]
fn channels_last_changes_the_layout_and_not_the_values() {
    let x = Generator::cpu(0).randn(&[2, 3, 4, 5]).set_requires_grad(true);
    let y = torch_ext::channels_last(&x);
    assert!(!torch_ext::is_channels_last(&x) && torch_ext::is_channels_last(&y));
    assert_eq!(y.stride(), [60, 1, 15, 3]);
    assert!(y.equal(&x));
    assert_eq!(torch_ext::channels_last(&y).data_ptr(), y.data_ptr());
    let gradient =
        Tensor::run_backward(&[(&y * 2.0).sum(tch::Kind::Float)], &[&x], false, false).remove(0);
    assert!(gradient.equal(&x.full_like(2.0)));
    assert!(!torch_ext::is_channels_last(&Tensor::from_slice(&[1.0])));
}

#[test]
fn a_signal_that_the_parent_ignored_is_known() {
    const HANGUP: i32 = 1; // on every Unix
    if std::env::var_os("TORCH_EXT_IS_CHILD").is_some() {
        assert!(torch_ext::is_ignored(HANGUP));
        return;
    }
    assert!(!torch_ext::is_ignored(HANGUP) && !torch_ext::is_ignored(-1));
    let test = std::env::current_exe().unwrap();
    let child = format!(
        "trap '' HUP; exec '{}' --exact a_signal_that_the_parent_ignored_is_known",
        test.display()
    );
    let status = std::process::Command::new("sh")
        .args(["-c", &child])
        .env("TORCH_EXT_IS_CHILD", "1")
        .status();
    assert!(status.unwrap().success());
}
