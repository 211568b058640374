//! What CoRe adds to a plan: the class to compare with, and the prompts to compare at.

use embeddings::{Concept, Conditioner, Overflow, PromptPair, PromptTokens};
use models::tokenizer::Tokenizer;

use crate::Error;
use crate::config::{AttentionMode, CoreConfig, TrainConfig};
use crate::objective::{AttentionReduction, ContextPrompts};
use crate::templates::Templates;

/// Checked prompts of the regularisers.
#[derive(Debug)]
pub(crate) struct ContextPlan {
    pub config: CoreConfig,
    pub class: String,
    /// Which list the prompts are of.
    pub set: String,
    /// With the concept's word in them.
    pub prompts: Vec<String>,
}

impl ContextPlan {
    /// Nothing for methods without regularisers.
    pub(crate) fn new(config: &TrainConfig) -> Result<Option<Self>, Error> {
        let Some(core) = config.core.clone() else { return Ok(None) };
        let class = config.class.trim().to_owned();
        if class.is_empty() {
            return Err(Error::Usage(format!(
                "the method {} compares the concept with its class, but none is given; pass --class cat (or train with --method ti)",
                config.method
            )));
        }
        let (templates, set) = Templates::context(&core.prompts, &class)?;
        let prompts = (0..templates.count()).map(|i| templates.fill(i, &config.concept)).collect();
        Ok(Some(Self { config: core, class, set, prompts }))
    }

    /// Whether the attention is compared for the queries of the reconstruction pass.
    pub(crate) fn shares_queries(&self) -> bool {
        self.config.attn_mode == AttentionMode::SharedQuery && self.config.lambda_attn > 0.0
    }

    /// Every prompt must fit, with the concept and with its class.
    pub(crate) fn check(&self, concept: &dyn Concept, tokenizer: &Tokenizer) -> Result<(), Error> {
        self.prompts.iter().try_for_each(|prompt| self.pair(prompt, concept, tokenizer).map(|_| ()))
    }

    /// A prompt with the concept and with its class.
    pub(crate) fn pair(
        &self,
        prompt: &str,
        concept: &dyn Concept,
        tokenizer: &Tokenizer,
    ) -> Result<PromptPair, Error> {
        let object = PromptTokens::new(prompt, &[concept], tokenizer, Overflow::Refuse)?;
        let classes = [tokenizer.encode(&self.class)];
        Ok(PromptPair::new(object, prompt, &classes, tokenizer)?)
    }

    /// The prompts with their encodings.
    pub(crate) fn prompts<'a>(
        &self,
        conditioner: &'a Conditioner,
        concept: &'a dyn Concept,
    ) -> Result<ContextPrompts<'a>, Error> {
        let pair = |prompt: &String| conditioner.pair(prompt, &[concept], &[&self.class]);
        let pairs = self.prompts.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        Ok(ContextPrompts::new(conditioner, vec![concept], pairs))
    }

    /// What the user should know before the run of `config`.
    pub(crate) fn warnings(
        &self,
        config: &TrainConfig,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<String>, Error> {
        let mut warnings = Vec::new();
        let (class, vectors) = (&self.class, config.vectors);
        let words = tokenizer.encode(class).len();
        if words != vectors as usize {
            let advice = match config.method.as_str() {
                "neti" => "NeTI learns one vector, so give a class of one token",
                _ => "--vectors 0 takes as many as the class has",
            };
            warnings.push(format!(
                "{vectors} vector(s) are compared with the {words} tokens of '{class}': the words behind stand at other places in the two prompts, which the vectors cannot make up for; {advice}"
            ));
        }
        let parts = config.gradient_accumulation;
        let sums = self.config.attn_reduce == AttentionReduction::BatchSum;
        if sums && self.config.lambda_attn > 0.0 && parts > 1 {
            warnings.push(format!(
                "core.attn_reduce=batch_sum sums over a micro-batch of {}, and of those the mean counts: accumulated over {parts}, the attention has 1/{parts} of the weight that it has in one batch; {parts} times core.lambda_attn makes up for it",
                config.batch_size
            ));
        }
        if self.config.lambda_emb == 0.0 && self.config.lambda_attn == 0.0 {
            let plain = match config.method.as_str() {
                "core" => "Textual Inversion",
                method => method,
            };
            warnings.push(format!(
                "core.lambda_emb and core.lambda_attn are both 0, so this is plain {plain}"
            ));
        }
        let usual = TrainConfig::preset(&config.method)?.steps;
        if config.steps > 2 * usual {
            warnings.push(format!(
                "{} steps are more than twice the {usual} of the preset; long runs learn the photos by heart and ignore the rest of a prompt",
                config.steps
            ));
        }
        if self.set == "person" && config.flip {
            warnings.push(
                "a quarter of the views are mirrored, which changes a face; --set flip=false leaves them as they are"
                    .into(),
            );
        }
        Ok(warnings)
    }
}
