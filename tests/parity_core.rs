//! CoRe's regularisers against Python (`scripts/fixtures/core.py`): losses and gradients.

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use embeddings::{Conditioner, Overflow, PromptTokens, TextualInversion};
use models::schedule::NoiseSchedule;
use models::unet::UNet;
use parity::{FAMILIES, Fixture, GRADIENTS, OUTPUTS, clip_text, folder, input, unet};
use pipelines::objective::{
    AttentionReduction, ContextAttention, ContextEmbedding, ContextPrompts, CosineAxis, LossTerm,
    PhotoBatch, Reconstruction, SharedQueries, SharedQueryAttention, StepInputs,
};
use tch::Tensor;
use torch_ext::Generator;

/// One family's networks and one case's concept.
struct Case {
    fixture: Fixture,
    number: usize,
    conditioner: Conditioner,
    unet: UNet,
    concept: TextualInversion,
}

fn cases() -> impl Iterator<Item = Case> {
    FAMILIES.into_iter().flat_map(|family| {
        let count: usize = Fixture::open(&format!("{family}/core.safetensors")).setting("cases");
        (0..count).map(move |number| {
            let fixture = Fixture::open(&format!("{family}/core.safetensors"));
            let tokenizer = folder(family).tokenizer().unwrap();
            let vectors = fixture.tensor(&format!("case{number}.concept"));
            Case {
                conditioner: Conditioner::new(tokenizer, clip_text(family), 0),
                unet: unet(family),
                concept: TextualInversion::new("<toy>", &vectors).trainable(),
                fixture,
                number,
            }
        })
    })
}

impl Case {
    fn name(&self, what: &str) -> String {
        format!("case{}.{what}", self.number)
    }

    fn prompts(&self) -> ContextPrompts<'_> {
        let (prompt, class) =
            (self.fixture.text(&self.name("prompt")), self.fixture.text(&self.name("class")));
        let pair = self.conditioner.pair(&prompt, &[&self.concept], &[&class]).unwrap();
        ContextPrompts::new(&self.conditioner, vec![&self.concept], vec![pair])
    }

    fn step(&self, photos: Option<PhotoBatch>) -> StepInputs {
        StepInputs {
            index: 0,
            x_t: input("core/x_t", &[2, 4, 16, 16]),
            timesteps: Tensor::from_slice(&self.fixture.setting::<Vec<i64>>("timesteps")),
            photos,
            context_prompt: 0,
        }
    }

    fn agrees(&self, what: &str, loss: &Tensor) {
        let name = self.name(what);
        self.fixture.agrees(&name, loss, OUTPUTS);
        let gradient = Tensor::run_backward(&[loss], &[self.concept.vectors()], true, false);
        self.fixture.agrees(&format!("{name}.gradient"), &gradient[0], GRADIENTS);
    }
}

#[test]
fn pairs_are_spliced_as_python_splices_them() {
    for case in cases() {
        let prompts = case.prompts();
        let pair = prompts.pair(0);
        for (what, ours) in [
            ("reference_ids", &pair.reference.ids),
            ("object_context", &pair.object_context),
            ("reference_context", &pair.reference_context),
        ] {
            let theirs = Vec::<i64>::try_from(case.fixture.tensor(&case.name(what))).unwrap();
            assert_eq!(*ours, theirs, "{}", case.name(what));
        }
        case.fixture.agrees(
            &case.name("object_encoding"),
            &prompts.object(0, &Generator::cpu(0)),
            OUTPUTS,
        );
    }
}

#[test]
fn the_embedding_loss_and_its_gradient_are_python_s_along_both_axes() {
    for case in cases() {
        let prompts = case.prompts();
        for (name, axis) in [("feature", CosineAxis::Feature), ("token", CosineAxis::Token)] {
            let loss = ContextEmbedding { prompts: &prompts, axis }
                .loss(&case.step(None), &Generator::cpu(0));
            case.agrees(&format!("embedding.{name}"), &loss);
        }
    }
}

#[test]
fn the_attention_loss_and_its_gradient_are_python_s_in_every_order_of_reduction() {
    for case in cases() {
        let prompts = case.prompts();
        for (name, reduction) in [
            ("layer_mean", AttentionReduction::LayerMean),
            ("layers_first", AttentionReduction::LayersFirst),
            ("batch_sum", AttentionReduction::BatchSum),
        ] {
            let mut term = ContextAttention { prompts: &prompts, unet: &case.unet, reduction };
            case.agrees(
                &format!("attention.{name}"),
                &term.loss(&case.step(None), &Generator::cpu(0)),
            );
        }
    }
}

#[test]
fn shared_queries_give_python_s_loss_and_gradient_and_leave_the_reconstruction_alone() {
    for case in cases() {
        let family = if case.concept.vectors().size()[1] == 64 { "sd1" } else { "sd2" };
        let schedule = NoiseSchedule::new(&folder(family).scheduler).unwrap();
        let prompts = case.prompts();
        let trained_on = case.fixture.text("trained_on");
        let tokens =
            case.conditioner.tokenize(&trained_on, &[&case.concept], Overflow::Refuse).unwrap();
        let photos = |tokens: &PromptTokens| PhotoBatch {
            target: input("core/target", &[2, 4, 16, 16]),
            prompts: vec![tokens.clone(), tokens.clone()],
        };
        let queries = SharedQueries::new(&prompts, &case.unet);
        let reconstruction = |queries| {
            let term = Reconstruction {
                schedule: &schedule,
                conditioner: &case.conditioner,
                unet: &case.unet,
                concept: &case.concept,
                min_snr_gamma: 0.0,
                queries,
            };
            let loss = { term }.loss(&case.step(Some(photos(&tokens))), &Generator::cpu(0));
            let gradient = Tensor::run_backward(&[&loss], &[case.concept.vectors()], true, false);
            (loss.double_value(&[]), gradient[0].shallow_clone())
        };
        let (plain, plain_gradient) = reconstruction(None);
        let (probed, probed_gradient) = reconstruction(Some(&queries));
        assert_eq!(plain.to_bits(), probed.to_bits());
        assert_eq!(plain_gradient, probed_gradient);
        let reduction = AttentionReduction::LayerMean;
        let loss = SharedQueryAttention { queries: &queries, reduction }
            .loss(&case.step(None), &Generator::cpu(0));
        case.agrees("shared", &loss);
    }
}
