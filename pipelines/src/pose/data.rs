//! Folders of people: photos, poses, and lists of pairs of one person.
//!
//! Two forms are read. FPDM's: `train_pairs_data.json` and `test_pairs_data.json` (PCDMs' `train_data.json`,
//! `test_data.json`) name photos, and the pose of `img/a/b.jpg` is `pose/a/b.txt` (or `.json`). DPTN's and CFLD's, where none of
//! those is there: `fasion-resize-pairs-train.csv`, `fasion-resize-annotation-train.csv` and the same of `test`.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::file::{pose_of, read_all};
use super::{Fault, Frame, Skeleton, csv};
use crate::{Error, photos};

/// One person in two photos, and the joints in the second.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The photo that shows who it is.
    pub source: PathBuf,
    /// The photo to be drawn.
    pub target: PathBuf,
    /// Its pose.
    pub pose: Skeleton,
}

/// A folder's pairs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoseData {
    /// Those to learn from.
    pub train: Vec<Pair>,
    /// Those to be judged by.
    pub test: Vec<Pair>,
}

/// What was found in a folder, sound or not.
#[derive(Debug, Default)]
pub struct Survey {
    /// The pairs without a fault.
    pub data: PoseData,
    /// Pairs that the lists name.
    pub pairs: usize,
    /// Different photos among them that are there.
    pub photos: usize,
    /// Different poses among them that can be read.
    pub poses: usize,
    /// All that is wrong, in the order of the lists.
    pub faults: Vec<Fault>,
}

impl PoseData {
    /// Reads a folder, and refuses it with its first fault where there is any.
    pub fn read(root: &Path, frame: Frame) -> Result<Self, Error> {
        let Survey { data, mut faults, .. } = survey(root, frame)?;
        match faults.len() {
            0 => Ok(data),
            1 => Err(faults.swap_remove(0).into()),
            count => {
                let Fault { file, line, what } = faults.swap_remove(0);
                let what = format!(
                    "{what} (and {} more faults; `personalize pose check --data` lists them)",
                    count - 1
                );
                Err(Fault { file, line, what }.into())
            }
        }
    }
}

/// A pair as a list names it.
pub(super) struct Named {
    pub line: usize,
    pub source: String,
    pub target: String,
}

/// Reads all lists of a folder, all photos' sizes and all poses, and gathers every fault.
pub fn survey(root: &Path, frame: Frame) -> Result<Survey, Error> {
    if !root.is_dir() {
        return Err(Error::Usage(format!(
            "{} is not a folder; give the one that holds the photos, poses and lists of pairs",
            root.display()
        )));
    }
    let list =
        |names: [&str; 2]| names.map(|name| root.join(name)).into_iter().find(|p| p.is_file());
    let train = list(["train_pairs_data.json", "train_data.json"]);
    let test = list(["test_pairs_data.json", "test_data.json"]);
    let mut found = Finder {
        root,
        frame,
        survey: Survey::default(),
        photos: HashMap::new(),
        poses: HashMap::new(),
    };
    if train.is_some() || test.is_some() {
        if let Some(list) = train {
            found.survey.data.train = found.json(&list)?;
        }
        if let Some(list) = test {
            found.survey.data.test = found.json(&list)?;
        }
    } else {
        let splits =
            ["train", "test"].map(|split| root.join(format!("fasion-resize-pairs-{split}.csv")));
        if !splits.iter().any(|list| list.is_file()) {
            return Err(Fault::at(
                root,
                None,
                "holds no list of pairs; put train_pairs_data.json there, or fasion-resize-pairs-train.csv with fasion-resize-annotation-train.csv",
            )
            .into());
        }
        let by_key = csv::photos(root)?;
        let [train, test] = splits
            .map(|list| if list.is_file() { found.csv(&list, &by_key) } else { Ok(Vec::new()) });
        found.survey.data = PoseData { train: train?, test: test? };
    }
    Ok(found.survey)
}

struct Finder<'a> {
    root: &'a Path,
    frame: Frame,
    survey: Survey,
    /// The sizes of the photos met so far; nothing for those that cannot be read.
    photos: HashMap<PathBuf, Option<(u32, u32)>>,
    /// The poses read so far; nothing for those that are wrong.
    poses: HashMap<PathBuf, Option<Skeleton>>,
}

impl Finder<'_> {
    /// The sound pairs of a JSON list.
    fn json(&mut self, list: &Path) -> Result<Vec<Pair>, Error> {
        let text = torch_ext::file::read_to_string(list).map_err(Error::io(list, "read"))?;
        let named = pairs(list, &text, &mut self.survey.faults);
        self.survey.pairs += named.len();
        let mut sound = Vec::new();
        for Named { line, source, target } in named {
            let source = self.photo(list, line, "source", &source);
            let Some((target, size)) = self.photo(list, line, "target", &target) else { continue };
            let pose = self.pose(list, line, &target, size);
            if let (Some((source, _)), Some(pose)) = (source, pose) {
                sound.push(Pair { source, target, pose });
            }
        }
        Ok(sound)
    }

    /// The sound pairs of a CSV list, whose annotations lie beside it.
    fn csv(&mut self, list: &Path, by_key: &csv::Photos) -> Result<Vec<Pair>, Error> {
        let faults = &mut self.survey.faults;
        let named = csv::pairs(list, faults)?;
        let annotations = csv::annotations(list, faults)?;
        self.survey.pairs += named.len();
        let mut sound = Vec::new();
        for Named { line, source, target } in named {
            let source = self.flattened(list, line, ("source", &source), by_key);
            let found = self.flattened(list, line, ("target", &target), by_key);
            let Some((target_file, size)) = found else { continue };
            let pose = match self.poses.get(&target_file) {
                Some(known) => *known,
                None => match annotations.row(&target) {
                    None => {
                        let what = format!(
                            "{target} has no row in {}; add one, or remove the pair",
                            annotations.file.display()
                        );
                        self.survey.faults.push(Fault::at(list, line, what));
                        None
                    }
                    Some((row, points)) => match super::file::skeleton(points, self.frame, size) {
                        Ok(pose) => {
                            self.survey.poses += 1;
                            self.poses.insert(target_file.clone(), Some(pose));
                            Some(pose)
                        }
                        Err((_, what)) => {
                            self.survey.faults.push(Fault::at(&annotations.file, row, what));
                            self.poses.insert(target_file.clone(), None);
                            None
                        }
                    },
                },
            };
            if let (Some((source, _)), Some(pose)) = (source, pose) {
                sound.push(Pair { source, target: target_file, pose });
            }
        }
        Ok(sound)
    }

    fn flattened(
        &mut self,
        list: &Path,
        line: usize,
        (role, name): (&str, &str),
        by_key: &csv::Photos,
    ) -> Option<(PathBuf, (u32, u32))> {
        match by_key.get(&csv::key(name)).map(Vec::as_slice) {
            Some([file]) => self.size(file).map(|size| (file.clone(), size)),
            Some([first, second, ..]) => {
                let what = format!(
                    "the {role} {name} may be {} or {}; remove one of them",
                    first.display(),
                    second.display()
                );
                self.survey.faults.push(Fault::at(list, line, what));
                None
            }
            _ => {
                self.missing(list, line, role, name);
                None
            }
        }
    }

    /// A photo of a JSON list with its size.
    fn photo(
        &mut self,
        list: &Path,
        line: usize,
        role: &str,
        name: &str,
    ) -> Option<(PathBuf, (u32, u32))> {
        let file = self.root.join(name.strip_prefix("./").unwrap_or(name));
        if !file.is_file() {
            self.missing(list, line, role, name);
            return None;
        }
        self.size(&file).map(|size| (file, size))
    }

    fn missing(&mut self, list: &Path, line: usize, role: &str, name: &str) {
        let what = format!(
            "the {role} photo {name} is not there; put it into the folder, or remove the pair"
        );
        self.survey.faults.push(Fault::at(list, line, what));
    }

    /// A photo's size; told once where it cannot be read.
    fn size(&mut self, file: &Path) -> Option<(u32, u32)> {
        if let Some(known) = self.photos.get(file) {
            return *known;
        }
        let size = match photos::dimensions(file) {
            Ok(size) => {
                self.survey.photos += 1;
                Some(size)
            }
            Err(error) => {
                let whole = error.to_string();
                let shown = file.display().to_string();
                let what = whole.strip_prefix(&shown).unwrap_or(&whole).trim_start();
                self.survey.faults.push(Fault::at(file, None, what));
                None
            }
        };
        self.photos.insert(file.to_owned(), size);
        size
    }

    /// The pose of a photo of FPDM's layout; told once where it is wrong, and for each pair where it is not there.
    fn pose(
        &mut self,
        list: &Path,
        line: usize,
        photo: &Path,
        size: (u32, u32),
    ) -> Option<Skeleton> {
        let file = pose_of(&pose_stem(self.root, photo));
        if let Some(known) = self.poses.get(&file) {
            return *known;
        }
        if !file.is_file() {
            let shown = file.strip_prefix(self.root).unwrap_or(&file).display();
            let what =
                format!("the pose {shown} of the target is not there; add it, or remove the pair");
            self.survey.faults.push(Fault::at(list, line, what));
            return None;
        }
        let pose = match read_all(&file, self.frame, size) {
            Ok(pose) => {
                self.survey.poses += 1;
                Some(pose)
            }
            Err(faults) => {
                self.survey.faults.extend(faults);
                None
            }
        };
        self.poses.insert(file, pose);
        pose
    }
}

/// Where the pose of a photo lies, without its ending: `pose/` instead of a leading `img/`.
fn pose_stem(root: &Path, photo: &Path) -> PathBuf {
    let inside = photo.strip_prefix(root).unwrap_or(photo);
    let mut parts = inside.components();
    let rest = match parts.next() {
        Some(Component::Normal(first)) if first == "img" => parts.as_path(),
        _ => inside,
    };
    root.join("pose").join(rest).with_extension("")
}

/// The pairs of a JSON list; what is none is a fault.
fn pairs(list: &Path, text: &str, faults: &mut Vec<Fault>) -> Vec<Named> {
    const FORM: &str = "[{\"source_image\": \"./img/a.jpg\", \"target_image\": \"./img/b.jpg\"}, ...] was expected";
    let entries: Vec<Value> = match serde_json::from_str(text) {
        Ok(entries) => entries,
        Err(error) => {
            faults.push(Fault::at(list, error.line(), format!("{FORM}, but: {error}")));
            return Vec::new();
        }
    };
    if entries.is_empty() {
        faults.push(Fault::at(list, None, format!("holds no pair; {FORM}")));
    }
    let mut lines = entry_lines(text).into_iter();
    let mut named = Vec::new();
    for entry in entries {
        let line = lines.next().unwrap_or(1);
        match (entry["source_image"].as_str(), entry["target_image"].as_str()) {
            (Some(source), Some(target)) => {
                named.push(Named { line, source: source.into(), target: target.into() });
            }
            (source, _) => {
                let key = if source.is_none() { "source_image" } else { "target_image" };
                faults.push(Fault::at(list, line, format!("the pair has no {key}; {FORM}")));
            }
        }
    }
    named
}

/// The lines on which the entries of a list begin, whatever they are.
fn entry_lines(json: &str) -> Vec<usize> {
    let (mut lines, mut line, mut depth) = (Vec::new(), 1, 0);
    let (mut quoted, mut escaped, mut due) = (false, false, false);
    for byte in json.bytes() {
        if due && !byte.is_ascii_whitespace() && byte != b']' {
            lines.push(line);
            due = false;
        }
        match byte {
            b'\n' => line += 1,
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                depth += 1;
                due = depth == 1;
            }
            b',' => due = depth == 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_entries_are_found_in_any_spelling() {
        let json = "[{\"a\": \"{[\\\"\"},\n\n {\"a\": {\"b\": [\n{}, 1]}}, {\n}, \n7,\n\"a,b\"]";
        assert_eq!(entry_lines(json), [1, 3, 4, 6, 7]);
        assert!(entry_lines("[\n]").is_empty());
    }

    #[test]
    fn the_pose_of_a_photo_replaces_the_first_folder_only() {
        let root = Path::new("data");
        for (photo, pose) in [
            ("data/img/WOMEN/img/a_img.jpg", "data/pose/WOMEN/img/a_img"),
            ("data/MEN/b.png", "data/pose/MEN/b"),
        ] {
            assert_eq!(pose_stem(root, Path::new(photo)), Path::new(pose));
        }
    }

    #[test]
    fn entries_that_are_no_pairs_are_told_with_their_lines() {
        let mut faults = Vec::new();
        let text = "[\n{\"source_image\": \"a\"},\n{\"source_image\": \"a\", \"target_image\": \"b\"},\n{}]";
        let named = pairs(Path::new("l.json"), text, &mut faults);
        assert_eq!(named.iter().map(|pair| pair.line).collect::<Vec<_>>(), [3]);
        let said: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(said[0].starts_with("l.json:2: the pair has no target_image"), "{said:?}");
        assert!(said[1].starts_with("l.json:4: the pair has no source_image"), "{said:?}");
        faults.clear();
        assert!(pairs(Path::new("l.json"), "[\n{]", &mut faults).is_empty());
        assert!(faults[0].to_string().starts_with("l.json:2: "), "{faults:?}");
        faults.clear();
        assert!(pairs(Path::new("l.json"), "[]", &mut faults).is_empty());
        assert!(faults[0].what.contains("no pair"), "{faults:?}");
    }
}
