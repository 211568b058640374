//! Tensors from files and bytes, and back.
#![allow(clippy::unwrap_used)] // a test may panic

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::{Device, Kind, Tensor};
use torch_ext::{Generator, TensorFile, TorchError, file, from_bytes, to_bytes};

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn every_kind_comes_out_of_a_file_as_it_went_in_at_any_alignment() {
    let numbers = Generator::cpu(0).randn(&[7, 5]) * 20.0;
    for kind in [
        Kind::Float,
        Kind::Half,
        Kind::BFloat16,
        Kind::Int64,
        Kind::Double,
        Kind::Uint8,
        Kind::Bool,
    ] {
        let source =
            if kind == Kind::Uint8 { numbers.abs().to_kind(kind) } else { numbers.to_kind(kind) };
        let bytes = to_bytes(&source);
        for offset in [0_usize, 1, 4, 6] {
            let mut whole = vec![0xAB; offset];
            whole.extend(&bytes);
            let named = file_of(&whole);
            let weights = TensorFile::open(named.path()).unwrap();
            let range = offset..offset + bytes.len();
            for target in [kind, Kind::Float] {
                let read =
                    weights.tensor(range.clone(), kind, &[7, 5], target, Device::Cpu).unwrap();
                assert_eq!((read.kind(), read.size()), (target, vec![7, 5]));
                assert!(read.equal(&source.to_kind(target)), "{kind:?} to {target:?} at {offset}");
            }
            assert_eq!(weights.bytes(0..whole.len()).unwrap(), whole);
        }
    }
}

#[test]
fn a_large_misaligned_tensor_is_read_whole() {
    let source = Generator::cpu(0).randn(&[3, 1_000_001]); // three million elements: more than one piece, and a rest
    let mut whole = vec![0];
    whole.extend(to_bytes(&source));
    let named = file_of(&whole);
    let weights = TensorFile::open(named.path()).unwrap();
    let read = weights
        .tensor(1..whole.len(), Kind::Float, &[3, 1_000_001], Kind::BFloat16, Device::Cpu)
        .unwrap();
    assert!(read.equal(&source.to_kind(Kind::BFloat16)));
}

#[test]
fn a_tensor_outlives_its_file() {
    let source = Generator::cpu(0).randn(&[1 << 20]);
    let named = file_of(&to_bytes(&source));
    let weights = TensorFile::open(named.path()).unwrap();
    let read =
        weights.tensor(0..4 << 20, Kind::Float, &[1 << 20], Kind::Float, Device::Cpu).unwrap();
    drop(weights);
    drop(named);
    assert!(read.equal(&source));
    let _ = &read + 1.0;
}

#[test]
fn a_file_that_is_shortened_while_it_is_open_is_an_error() {
    let named = file_of(&vec![1; 1 << 16]);
    let weights = TensorFile::open(named.path()).unwrap();
    named.as_file().set_len(5000).unwrap();
    for kind in [Kind::Uint8, Kind::Float] {
        let error =
            weights.tensor(0..1 << 16, Kind::Uint8, &[1 << 16], kind, Device::Cpu).unwrap_err();
        assert!(matches!(error, TorchError::OutsideFile { length: 5000, .. }), "{error}");
    }
    assert!(weights.bytes(4000..6000).is_err());
    assert_eq!(weights.bytes(4000..5000).unwrap(), [1; 1000]);
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let socket = folder.path().join("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    for (path, words) in [
        (pipe.as_path(), "a pipe"),
        (&link, "a pipe"),
        (&socket, "a socket"),
        ("/dev/zero".as_ref(), "a device"),
        (folder.path(), "directory"),
    ] {
        for error in [
            file::open(path).unwrap_err(),
            file::read(path).unwrap_err(),
            file::read_to_string(path).unwrap_err(),
            TensorFile::open(path).unwrap_err(),
        ] {
            assert!(error.to_string().contains(words), "{}: {error}", path.display());
        }
    }
    let text = folder.path().join("text");
    std::fs::write(&text, "größe").unwrap();
    assert_eq!(file::read_to_string(&text).unwrap(), "größe");
    assert_eq!(file::read(&text).unwrap(), "größe".as_bytes());
}

#[test]
fn a_range_outside_the_file_is_refused() {
    let named = file_of(&[0; 16]);
    let weights = TensorFile::open(named.path()).unwrap();
    #[allow(clippy::reversed_empty_ranges)] // a broken header may well say so
    for range in [8..24, 20..24, 12..8, usize::MAX - 3..usize::MAX] {
        let error = weights.tensor(range, Kind::Float, &[1], Kind::Float, Device::Cpu).unwrap_err();
        assert!(matches!(error, TorchError::OutsideFile { length: 16, .. }), "{error}");
    }
}

#[test]
fn a_shape_that_does_not_fit_the_bytes_is_refused() {
    let named = file_of(&[0; 16]);
    let weights = TensorFile::open(named.path()).unwrap();
    for shape in [vec![3], vec![5], vec![-4], vec![], vec![i64::MAX, i64::MAX], vec![1 << 62, 4, 0]]
    {
        let error =
            weights.tensor(0..16, Kind::Float, &shape, Kind::Float, Device::Cpu).unwrap_err();
        assert!(matches!(error, TorchError::ByteCount { .. }), "{shape:?}: {error}");
    }
    let error = weights.tensor(0..16, Kind::QInt8, &[16], Kind::Float, Device::Cpu).unwrap_err();
    assert_eq!(error, TorchError::Kind(Kind::QInt8));
    let error = weights.tensor(0..16, Kind::Float, &[4], Kind::Float, Device::Vulkan).unwrap_err();
    assert_eq!(error, TorchError::Device(Device::Vulkan));
}

#[test]
fn empty_files_and_empty_tensors_are_no_exception() {
    let named = file_of(&[]);
    let weights = TensorFile::open(named.path()).unwrap();
    assert!(weights.bytes(0..0).unwrap().is_empty());
    let read = weights.tensor(0..0, Kind::Half, &[4, 0], Kind::Float, Device::Cpu).unwrap();
    assert_eq!(read.size(), [4, 0]);
    assert!(to_bytes(&read).is_empty());
    assert!(TensorFile::open("no such file").is_err());
}

#[test]
fn bytes_follow_the_rows_of_a_tensor_whatever_its_strides() {
    let rows = Tensor::from_slice2(&[[1_i64, 2, 3], [4, 5, 6]]);
    let turned = rows.tr();
    let back = from_bytes(&to_bytes(&turned), Kind::Int64, &[3, 2]).unwrap();
    assert!(back.equal(&turned) && back.is_contiguous());
    let learns = Tensor::from_slice(&[1.5_f32]).set_requires_grad(true);
    assert_eq!(to_bytes(&learns), 1.5_f32.to_le_bytes());
}

#[test]
fn a_tensor_without_memory_of_its_own_is_written_as_it_reads() {
    torch_ext::init();
    let options = (Kind::Float, Device::Cpu);
    let made_up = Tensor::internal_efficientzerotensor([1024], options);
    assert_eq!(to_bytes(&made_up), [0; 4096]);
    let expanded = Tensor::from_slice(&[1.5_f32]).expand([2, 3], false);
    assert_eq!(to_bytes(&expanded), 1.5_f32.to_le_bytes().repeat(6));
    let negated = Tensor::from_slice(&[1.5_f32, -2.0]).internal_neg_view();
    assert_eq!(to_bytes(&negated), [(-1.5_f32).to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
    let part = Tensor::from_slice(&[1_u8, 2, 3, 4, 5, 6]).slice(0, 1, 6, 2);
    assert_eq!(to_bytes(&part), [2, 4, 6]);
}

#[test]
fn a_tensor_that_plain_bytes_do_not_hold_is_refused() {
    torch_ext::init();
    let dense = Tensor::from_slice2(&[[0.0_f32, 1.0], [2.0, 0.0]]);
    let refused = [
        Tensor::new(),
        dense.to_sparse_sparse_dim(2),
        dense.quantize_per_tensor(0.1, 0, Kind::QInt8),
        dense.to_mkldnn(),
        Tensor::complex(&dense, &dense),
    ];
    for tensor in refused {
        let attempt = catch_unwind(AssertUnwindSafe(|| to_bytes(&tensor)));
        assert!(attempt.is_err(), "{tensor:?}");
    }
}
