//! CoRe's regularisers on concepts that vary with the layer and the timestep, on the small models of the fixtures.

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use embeddings::{
    Concept, Conditioner, MapperConfig, Neti, NetiSettings, NormMode, Overflow, PromptTokens,
    TextualInversion, Xti,
};
use models::schedule::NoiseSchedule;
use models::unet::{CrossAttnContext, UNet};
use parity::{FAMILIES, clip_text, folder, input, unet};
use pipelines::objective::{
    AttentionReduction, ContextAttention, ContextEmbedding, ContextPrompts, CosineAxis, LossTerm,
    PhotoBatch, Reconstruction, SharedQueries, SharedQueryAttention, StepInputs,
};
use tch::{Kind, Tensor};
use torch_ext::Generator;

const PROMPT: &str = "a painting of a <toy> on the beach";
const LAYERS: i64 = 16;

fn conditioner(family: &str) -> Conditioner {
    Conditioner::new(folder(family).tokenizer().unwrap(), clip_text(family), 0)
}

fn prompts<'a>(conditioner: &'a Conditioner, concept: &'a dyn Concept) -> ContextPrompts<'a> {
    let pair = conditioner.pair(PROMPT, &[concept], &["cat"]).unwrap();
    ContextPrompts::new(conditioner, vec![concept], vec![pair])
}

fn step(photos: Option<PhotoBatch>) -> StepInputs {
    StepInputs {
        index: 0,
        x_t: input("core/x_t", &[2, 4, 16, 16]),
        timesteps: Tensor::from_slice(&[41i64, 873]),
        photos,
        context_prompt: 0,
    }
}

/// A mapper for "cat".
fn mapper(conditioner: &Conditioner, residual: bool, output_bypass: bool) -> Neti {
    let settings = NetiSettings {
        mapper: MapperConfig {
            layers: LAYERS,
            outputs: 0,
            hidden: 16,
            positional_encoding: true,
            sigma_time: 0.03,
            sigma_layer: 2.0,
            time_anchors: 2,
            nested_dropout: 0.5,
        },
        norm_mode: NormMode::Token,
        target_norm: 0.0,
        output_bypass,
        bypass_strength: 0.2,
        residual,
    };
    let table = conditioner.token_table();
    let ids = Tensor::from_slice(&conditioner.words("cat"));
    Neti::initialize("<toy>", &settings, &table.index_select(0, &ids), &Generator::cpu(7))
}

/// The embedding loss, the attention loss of passes of its own, and that of shared queries.
fn losses(
    conditioner: &Conditioner,
    (family, unet): (&str, &UNet),
    concept: &dyn Concept,
) -> [Tensor; 3] {
    let (prompts, draw) = (prompts(conditioner, concept), Generator::cpu(1));
    let schedule = NoiseSchedule::new(&folder(family).scheduler).unwrap();
    let reduction = AttentionReduction::LayerMean;
    let tokens = conditioner.tokenize("a photo of a <toy>", &[concept], Overflow::Refuse).unwrap();
    let queries = SharedQueries::new(&prompts, unet);
    let mut reconstruction = Reconstruction {
        schedule: &schedule,
        conditioner,
        unet,
        concept,
        min_snr_gamma: 0.0,
        queries: Some(&queries),
    };
    let target = input("core/target", &[2, 4, 16, 16]);
    let photos = PhotoBatch { target, prompts: vec![tokens.clone(), tokens] };
    let _ = reconstruction.loss(&step(Some(photos)), &draw);
    let shared = SharedQueryAttention { queries: &queries, reduction }.loss(&step(None), &draw);
    let axis = CosineAxis::Feature;
    [
        ContextEmbedding { prompts: &prompts, axis }.loss(&step(None), &draw),
        ContextAttention { prompts: &prompts, unet, reduction }.loss(&step(None), &draw),
        shared,
    ]
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

#[test]
fn the_same_vectors_in_every_layer_have_the_losses_and_gradients_of_one_for_all() {
    for family in FAMILIES {
        let (conditioner, unet) = (conditioner(family), unet(family));
        let vectors = input("core/concept", &[2, folder(family).text_encoder.hidden_size]) * 0.1;
        let plain = TextualInversion::new("<toy>", &vectors).trainable();
        let layered = Xti::new("<toy>", &vectors.unsqueeze(0).repeat([LAYERS, 1, 1])).trainable();
        let one = losses(&conditioner, (family, &unet), &plain);
        let many = losses(&conditioner, (family, &unet), &layered);
        for (number, (one, many)) in one.iter().zip(&many).enumerate() {
            let (a, b) = (one.double_value(&[]), many.double_value(&[]));
            assert!((a - b).abs() < 1e-4 * a, "{family}, loss {number}: {a:e} {b:e}");
            let slope = |loss: &Tensor, of: &Tensor| {
                Tensor::run_backward(&[loss], &[of], true, false).remove(0)
            };
            let (a, b) = (slope(one, plain.vectors()), slope(many, layered.vectors()));
            assert_eq!(b.size()[0], LAYERS);
            let apart = largest(&(b.sum_dim_intlist([0i64].as_slice(), false, Kind::Float) - &a));
            assert!(apart < 1e-3 * largest(&a), "{family}, loss {number}: {apart:e}");
        }
    }
}

#[test]
fn a_mapper_that_adds_to_the_class_starts_where_both_losses_vanish() {
    for family in FAMILIES {
        let (conditioner, unet) = (conditioner(family), unet(family));
        let values = |concept: &Neti| {
            losses(&conditioner, (family, &unet), concept).map(|loss| loss.double_value(&[]))
        };
        let [embedding, attention, shared] = values(&mapper(&conditioner, true, false));
        assert!(embedding.abs() <= 1e-6, "{family}: {embedding:e}");
        assert!(attention <= 1e-10 && shared <= 1e-10, "{family}: {attention:e} {shared:e}");
        // A bypass shows in later layers' queries, and neither in encodings nor in keys.
        let [embedding, _, shared] = values(&mapper(&conditioner, true, true));
        assert!(embedding.abs() <= 1e-6 && shared <= 1e-10, "{family}: {embedding:e} {shared:e}");
        let [plain, ..] = values(&mapper(&conditioner, false, true));
        assert!(plain > 1e-5, "{family}: a mapper of the release starts elsewhere, {plain:e}");
    }
}

#[test]
fn the_bypass_gathers_no_gradient_from_the_regularisers() {
    let (conditioner, unet) = (conditioner("sd1"), unet("sd1"));
    let concept = mapper(&conditioner, false, true);
    let width = concept.width();
    for loss in losses(&conditioner, ("sd1", &unet), &concept) {
        let parameters = concept.parameters();
        let gradients = Tensor::run_backward(&[loss], &parameters, true, false);
        let output = &gradients[parameters.len() - 2]; // the output layer's weight, [2 D, H]
        assert_eq!(output.size()[0], 2 * width);
        assert!(largest(&output.narrow(0, 0, width)) > 0.0);
        assert!(largest(&output.narrow(0, width, width)) == 0.0);
    }
}

#[test]
fn a_twin_of_the_draws_gives_the_regularisers_the_mapper_of_the_photos_pass() {
    let conditioner = conditioner("sd1");
    let concept = mapper(&conditioner, false, true);
    let prompts = prompts(&conditioner, &concept);
    let object = &prompts.pair(0).object;
    let (timesteps, draw) = (step(None).timesteps, Generator::cpu(4));
    let keys = |context: CrossAttnContext| match context {
        CrossAttnContext::PerLayer(layers) => {
            Tensor::stack(&layers.iter().map(|layer| &layer.key).collect::<Vec<_>>(), 0)
        }
        CrossAttnContext::Shared(_) => panic!("a mapper varies"),
    };
    let twin = draw.twin();
    let both: [&PromptTokens; 2] = [object, object];
    let trained = keys(conditioner.encode_at(&both, &[&concept], &timesteps, Some(&draw)));
    assert_eq!(keys(prompts.object_at(0, &timesteps, &twin)), trained);
    assert_ne!(keys(prompts.object_at(0, &timesteps, &twin)), trained, "other units are dropped");
}
