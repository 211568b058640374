//! Concept files: ours there and back, other tools' forms, and what is refused.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use embeddings::file::{BaseRecord, ConceptFile, ConceptRecord, FileError, Origin};
use embeddings::{
    Concept, Cones, ConesRows, ConesSettings, MapperConfig, Neti, NetiSettings, NormMode,
    TextualInversion, Xti,
};
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
            pad: Some(0),
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
    let large = at("checkpoint.safetensors");
    std::fs::File::create(&large).unwrap().set_len(5 << 30).unwrap(); // a hole, no bytes
    let cases = [
        (foreign(folder.path(), "two.safetensors", &two), "clip_g, clip_l"),
        (foreign(folder.path(), "int.safetensors", &[("x", Dtype::I64, &[1, 8])]), "I64"),
        (foreign(folder.path(), "cube.safetensors", &[("x", Dtype::F32, &[1, 2, 3])]), "[1, 2, 3]"),
        (foreign(folder.path(), "none.safetensors", &[]), "holds 0"),
        (foreign(folder.path(), "empty.safetensors", &[("x", Dtype::F32, &[0, 8])]), "[0, 8]"),
        (plain("a.pt", b"PK\x03\x04rest"), "pickle"),
        (plain("b.bin", b"\x80\x02}q\x00."), "pickle"),
        (plain("text.safetensors", b"hello, this is no tensor"), "no safetensors file; give"),
        (plain("zero.safetensors", b""), "safetensors"),
        (plain("cut.safetensors", b"\x20\0\0\0\0\0\0\0{\"x\""), "not a whole safetensors file"),
        (large, "bytes, but no concept has more than"),
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

/// What a program that knows nothing of our files could take for a word's vectors: a dimension at either end that is a
/// text width, or a tensor that stands alone and has fewer than three.
fn passes_as_a_word(shapes: &[Vec<usize>], width: usize) -> bool {
    let widths = [width, 768, 1024, 1280];
    let ends = |shape: &Vec<usize>| [shape.first().copied(), shape.last().copied()];
    let at_an_end = |shape| ends(shape).into_iter().flatten().any(|end| widths.contains(&end));
    shapes.iter().any(at_an_end) || (shapes.len() == 1 && shapes[0].len() < 3)
}

fn shapes(path: &Path) -> Vec<Vec<usize>> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(_, view)| view.shape().to_vec()).collect()
}

#[test]
fn files_of_format_2_are_read_and_what_is_written_of_them_passes_nowhere_as_a_word() {
    let folder = tempfile::tempdir().unwrap();
    for (method, tensors) in [("xti", 10), ("neti", 14), ("cones", 3)] {
        let old = Path::new("tests/version2").join(method).with_extension("safetensors");
        let read = ConceptFile::read(&old).unwrap();
        assert_eq!((read.record.method.as_str(), read.width()), (method, 16));
        assert!(passes_as_a_word(&shapes(&old), 16), "{method}: what was wrong");
        let bytes = std::fs::read(&old).unwrap();
        let raw = SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in read.tensors() {
            let view = raw.tensor(name).unwrap();
            assert_eq!(torch_ext::to_bytes(tensor), view.data(), "{method}: {name}");
        }
        let new = folder.path().join("new.safetensors");
        let (concept, record) = (read.concept(), read.record.clone());
        ConceptFile::new(&*concept, record).write(&new).unwrap();
        assert!(!passes_as_a_word(&shapes(&new), 16), "{method}: {:?}", shapes(&new));
        let again = ConceptFile::read(&new).unwrap();
        assert_eq!(again.record, read.record, "{method}");
        assert_eq!(again.tensors().count(), tensors, "{method}");
        assert!(again.tensors().eq(read.tensors()), "{method}");
    }
}

#[test]
fn no_method_s_file_passes_as_a_word_at_any_usual_text_width() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let draw = Generator::cpu(1);
    for width in [768, 1024, 1280] {
        // Its hidden units are as many as the width, and its frequencies 1024.
        let mapper = MapperConfig {
            layers: 1,
            outputs: 0,
            hidden: width,
            positional_encoding: true,
            sigma_time: 0.03,
            sigma_layer: 2.0,
            time_anchors: 1,
            nested_dropout: 0.5,
        };
        let settings = NetiSettings {
            mapper,
            norm_mode: NormMode::Joint,
            target_norm: 0.0,
            output_bypass: false,
            bypass_strength: 0.2,
            residual: false,
        };
        let class = draw.randn(&[1, width]);
        let cones = ConesSettings {
            rows: ConesRows::Noun,
            words: vec![5],
            limits: Vec::new(),
            tail_strength: 1.0,
        };
        let concepts: [(&str, Box<dyn Concept>); 4] = [
            ("xti", Box::new(Xti::new("<x>", &draw.randn(&[16, 2, width])))),
            ("xti", Box::new(Xti::new("<x>", &draw.randn(&[1, 1, width])))),
            ("neti", Box::new(Neti::initialize("<x>", &settings, &class, &draw))),
            ("cones", Box::new(Cones::new("<x>", cones, &class, None))),
        ];
        for (method, concept) in concepts {
            let record = ConceptRecord { method: method.into(), token: "<x>".into(), ..record() };
            ConceptFile::new(&*concept, record).write(&path).unwrap();
            let found = shapes(&path);
            assert!(!passes_as_a_word(&found, width as usize), "{method} of {width}: {found:?}");
            let read = ConceptFile::read(&path).unwrap();
            assert_eq!(read.concept().parameters(), concept.parameters(), "{method} of {width}");
        }
    }
}

#[test]
fn an_output_embedding_of_onetrainer_is_refused_for_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |key| (key, Dtype::F32, &[3usize, 768][..]);
    for (name, tensors) in [
        ("alone", vec![rows("emp_params_out")]),
        ("beside", vec![rows("emp_params"), rows("emp_params_out")]),
        ("bundled", vec![rows("bundle_emb.cat.emp_params_out")]),
        ("named", vec![rows("clip_l_out")]),
    ] {
        let path = foreign(folder.path(), &format!("{name}.safetensors"), &tensors);
        let error = ConceptFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("output embedding of OneTrainer"), "{name}: {error}");
    }
}

#[test]
fn pickles_and_pictures_are_refused_with_the_command_that_converts_them() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, words) in [
        ("my cat's.pt", &b"PK\x03\x04rest"[..], ["weights_only=True", "string_to_param"]),
        ("old.bin", b"\x80\x02}q\x00.", ["weights_only=True", "string_to_param"]),
        ("new.bin", b"\x80\x05}q\x00.", ["weights_only=True", "string_to_param"]),
        ("cat.png", b"\x89PNG\r\n\x1a\n", ["sd-ti-embedding", "TORCHTENSOR"]),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = ConceptFile::read(&path).unwrap_err().to_string();
        assert!(!error.contains("again"), "{error}");
        let command = &error[error.find("python3 -c").unwrap()..];
        let words_of_it = shlex::split(command).unwrap();
        assert_eq!(words_of_it[3], path.to_string_lossy());
        let output = path.with_extension("safetensors");
        assert_eq!(words_of_it[4], output.to_string_lossy());
        assert!(words.iter().all(|word| words_of_it[2].contains(word)), "{error}");
    }
}

#[test]
fn absurd_numbers_of_a_file_are_refused_before_anything_is_made_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.safetensors");
    std::fs::write(&path, {
        let rows = vec![0u8; 4 * 100_000];
        let view = TensorView::new(Dtype::F32, vec![100_000, 1], &rows).unwrap();
        safetensors::serialize([("emb_params", view)], None).unwrap()
    })
    .unwrap();
    let error = ConceptFile::read(&path).unwrap_err().to_string();
    assert!(error.contains("100000 vectors") && error.contains("room for 75"), "{error}");

    for (method, needle, absurd) in [
        ("neti", r#"\"hidden\":4"#, r#"\"hidden\":1099511627776"#),
        ("neti", r#"\"layers\":10"#, r#"\"layers\":1099511627776"#),
        ("neti", r#"\"time_anchors\":1"#, r#"\"time_anchors\":4611686018427387905"#),
        ("neti", r#"\"bypass_strength\":0.2"#, r#"\"bypass_strength\":1e300"#),
        ("cones", r#"\"tail_strength\":0.8"#, r#"\"tail_strength\":-1e300"#),
        ("cones", r#"\"limits\":["#, r#"\"limits\":[1,2,3,"#),
    ] {
        let old = Path::new("tests/version2").join(method).with_extension("safetensors");
        let error = with_header(&old, &path, needle, absurd);
        assert!(error.contains("settings are those of no"), "{absurd}: {error}");
    }
    // A number in the place of a matrix: nothing is looked up in a shape that has no dimension.
    let scalar = with_header(
        &Path::new("tests/version2").join("neti.safetensors"),
        &path,
        r#""encoder.w":{"dtype":"F32","shape":[1024,2],"data_offsets":[64,8256]}"#,
        r#""encoder.w":{"dtype":"F32","shape":[],"data_offsets":[64,68]},"rest":{"dtype":"F32","shape":[2047],"data_offsets":[68,8256]}"#,
    );
    assert!(scalar.contains("encoder.w is []"), "{scalar}");
}

/// The refusal of `old` with other words in its header, as `path`.
fn with_header(old: &Path, path: &Path, needle: &str, other: &str) -> String {
    let bytes = std::fs::read(old).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..end]).unwrap();
    assert!(header.contains(needle), "{needle} is not in {header}");
    let header = header.replace(needle, other);
    let size = (header.len() as u64).to_le_bytes();
    std::fs::write(path, [&size, header.as_bytes(), &bytes[end..]].concat()).unwrap();
    ConceptFile::read(path).unwrap_err().to_string()
}

#[test]
fn a_record_from_before_padding_was_written_says_nothing_of_it() {
    let mut base = serde_json::to_value(record().base.unwrap()).unwrap();
    assert_eq!(base["pad"], 0);
    base.as_object_mut().unwrap().remove("pad");
    let base: BaseRecord = serde_json::from_value(base).unwrap();
    assert_eq!(base.pad, None);
    assert!(!serde_json::to_string(&base).unwrap().contains("pad"));
}
