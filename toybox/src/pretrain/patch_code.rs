//! The autoencoder's encoder, computed rather than trained: the principal components of 8 by 8 patches, laid
//! out in the layers of `AutoencoderKL`.
//!
//! A trained encoder of this size spends hours before it keeps a thing's colour. Principal components keep
//! colour, brightness and slopes from the start, are the best linear code there is, and never change, so that
//! the U-Net can be trained on them while the decoder still learns.
//!
//! The convolutions of stride 2 gather patches of 2, 4 and 8 pixels; residual branches and the attention are
//! zero. What is left that is not linear is the last norm and its activation: each component goes through
//! twice, with either sign, since `silu(z) - silu(-z) = z`, and constants beside them hold the norm's deviation
//! still.

use models::vae::VaeConfig;
use pipelines::Error;
use tch::{Device, Kind, Tensor};

use super::data::Gallery;

/// Deviations are raised to this power: 1 leaves the brightness some twenty times louder than fine slopes,
/// 0 makes all components equally loud.
const LOUDNESS: f64 = 0.5;
/// Deviation of the noise that the decoder must live with, in the latents' own.
const NOISE: f64 = 0.05;
/// The constants beside the components.
const CONSTANT: f64 = 20.0;
/// Red, green and blue of a patch of 2 by 2.
const QUAD: i64 = 12;

/// The encoder's non-zero parameters, by name, in f32.
pub(super) struct PatchCode {
    tensors: Vec<(String, Tensor)>,
}

impl PatchCode {
    /// From the statistics of a gallery's pictures. Refuses a configuration in which the code has no place.
    pub(super) fn of(gallery: &Gallery, config: &VaeConfig) -> Result<Self, Error> {
        require_room(config)?;
        let channels = &config.block_out_channels;
        let (quarter, eighth, latents) = (channels[1], channels[2], config.latent_channels);

        // Patches of 4 by 4 to `quarter` numbers, patches of 8 by 8 to the latents.
        let quads = |pictures: &Tensor| gather(&gather(pictures)); // [B, 48, 32, 32]
        let fours = Components::of(&gallery.map(|p| moments(&quads(p))), quarter);
        let eights = |pictures: &Tensor| gather(&fours.project(&quads(pictures)));
        let eights = Components::of(&gallery.map(|p| moments(&eights(p))), latents);

        // Louder and quieter components; together of variance 1.
        let loud = eights.deviation.pow_tensor_scalar(LOUDNESS);
        let loud = &loud / loud.square().mean(Kind::Double).sqrt();
        let scale = (loud / &eights.deviation).unsqueeze(-1); // [latents, 1]
        let code = &eights.axes * &scale; // [latents, 4 * quarter]
        let offset = (&eights.offset.unsqueeze(-1) * &scale).squeeze_dim(-1);

        let mut code_of_both_signs = Vec::new();
        let mut offset_of_both_signs = Vec::new();
        let group = eighth / 2;
        let constants = group - latents;
        for half in [0, latents / 2] {
            let (code, offset) =
                (code.narrow(0, half, latents / 2), offset.narrow(0, half, latents / 2));
            let still = Tensor::zeros([constants, 4 * quarter], (Kind::Double, Device::Cpu));
            let up = Tensor::full([constants / 2], CONSTANT, (Kind::Double, Device::Cpu));
            code_of_both_signs.extend([code.shallow_clone(), -code, still]);
            offset_of_both_signs.extend([offset.shallow_clone(), -offset, up.shallow_clone(), -up]);
        }
        let deviation =
            ((latents as f64 + constants as f64 * CONSTANT * CONSTANT) / group as f64).sqrt();

        let mut tensors = vec![
            ("encoder.conv_in.weight", in_the_middle(&eye(channels[0], 3))),
            (
                "encoder.down_blocks.0.downsamplers.0.conv.weight",
                patches(&eye(channels[0], QUAD), 3, channels[0]),
            ),
            (
                "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
                pixel(&eye(quarter, channels[0])),
            ),
            (
                "encoder.down_blocks.1.downsamplers.0.conv.weight",
                patches(&fours.axes, QUAD, quarter),
            ),
            ("encoder.down_blocks.1.downsamplers.0.conv.bias", -&fours.offset),
            ("encoder.down_blocks.2.resnets.0.conv_shortcut.weight", pixel(&eye(eighth, quarter))),
            (
                "encoder.down_blocks.2.downsamplers.0.conv.weight",
                patches(&Tensor::cat(&code_of_both_signs, 0), quarter, eighth),
            ),
            (
                "encoder.down_blocks.2.downsamplers.0.conv.bias",
                -Tensor::cat(&offset_of_both_signs, 0),
            ),
            (
                "encoder.conv_norm_out.weight",
                Tensor::full([eighth], deviation, (Kind::Double, Device::Cpu)),
            ),
            ("encoder.conv_out.weight", in_the_middle(&difference(latents, group))),
            ("encoder.conv_out.bias", log_variance(latents)),
            ("quant_conv.weight", pixel(&eye(2 * latents, 2 * latents))),
        ];
        let tensors = tensors.drain(..).map(|(name, t)| (name.to_owned(), t.to_kind(Kind::Float)));
        Ok(Self { tensors: tensors.collect() })
    }

    /// The parameter of this name in the likeness of `other`, if it is the encoder's: those that are not in
    /// the code are zero, but for the weights of norms, which are one.
    pub(super) fn parameter(&self, name: &str, other: &Tensor) -> Option<Tensor> {
        if !(name.starts_with("encoder.") || name.starts_with("quant_conv.")) {
            return None;
        }
        let known = self.tensors.iter().find(|(known, _)| known == name);
        Some(match known {
            Some((_, tensor)) => tensor.shallow_clone(),
            None if name.contains("norm") && name.ends_with("weight") => other.ones_like(),
            None => other.zeros_like(),
        })
    }
}

/// The code fills the layers of one shape of autoencoder only; the network would silently do something else.
fn require_room(config: &VaeConfig) -> Result<(), Error> {
    let channels = &config.block_out_channels;
    let latents = config.latent_channels;
    let wants = [
        (channels.len() == 4, "four levels of block_out_channels"),
        (config.layers_per_block == 1, "layers_per_block 1"),
        (config.norm_num_groups == 2, "norm_num_groups 2"),
        (
            channels.iter().take(2).all(|&c| c >= QUAD),
            "12 channels or more in the first two levels",
        ),
        (latents % 2 == 0, "an even number of latent_channels"),
        (
            channels.get(2).is_some_and(|&c| latents < c / 2),
            "latent_channels below half of the third level's",
        ),
    ];
    match wants.iter().find(|(met, _)| !met) {
        None => Ok(()),
        Some((_, wanted)) => Err(Error::Usage(format!(
            "the encoder is computed for an autoencoder with {wanted}; vae/config.json has block_out_channels \
             {channels:?}, layers_per_block {}, norm_num_groups {}, latent_channels {latents}",
            config.layers_per_block, config.norm_num_groups
        ))),
    }
}

/// Principal components of vectors.
struct Components {
    /// Unit vectors, the strongest first, `[count, width]`.
    axes: Tensor,
    /// The mean along each axis, `[count]`.
    offset: Tensor,
    /// The deviation along each axis, `[count]`.
    deviation: Tensor,
}

impl Components {
    /// From first and second moments, `[batches, width + 1, width + 1]` of [`moments`].
    fn of(moments: &Tensor, count: i64) -> Self {
        let moments = moments.mean_dim([0].as_slice(), false, Kind::Double);
        let width = moments.size()[0] - 1;
        let mean = moments.select(0, width).narrow(0, 0, width);
        let covariance = moments.narrow(0, 0, width).narrow(1, 0, width) - mean.outer(&mean);
        let (values, vectors) = covariance.linalg_eigh("L");
        let strongest = |t: &Tensor, axis| t.narrow(axis, width - count, count).flip([axis]);
        let axes = strongest(&vectors, 1).transpose(0, 1).contiguous(); // [count, width]
        let offset = axes.mv(&mean);
        Self { axes, offset, deviation: strongest(&values, 0).clamp_min(1e-12).sqrt() }
    }

    /// `[B, width, h, w]` to `[B, count, h, w]`.
    fn project(&self, x: &Tensor) -> Tensor {
        let axes = self.axes.to_kind(x.kind()).unsqueeze(-1).unsqueeze(-1);
        let offset = -self.offset.to_kind(x.kind());
        x.conv2d(&axes, Some(&offset), [1, 1], [0, 0], [1, 1], 1)
    }
}

/// Products of all pairs of channels and of channels with one, averaged: `[B, C, h, w]` to `[1, C + 1, C + 1]`.
fn moments(x: &Tensor) -> Tensor {
    let x = x.permute([1, 0, 2, 3]).flatten(1, 3).to_kind(Kind::Double); // [C, B · h · w]
    let x = Tensor::cat(&[&x, &x.narrow(0, 0, 1).ones_like()], 0);
    (x.matmul(&x.transpose(0, 1)) / x.size()[1] as f64).unsqueeze(0)
}

/// Each 2 by 2 pixels to one with four times the channels: `[B, C, H, W]` to `[B, 4 C, H/2, W/2]`, pixel by pixel.
fn gather(x: &Tensor) -> Tensor {
    let s = x.size();
    let x = x.reshape([s[0], s[1], s[2] / 2, 2, s[3] / 2, 2]);
    x.permute([0, 3, 5, 1, 2, 4]).reshape([s[0], 4 * s[1], s[2] / 2, s[3] / 2])
}

/// The first `count` of `width` numbers as they are; the rest zero.
fn eye(width: i64, count: i64) -> Tensor {
    let on = (Kind::Double, Device::Cpu);
    let size = count.min(width);
    Tensor::eye(size, on).constant_pad_nd([0, count - size, 0, width - size]) // [width, count]
}

/// Rows over gathered patches of `each` channels, `[rows, 4 * each]`, as the weight of a convolution of stride 2
/// over as many inputs as outputs, whose kernel covers the patch and one pixel more; missing rows are zero.
fn patches(rows: &Tensor, each: i64, channels: i64) -> Tensor {
    let count = rows.size()[0];
    let taps = rows.reshape([count, 2, 2, each]).permute([0, 3, 1, 2]); // [rows, each, 2, 2]
    taps.constant_pad_nd([0, 1, 0, 1, 0, channels - each, 0, channels - count])
}

/// A matrix as the weight of a convolution of kernel 1.
fn pixel(matrix: &Tensor) -> Tensor {
    matrix.unsqueeze(-1).unsqueeze(-1)
}

/// A matrix as the weight of a convolution of kernel 3 that sees the pixel itself only.
fn in_the_middle(matrix: &Tensor) -> Tensor {
    pixel(matrix).constant_pad_nd([1, 1, 1, 1])
}

/// Subtracts the negative copies from the positive ones; nothing for the log-variances: `[2 latents, 2 group]`.
fn difference(latents: i64, group: i64) -> Tensor {
    let half = eye(latents / 2, latents / 2);
    let both = Tensor::cat(&[&half, &-&half], 1).constant_pad_nd([0, group - latents, 0, 0]);
    let none = both.zeros_like();
    let rows = [Tensor::cat(&[&both, &none], 1), Tensor::cat(&[&none, &both], 1)];
    Tensor::cat(&rows, 0).constant_pad_nd([0, 0, 0, latents])
}

/// Zero for the means, that of [`NOISE`] for the log-variances, `[2 latents]`.
fn log_variance(latents: i64) -> Tensor {
    let on = (Kind::Double, Device::Cpu);
    let noise = 2.0 * NOISE.ln();
    Tensor::cat(&[Tensor::zeros([latents], on), Tensor::full([latents], noise, on)], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_convolutions_do_what_gathering_and_projecting_do() {
        let x = Tensor::rand([2, 3, 8, 8], (Kind::Double, Device::Cpu));
        let weight = patches(&eye(16, QUAD), 3, 16); // [16, 16, 3, 3]
        let padded = x.constant_pad_nd([0, 1, 0, 1, 0, 13]);
        let done = padded.conv2d(&weight, None::<Tensor>, [2, 2], [0, 0], [1, 1], 1);
        let apart = (done.narrow(1, 0, QUAD) - gather(&x)).abs().max().double_value(&[]);
        assert!(apart < 1e-12, "{apart}");
    }

    #[test]
    fn a_configuration_without_room_is_refused_by_name() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/toybox/vae/config.json");
        let text = std::fs::read_to_string(path).expect("shipped");
        let shipped: VaeConfig = serde_json::from_str(&text).expect("valid");
        assert!(require_room(&shipped).is_ok());
        let wide = text.replace("\"latent_channels\": 24", "\"latent_channels\": 32");
        let error =
            require_room(&serde_json::from_str(&wide).expect("valid")).expect_err("no room");
        assert!(error.to_string().contains("latent_channels below half"), "{error}");
    }

    #[test]
    fn components_are_the_strongest_axes_around_the_mean() {
        let draw = torch_ext::Generator::cpu(1);
        let x = draw.randn(&[1, 3, 200, 200]);
        let x = x * Tensor::from_slice(&[1f32, 5.0, 0.1]).view([1, 3, 1, 1]) + 7.0;
        let components = Components::of(&moments(&x), 2);
        let deviation: Vec<f64> = Vec::try_from(&components.deviation).expect("flat");
        assert!((deviation[0] - 5.0).abs() < 0.1 && (deviation[1] - 1.0).abs() < 0.02);
        let mean = components.project(&x.to_kind(Kind::Double)).mean(Kind::Double);
        assert!(mean.double_value(&[]).abs() < 1e-9);
    }
}
