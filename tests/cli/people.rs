//! Folders of people as a user has them.

use std::fs;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};

use super::scratch;

/// A path as an argument.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The lines of somebody who stands in a photo of 128 by 128, moved to the right by so many pixels.
pub fn lines(right: i32) -> Vec<String> {
    const STANDING: [(i32, i32); 18] = [
        (60, 22),
        (60, 36),
        (50, 37),
        (46, 50),
        (44, 62),
        (70, 37),
        (74, 50),
        (76, 62),
        (55, 66),
        (54, 88),
        (53, 110),
        (65, 66),
        (66, 88),
        (67, 110),
        (57, 20),
        (63, 20),
        (54, 22),
        (66, 22),
    ];
    STANDING.map(|(x, y)| format!("{} {y}", x + right)).to_vec()
}

pub fn written(file: &Path, lines: &[String]) -> PathBuf {
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    fs::write(file, lines.join("\n") + "\n").expect("written");
    file.to_owned()
}

pub fn photo(file: &Path, level: u8) {
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    let pixels = RgbImage::from_fn(128, 128, |x, y| Rgb([level, 80 + x as u8, 60 + y as u8]));
    pixels.save(file).expect("saved");
}

/// FPDM's layout with pairs of photos 0 and 1, 1 and 2, ...
pub fn data(name: &str, pairs: u32) -> PathBuf {
    let root = scratch(name);
    let mut list = Vec::new();
    for index in 0..=pairs {
        photo(&root.join(format!("img/{index}.png")), index as u8);
        written(&root.join(format!("pose/{index}.txt")), &lines(index as i32));
        if index > 0 {
            list.push(format!(
                "{{\"source_image\": \"./img/{}.png\", \"target_image\": \"./img/{index}.png\"}}",
                index - 1
            ));
        }
    }
    written(&root.join("train_pairs_data.json"), &[format!("[\n{}\n]", list.join(",\n"))]);
    root
}
