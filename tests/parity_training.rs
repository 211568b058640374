//! The loss of textual inversion and its gradient against diffusers (`scripts/fixtures/training.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use embeddings::{Conditioner, Overflow, TextualInversion};
use models::schedule::NoiseSchedule;
use models::unet::{Conditioning, CrossAttnContext, KeyValue};
use parity::{FAMILIES, Fixture, GRADIENTS, OUTPUTS, clip_text, folder, input, unet};
use tch::{Kind, Tensor};

#[test]
fn loss_and_gradient_of_a_concept_are_python_s_with_and_without_snr_weights() {
    for family in FAMILIES {
        let fixture = Fixture::open(&format!("{family}/training.safetensors"));
        let (base, unet) = (folder(family), unet(family));
        let schedule = NoiseSchedule::new(&base.scheduler).unwrap();
        let conditioner = Conditioner::new(base.tokenizer().unwrap(), clip_text(family), 0);
        let vectors = fixture.tensor("concept");
        let concept = TextualInversion::new("<toy>", &vectors).trainable();

        let prompts = ["a photo of a <toy> in the snow", "a painting of a <toy> on the beach"]
            .map(|prompt| conditioner.tokenize(prompt, &[&concept], Overflow::Refuse).unwrap());
        let at: usize = fixture.setting("concept_at");
        assert_eq!(prompts[0].slots.iter().map(|s| s.position).collect::<Vec<_>>(), [at, at + 1]);
        let context = conditioner.encode(&prompts.each_ref(), &[&concept]);
        let CrossAttnContext::Shared(KeyValue { key, .. }) = &context else {
            panic!("one context for all layers")
        };
        fixture.agrees("context", key, OUTPUTS);

        let timesteps = Tensor::from_slice(&fixture.setting::<Vec<i64>>("timesteps"));
        let latents = input("training/latents", &[2, 4, 16, 16]);
        let noise = input("training/noise", &[2, 4, 16, 16]);
        let noisy = schedule.add_noise(&latents, &noise, &timesteps);
        fixture.agrees("noisy", &noisy, OUTPUTS);
        let target = schedule.target(&latents, &noise, &timesteps);
        fixture.agrees("target", &target, OUTPUTS);
        let prediction = unet.forward(&noisy, &timesteps, &Conditioning::context(context));
        fixture.agrees("prediction", &prediction, OUTPUTS);

        let errors =
            (prediction - target).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float); // [B]
        let weights = schedule.min_snr_weight(&timesteps, fixture.setting("snr_gamma"));
        fixture.agrees("min_snr.weights", &weights, OUTPUTS);
        for (case, loss) in
            [("", errors.mean(Kind::Float)), ("min_snr.", (&errors * weights).mean(Kind::Float))]
        {
            fixture.agrees(&format!("{case}loss"), &loss, OUTPUTS);
            let gradient = Tensor::run_backward(&[loss], &[concept.vectors()], true, false);
            fixture.agrees(&format!("{case}gradient"), &gradient[0], GRADIENTS);
        }
    }
}
