//! Concept files: ours there and back, other tools' forms, and what is refused.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use embeddings::TextualInversion;
use embeddings::file::{BaseRecord, ConceptFile, ConceptRecord, FileError, Origin};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};
use torch_ext::Generator;

fn record() -> ConceptRecord {
    ConceptRecord {
        method: "ti".into(),
        token: "<猫>".into(),
        class: Some("cat".into()),
        base: Some(BaseRecord {
            name: "a base".into(),
            width: 768,
            prediction_type: "epsilon".into(),
            resolution: 512,
            sketch: vec![0.1, -0.2],
        }),
        steps: 300,
        learning_rate: 5e-4,
        seed: 1,
        photos: "00ff".into(),
        tool_version: "0.1.0".into(),
        created: 1_700_000_000,
        config: "steps = 300\n".into(),
        settings: serde_json::Value::Null,
    }
}

fn written(folder: &Path) -> (PathBuf, Tensor) {
    let vectors = Generator::cpu(1).randn(&[2, 768]);
    let path = folder.join("cat.safetensors");
    ConceptFile::new(&TextualInversion::new("<猫>", &vectors), record()).write(&path).unwrap();
    (path, vectors)
}

/// A file of another tool.
fn foreign(folder: &Path, name: &str, tensors: &[(&str, Dtype, &[usize])]) -> PathBuf {
    let bytes = vec![0u8; 1 << 16];
    let views: Vec<(String, TensorView<'_>)> = tensors
        .iter()
        .map(|(key, dtype, shape)| {
            let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            ((*key).to_owned(), TensorView::new(*dtype, shape.to_vec(), &bytes[..len]).unwrap())
        })
        .collect();
    let path = folder.join(name);
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

#[test]
fn a_file_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, vectors) = written(folder.path());
    let read = ConceptFile::read(&path).unwrap();
    assert_eq!((&read.record, &read.origin), (&record(), &Origin::Native));
    assert_eq!(&read.concept().parameters()[0], &vectors);
}

#[test]
fn the_same_concept_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let first = std::fs::read(written(folder.path()).0).unwrap();
    assert_eq!(first, std::fs::read(written(folder.path()).0).unwrap());
}

#[test]
fn other_tools_find_one_f32_tensor_and_string_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(written(folder.path()).0).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.names(), ["emb_params"]);
    let view = file.tensor("emb_params").unwrap();
    assert_eq!((view.dtype(), view.shape()), (Dtype::F32, [2, 768].as_slice()));
    assert_eq!(view.data().as_ptr() as usize % 4, bytes.as_ptr() as usize % 4, "aligned");
    let metadata: HashMap<String, String> =
        SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
    assert_eq!(metadata["modelspec.architecture"], "stable-diffusion-v1/textual-inversion");
    assert_eq!(metadata["modelspec.trigger_phrase"], "<猫>");
    assert_eq!(metadata["modelspec.title"], "cat");
}

#[test]
fn single_tensor_files_of_other_tools_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (name, key, dtype, shape, token, rows) in [
        ("kohya.safetensors", "emb_params", Dtype::F32, &[3usize, 768][..], "<kohya>", 3),
        ("onetrainer.safetensors", "emp_params", Dtype::F16, &[1, 768], "<onetrainer>", 1),
        ("diffusers.safetensors", "<cat>", Dtype::F32, &[768], "<cat>", 1),
        ("half.safetensors", "<cat>", Dtype::BF16, &[2, 1024], "<cat>", 2),
    ] {
        let read =
            ConceptFile::read(&foreign(folder.path(), name, &[(key, dtype, shape)])).unwrap();
        assert_eq!(read.record.token, token);
        assert_eq!((read.num_vectors(), read.width()), (rows, shape[shape.len() - 1]));
        assert_eq!(read.concept().parameters()[0].kind(), Kind::Float);
        assert_eq!(read.origin, Origin::Foreign { key: key.into() });
    }
}

#[test]
fn what_is_no_concept_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let plain = |name: &str, bytes: &[u8]| {
        std::fs::write(at(name), bytes).unwrap();
        at(name)
    };
    let two = [("clip_l", Dtype::F32, &[1usize, 768][..]), ("clip_g", Dtype::F32, &[1, 1280])];
    let vectors = Tensor::from_slice(&[0f32, f32::NAN]).reshape([2, 1]);
    let nan = ConceptFile::new(&TextualInversion::new("<x>", &vectors), record());
    nan.write(&at("nan.safetensors")).unwrap();
    let cases = [
        (foreign(folder.path(), "two.safetensors", &two), "clip_g, clip_l"),
        (foreign(folder.path(), "int.safetensors", &[("x", Dtype::I64, &[1, 8])]), "I64"),
        (foreign(folder.path(), "cube.safetensors", &[("x", Dtype::F32, &[1, 2, 3])]), "[1, 2, 3]"),
        (foreign(folder.path(), "none.safetensors", &[]), "holds 0"),
        (foreign(folder.path(), "empty.safetensors", &[("x", Dtype::F32, &[0, 8])]), "[0, 8]"),
        (plain("a.pt", b"PK\x03\x04rest"), "pickle"),
        (plain("b.bin", b"\x80\x02}q\x00."), "pickle"),
        (plain("text.safetensors", b"hello, this is no tensor"), "safetensors"),
        (plain("zero.safetensors", b""), "safetensors"),
        (at("nan.safetensors"), "vector 2"),
        (at("absent.safetensors"), "cannot be read"),
    ];
    for (path, reason) in cases {
        let error = ConceptFile::read(&path).unwrap_err().to_string();
        assert!(error.contains(reason), "{error} (expected {reason})");
        assert!(error.contains(&*path.file_name().unwrap().to_string_lossy()), "{error}");
    }
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(written(folder.path()).0).unwrap();
    let path = folder.path().join("cut.safetensors");
    for length in (0..bytes.len()).step_by(97) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(ConceptFile::read(&path).is_err(), "{length} bytes");
    }
}

#[test]
fn a_file_of_a_later_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = written(folder.path());
    let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
    assert!(text.contains(r#""personalize.format_version":"1""#));
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = br#"format_version":"1"#;
    let at = bytes.windows(needle.len()).position(|w| w == needle).unwrap();
    bytes[at + needle.len() - 1] = b'9';
    std::fs::write(&path, bytes).unwrap();
    assert!(
        matches!(ConceptFile::read(&path), Err(FileError::Newer { found, .. }) if found == "9")
    );
}

#[test]
fn half_precision_copies_of_a_base_are_the_same_base_and_others_are_not() {
    let base = |sketch: &[f32]| BaseRecord { sketch: sketch.to_vec(), ..record().base.unwrap() };
    let original = base(&[0.012_345, -0.2, 0.031]);
    assert!(original.same_vocabulary(&base(&[0.012_344, -0.199_95, 0.031_006])));
    assert!(!original.same_vocabulary(&base(&[0.05, -0.2, 0.031])));
}

#[test]
fn an_xti_of_kohya_s_tools_is_read_layer_by_layer() {
    let folder = tempfile::tempdir().unwrap();
    let keys = [
        "IN01", "IN02", "IN04", "IN05", "IN07", "IN08", "MID", "OUT03", "OUT04", "OUT05", "OUT06",
        "OUT07", "OUT08", "OUT09", "OUT10", "OUT11",
    ];
    let tensors: Vec<_> = keys.iter().map(|key| (*key, Dtype::F16, &[2usize, 768][..])).collect();
    let read = ConceptFile::read(&foreign(folder.path(), "ink.safetensors", &tensors)).unwrap();
    assert_eq!((read.record.method.as_str(), read.record.token.as_str()), ("xti", "<ink>"));
    assert_eq!(read.concept().varies().layers(), Some(16));
    assert_eq!((read.num_vectors(), read.width()), (2, 768));
    let missing = foreign(folder.path(), "cut.safetensors", &tensors[1..]);
    assert!(ConceptFile::read(&missing).unwrap_err().to_string().contains("holds 15: IN02"));
}
