//! The only place where prompts, concepts and CLIP meet.

use std::collections::HashMap;

use models::clip::ClipText;
use models::tokenizer::Tokenizer;
use models::unet::{CrossAttnContext, KeyValue};
use tch::{Device, Kind, Tensor};
use torch_ext::Generator;

use crate::{
    Concept, Initializer, Injection, Overflow, PromptError, PromptPair, PromptTokens, Site,
};

/// Turns prompts into what the U-Net attends to.
pub struct Conditioner {
    tokenizer: Tokenizer,
    encoder: Encoder,
}

/// Where the rows of a prompt come from.
enum Encoder {
    /// From CLIP, some of its last blocks left out.
    Clip { clip: ClipText, skip_last: usize },
    /// From memory, by the ids: `[1, S, D]` each.
    Stored(HashMap<Vec<i64>, Tensor>),
}

impl Conditioner {
    /// From a base's tokenizer and text encoder; `skip_last` blocks of it are left out ("clip skip" 2 is 1).
    pub fn new(tokenizer: Tokenizer, clip: ClipText, skip_last: usize) -> Self {
        Self { tokenizer, encoder: Encoder::Clip { clip, skip_last } }
    }

    /// Tokenises a prompt with `concepts` in it.
    pub fn tokenize(
        &self,
        prompt: &str,
        concepts: &[&dyn Concept],
        overflow: Overflow,
    ) -> Result<PromptTokens, PromptError> {
        PromptTokens::new(prompt, concepts, &self.tokenizer, overflow)
    }

    /// The ids of a word or phrase.
    pub fn words(&self, phrase: &str) -> Vec<i64> {
        self.tokenizer.encode(phrase)
    }

    /// S, the length of a prompt.
    pub fn length(&self) -> usize {
        self.tokenizer.length()
    }

    /// What a word or phrase starts a concept from; an empty phrase has no tokens.
    pub fn initializer(&self, phrase: &str) -> Initializer {
        Initializer::Tokens(self.words(phrase))
    }

    /// A prompt with `concepts` in it, beside the same prompt with `classes[i]` in place of concept i.
    pub fn pair(
        &self,
        prompt: &str,
        concepts: &[&dyn Concept],
        classes: &[&str],
    ) -> Result<PromptPair, PromptError> {
        let object = self.tokenize(prompt, concepts, Overflow::Refuse)?;
        let classes: Vec<Vec<i64>> = classes.iter().map(|class| self.words(class)).collect();
        PromptPair::new(object, prompt, &classes, &self.tokenizer)
    }

    /// The base's table of token vectors, `[rows, D]`.
    ///
    /// Panics after [`Conditioner::release_encoder`].
    pub fn token_table(&self) -> &Tensor {
        match &self.encoder {
            Encoder::Clip { clip, .. } => clip.token_table(),
            Encoder::Stored(_) => panic!("the text encoder was released"),
        }
    }

    /// Encodes these prompts for the last time and lets go of CLIP. Only they can be encoded from now on, and
    /// only concepts that enter after CLIP can be in them.
    pub fn release_encoder(&mut self, prompts: &[&PromptTokens]) {
        let Encoder::Clip { clip, skip_last } = &self.encoder else { return };
        let encode = |prompt: &&PromptTokens| {
            let ids = Tensor::from_slice(&prompt.ids).unsqueeze(0).to_device(clip.device()); // [1, S]
            let rows = clip.final_norm(&clip.blocks(&clip.embed_tokens(&ids), *skip_last));
            (prompt.ids.clone(), rows)
        };
        self.encoder = Encoder::Stored(tch::no_grad(|| prompts.iter().map(encode).collect()));
    }

    /// [`Conditioner::encode_at`] for concepts that do not vary with time, drawn as they are.
    pub fn encode(&self, prompts: &[&PromptTokens], concepts: &[&dyn Concept]) -> CrossAttnContext {
        let any = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        self.encode_at(prompts, concepts, &any, None)
    }

    /// B prompts at `timesteps` `[B]` or `[1]` to the context of the U-Net, `[B, S, D]` for each layer, or one
    /// for all where no concept of these prompts varies; in the text encoder's kind, differentiable with respect
    /// to the concepts' parameters. What is random in training comes from `draw`.
    ///
    /// CLIP runs once, on B prompts or on B for each layer.
    pub fn encode_at(
        &self,
        prompts: &[&PromptTokens],
        concepts: &[&dyn Concept],
        timesteps: &Tensor,
        draw: Option<&Generator>,
    ) -> CrossAttnContext {
        self.encode_changed_at(prompts, concepts, timesteps, draw, &|injection| injection)
    }

    /// [`Conditioner::encode_at`] for what is differentiable in the token vectors only: a bypass, which values alone see,
    /// is a constant.
    pub fn encode_words_at(
        &self,
        prompts: &[&PromptTokens],
        concepts: &[&dyn Concept],
        timesteps: &Tensor,
        draw: Option<&Generator>,
    ) -> CrossAttnContext {
        self.encode_changed_at(prompts, concepts, timesteps, draw, &|injection| match injection {
            Injection::InputWithBypass { input, bypass } => {
                Injection::InputWithBypass { input, bypass: bypass.detach() }
            }
            other => other,
        })
    }

    fn encode_changed_at(
        &self,
        prompts: &[&PromptTokens],
        concepts: &[&dyn Concept],
        timesteps: &Tensor,
        draw: Option<&Generator>,
        changed: &dyn Fn(Injection) -> Injection,
    ) -> CrossAttnContext {
        let layers = layers(prompts, concepts);
        let timesteps = timesteps.to_device(self.device()).expand([prompts.len() as i64], false);
        let site = Site::new(&timesteps, layers.unwrap_or(1), draw);
        self.encode_sites(prompts, concepts, layers, &site, changed)
    }

    /// One prompt with another timestep for each layer, `timesteps` `[L]`: the context of layer l is that of timestep
    /// l, `[1, S, D]`; one for all where no concept of the prompt varies.
    pub fn encode_layers(
        &self,
        prompt: &PromptTokens,
        concepts: &[&dyn Concept],
        timesteps: &Tensor,
        draw: Option<&Generator>,
    ) -> CrossAttnContext {
        let prompts = [prompt];
        let layers = layers(&prompts, concepts);
        let timesteps = timesteps.to_device(self.device()).narrow(0, 0, layers.unwrap_or(1));
        let site = Site::one_of_each_layer(&timesteps, draw);
        self.encode_sites(&prompts, concepts, layers, &site, &|injection| injection)
    }

    fn device(&self) -> Device {
        match &self.encoder {
            Encoder::Clip { clip, .. } => clip.device(),
            Encoder::Stored(rows) => rows.values().next().map_or(Device::Cpu, Tensor::device),
        }
    }

    fn encode_sites(
        &self,
        prompts: &[&PromptTokens],
        concepts: &[&dyn Concept],
        layers: Option<i64>,
        site: &Site<'_>,
        changed: &dyn Fn(Injection) -> Injection,
    ) -> CrossAttnContext {
        let batch = prompts.len() as i64;
        let entering: Vec<Entering> = (0..concepts.len())
            .filter(|&i| holds(prompts, i))
            .map(|i| Entering::new(i, changed(concepts[i].inject(site)), prompts, site))
            .collect();

        let (mut key, mut value) = match &self.encoder {
            Encoder::Clip { clip, skip_last } => {
                through(clip, *skip_last, prompts, &entering, site)
            }
            Encoder::Stored(rows) => (stored(rows, prompts), None),
        };
        for concept in &entering {
            value = value.map(|value| concept.change_output(&value));
            key = concept.change_output(&key);
        }
        let at = |layer: i64| {
            let part = |x: &Tensor| x.narrow(0, layer * batch, batch);
            match &value {
                None => KeyValue::same(part(&key)),
                Some(value) => KeyValue { key: part(&key), value: part(value) },
            }
        };
        match layers {
            None => CrossAttnContext::Shared(at(0)),
            Some(layers) => CrossAttnContext::PerLayer((0..layers).map(at).collect()),
        }
    }
}

/// Whether a concept stands in one of these prompts.
fn holds(prompts: &[&PromptTokens], concept: usize) -> bool {
    prompts.iter().any(|p| p.slots.iter().any(|slot| slot.concept == concept))
}

/// How many layers the contexts of these prompts tell apart; nothing where one is for all.
fn layers(prompts: &[&PromptTokens], concepts: &[&dyn Concept]) -> Option<i64> {
    let used = (0..concepts.len()).filter(|&i| holds(prompts, i));
    used.filter_map(|i| concepts[i].varies().layers()).max()
}

/// Prompts through CLIP: keys `[N, S, D]`, and values where they are others.
fn through(
    clip: &ClipText,
    skip_last: usize,
    prompts: &[&PromptTokens],
    entering: &[Entering],
    site: &Site<'_>,
) -> (Tensor, Option<Tensor>) {
    let ids: Vec<Tensor> = prompts.iter().map(|p| Tensor::from_slice(&p.ids)).collect();
    let ids = Tensor::stack(&ids, 0).to_device(clip.device()); // [B, S]
    let mut words = clip.embed_tokens(&ids).repeat([site.layer_count, 1, 1]); // [N, S, D]
    for concept in entering {
        words = concept.replace_words(&words);
    }
    let hidden = clip.blocks(&words, skip_last);
    let key = clip.final_norm(&hidden);
    let mut value = None;
    for concept in entering {
        let norm = |rows: &Tensor| clip.final_norm(rows);
        value = concept.bypass(&hidden, value.as_ref().unwrap_or(&key), &norm).or(value);
    }
    (key, value)
}

/// Prompts that were encoded before, `[B, S, D]`.
fn stored(rows: &HashMap<Vec<i64>, Tensor>, prompts: &[&PromptTokens]) -> Tensor {
    let rows: Vec<&Tensor> = prompts.iter().map(|prompt| &rows[&prompt.ids]).collect();
    Tensor::cat(&rows, 0)
}

/// A concept's injection with the places in the stacked prompts `[N, S, D]` that it goes to.
struct Entering {
    injection: Injection,
    /// Rows of `[N · S, D]`.
    places: Tensor,
    /// Rows of the injection, `[(1 or N) · n, D]`, one for each place.
    sources: Tensor,
    /// The same rows as numbers, for the gather that puts them in.
    rows: Vec<i64>,
}

impl Entering {
    fn new(
        concept: usize,
        injection: Injection,
        prompts: &[&PromptTokens],
        site: &Site<'_>,
    ) -> Self {
        let rows_of = match &injection {
            Injection::Input(rows)
            | Injection::InputWithBypass { input: rows, .. }
            | Injection::Output { add: rows, .. } => rows,
        };
        let (size, device) = (rows_of.size(), rows_of.device());
        let (copies, tokens) = (size[0], size[1]);
        let (mut rows, mut sources) = (Vec::new(), Vec::new());
        for n in 0..site.layers.size()[0] {
            let prompt = prompts[n as usize % prompts.len()];
            for slot in prompt.slots.iter().filter(|slot| slot.concept == concept) {
                rows.push(n * prompt.ids.len() as i64 + slot.position as i64);
                let copy = if copies == 1 { 0 } else { n };
                sources.push(copy * tokens + slot.vector as i64);
            }
        }
        let index = |rows: &[i64]| Tensor::from_slice(rows).to_device(device);
        Self { places: index(&rows), sources: index(&sources), rows, injection }
    }

    /// The rows of `tensor` `[1 or N, n, D]` that go to the places; `[places, D]`.
    fn pick(&self, tensor: &Tensor) -> Tensor {
        tensor.flatten(0, 1).index_select(0, &self.sources)
    }

    /// Puts the token vectors into their slots.
    fn replace_words(&self, words: &Tensor) -> Tensor {
        match self.injection.input() {
            Some(input) => self.replace(&words.to_kind(Kind::Float), &self.pick(input)),
            None => words.shallow_clone(),
        }
    }

    /// Changes rows of the context `[N, S, D]`.
    fn change_output(&self, context: &Tensor) -> Tensor {
        let Injection::Output { keep, add } = &self.injection else {
            return context.shallow_clone();
        };
        let rows = context.flatten(0, 1).index_select(0, &self.places).to_kind(Kind::Float);
        let rows = rows * self.pick(keep) + self.pick(add);
        self.replace(context, &rows.to_kind(context.kind()))
    }

    /// `value` with what only values see: at the concept's places the final norm of h + ‖h‖ b, where h is the
    /// last block's output; nothing where the concept has no bypass.
    fn bypass(
        &self,
        hidden: &Tensor,
        value: &Tensor,
        norm: &dyn Fn(&Tensor) -> Tensor,
    ) -> Option<Tensor> {
        let Injection::InputWithBypass { bypass, .. } = &self.injection else { return None };
        let h = hidden.flatten(0, 1).index_select(0, &self.places).to_kind(Kind::Float);
        let moved = bypassed(&h, &self.pick(bypass)).to_kind(hidden.kind());
        Some(self.replace(value, &norm(&moved)))
    }

    /// `stacked` `[N, S, D]` with `rows` `[places, D]` in the places, out of place: one gather from both.
    fn replace(&self, stacked: &Tensor, rows: &Tensor) -> Tensor {
        let size = stacked.size();
        let count = size[0] * size[1];
        let mut index: Vec<i64> = (0..count).collect();
        for (i, &place) in self.rows.iter().enumerate() {
            index[place as usize] = count + i as i64;
        }
        let index = Tensor::from_slice(&index).to_device(stacked.device());
        let both = [stacked.flatten(0, 1), rows.to_device(stacked.device())];
        Tensor::cat(&both, 0).index_select(0, &index).reshape(size)
    }
}

/// h + ‖h‖ b over the last axis.
fn bypassed(h: &Tensor, b: &Tensor) -> Tensor {
    h + h.norm_scalaropt_dim(2, [-1], true) * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bypass_adds_a_share_of_the_row_s_own_length() {
        let (h, b) = (Tensor::from_slice(&[3f32, 4.0]), Tensor::from_slice(&[0f32, 0.2]));
        let moved = Vec::<f32>::try_from(bypassed(&h, &b)).unwrap();
        assert!((moved[0] - 3.0).abs() < 1e-6 && (moved[1] - 5.0).abs() < 1e-6, "{moved:?}");
    }
}
