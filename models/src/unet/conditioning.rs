//! All that the U-Net reads besides latents and timesteps.

use tch::Tensor;

/// A cross-attention layer, in execution order: for Stable Diffusion down 0-5, middle 6, up 7-15.
/// A layer knows its id from construction; nothing is counted during a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(u8);

impl LayerId {
    /// Its place in [`CrossAttnContext::PerLayer`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Hands out layer ids while the network is built.
#[derive(Default)]
pub(crate) struct LayerIds(Vec<usize>);

impl LayerIds {
    /// The next layer, which works at this level of the U-Net.
    pub(crate) fn next(&mut self, level: usize) -> LayerId {
        self.0.push(level);
        LayerId(self.0.len() as u8 - 1)
    }

    /// The level of each layer: 0 has the resolution of the latents, each further one half of it.
    pub(crate) fn into_levels(self) -> Vec<usize> {
        self.0
    }
}

/// What one cross-attention layer attends to. Each `[B, S, D]`; keys and values are projected from
/// different tensors where a method wants it (NeTI's bypass feeds values only).
#[derive(Debug)]
pub struct KeyValue {
    /// Read by `to_k`.
    pub key: Tensor,
    /// Read by `to_v`.
    pub value: Tensor,
}

impl KeyValue {
    /// Keys and values from the same context.
    pub fn same(context: Tensor) -> Self {
        Self { key: context.shallow_clone(), value: context }
    }

    fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        Self { key: f(&self.key), value: f(&self.value) }
    }
}

/// The context of every cross-attention layer.
#[derive(Debug)]
pub enum CrossAttnContext {
    /// One for all.
    Shared(KeyValue),
    /// One for each layer, by [`LayerId`].
    PerLayer(Vec<KeyValue>),
}

impl CrossAttnContext {
    /// What `layer` attends to.
    pub fn at(&self, layer: LayerId) -> &KeyValue {
        match self {
            Self::Shared(shared) => shared,
            Self::PerLayer(layers) => &layers[layer.index()],
        }
    }

    /// The same function on every tensor (a change of kind, a repetition along the batch).
    #[must_use]
    pub fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        match self {
            Self::Shared(shared) => Self::Shared(shared.map(f)),
            Self::PerLayer(layers) => {
                Self::PerLayer(layers.iter().map(|layer| layer.map(&f)).collect())
            }
        }
    }

    /// Several contexts one after the other along the batch; shared ones are repeated for each layer as
    /// soon as one differs by layer.
    #[must_use]
    pub fn cat(parts: &[&Self]) -> Self {
        let layers = parts.iter().find_map(|part| match part {
            Self::Shared(_) => None,
            Self::PerLayer(layers) => Some(layers.len()),
        });
        let join = |at: &dyn Fn(&Self) -> KeyValue| {
            let all: Vec<KeyValue> = parts.iter().map(|part| at(part)).collect();
            let keys: Vec<&Tensor> = all.iter().map(|kv| &kv.key).collect();
            let values: Vec<&Tensor> = all.iter().map(|kv| &kv.value).collect();
            KeyValue { key: Tensor::cat(&keys, 0), value: Tensor::cat(&values, 0) }
        };
        let copy = |kv: &KeyValue| kv.map(Tensor::shallow_clone);
        match layers {
            None => Self::Shared(join(&|part| copy(part.at(LayerId(0))))),
            Some(n) => Self::PerLayer(
                (0..n as u8).map(|i| join(&|part| copy(part.at(LayerId(i))))).collect(),
            ),
        }
    }
}

/// The conditioning of a pass. Cross-attention, a bias on the time embedding and a residual after
/// `conv_in` are enough for every method here; a scale of guidance is for networks that learnt guided predictions.
#[derive(Debug)]
pub struct Conditioning {
    /// What the cross-attention layers attend to.
    pub context: CrossAttnContext,
    /// Added to the time embedding, `[B, 4 · channels]`.
    pub time_bias: Option<Tensor>,
    /// Added after `conv_in`, `[B, channels, H, W]`.
    pub stem_residual: Option<Tensor>,
    /// The scale of guidance that the prediction is to be of, for a network with `time_cond_proj_dim` (LCM: Luo et al.
    /// 2023, section 4.2); others do not read it. `None` adds nothing to the timestep's encoding, as in training.
    pub guidance: Option<f64>,
}

impl Conditioning {
    /// A context and nothing else.
    pub fn context(context: CrossAttnContext) -> Self {
        Self { context, time_bias: None, stem_residual: None, guidance: None }
    }

    /// Several conditionings one after the other along the batch; a part counts where all of them have it.
    #[must_use]
    pub fn cat(parts: &[&Self]) -> Self {
        let contexts: Vec<&CrossAttnContext> = parts.iter().map(|part| &part.context).collect();
        let join = |part: fn(&Self) -> Option<&Tensor>| {
            let all: Option<Vec<&Tensor>> = parts.iter().map(|each| part(each)).collect();
            all.map(|all| Tensor::cat(&all, 0))
        };
        Self {
            context: CrossAttnContext::cat(&contexts),
            time_bias: join(|part| part.time_bias.as_ref()),
            stem_residual: join(|part| part.stem_residual.as_ref()),
            guidance: parts.first().and_then(|part| part.guidance),
        }
    }
}

/// A listener on the cross-attention. It is shown full maps and should keep a reduction, never the maps.
pub trait AttnProbe {
    /// The probabilities of one layer, `[B, heads, P, S]` with P latent pixels; f32, differentiable.
    fn observe(&mut self, layer: LayerId, probs: &Tensor);

    /// Whether [`AttnProbe::observe`] is to be called. Without it the pass keeps its fused attention.
    fn wants_probs(&self) -> bool {
        true
    }

    /// Called for each layer with a function from another context `[B, S, D]` to the probabilities `[B, heads, P, S]`
    /// that the layer's queries, detached from their graph, have over it; differentiable in that context.
    fn offer(&mut self, _layer: LayerId, _probs_over: &dyn Fn(&Tensor) -> Tensor) {}
}
