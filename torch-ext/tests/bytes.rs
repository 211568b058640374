//! Tensors from files and bytes, and back.
#![allow(clippy::unwrap_used)] // a test may panic

use std::io::Write;

use tch::{Device, Kind, Tensor};
use torch_ext::{Generator, MappedFile, TorchError, from_bytes, to_bytes};

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
            let file = file_of(&whole);
            let map = MappedFile::open(file.path()).unwrap();
            let range = offset..offset + bytes.len();
            for target in [kind, Kind::Float] {
                // Twice: the pages let go of by the first read are read again.
                for _ in 0..2 {
                    let read =
                        map.tensor(range.clone(), kind, &[7, 5], target, Device::Cpu).unwrap();
                    assert_eq!((read.kind(), read.size()), (target, vec![7, 5]));
                    assert!(
                        read.equal(&source.to_kind(target)),
                        "{kind:?} to {target:?} at {offset}"
                    );
                }
            }
            assert_eq!(map.bytes(), whole);
        }
    }
}

#[test]
fn a_large_misaligned_tensor_is_read_whole() {
    let source = Generator::cpu(0).randn(&[3, 1_000_001]); // three million elements: more than one piece, and a rest
    let mut whole = vec![0];
    whole.extend(to_bytes(&source));
    let file = file_of(&whole);
    let map = MappedFile::open(file.path()).unwrap();
    let read = map
        .tensor(1..whole.len(), Kind::Float, &[3, 1_000_001], Kind::BFloat16, Device::Cpu)
        .unwrap();
    assert!(read.equal(&source.to_kind(Kind::BFloat16)));
}

#[test]
fn a_tensor_outlives_its_map_and_leaves_no_page_of_it_behind() {
    let source = Generator::cpu(0).randn(&[1 << 20]);
    let file = file_of(&to_bytes(&source));
    let map = MappedFile::open(file.path()).unwrap();
    let read = map.tensor(0..4 << 20, Kind::Float, &[1 << 20], Kind::Float, Device::Cpu).unwrap();
    let name = file.path().to_str().unwrap().to_owned();
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let resident =
        maps.lines().skip_while(|l| !l.ends_with(&name)).find(|l| l.starts_with("Rss:")).unwrap();
    assert_eq!(resident.split_whitespace().nth(1), Some("0"), "{resident}");
    drop(map);
    drop(file);
    assert!(read.equal(&source));
    let _ = &read + 1.0;
}

#[test]
fn a_range_outside_the_file_is_refused() {
    let file = file_of(&[0; 16]);
    let map = MappedFile::open(file.path()).unwrap();
    #[allow(clippy::reversed_empty_ranges)] // a broken header may well say so
    for range in [8..24, 20..24, 12..8, usize::MAX - 3..usize::MAX] {
        let error = map.tensor(range, Kind::Float, &[1], Kind::Float, Device::Cpu).unwrap_err();
        assert!(matches!(error, TorchError::OutsideFile { length: 16, .. }), "{error}");
    }
}

#[test]
fn a_shape_that_does_not_fit_the_bytes_is_refused() {
    let file = file_of(&[0; 16]);
    let map = MappedFile::open(file.path()).unwrap();
    for shape in [vec![3], vec![5], vec![-4], vec![], vec![i64::MAX, i64::MAX], vec![1 << 62, 4, 0]]
    {
        let error = map.tensor(0..16, Kind::Float, &shape, Kind::Float, Device::Cpu).unwrap_err();
        assert!(matches!(error, TorchError::ByteCount { .. }), "{shape:?}: {error}");
    }
    let error = map.tensor(0..16, Kind::QInt8, &[16], Kind::Float, Device::Cpu).unwrap_err();
    assert_eq!(error, TorchError::Kind(Kind::QInt8));
    let error = map.tensor(0..16, Kind::Float, &[4], Kind::Float, Device::Vulkan).unwrap_err();
    assert_eq!(error, TorchError::Device(Device::Vulkan));
}

#[test]
fn empty_files_and_empty_tensors_are_no_exception() {
    let file = file_of(&[]);
    let map = MappedFile::open(file.path()).unwrap();
    assert!(map.bytes().is_empty());
    let read = map.tensor(0..0, Kind::Half, &[4, 0], Kind::Float, Device::Cpu).unwrap();
    assert_eq!(read.size(), [4, 0]);
    assert!(to_bytes(&read).is_empty());
    assert!(MappedFile::open("no such file").is_err());
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
