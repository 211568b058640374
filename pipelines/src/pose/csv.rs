//! The lists of the DPTN and CFLD distributions of DeepFashion, which name photos by their flattened paths.
//!
//! `fasion-resize-pairs-*.csv` has the header `from,to`; `fasion-resize-annotation-*.csv` the header
//! `name:keypoints_y:keypoints_x` and lists of eighteen numbers, y first. Both are spelt so.

use std::collections::HashMap;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use super::data::Named;
use super::file::Points;
use super::{Fault, JOINTS};
use crate::Error;

/// The photos of a folder by [`key`].
pub(super) type Photos = HashMap<String, Vec<PathBuf>>;

/// What the flattened name of a photo and its path have in common: no `/` and `_`, and no `fashion` in front.
pub(super) fn key(name: &str) -> String {
    let flat: String = name.chars().filter(|c| !matches!(c, '/' | '\\' | '_')).collect();
    let bare = flat.strip_prefix("fashion").or_else(|| flat.strip_prefix("fasion"));
    bare.map_or(flat.clone(), str::to_owned)
}

/// Every picture below a folder, sorted.
pub(super) fn pictures_below(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(Error::io(&folder, "read"))?;
        for entry in entries {
            let path = entry.map_err(Error::io(&folder, "read"))?.path();
            let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if path.is_dir() {
                folders.push(path);
            } else if matches!(
                ending.as_str(),
                "jpg" | "jpeg" | "png" | "webp" | "bmp" | "tif" | "tiff"
            ) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The same by their paths, whole and without the first folder (`img`, `train`, ...).
pub(super) fn photos(root: &Path) -> Result<Photos, Error> {
    let mut found = Photos::new();
    for path in pictures_below(root)? {
        let inside = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
        let without_first = inside.split_once('/').map(|(_, rest)| rest);
        for name in iter::once(&*inside).chain(without_first) {
            found.entry(key(name)).or_default().push(path.clone());
        }
    }
    Ok(found)
}

/// The numbered lines behind the header that a file must have.
fn rows<'a>(
    file: &Path,
    text: &'a str,
    header: &str,
    faults: &mut Vec<Fault>,
) -> Vec<(usize, &'a str)> {
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    match lines.next() {
        Some((_, found)) if found == header => {}
        found => {
            let found = found.map_or("", |(_, line)| line);
            let what = format!(
                "the header {header} was expected, '{found}' was found; give the list as DPTN or CFLD publish it"
            );
            faults.push(Fault::at(file, 1, what));
            return Vec::new();
        }
    }
    lines.filter(|(_, line)| !line.is_empty()).collect()
}

/// The pairs of a list.
pub(super) fn pairs(list: &Path, faults: &mut Vec<Fault>) -> Result<Vec<Named>, Error> {
    let text = torch_ext::file::read_to_string(list).map_err(Error::io(list, "read"))?;
    let mut named = Vec::new();
    for (line, row) in rows(list, &text, "from,to", faults) {
        let cells: Vec<&str> = row.split(',').map(str::trim).collect();
        match cells[..] {
            [source, target] if !source.is_empty() && !target.is_empty() => {
                named.push(Named { line, source: source.into(), target: target.into() });
            }
            _ => {
                let what = format!(
                    "two names with a comma between them were expected, '{row}' was found; correct or remove the line"
                );
                faults.push(Fault::at(list, line, what));
            }
        }
    }
    Ok(named)
}

/// The joints of an annotation file.
pub(super) struct Annotations {
    pub file: PathBuf,
    rows: HashMap<String, (usize, Points)>,
}

impl Annotations {
    /// A photo's line and joints.
    pub(super) fn row(&self, name: &str) -> Option<(usize, &Points)> {
        self.rows.get(&key(name)).map(|(line, points)| (*line, points))
    }
}

/// The annotations that belong to a list of pairs: `annotation` where that is called `pairs`.
pub(super) fn annotations(list: &Path, faults: &mut Vec<Fault>) -> Result<Annotations, Error> {
    let name = list.file_name().unwrap_or_default().to_string_lossy();
    let file = list.with_file_name(name.replace("-pairs-", "-annotation-"));
    let text = torch_ext::file::read_to_string(&file).map_err(Error::io(&file, "read"))?;
    let mut found = HashMap::new();
    for (line, row) in rows(&file, &text, "name:keypoints_y:keypoints_x", faults) {
        match annotation(row) {
            Ok((name, points)) => {
                found.insert(key(name), (line, points));
            }
            Err(what) => faults.push(Fault::at(&file, line, what)),
        }
    }
    Ok(Annotations { file, rows: found })
}

fn annotation(row: &str) -> Result<(&str, Points), String> {
    let cells: Vec<&str> = row.split(':').collect();
    let [name, y, x] = cells[..] else {
        return Err(format!(
            "name:keypoints_y:keypoints_x was expected, a line of {} cells was found; correct or remove it",
            cells.len()
        ));
    };
    let list = |axis: &str, text: &str| {
        let numbers: Vec<f64> = serde_json::from_str(text).map_err(|_| {
            format!("keypoints_{axis} of {name} is no list of {} numbers; write -1 for a joint that is not seen", JOINTS.len())
        })?;
        <[f64; 18]>::try_from(numbers).map_err(|numbers| {
            format!("keypoints_{axis} of {name} holds {} numbers, {} were expected, one for each joint from nose to left_ear", numbers.len(), JOINTS.len())
        })
    };
    let (y, x) = (list("y", y)?, list("x", x)?);
    Ok((name, std::array::from_fn(|k| (x[k], y[k]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flattened_names_and_paths_have_one_key() {
        let flat = key("fashionWOMENDressesid0000713204_3back.jpg");
        assert_eq!(flat, key("WOMEN/Dresses/id_00007132/04_3_back.jpg"));
        assert_eq!(flat, key("fasionWOMENDressesid0000713204_3back.jpg"));
        assert_ne!(flat, key("WOMEN/Dresses/id_00007132/04_4_back.jpg"));
    }

    #[test]
    fn rows_that_are_wrong_say_how() {
        let eighteen = format!("[{}]", [7; 18].map(|n| n.to_string()).join(", "));
        let row = format!("a.jpg:{eighteen}:{}", eighteen.replace('7', "-1"));
        let (name, points) = annotation(&row).unwrap();
        assert_eq!((name, points[3]), ("a.jpg", (-1.0, 7.0)));
        for (row, words) in [
            (format!("a.jpg:{eighteen}"), "2 cells"),
            (format!("a.jpg:{eighteen}:[1, 2]"), "keypoints_x of a.jpg holds 2 numbers, 18"),
            (format!("a.jpg:[NaN]:{eighteen}"), "keypoints_y of a.jpg is no list"),
        ] {
            let said = annotation(&row).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn another_header_is_refused_on_line_one() {
        let mut faults = Vec::new();
        assert!(
            rows(Path::new("p.csv"), "source,target\na,b\n", "from,to", &mut faults).is_empty()
        );
        assert!(faults[0].to_string().starts_with("p.csv:1: the header from,to"), "{faults:?}");
        faults.clear();
        assert_eq!(
            rows(Path::new("p.csv"), "from,to\r\n\na,b\n", "from,to", &mut faults),
            [(3, "a,b")]
        );
        assert!(faults.is_empty());
    }
}
