//! What holds for CoRe's regularisers whatever the weights, on the small models of the fixtures.

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use embeddings::{Conditioner, Initializer, Overflow, PromptPair, TextualInversion};
use models::clip::ClipText;
use models::params::Params;
use models::schedule::NoiseSchedule;
use models::seeded::Seeded;
use models::unet::{AttnProbe, Conditioning, CrossAttnContext, KeyValue, LayerId, UNet};
use parity::{FAMILIES, clip_text, folder, input, seeded, unet};
use pipelines::config::LrShape;
use pipelines::objective::{
    AttentionMeans, AttentionReduction, Batches, ContextAttention, ContextEmbedding,
    ContextPrompts, CosineAxis, LossTerm, NormPolicy, Objective, PhotoBatch, Reconstruction,
    StepInputs, context_attention_loss, context_embedding_loss,
};
use pipelines::trainer::{AdamW, AdamWConfig, LearningRate, StepRecord, Trainer};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

const PROMPT: &str = "a painting of a <toy> on the beach";

fn conditioner(family: &str) -> Conditioner {
    Conditioner::new(folder(family).tokenizer().unwrap(), clip_text(family), 0)
}

/// A concept that starts from the words of `class`, one vector a token.
fn from_class(conditioner: &Conditioner, class: &str) -> TextualInversion {
    let words = conditioner.initializer(class);
    let Initializer::Tokens(ids) = &words else { panic!("a phrase has tokens") };
    let (count, draw) = (ids.len() as i64, Generator::cpu(0));
    TextualInversion::initialize("<toy>", count, &words, conditioner.token_table(), &draw)
}

fn concept(family: &str, vectors: i64) -> TextualInversion {
    let width = folder(family).text_encoder.hidden_size;
    let vectors = input("core/concept", &[vectors, width]) * 0.1;
    TextualInversion::new("<toy>", &vectors).trainable()
}

fn step(samples: i64) -> StepInputs {
    let timesteps = Tensor::from_slice(&[41i64, 873, 500, 7, 999, 250]);
    StepInputs {
        index: 0,
        x_t: input("core/six", &[6, 4, 16, 16]).narrow(0, 0, samples),
        timesteps: timesteps.narrow(0, 0, samples),
        photos: None,
        context_prompt: 0,
    }
}

fn prompts<'a>(
    conditioner: &'a Conditioner,
    concept: &'a TextualInversion,
    class: &str,
) -> ContextPrompts<'a> {
    let pair = conditioner.pair(PROMPT, &[concept], &[class]).unwrap();
    ContextPrompts::new(conditioner, vec![concept], vec![pair])
}

fn gradient_norm(loss: &Tensor, concept: &TextualInversion) -> f64 {
    let gradient = Tensor::run_backward(&[loss], &[concept.vectors()], true, false);
    gradient[0].norm().double_value(&[])
}

#[test]
fn at_the_class_s_own_vectors_both_losses_and_their_gradients_vanish() {
    for family in FAMILIES {
        let (conditioner, unet) = (conditioner(family), unet(family));
        for class in ["cat", "old toy cat"] {
            let (same, other) = (from_class(&conditioner, class), concept(family, 2));
            let losses = |concept: &TextualInversion| {
                let prompts = prompts(&conditioner, concept, class);
                let axis = CosineAxis::Feature;
                let reduction = AttentionReduction::LayerMean;
                let mut attention = ContextAttention { prompts: &prompts, unet: &unet, reduction };
                [
                    ContextEmbedding { prompts: &prompts, axis }.loss(&step(2), &Generator::cpu(0)),
                    attention.loss(&step(2), &Generator::cpu(0)),
                ]
                .map(|loss| (loss.double_value(&[]), gradient_norm(&loss, concept)))
            };
            let ([(emb, emb_slope), (attn, attn_slope)], [(_, emb_else), (_, attn_else)]) =
                (losses(&same), losses(&other));
            println!("{family} {class}: {emb:.1e} {emb_slope:.1e} {attn:.1e} {attn_slope:.1e}");
            assert!(emb.abs() <= 1e-6 && attn <= 1e-10, "{family} {class}: {emb:e} {attn:e}");
            assert!(emb_slope < 1e-4 * emb_else, "{family} {class}: {emb_slope:e} of {emb_else:e}");
            assert!(attn_slope < 1e-4 * attn_else, "{family} {class}: {attn_slope:e}");
        }
    }
}

#[test]
fn a_concept_changes_the_encodings_behind_it_and_none_before() {
    for family in FAMILIES {
        let conditioner = conditioner(family);
        let encode = |concept: &TextualInversion| {
            let tokens = conditioner.tokenize(PROMPT, &[concept], Overflow::Refuse).unwrap();
            let slot = tokens.slots[0].position as i64;
            let prompts = prompts(&conditioner, concept, "cat");
            (prompts.object(0, &Generator::cpu(0)).squeeze_dim(0), slot)
        };
        let (one, slot) = encode(&concept(family, 1));
        let (other, _) = encode(&from_class(&conditioner, "a"));
        assert_eq!(one.narrow(0, 0, slot), other.narrow(0, 0, slot));
        let gap = (one - other).abs().amax([-1i64].as_slice(), false); // [S]
        let gap = gap.narrow(0, slot + 1, 76 - slot).min().double_value(&[]);
        assert!(gap > 1e-5, "{family}: some row behind the slot moved by {gap} only");
    }
}

#[test]
fn mean_attention_sums_to_one_over_the_tokens_in_each_of_sixteen_layers() {
    for family in FAMILIES {
        let (conditioner, concept) = (conditioner(family), concept(family, 1));
        let context =
            prompts(&conditioner, &concept, "cat").object(0, &Generator::cpu(0)).repeat([2, 1, 1]);
        let cond = Conditioning::context(CrossAttnContext::Shared(KeyValue::same(context)));
        let (unet, step) = (unet(family), step(2));
        let mut means = AttentionMeans::default();
        let probed = unet.forward_probed(&step.x_t, &step.timesteps, &cond, &mut means);
        let sums = means.stacked().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        assert_eq!(sums.size(), [16, 2]);
        let apart = (sums - 1.0).abs().max().double_value(&[]);
        assert!(apart < 1e-5, "{family}: {apart}");
        let plain = unet.forward(&step.x_t, &step.timesteps, &cond);
        let apart = (&probed - &plain).abs().max() / plain.abs().max();
        assert!(apart.double_value(&[]) < 1e-5, "{family}: the probe changed the output");
    }
}

/// The same six samples, cut into micro-batches.
struct Cut {
    of: i64,
    target: Tensor,
    tokens: embeddings::PromptTokens,
}

impl Batches for Cut {
    fn next(&mut self, index: u64, _draw: &Generator) -> StepInputs {
        let (all, from) = (step(6), index as i64 * self.of % 6);
        let cut = |tensor: &Tensor| tensor.narrow(0, from, self.of);
        StepInputs {
            index,
            x_t: cut(&all.x_t),
            timesteps: cut(&all.timesteps),
            photos: Some(PhotoBatch {
                target: cut(&self.target),
                prompts: vec![self.tokens.clone(); self.of as usize],
            }),
            context_prompt: 0,
        }
    }
}

/// Two steps of all terms in micro-batches of `of` samples, a fresh concept; its vectors and the steps' records.
fn train(
    networks: (&Conditioner, &UNet, &NoiseSchedule),
    reduction: AttentionReduction,
    of: i64,
) -> (Tensor, Vec<StepRecord>) {
    let (conditioner, unet, schedule) = networks;
    let concept = concept("sd1", 1);
    let prompts = prompts(conditioner, &concept, "cat");
    let tokens = conditioner.tokenize("a photo of a <toy>", &[&concept], Overflow::Refuse).unwrap();
    let batches = Cut { of, target: input("core/target", &[6, 4, 16, 16]), tokens };
    let reconstruction = Reconstruction {
        schedule,
        conditioner,
        unet,
        concept: &concept,
        min_snr_gamma: 0.0,
        queries: None,
    };
    let attention = ContextAttention { prompts: &prompts, unet, reduction };
    let mut objective = Objective::new(batches, NormPolicy::Free)
        .with(1.0, reconstruction)
        .with(0.1, ContextEmbedding { prompts: &prompts, axis: CosineAxis::Feature })
        .with(1e3, attention);
    let records = fit(&mut objective, &concept, 2, (6 / of) as u64);
    drop(objective);
    (concept.vectors().detach().copy(), records)
}

/// Runs the trainer; the records of its steps.
fn fit(
    objective: &mut Objective<'_>,
    concept: &TextualInversion,
    steps: u64,
    accumulation: u64,
) -> Vec<StepRecord> {
    let adam = AdamWConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    let mut trainer = Trainer {
        optimizer: AdamW::new(vec![concept.vectors().shallow_clone()], adam),
        draw: Generator::cpu(0),
        step: 0,
        steps,
        accumulation,
        learning_rate: LearningRate {
            peak: 5e-3,
            shape: LrShape::Constant,
            end: 0.0,
            warmup: 0,
            steps,
        },
        max_grad_norm: 0.0,
        average: None,
        loss_scale: 1.0,
    };
    let mut records = Vec::new();
    let ended = trainer.fit(objective, &mut |_, record| {
        records.push(record.clone());
        Ok(std::ops::ControlFlow::Continue(()))
    });
    assert!(ended.is_ok());
    records
}

#[test]
fn either_regulariser_alone_falls_when_it_is_minimised() {
    for family in FAMILIES {
        let (conditioner, unet) = (conditioner(family), unet(family));
        let run = |attention: bool| {
            let concept = concept(family, 1);
            let prompts = prompts(&conditioner, &concept, "cat");
            let tokens = conditioner.tokenize(PROMPT, &[&concept], Overflow::Refuse).unwrap();
            let batches = Cut { of: 6, target: input("core/target", &[6, 4, 16, 16]), tokens };
            let objective = Objective::new(batches, NormPolicy::Free);
            let mut objective = if attention {
                let reduction = AttentionReduction::LayerMean;
                objective.with(1e6, ContextAttention { prompts: &prompts, unet: &unet, reduction })
            } else {
                let axis = CosineAxis::Feature;
                objective.with(1.0, ContextEmbedding { prompts: &prompts, axis })
            };
            let records = fit(&mut objective, &concept, 10, 1);
            (records[0].loss, records[9].loss)
        };
        for attention in [false, true] {
            let (first, last) = run(attention);
            println!("{family}, attention {attention}: {first:.2e} to {last:.2e}");
            assert!(last < 0.5 * first, "{family}, attention {attention}: {first:e} to {last:e}");
        }
    }
}

#[test]
fn two_micro_batches_of_three_are_a_batch_of_six() {
    let schedule = NoiseSchedule::new(&folder("sd1").scheduler).unwrap();
    let (conditioner, unet) = (conditioner("sd1"), unet("sd1"));
    let networks = (&conditioner, &unet, &schedule);
    for reduction in [AttentionReduction::LayerMean, AttentionReduction::LayersFirst] {
        let ((whole, once), (cut, twice)) =
            (train(networks, reduction, 6), train(networks, reduction, 3));
        for (a, b) in once.iter().zip(&twice) {
            assert!((a.loss - b.loss).abs() < 1e-5 * a.loss, "{} {}", a.loss, b.loss);
            let names: Vec<&str> = a.terms.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, ["reconstruction", "context_embedding", "context_attention"]);
            for ((name, x), (_, y)) in a.terms.iter().zip(&b.terms) {
                assert!((x - y).abs() < 1e-4 * x, "{reduction:?} {name}: {x:e} {y:e}");
            }
        }
        assert!((whole - cut).abs().max().double_value(&[]) < 1e-5);
    }
}

#[test]
fn a_step_changes_the_vectors_and_nothing_of_the_base() {
    let (text, picture) = (seeded("text_encoder"), seeded("unet"));
    let clip = ClipText::new(&Params::root(&text), &folder("sd1").text_encoder);
    let unet = UNet::new(&Params::root(&picture), &folder("sd1").unet);
    let conditioner = Conditioner::new(folder("sd1").tokenizer().unwrap(), clip, 0);
    let schedule = NoiseSchedule::new(&folder("sd1").scheduler).unwrap();
    let frozen: Vec<(String, Tensor)> =
        text.into_drawn().into_iter().chain(picture.into_drawn()).collect();
    let bytes = || frozen.iter().map(|(_, tensor)| torch_ext::to_bytes(tensor)).collect::<Vec<_>>();
    let before = bytes();

    let networks = (&conditioner, &unet, &schedule);
    let (vectors, _) = train(networks, AttentionReduction::LayerMean, 6);
    assert_ne!(vectors, concept("sd1", 1).vectors().detach());
    assert!(before == bytes(), "a frozen tensor changed");
    assert!(frozen.iter().all(|(_, t)| !t.requires_grad() && !t.grad().defined()));
    let concept = concept("sd1", 1);
    let prompts = prompts(&conditioner, &concept, "cat");
    assert!(
        !prompts.reference(0).requires_grad()
            && prompts.object(0, &Generator::cpu(0)).requires_grad()
    );
}

/// Central differences of `f` along `direction` at `at`.
fn slope(f: &dyn Fn(&Tensor) -> Tensor, at: &Tensor, direction: &Tensor) -> f64 {
    let reach = 1e-5;
    let value = |by: f64| tch::no_grad(|| f(&(at + direction * by)).double_value(&[]));
    (value(reach) - value(-reach)) / (2.0 * reach)
}

#[test]
fn gradients_are_the_slopes_of_the_losses_in_double_precision() {
    let source = |part| Seeded::new(part, Seeded::BASE_SEED, Kind::Double, Device::Cpu);
    let base = folder("sd1");
    let clip = ClipText::new(&Params::root(&source("text_encoder")), &base.text_encoder);
    let unet = UNet::new(&Params::root(&source("unet")), &base.unet);
    let tokenizer = base.tokenizer().unwrap();
    let stand_in = concept("sd1", 1);
    let object =
        embeddings::PromptTokens::new(PROMPT, &[&stand_in], &tokenizer, Overflow::Refuse).unwrap();
    let pair = PromptPair::new(object, PROMPT, &[tokenizer.encode("cat")], &tokenizer).unwrap();
    let context = pair.context();

    let ids = |ids: &[i64]| Tensor::from_slice(ids).unsqueeze(0);
    let slot = pair.object.slots[0].position as i64;
    let words = clip.embed_tokens(&ids(&pair.object.ids)); // [1, S, D]
    let encode = |vectors: &Tensor| {
        let behind = words.narrow(1, slot + 1, 76 - slot);
        let spliced = Tensor::cat(&[&words.narrow(1, 0, slot), &vectors.unsqueeze(0), &behind], 1);
        clip.final_norm(&clip.blocks(&spliced, 0))
    };
    let reference = clip.forward(&ids(&pair.reference.ids));
    let step = step(2);
    let means = |encoding: &Tensor| {
        let context = KeyValue::same(encoding.repeat([2, 1, 1]));
        let cond = Conditioning::context(CrossAttnContext::Shared(context));
        let mut means = AttentionMeans::default();
        let _ = unet.forward_probed(&step.x_t, &step.timesteps, &cond, &mut means);
        means.stacked()
    };
    let reference_means = &means(&reference);
    let (encode, means, reference) = (&encode, &means, &reference);
    let embedding = |axis| {
        move |v: &Tensor| {
            let (object, reference) = (encode(v).squeeze_dim(0), reference.squeeze_dim(0));
            context_embedding_loss(&object, &reference, context, axis)
        }
    };
    let attention = |reduction| {
        move |v: &Tensor| {
            context_attention_loss(&means(&encode(v)), reference_means, context, reduction)
        }
    };
    let vectors = stand_in.vectors().detach().to_kind(Kind::Double).set_requires_grad(true);
    let losses: [&dyn Fn(&Tensor) -> Tensor; 5] = [
        &embedding(CosineAxis::Feature),
        &embedding(CosineAxis::Token),
        &attention(AttentionReduction::LayerMean),
        &attention(AttentionReduction::LayersFirst),
        &attention(AttentionReduction::BatchSum),
    ];
    for (number, loss) in losses.iter().enumerate() {
        let value = loss(&vectors);
        assert_eq!(value.kind(), Kind::Double);
        let gradient = Tensor::run_backward(&[value], &[&vectors], false, false);
        for way in ["a", "b"] {
            let direction = input(way, &vectors.size()).to_kind(Kind::Double);
            let ours = (&gradient[0] * &direction).sum(Kind::Double).double_value(&[]);
            let slope = slope(loss, &vectors.detach(), &direction);
            println!("loss {number}: gradient {ours:e}, slope {slope:e}");
            assert!((ours - slope).abs() < 1e-5 * slope.abs(), "loss {number}: {ours:e} {slope:e}");
        }
    }
}

#[test]
fn a_probe_that_wants_no_maps_is_offered_every_layer_and_shown_none() {
    #[derive(Default)]
    struct Offers(Vec<usize>);
    impl AttnProbe for Offers {
        fn observe(&mut self, _layer: LayerId, _probs: &Tensor) {
            panic!("no map was asked for");
        }
        fn wants_probs(&self) -> bool {
            false
        }
        fn offer(&mut self, layer: LayerId, _probs_over: &dyn Fn(&Tensor) -> Tensor) {
            self.0.push(layer.index());
        }
    }
    let (unet, step) = (unet("sd1"), step(1));
    let cond = parity::shared(&input("core/context", &[1, 77, 64]));
    let mut offers = Offers::default();
    let probed = unet.forward_probed(&step.x_t, &step.timesteps, &cond, &mut offers);
    assert_eq!(offers.0, (0..16).collect::<Vec<_>>());
    assert_eq!(unet.layer_levels(), [0, 0, 1, 1, 2, 2, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]);
    assert_eq!(probed, unet.forward(&step.x_t, &step.timesteps, &cond));
}
