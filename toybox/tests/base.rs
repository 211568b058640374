//! The shipped base draws what is asked for, on a small fixed set.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;

use toybox::bars::{ATTRIBUTES, measure};

#[test]
fn the_shipped_base_reaches_its_floors() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/toybox");
    let bars = measure(&base, 24, "cpu").unwrap();
    assert!(bars.psnr >= 28.0, "reconstruction at {:.1} dB", bars.psnr);
    assert!(bars.to_caption >= 0.7 && bars.to_picture >= 0.7, "{bars:?}");
    for (attribute, floor) in FLOORS {
        let place = ATTRIBUTES.iter().position(|known| *known == attribute).unwrap();
        let drawn = bars.drawn.shares[place];
        assert!(
            drawn >= floor,
            "{attribute}: {drawn:.2} of the pictures, {floor} wanted; {bars:?}"
        );
    }
}

/// What the U-Net knows so far, of 24 scenes; chance gives a tenth and a quarter. `docs/toybox.md` has the rest.
const FLOORS: [(&str, f64); 2] = [("background", 0.4), ("style", 0.5)];
