//! Concepts of every kind through the conditioner: where each enters, and that they do not disturb each other.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::{Path, PathBuf};

use embeddings::file::ConceptFile;
use embeddings::{
    Adjustment, Concept, Conditioner, Cones, ConesRows, ConesSettings, MapperConfig, Mixed, Neti,
    NetiSettings, NormMode, Overflow, TextualInversion, Varies, Xti,
};
use models::clip::{ClipText, ClipTextConfig};
use models::params::Params;
use models::seeded::Seeded;
use models::tokenizer::Tokenizer;
use models::unet::{CrossAttnContext, KeyValue};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

const WIDTH: i64 = 64;
const LAYERS: i64 = 5;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/sd1")
}

fn conditioner() -> Conditioner {
    let config = std::fs::read_to_string(fixtures().join("text_encoder/config.json")).unwrap();
    let config: ClipTextConfig = serde_json::from_str(&config).unwrap();
    let source = Seeded::new("text_encoder", Seeded::BASE_SEED, Kind::Float, Device::Cpu);
    let clip = ClipText::new(&Params::root(&source), &config);
    Conditioner::new(Tokenizer::open(&fixtures().join("tokenizer")).unwrap(), clip, 0)
}

fn random(seed: u64, shape: &[i64]) -> Tensor {
    Generator::cpu(seed).randn(shape) * 0.02
}

fn neti(word: &str, class: &Tensor) -> Neti {
    let settings = NetiSettings {
        mapper: MapperConfig {
            layers: LAYERS,
            outputs: 0,
            hidden: 16,
            positional_encoding: true,
            sigma_time: 0.03,
            sigma_layer: 2.0,
            time_anchors: 10,
            nested_dropout: 0.5,
        },
        norm_mode: NormMode::Joint,
        target_norm: 0.0,
        output_bypass: true,
        bypass_strength: 0.2,
        residual: false,
    };
    Neti::initialize(word, &settings, class, &Generator::cpu(5))
}

/// Encodes prompts, each at its own timestep.
fn encode(
    conditioner: &Conditioner,
    prompts: &[&str],
    concepts: &[&dyn Concept],
    timesteps: &[f32],
) -> CrossAttnContext {
    let tokens = |p: &&str| conditioner.tokenize(p, concepts, Overflow::Refuse).unwrap();
    let tokens: Vec<_> = prompts.iter().map(tokens).collect();
    let tokens: Vec<_> = tokens.iter().collect();
    conditioner.encode_at(&tokens, concepts, &Tensor::from_slice(timesteps), None)
}

fn layers(context: CrossAttnContext) -> Vec<KeyValue> {
    match context {
        CrossAttnContext::PerLayer(layers) => layers,
        CrossAttnContext::Shared(_) => panic!("a context for each layer was expected"),
    }
}

fn shared(context: CrossAttnContext) -> KeyValue {
    match context {
        CrossAttnContext::Shared(shared) => shared,
        CrossAttnContext::PerLayer(_) => panic!("one context was expected"),
    }
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn xti_with_the_same_vectors_everywhere_is_textual_inversion_at_every_layer() {
    let conditioner = conditioner();
    let vectors = random(1, &[2, WIDTH]);
    let plain = TextualInversion::new("<x>", &vectors);
    let extended = Xti::new("<x>", &vectors.unsqueeze(0).repeat([LAYERS, 1, 1]));
    let prompts = ["a photo of <x> in the snow", "<x>"];
    let once = shared(encode(&conditioner, &prompts, &[&plain], &[0.0; 2]));
    let each = layers(encode(&conditioner, &prompts, &[&extended], &[0.0; 2]));
    assert_eq!(each.len(), LAYERS as usize);
    for kv in &each {
        assert!(apart(&kv.key, &once.key) < 1e-5 && apart(&kv.value, &once.value) < 1e-5);
    }
}

#[test]
fn each_layer_sees_its_own_vector_of_an_xti_and_its_own_gradient() {
    let conditioner = conditioner();
    let concept = Xti::new("<x>", &random(1, &[LAYERS, 1, WIDTH])).trainable();
    let each = layers(encode(&conditioner, &["a <x>"], &[&concept], &[0.0]));
    for (layer, kv) in each.iter().enumerate() {
        let alone = TextualInversion::new("<x>", &concept.vectors().get(layer as i64));
        let alone = shared(encode(&conditioner, &["a <x>"], &[&alone], &[0.0]));
        assert!(apart(&kv.key, &alone.key) < 1e-5, "layer {layer}");
    }
    let loss = each[3].key.square().sum(Kind::Float);
    let gradient = &Tensor::run_backward(&[loss], &[concept.vectors()], false, false)[0];
    let norms = Vec::<f32>::try_from(gradient.norm_scalaropt_dim(2, [1, 2], false)).unwrap();
    assert!(norms[3] > 1e-3 && norms.iter().filter(|norm| **norm > 0.0).count() == 1, "{norms:?}");
}

#[test]
fn bypass_changes_values_but_not_keys() {
    let conditioner = conditioner();
    let class = conditioner.token_table().narrow(0, 300, 1);
    let concept = neti("<x>", &class);
    let prompt = "a photo of <x> in the snow";
    let slot = conditioner.tokenize(prompt, &[&concept], Overflow::Refuse).unwrap().slots[0];
    let at = |t: f32| layers(encode(&conditioner, &[prompt], &[&concept], &[t]));
    let (early, late) = (at(900.0), at(20.0));
    for (layer, kv) in early.iter().enumerate() {
        let moved = (&kv.value - &kv.key).abs().amax([0, 2], false); // [S]
        let moved = Vec::<f32>::try_from(moved).unwrap();
        for (position, gap) in moved.iter().enumerate() {
            assert_eq!(*gap > 0.0, position == slot.position, "layer {layer}, row {position}");
        }
        let before = slot.position as i64;
        let same = [&early[0], &late[layer]];
        for other in same {
            let gap = apart(&kv.key.narrow(1, 0, before), &other.key.narrow(1, 0, before));
            assert!(gap < 1e-6, "CLIP is causal: rows before the concept do not depend on it");
        }
        assert!(apart(&kv.key, &late[layer].key) > 1e-3, "it depends on the timestep");
    }
    let without = Adjustment { bypass: Some(0.0), ..Adjustment::default() };
    let mut concept = neti("<x>", &class);
    concept.adjust(&without).unwrap();
    for kv in layers(encode(&conditioner, &[prompt], &[&concept], &[900.0])) {
        assert!(apart(&kv.key, &kv.value) < 1e-6);
    }
}

#[test]
fn at_strength_zero_every_method_is_the_plain_word_of_its_class() {
    let conditioner = conditioner();
    let ids = Tokenizer::open(&fixtures().join("tokenizer")).unwrap().encode("cat");
    let class = conditioner.token_table().index_select(0, &Tensor::from_slice(&ids));
    assert_eq!(class.size(), [1, WIDTH], "one token");
    let plain = shared(encode(&conditioner, &["a photo of cat in the snow"], &[], &[0.0]));
    let mut concepts: Vec<Box<dyn Concept>> = vec![
        Box::new(TextualInversion::new("<x>", &random(1, &[1, WIDTH]))),
        Box::new(Xti::new("<x>", &random(2, &[LAYERS, 1, WIDTH]))),
        Box::new(neti("<x>", &class)),
    ];
    for concept in &mut concepts {
        let learnt = encode(&conditioner, &["a photo of <x> in the snow"], &[&**concept], &[7.0]);
        let key = learnt.map(Tensor::shallow_clone);
        let class_vectors = Some(class.shallow_clone());
        let adjustment = Adjustment { strength: Some(0.0), class_vectors, ..Adjustment::default() };
        concept.adjust(&adjustment).unwrap();
        let found = encode(&conditioner, &["a photo of <x> in the snow"], &[&**concept], &[7.0]);
        let of = |context: CrossAttnContext| match context {
            CrossAttnContext::Shared(kv) => vec![kv],
            CrossAttnContext::PerLayer(layers) => layers,
        };
        for (kv, before) in of(found).iter().zip(of(key)) {
            assert!(apart(&kv.key, &plain.key) < 1e-5 && apart(&kv.value, &plain.value) < 1e-5);
            assert!(apart(&before.key, &plain.key) > 1e-3, "it was something else before");
        }
    }
}

fn cones(
    word: &str,
    rows: ConesRows,
    words: &str,
    values: &Tensor,
    tail: Option<&Tensor>,
) -> Cones {
    let words = Tokenizer::open(&fixtures().join("tokenizer")).unwrap().encode(words);
    let settings = ConesSettings { rows, words, limits: Vec::new(), tail_strength: 1.0 };
    Cones::new(word, settings, values, tail)
}

#[test]
fn a_residual_of_zero_or_strength_zero_is_the_class_to_the_bit_and_another_changes_its_rows_only() {
    let conditioner = conditioner();
    let encode = |prompt: &str, concepts: &[&dyn Concept]| {
        shared(encode(&conditioner, &[prompt], concepts, &[0.0])).value
    };
    let count = conditioner.words("old cat").len() as i64;
    assert!(count > 1, "a class of several tokens");
    let concept = |values: &Tensor| cones("<x>", ConesRows::Noun, "old cat", values, None);
    let (zero, one) = (random(1, &[count, WIDTH]) * 0.0, random(1, &[count, WIDTH]) * 50.0);
    for prompt in ["<x> in the snow", "a photo of <x>", "<x> beside a <x> here"] {
        let class = encode(&prompt.replace("<x>", "old cat"), &[]);
        assert_eq!(encode(prompt, &[&concept(&zero)]), class);
        let mut off = concept(&one);
        off.adjust(&Adjustment { strength: Some(0.0), ..Adjustment::default() }).unwrap();
        assert_eq!(encode(prompt, &[&off]), class);
        let learnt = concept(&one);
        let tokens = conditioner.tokenize(prompt, &[&learnt], Overflow::Refuse).unwrap();
        let moved = encode(prompt, &[&learnt]) - &class;
        for position in 0..77 {
            let row = moved.select(1, position).squeeze_dim(0);
            match tokens.slots.iter().find(|slot| slot.position == position as usize) {
                Some(slot) => assert!(apart(&row, &one.get(slot.vector as i64)) < 1e-5),
                None => assert_eq!(row, row.zeros_like(), "row {position}"),
            }
        }
    }
}

#[test]
fn two_residuals_keep_out_of_each_other_s_rows() {
    let conditioner = conditioner();
    let values = |seed| random(seed, &[1, WIDTH]) * 50.0;
    let cat = cones("<a>", ConesRows::Noun, "cat", &values(1), None);
    let dog = cones("<b>", ConesRows::Noun, "dog", &values(2), None);
    let prompt = "a <a> beside a <b>";
    let both = shared(encode(&conditioner, &[prompt], &[&cat, &dog], &[0.0])).key;
    let alone = |word: &str, other: &str, concept: &Cones| {
        let prompt = prompt.replace(word, other);
        shared(encode(&conditioner, &[prompt.as_str()], &[concept], &[0.0])).key
    };
    let plain = shared(encode(&conditioner, &["a cat beside a dog"], &[], &[0.0])).key;
    let sum = alone("<b>", "dog", &cat) + alone("<a>", "cat", &dog) - plain;
    assert!(apart(&both, &sum) < 1e-5);
}

#[test]
fn replaced_rows_a_tail_and_a_whole_prompt_stand_where_they_should() {
    let conditioner = conditioner();
    let encode = |prompt: &str, concepts: &[&dyn Concept]| {
        shared(encode(&conditioner, &[prompt], concepts, &[0.0])).key.squeeze_dim(0)
    };
    let class = encode("a photo of cat", &[]);
    let rows = random(3, &[1, WIDTH]) * 50.0;
    let replace = cones("<x>", ConesRows::NounReplace, "cat", &rows, None);
    let found = encode("a photo of <x>", &[&replace]);
    assert!(apart(&found.narrow(0, 4, 1), &rows) < 1e-6);
    assert_eq!(found.narrow(0, 0, 4), class.narrow(0, 0, 4));
    assert_eq!(found.narrow(0, 5, 72), class.narrow(0, 5, 72));

    let tail = random(4, &[3, WIDTH]) * 50.0;
    let with_tail = cones("<x>", ConesRows::Noun, "cat", &(&rows * 0.0), Some(&tail));
    let found = encode("a photo of <x>", &[&with_tail]);
    assert!(apart(&found.narrow(0, 74, 3), &tail) < 1e-6);
    assert_eq!(found.narrow(0, 0, 74), class.narrow(0, 0, 74));
    let long = format!("<x> {}", "snow ".repeat(72));
    let error = conditioner.tokenize(&long, &[&with_tail], Overflow::Refuse).unwrap_err();
    assert!(error.to_string().contains("72 fit"), "{error}");

    let whole = random(5, &[77, WIDTH]) * 50.0;
    let prompt = cones("<x>", ConesRows::Prompt, "cat", &whole, None);
    assert!(apart(&encode("<x>", &[&prompt]), &whole) < 1e-6);
    let error = conditioner.tokenize("a <x>", &[&prompt], Overflow::Refuse).unwrap_err();
    assert!(error.to_string().contains("other text beside <x>"), "{error}");
}

#[test]
fn without_the_text_encoder_the_context_and_its_gradient_stay_as_they_were() {
    let conditioner = conditioner();
    let concept = cones("<x>", ConesRows::Noun, "cat", &(random(1, &[1, WIDTH]) * 50.0), None);
    let prompts = ["a photo of <x>", "<x> in the snow"]
        .map(|p| conditioner.tokenize(p, &[&concept], Overflow::Refuse).unwrap());
    let gradient = |conditioner: &Conditioner| {
        let key = shared(conditioner.encode(&prompts.each_ref(), &[&concept])).key;
        let loss = key.square().sum(Kind::Float);
        let gradient = Tensor::run_backward(&[loss], &concept.parameters(), false, false);
        (key.detach(), gradient[0].copy())
    };
    let with = gradient(&conditioner);
    let mut released = conditioner;
    released.release_encoder(&prompts.each_ref());
    let without = gradient(&released);
    assert!(apart(&with.0, &without.0) < 1e-6 && apart(&with.1, &without.1) < 1e-4);
    assert!(with.1.abs().max().double_value(&[]) > 1.0);
}

#[test]
fn a_step_beyond_the_limit_is_brought_back_and_a_shorter_one_is_not() {
    let concept = cones("<x>", ConesRows::Noun, "cat", &(random(1, &[1, WIDTH]) * 50.0), None);
    let limited = |limit: f64| {
        let settings = ConesSettings { limits: vec![limit], ..concept.cones_settings().clone() };
        let limited = Cones::new("<x>", settings, &concept.parameters()[0], None);
        limited.after_step();
        limited.parameters()[0].detach().copy()
    };
    let before = concept.parameters()[0].detach().copy();
    let length = before.norm().double_value(&[]);
    assert_eq!(limited(length * 1.01), before);
    let shorter = limited(length / 2.0);
    assert!((shorter.norm().double_value(&[]) * 2.0 - length).abs() < 1e-5 * length);
    assert!(apart(&(shorter * 2.0), &before) < 1e-5, "the direction is kept");
}

#[test]
fn concepts_of_all_methods_share_a_prompt_and_a_batch() {
    let conditioner = conditioner();
    let class = conditioner.token_table().narrow(0, 300, 1);
    let (a, b, c, d) = (
        TextualInversion::new("<a>", &random(1, &[2, WIDTH])),
        Xti::new("<b>", &random(2, &[LAYERS, 1, WIDTH])),
        neti("<c>", &class),
        cones("<d>", ConesRows::Noun, "cat", &(random(3, &[1, WIDTH]) * 50.0), None),
    );
    let concepts: [&dyn Concept; 4] = [&a, &b, &c, &d];
    let prompts = ["<c> and <a> beside a <b> on <d>", "a <c> twice <c>", "a <d>", "only snow"];
    let timesteps = [900.0, 10.0, 500.0, 3.0];
    let both = layers(encode(&conditioner, &prompts, &concepts, &timesteps));
    for (i, (prompt, timestep)) in prompts.iter().zip(timesteps).enumerate() {
        let alone = encode(&conditioner, &[prompt], &concepts, &[timestep]);
        for (layer, kv) in both.iter().enumerate() {
            let alone = match &alone {
                CrossAttnContext::Shared(kv) => kv,
                CrossAttnContext::PerLayer(layers) => &layers[layer],
            };
            for (ours, theirs) in [(&kv.key, &alone.key), (&kv.value, &alone.value)] {
                let gap = apart(&ours.narrow(0, i as i64, 1), theirs);
                assert!(gap < 1e-5, "'{prompt}', layer {layer}: {gap}");
            }
        }
    }
    // A prompt without a concept that varies keeps one context for all layers.
    shared(encode(&conditioner, &["a <a> in the snow"], &concepts, &[3.0]));
}

#[test]
fn a_mixture_takes_each_layer_from_its_part() {
    let conditioner = conditioner();
    let class = conditioner.token_table().narrow(0, 300, 1);
    let part = || -> Vec<Box<dyn Concept>> {
        vec![
            Box::new(Xti::new("<x>", &random(2, &[LAYERS, 1, WIDTH]))),
            Box::new(neti("<x>", &class)),
            Box::new(TextualInversion::new("<x>", &random(1, &[1, WIDTH]))),
        ]
    };
    let of_layer = [1, 0, 0, 2, 1];
    let mixed = Mixed::new(part(), of_layer.to_vec());
    assert_eq!(mixed.varies(), Varies::WithTimeAndLayer(LAYERS));
    let found = layers(encode(&conditioner, &["a <x> here"], &[&mixed], &[321.0]));
    for (layer, (kv, part_of)) in found.iter().zip(of_layer).enumerate() {
        let alone = encode(&conditioner, &["a <x> here"], &[&*part()[part_of as usize]], &[321.0]);
        let alone = match &alone {
            CrossAttnContext::Shared(kv) => kv,
            CrossAttnContext::PerLayer(layers) => &layers[layer],
        };
        assert!(apart(&kv.key, &alone.key) < 1e-5, "key of layer {layer}");
        assert!(apart(&kv.value, &alone.value) < 1e-5, "value of layer {layer}");
    }
}

#[test]
fn what_a_method_does_not_have_is_refused() {
    let conditioner = conditioner();
    let class = conditioner.token_table().narrow(0, 300, 1);
    let truncated = |units| Adjustment { truncation: Some(units), ..Adjustment::default() };
    let mut plain = TextualInversion::new("<x>", &random(1, &[1, WIDTH]));
    assert!(plain.adjust(&truncated(3)).unwrap_err().contains("no NeTI concept"));
    let half = Adjustment { strength: Some(0.5), ..Adjustment::default() };
    assert!(plain.adjust(&half).unwrap_err().contains("what class"));
    let mut mapper = neti("<x>", &class);
    assert!(mapper.adjust(&truncated(17)).unwrap_err().contains("give 1 to 16"));
    mapper.adjust(&truncated(16)).unwrap();
}

#[test]
fn every_method_comes_back_from_its_file() {
    let conditioner = conditioner();
    let class = conditioner.token_table().narrow(0, 300, 1);
    let folder = tempfile::tempdir().unwrap();
    let concepts: Vec<(&str, &str, Box<dyn Concept>)> = vec![
        ("ti", "1", Box::new(TextualInversion::new("<x>", &random(1, &[3, WIDTH])))),
        ("core", "1", Box::new(TextualInversion::new("<x>", &random(5, &[2, WIDTH])))),
        ("xti", "3", Box::new(Xti::new("<x>", &random(2, &[LAYERS, 2, WIDTH])))),
        ("neti", "3", Box::new(neti("<x>", &class))),
        (
            "cones",
            "3",
            Box::new(cones(
                "<x>",
                ConesRows::Noun,
                "cat",
                &random(3, &[1, WIDTH]),
                Some(&random(4, &[2, WIDTH])),
            )),
        ),
    ];
    for (method, version, concept) in &concepts {
        let record = serde_json::json!({ "method": method, "token": "<x>", "class": "cat" });
        let record = serde_json::from_value(record).unwrap();
        let path = folder.path().join(format!("{method}.safetensors"));
        ConceptFile::new(&**concept, record).write(&path).unwrap();
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(text.contains(&format!(r#""personalize.format_version":"{version}""#)), "{method}");
        let read = ConceptFile::read(&path).unwrap();
        assert_eq!((read.num_vectors(), read.width()), (concept.num_tokens(), WIDTH as usize));
        let read = read.concept();
        assert_eq!(read.tensors().len(), concept.tensors().len());
        let before = encode(&conditioner, &["a <x>"], &[&**concept], &[77.0]);
        let after = encode(&conditioner, &["a <x>"], &[&*read], &[77.0]);
        match (before, after) {
            (CrossAttnContext::Shared(a), CrossAttnContext::Shared(b)) => {
                assert_eq!(a.value, b.value);
            }
            (CrossAttnContext::PerLayer(a), CrossAttnContext::PerLayer(b)) => {
                assert!(a.iter().zip(&b).all(|(a, b)| a.key == b.key && a.value == b.value));
            }
            _ => panic!("{method} changed its kind"),
        }
    }
}

#[test]
fn a_file_whose_settings_do_not_fit_its_tensors_is_refused() {
    let conditioner = conditioner();
    let class = conditioner.token_table().narrow(0, 300, 1);
    let folder = tempfile::tempdir().unwrap();
    let concept = neti("<x>", &class);
    let record = serde_json::json!({ "method": "neti", "token": "<x>" });
    let mut file = ConceptFile::new(&concept, serde_json::from_value(record).unwrap());
    let path = folder.path().join("x.safetensors");
    for (key, value, reason) in [
        ("hidden", 17.into(), "net.1.weight"),
        ("layers", 0.into(), "no mapper"),
        ("time_anchors", "x".into(), "damaged"),
    ] {
        let kept = file.record.settings["mapper"][key].clone();
        file.record.settings["mapper"][key] = value;
        file.write(&path).unwrap();
        let error = ConceptFile::read(&path).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("x.safetensors"), "{error}");
        file.record.settings["mapper"][key] = kept;
    }
}
