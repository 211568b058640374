//! A photographer's studio: nothing but a backdrop.

use super::Setting;
use crate::colour::{scale, smoothstep};
use crate::paint::Layer;
use crate::rng::Rng;

/// Wall and floor of one pale colour that run into each other.
pub fn backdrop(rng: &mut Rng) -> Setting {
    let (light, edge) = (rng.range(0.58, 0.92), rng.range(86.0, 100.0));
    let colour = [(); 3].map(|()| light + rng.range(-0.06, 0.06));
    let layer = Layer::painted(|_, y| {
        let floor = smoothstep(edge, edge + 14.0, y);
        scale(colour, 1.0 - 0.06 * y / 128.0 - 0.05 * floor)
    });
    Setting { shadow: (scale(colour, 0.35), 0.30), ..Setting::outdoors(layer, colour) }
}
