//! The shipped base draws what is asked for, on a small fixed set.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;

use toybox::World;
use toybox::bars::measure;

#[test]
fn the_shipped_base_reaches_its_floors() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/toybox");
    let bars = measure(World::Fine, &base, 24, "cpu").unwrap();
    assert!(bars.psnr >= 28.0, "reconstruction at {:.1} dB", bars.psnr);
    assert!(bars.to_caption >= 0.7 && bars.to_picture >= 0.7, "{bars:?}");
    // What the U-Net reaches on 24 scenes, less a little; `docs/toybox.md` has the figures of more.
    let drawn = &bars.drawn;
    let floors = [
        ("class", drawn.class, 0.8),
        ("background", drawn.background, 0.85),
        ("style", drawn.style, 0.95),
        ("accessory", drawn.accessory, 0.65),
        ("colour", drawn.colour, 0.6),
    ];
    for (attribute, drawn, floor) in floors {
        assert!(
            drawn >= floor,
            "{attribute}: {drawn:.2} of the pictures, {floor} wanted; {bars:?}"
        );
    }
}
