//! Each part of the built-in base starts to learn, can be interrupted and goes on, on tiny runs.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use models::folder::ModelFolder;
use models::tokenizer::Tokenizer;
use models::unet::{Conditioning, CrossAttnContext, KeyValue};
use pipelines::photos::to_tensor;
use tch::{Device, Kind, Tensor};
use toybox::World;
use toybox::pretrain::{Options, Part, Report, pretrain};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.extension().is_none_or(|e| e != "safetensors") {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn options(folder: &Path, steps: u64) -> Options {
    Options {
        world: World::Fine,
        base: folder.join("base"),
        work: folder.join("work"),
        steps,
        batch_size: 2,
        pictures: 8,
        learning_rate: 1e-3,
        seed: 3,
        sample_every: 0,
        device: "cpu".into(),
        precision: "bf16".into(),
        resume: false,
        warm_start: false,
    }
}

/// The losses of a run.
fn losses(part: Part, options: &Options) -> Vec<f64> {
    let mut losses = Vec::new();
    let mut listen = |report: Report<'_>| {
        if let Report::Step(record) = report {
            losses.push(record.loss);
        }
        ControlFlow::Continue(())
    };
    pretrain(part, options, &mut listen).unwrap();
    losses
}

#[test]
fn a_base_is_made_part_by_part_and_each_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/toybox");
    copy(&shipped, &folder.path().join("base"));
    let (first, both) = (options(folder.path(), 2), options(folder.path(), 3));

    losses(Part::Tokenizer, &first);
    let tokenizer = Tokenizer::open(&folder.path().join("base/tokenizer")).unwrap();
    for word in toybox::VOCABULARY {
        assert_eq!(tokenizer.encode(word).len(), 1, "{word} is one token");
    }
    assert!(!tokenizer.encode("zebra, 猫!").is_empty());

    for part in [Part::Clip, Part::Vae, Part::Unet] {
        let start = losses(part, &first);
        assert_eq!(start.len(), 2);
        assert!(start.iter().all(|loss| loss.is_finite()));
        let rest = losses(part, &Options { resume: true, ..both.clone() });
        assert_eq!(rest.len(), 1, "{part:?} does the third step only");
    }
    let base = ModelFolder::open(&folder.path().join("base"), None).unwrap();
    base.load_text_encoder(Kind::Float, Device::Cpu).unwrap();
    base.load_unet(Kind::Float, Device::Cpu).unwrap();
    let vae = base.load_vae(Kind::Float, Device::Cpu).unwrap();
    let pictures: Vec<Tensor> =
        (0..8).map(|k| to_tensor(&toybox::sample(World::Fine, 9, k).0.draw())).collect();
    let latents = vae.encode(&Tensor::cat(&pictures, 0));
    let spread = latents.mean.std(true).double_value(&[]);
    assert!((spread - 1.0).abs() < 0.3, "the computed encoder spreads latents by {spread}");
    let apart = latents.mean.std_dim([0, 2, 3].as_slice(), true, false).min().double_value(&[]);
    assert!(apart > 0.2, "one of its components says next to nothing: {apart}");
}

#[test]
fn a_part_whose_weights_could_not_be_written_has_no_state_that_says_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/toybox");
    copy(&shipped, &folder.path().join("base"));
    fs::create_dir(folder.path().join("base/text_encoder/model.safetensors")).unwrap();
    let options = options(folder.path(), 1);
    pretrain(Part::Clip, &options, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(folder.path().join("work/clip").is_dir());
    assert!(!folder.path().join("work/clip/state.safetensors").exists());
}

#[test]
fn a_widened_network_goes_on_where_the_narrow_one_was() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/toybox");
    let narrow = folder.path().join("base");
    copy(&shipped, &narrow);
    for part in ["vae", "text_encoder"] {
        let weights = shipped.join(part).read_dir().unwrap().map(|entry| entry.unwrap().path());
        for file in weights.filter(|path| path.extension().is_some_and(|e| e == "safetensors")) {
            fs::copy(&file, narrow.join(part).join(file.file_name().unwrap())).unwrap();
        }
    }
    let config = narrow.join("unet/config.json");
    let mut shape: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    shape["block_out_channels"] = serde_json::json!([32, 96, 128, 128]);
    fs::write(&config, shape.to_string()).unwrap();
    losses(Part::Unet, &options(folder.path(), 1));
    let wide = folder.path().join("wide");
    copy(&narrow, &wide);
    let weights = "unet/diffusion_pytorch_model.safetensors";
    fs::copy(narrow.join(weights), wide.join(weights)).unwrap();
    toybox::pretrain::widen(&wide).unwrap();

    let draw = torch_ext::Generator::cpu(5);
    let latents = draw.randn(&[2, 24, 16, 16]);
    let context =
        Conditioning::context(CrossAttnContext::Shared(KeyValue::same(draw.randn(&[2, 77, 128]))));
    let predict = |folder: &Path| {
        let unet =
            ModelFolder::open(folder, None).unwrap().load_unet(Kind::Float, Device::Cpu).unwrap();
        let timesteps = Tensor::from_slice(&[300i64, 700]);
        (
            unet.config().block_out_channels[0],
            tch::no_grad(|| unet.forward(&latents, &timesteps, &context)),
        )
    };
    let ((width, before), (doubled, after)) = (predict(&narrow), predict(&wide));
    assert_eq!(doubled, 2 * width);
    let share =
        ((&after - &before).square().sum(Kind::Double) / before.square().sum(Kind::Double)).sqrt();
    let share = share.double_value(&[]); // of group norms over two levels, whose groups move
    assert!(share < 0.25, "apart by {share}");
}
