//! The VAE against diffusers (`scripts/fixtures/vae.py`).

#![allow(clippy::unwrap_used)] // a test may panic

mod parity;

use parity::{FAMILIES, Fixture, OUTPUTS, input, vae};

#[test]
fn pictures_are_encoded_to_the_same_mean_and_log_variance() {
    for family in FAMILIES {
        let (fixture, vae) = (Fixture::open(&format!("{family}/vae.safetensors")), vae(family));
        for (size, shape) in [("64x64", [1, 3, 64, 64]), ("40x56", [2, 3, 40, 56])] {
            let latents = vae.encode(&input(&format!("vae/image_{size}"), &shape));
            fixture.agrees(&format!("mean_{size}"), &latents.mean, OUTPUTS);
            fixture.agrees(&format!("log_variance_{size}"), &latents.logvar, OUTPUTS);
        }
    }
}

#[test]
fn latents_are_decoded_to_the_same_picture() {
    for family in FAMILIES {
        let (fixture, vae) = (Fixture::open(&format!("{family}/vae.safetensors")), vae(family));
        for (size, shape) in [("8x8", [1, 4, 8, 8]), ("5x7", [2, 4, 5, 7])] {
            // diffusers' own decode takes latents as the encoder gives them, ours as the U-Net has them
            let latents = input(&format!("vae/latents_{size}"), &shape) * vae.scaling_factor();
            fixture.agrees(&format!("decoded_{size}"), &vae.decode(&latents), OUTPUTS);
        }
    }
}
