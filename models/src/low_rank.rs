//! Thin trainable matrices beside frozen ones.
//!
//! Paper: Hu et al. 2022 (`LoRA`), section 4.1, with alpha equal to the rank: `y = W x + B A x`.

use tch::{Device, Kind, Tensor};

use crate::params::{ParamSource, Params};

/// A source whose network has a product of two thin matrices beside some of its own. They come from a second source,
/// trainable or read from a file, under peft's names: `….lora_A.weight` `[rank, inputs]` and `….lora_B.weight`
/// `[outputs, rank]`. A network starts as it was where the latter are zero.
pub struct LowRank<'a> {
    base: &'a dyn ParamSource,
    beside: Params<'a>,
    rank: i64,
    targets: fn(&str) -> bool,
}

impl<'a> LowRank<'a> {
    /// Matrices of this rank beside the weights of `base` whose names are `targets`, out of `beside`.
    pub fn new(
        base: &'a dyn ParamSource,
        beside: Params<'a>,
        rank: i64,
        targets: fn(&str) -> bool,
    ) -> Self {
        Self { base, beside, rank, targets }
    }
}

/// The keys and values of a U-Net's cross-attention.
pub fn cross_attention_keys_and_values(name: &str) -> bool {
    name.ends_with("attn2.to_k.weight") || name.ends_with("attn2.to_v.weight")
}

impl ParamSource for LowRank<'_> {
    fn parameter(&self, name: &str, shape: &[i64]) -> Tensor {
        self.base.parameter(name, shape)
    }

    fn low_rank(&self, name: &str, shape: &[i64]) -> Option<[Tensor; 2]> {
        let (layer, &[outputs, inputs]) = (name.strip_suffix(".weight")?, shape) else {
            return None;
        };
        (self.targets)(name).then(|| {
            let layer = self.beside.pp(layer);
            [
                layer.get("lora_A.weight", &[self.rank, inputs]),
                layer.get("lora_B.weight", &[outputs, self.rank]),
            ]
        })
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.base.shape(name)
    }

    fn kind(&self) -> Kind {
        self.base.kind()
    }

    fn device(&self) -> Device {
        self.base.device()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::Fresh;
    use crate::layers::Linear;
    use crate::seeded::Seeded;

    #[test]
    fn only_the_thin_matrices_beside_a_target_are_trained_and_they_add_their_product() {
        let base = Seeded::new("unet", 1, Kind::Float, Device::Cpu);
        let beside = Fresh::new(2, Kind::Float, Device::Cpu);
        let both = LowRank::new(
            &base,
            Params::root(&beside).pp("unet_lora"),
            3,
            cross_attention_keys_and_values,
        );
        let layer = Linear::without_bias(&Params::root(&both).pp("attn2.to_k"), 5, 4);
        let _ = Linear::without_bias(&Params::root(&both).pp("attn1.to_k"), 5, 4);
        let trained = beside.parameters();
        let names: Vec<&str> = trained.iter().map(|(name, _)| name.as_str()).collect();
        let expected = ["unet_lora.attn2.to_k.lora_A.weight", "unet_lora.attn2.to_k.lora_B.weight"];
        assert_eq!(names, expected);

        let x = crate::seeded::uniform("x", 1, &[2, 5]);
        let (a, b) = (&trained[0].1, &trained[1].1);
        let weight = base.parameter("attn2.to_k.weight", &[4, 5]) + b.matmul(a);
        let gap = (layer.forward(&x) - x.matmul(&weight.transpose(0, 1))).abs().max();
        assert!(gap.double_value(&[]) < 1e-5, "{gap}");
    }
}
