//! NeTI against a reference written from its paper (`scripts/fixtures/neti.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use embeddings::file::ConceptFile;
use embeddings::{Adjustment, Concept, Conditioner, Injection, Overflow, Site};
use models::schedule::NoiseSchedule;
use models::unet::{Conditioning, CrossAttnContext, KeyValue};
use parity::{FAMILIES, Fixture, GRADIENTS, OUTPUTS, clip_text, folder, input, path, unet};
use tch::{Kind, Tensor};

fn concept(family: &str) -> Box<dyn Concept> {
    let file = ConceptFile::read(&path(&format!("{family}/neti_concept.safetensors"))).unwrap();
    file.concept()
}

/// Token vectors and directions of the bypass, `[L, B, D]` each.
fn outputs(concept: &dyn Concept, timesteps: &Tensor, layers: i64) -> (Tensor, Tensor) {
    let Injection::InputWithBypass { input, bypass } =
        concept.inject(&Site::new(timesteps, layers, None))
    else {
        panic!("it has a bypass")
    };
    let by_layer = |x: Tensor| x.reshape([layers, timesteps.size()[0], -1]);
    (by_layer(input), by_layer(bypass))
}

fn unit(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2, [-1], true)
}

#[test]
fn the_mapper_s_vectors_and_directions_are_python_s_truncated_or_not() {
    for family in FAMILIES {
        let fixture = Fixture::open(&format!("{family}/neti.safetensors"));
        let timesteps = Tensor::from_slice(&fixture.setting::<Vec<i64>>("timesteps"));
        for (name, truncation) in
            [("outputs", None), ("truncated", Some(fixture.setting("truncation")))]
        {
            let mut concept = concept(family);
            concept.adjust(&Adjustment { truncation, ..Adjustment::default() }).unwrap();
            let theirs = fixture.tensor(name);
            let width = theirs.size()[2] / 2;
            let (vectors, bypass) = outputs(&*concept, &timesteps, theirs.size()[0]);
            // The bypass has lost its length here, so it is given Python's for the comparison.
            let length = theirs.narrow(2, width, width).norm_scalaropt_dim(2, [-1], true);
            let ours = Tensor::cat(&[vectors, unit(&bypass) * length], 2);
            fixture.agrees(name, &ours, OUTPUTS);
            let strength = bypass.norm_scalaropt_dim(2, [-1], false) - 0.2;
            assert!(strength.abs().max().double_value(&[]) < 1e-6, "a fifth of the row");
        }
    }
}

#[test]
fn contexts_loss_and_the_gradient_of_every_weight_are_python_s() {
    for family in FAMILIES {
        let fixture = Fixture::open(&format!("{family}/neti.safetensors"));
        let (base, unet) = (folder(family), unet(family));
        let conditioner = Conditioner::new(base.tokenizer().unwrap(), clip_text(family), 0);
        let concept = concept(family);
        let parameters = concept.parameters();
        for parameter in &parameters {
            let _ = parameter.set_requires_grad(true); // the same tensor that the concept reads
        }
        let timesteps = Tensor::from_slice(&fixture.setting::<Vec<i64>>("timesteps"));
        let prompts = ["a photo of a <toy> in the snow", "a painting of a <toy> on the beach"]
            .map(|prompt| conditioner.tokenize(prompt, &[&*concept], Overflow::Refuse).unwrap());
        let at: usize = fixture.setting("concept_at");
        assert!(prompts.iter().all(|prompt| prompt.slots[0].position == at));

        let context = conditioner.encode_at(&prompts.each_ref(), &[&*concept], &timesteps, None);
        let CrossAttnContext::PerLayer(layers) = &context else { panic!("a context a layer") };
        assert_eq!(layers.len(), unet.layer_count());
        let rows = Tensor::from_slice(&fixture.setting::<Vec<i64>>("rows"));
        let stack = |of: fn(&KeyValue) -> &Tensor| {
            let all: Vec<&Tensor> = layers.iter().map(of).collect();
            Tensor::stack(&all, 0).index_select(2, &rows) // [L, B, rows, D]
        };
        fixture.agrees("key_rows", &stack(|kv| &kv.key), OUTPUTS);
        fixture.agrees("value_rows", &stack(|kv| &kv.value), OUTPUTS);

        let schedule = NoiseSchedule::new(&base.scheduler).unwrap();
        let latents = input("neti/latents", &[2, 4, 16, 16]);
        let noise = input("neti/noise", &[2, 4, 16, 16]);
        let noisy = schedule.add_noise(&latents, &noise, &timesteps);
        let target = schedule.target(&latents, &noise, &timesteps);
        let prediction = unet.forward(&noisy, &timesteps, &Conditioning::context(context));
        fixture.agrees("prediction", &prediction, OUTPUTS);
        let loss = (prediction - target).square().mean(Kind::Float);
        fixture.agrees("loss", &loss, OUTPUTS);
        let gradients = Tensor::run_backward(&[loss], &parameters, false, false);
        let names = concept.tensors().into_iter().map(|(name, _)| name);
        let names: Vec<String> =
            names.filter(|name| name.ends_with(".weight") || name.ends_with(".bias")).collect();
        assert_eq!(names.len(), gradients.len());
        for (name, gradient) in names.iter().zip(&gradients) {
            fixture.agrees(&format!("gradient.{name}"), gradient, GRADIENTS);
        }
    }
}

#[test]
fn the_configuration_counts_the_layers_of_the_network() {
    for family in FAMILIES {
        let layers = folder(family).unet.cross_attention_layers();
        assert_eq!(layers, unet(family).layer_count() as i64, "{family}");
    }
}
