//! Colours of photos with profiles against littlecms through Pillow (`scripts/fixtures/photos.py`).

use std::collections::BTreeMap;
use std::path::Path;

use pipelines::photos;

/// Levels of 255 by which two colour managers may differ, as elsewhere for pixels.
const LEVELS: u8 = 2;

/// The side of a patch.
const PATCH: u32 = 16;

#[test]
fn photos_with_colour_profiles_have_littlecms_colours() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos");
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Vec<Vec<[u8; 3]>>> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 13);
    for (name, rows) in expected {
        let photo = photos::read(&folder.join(&name)).unwrap();
        let (mut found, mut off) = (Vec::new(), 0);
        for (row, colours) in (0..).zip(&rows) {
            for (column, colour) in (0..).zip(colours) {
                let at = |place: u32| place * PATCH + PATCH / 2;
                let pixel = photo.get_pixel(at(column), at(row)).0;
                off = off.max(pixel.iter().zip(colour).map(|(a, b)| a.abs_diff(*b)).max().unwrap());
                found.push(pixel);
            }
        }
        assert!(off <= LEVELS, "{name} is off by {off}: {found:?}, expected {rows:?}");
    }
}
