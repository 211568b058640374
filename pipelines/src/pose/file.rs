//! Joints in files: eighteen lines `x y`, `OpenPose`'s JSON, or a row of an annotation CSV.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::openpose::{self, Found};
use super::{Fault, Frame, JOINTS, Skeleton};

/// The joints as a file holds them.
pub(super) type Points = [(f64, f64); 18];

/// What is written for a joint that is not seen.
pub(super) const NOT_SEEN: f64 = -1.0;

/// The endings of a pose's file behind its picture's name, the one that counts where there are several first; the last is
/// `OpenPose`'s.
const ENDINGS: [&str; 3] = [".txt", ".json", "_keypoints.json"];

/// The pose of a picture in a folder, by the picture's path there without its extension; a `.txt` that is not there where
/// there is none.
pub(super) fn pose_of(stem: &Path) -> PathBuf {
    let name = stem.file_name().unwrap_or_default().to_string_lossy();
    let files = ENDINGS.map(|ending| stem.with_file_name(format!("{name}{ending}")));
    files.iter().find(|file| file.is_file()).unwrap_or(&files[0]).clone()
}

/// Reads a file of eighteen lines `x y`, `-1 -1` for a joint that is not seen, or `OpenPose`'s JSON.
///
/// `picture` is the size that goes with [`Frame::Pixels`]; other frames do not look at it.
pub fn read(file: &Path, frame: Frame, picture: (u32, u32)) -> Result<Skeleton, Fault> {
    read_all(file, frame, picture).map_err(|mut faults| faults.swap_remove(0))
}

/// [`read`], with every fault of the file; at least one where there is any.
pub(super) fn read_all(
    file: &Path,
    frame: Frame,
    picture: (u32, u32),
) -> Result<Skeleton, Vec<Fault>> {
    let fault = |line: Option<usize>, what: String| Fault::at(file, line, what);
    let text = text(file).map_err(|what| vec![fault(None, what)])?;
    if openpose::is_json(&text) {
        let from_json = || {
            let found = openpose::read(&text)?;
            let frame = frame_of(&found, frame)?;
            skeleton(&found.points, frame, picture).map_err(|(_, what)| what)
        };
        return from_json().map_err(|what| vec![fault(None, what)]);
    }
    let lines: Vec<&str> = text.trim_end().lines().collect();
    if lines.len() != JOINTS.len() {
        return Err(vec![fault(
            None,
            format!(
                "18 lines `x y` were expected, one for each joint from nose to left_ear, {} were found; write -1 -1 for a joint that is not seen",
                lines.len()
            ),
        )]);
    }
    let mut faults = Vec::new();
    let mut points = [(NOT_SEEN, NOT_SEEN); 18];
    for (k, line) in lines.iter().enumerate() {
        match point(line, JOINTS[k]) {
            Ok(point) => points[k] = point,
            Err(what) => faults.push(fault(Some(k + 1), what)),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    skeleton(&points, frame, picture)
        .map_err(|(joint, what)| vec![fault(joint.map(|joint| joint + 1), what)])
}

/// The text of a pose file.
fn text(file: &Path) -> Result<String, String> {
    torch_ext::file::read_to_string(file).map_err(|source| match source.kind() {
        ErrorKind::InvalidData => "is no text; a pose file holds 18 lines `x y`, one for each joint, or OpenPose's JSON, and a picture of a pose ends in .png".into(),
        _ => format!("cannot be read: {source}{}", models::advice(&source)),
    })
}

/// What a file's coordinates count in, where it says so itself; `None` for lines, which never do, and for what cannot be
/// read.
pub(super) fn own_frame(file: &Path) -> Option<Frame> {
    let text = text(file).ok().filter(|text| openpose::is_json(text))?;
    let (width, height) = openpose::read(&text).ok()?.canvas?;
    Some(Frame::PixelsOf(width, height))
}

/// The frame of a JSON file's joints beside the one that was given: shares of a picture are that in any frame, and the
/// picture that pixels are of is the one that the file names.
fn frame_of(found: &Found, given: Frame) -> Result<Frame, String> {
    let Some((width, height)) = found.canvas else { return Ok(given) };
    match given {
        _ if (width, height) == (1, 1) => Ok(Frame::PixelsOf(1, 1)),
        Frame::Pixels => Ok(Frame::PixelsOf(width, height)),
        Frame::PixelsOf(..) if given != Frame::PixelsOf(width, height) => Err(format!(
            "its canvas is {width}x{height}, but --frame {given} was given; pass --frame pixels:{width}x{height}, or correct the file"
        )),
        given => Ok(given),
    }
}

/// One line of a pose file.
fn point(line: &str, joint: &str) -> Result<(f64, f64), String> {
    let numbers: Vec<_> = line.split_whitespace().map(str::parse::<f64>).collect();
    let [Ok(x), Ok(y)] = numbers[..] else {
        return Err(format!(
            "two numbers `x y` of {joint} were expected, '{}' was found; write -1 -1 for a joint that is not seen",
            line.trim()
        ));
    };
    for (axis, value) in [("x", x), ("y", y)] {
        if !value.is_finite() {
            return Err(format!(
                "{axis} of {joint} is {value}; write a number, or -1 -1 for a joint that is not seen"
            ));
        }
    }
    Ok((x, y))
}

/// The skeleton of eighteen finite points of a frame; otherwise the joint that is wrong, if it is one, and why.
pub(super) fn skeleton(
    points: &Points,
    frame: Frame,
    picture: (u32, u32),
) -> Result<Skeleton, (Option<usize>, String)> {
    let seen = |(x, y): (f64, f64)| x != NOT_SEEN || y != NOT_SEEN;
    if !points.iter().any(|point| seen(*point)) {
        return Err((None, "no joint is seen; give a pose with at least one".into()));
    }
    if let Some(k) = points.iter().position(|(x, y)| (*x == NOT_SEEN) != (*y == NOT_SEEN)) {
        let what = format!(
            "{} is {} {}: one coordinate says that the joint is not seen, the other that it is; write -1 -1 or both",
            JOINTS[k], points[k].0, points[k].1
        );
        return Err((Some(k), what));
    }
    let mut origins = (0..18).filter(|k| points[*k] == (0.0, 0.0));
    if let (Some(first), Some(second)) = (origins.next(), origins.next()) {
        let what = format!(
            "{} and {} are both at 0 0, the picture's corner; write -1 -1 for a joint that is not seen",
            JOINTS[first], JOINTS[second]
        );
        return Err((Some(first), what));
    }
    let outside: Vec<usize> = (0..18)
        .filter(|k| seen(points[*k]) && frame.place(points[*k], picture).is_none())
        .collect();
    if let Some(&first) = outside.first() {
        let visible: Vec<(f64, f64)> =
            points.iter().copied().filter(|point| seen(*point)).collect();
        return Err((
            Some(first),
            beyond(points[first], (first, outside.len()), &visible, frame, picture),
        ));
    }
    Ok(Skeleton(points.map(|point| frame.place(point, picture))))
}

/// Says that joints lie outside the photo, and where they would lie inside.
fn beyond(
    (x, y): (f64, f64),
    (joint, count): (usize, usize),
    visible: &[(f64, f64)],
    frame: Frame,
    picture: (u32, u32),
) -> String {
    let (left, width, height) = frame.photo(picture);
    let others = match count - 1 {
        0 => String::new(),
        1 => ", and so does another joint".into(),
        more => format!(", and so do {more} other joints"),
    };
    let fit = |frame: Frame, exchanged: bool| {
        visible.iter().all(|(x, y)| {
            let point = if exchanged { (*y, *x) } else { (*x, *y) };
            frame.place(point, picture).is_some()
        })
    };
    let others_fit = [Frame::Narrow, Frame::Margin40].into_iter().find(|other| fit(*other, false));
    let advice = match (others_fit, fit(frame, true)) {
        (Some(other), false) => {
            format!("all lie inside the frame {other}: pass --frame {other} if that is meant")
        }
        (None, true) => {
            "with x and y exchanged all would lie inside: each line is `x y`, x first".to_owned()
        }
        (Some(other), true) => format!(
            "all lie inside the frame {other}, and inside this one with x and y exchanged: pass --frame {other}, or put x first, whichever is meant"
        ),
        (None, false) => "correct the file, or give the --frame that it was made for".to_owned(),
    };
    format!(
        "{} at {x} {y} lies outside the photo of the frame {frame} (x {left} to {}, y 0 to {height}){others}; {advice}",
        JOINTS[joint],
        left + width,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use proptest::prelude::*;

    /// A person who stands in the margin frame, in lines.
    fn standing() -> Vec<String> {
        (0..18).map(|k| format!("{} {}", 90 + 2 * k, 30.5 + 10.0 * f64::from(k))).collect()
    }

    fn written(name: &str, lines: &[String]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, lines.join("\n") + "\n").unwrap();
        (folder, file)
    }

    /// What is said of a file whose line (from 1) is another.
    fn said(line: usize, text: &str, frame: Frame) -> Fault {
        let mut lines = standing();
        lines[line - 1] = text.into();
        let (_folder, file) = written("a.txt", &lines);
        read(&file, frame, (0, 0)).unwrap_err()
    }

    #[test]
    fn eighteen_lines_make_a_skeleton_and_minus_one_leaves_a_joint_out() {
        let mut lines = standing();
        lines[17] = "-1 -1".into();
        let (_folder, file) = written("a.txt", &lines);
        let skeleton = read(&file, Frame::Margin40, (0, 0)).unwrap();
        assert_eq!(skeleton.seen(), 17);
        assert_eq!(skeleton.0[17], None);
        assert_eq!(skeleton.0[1], Some(((92.0 - 40.0) / 176.0, 40.5 / 256.0)));
    }

    #[test]
    fn seventeen_lines_are_refused() {
        let (_folder, file) = written("a.txt", &standing()[..17]);
        let fault = read(&file, Frame::Margin40, (0, 0)).unwrap_err();
        assert!(fault.line.is_none() && fault.what.contains("17 were found"), "{fault}");
    }

    #[test]
    fn a_line_that_is_no_point_is_named_with_its_joint() {
        for (text, word) in [
            ("nan 4", "x of right_shoulder is NaN"),
            ("4 inf", "y of right_shoulder is inf"),
            ("4", "'4' was found"),
            ("4,5", "'4,5' was found"),
            ("4 5 1", "'4 5 1' was found"),
            ("-1 50", "is -1 50"),
            ("", "'' was found"),
        ] {
            let fault = said(3, text, Frame::Margin40);
            assert!(fault.line == Some(3) && fault.what.contains(word), "{fault}");
        }
    }

    #[test]
    fn every_line_that_is_wrong_is_told() {
        let mut lines = standing();
        lines[2] = "NaN NaN".into();
        lines[9] = "here".into();
        let (_folder, file) = written("a.txt", &lines);
        let faults = read_all(&file, Frame::Margin40, (0, 0)).unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [Some(3), Some(10)]);
    }

    #[test]
    fn the_frame_that_was_meant_is_named() {
        let fault = said(5, "200 100", Frame::Narrow);
        assert!(fault.line == Some(5) && fault.what.contains("--frame 256-margin-40"), "{fault}");
        let fault = said(5, "12 100", Frame::Margin40);
        assert!(fault.line == Some(5) && fault.what.contains("--frame 256x176"), "{fault}");
        let exchanged: Vec<String> =
            (0..18).map(|k| format!("{} {}", 30 + 10 * k, 90 + 2 * k)).collect();
        let (_folder, file) = written("a.txt", &exchanged);
        let fault = read(&file, Frame::Narrow, (0, 0)).unwrap_err();
        assert!(fault.line == Some(16) && fault.what.contains("exchanged"), "{fault}");
        let fault = said(1, "999 999", Frame::Margin40);
        assert!(fault.what.contains("x 40 to 216, y 0 to 256"), "{fault}");
    }

    #[test]
    fn zeros_and_nobody_are_refused() {
        let mut lines = standing();
        lines[4] = "0 0".into();
        lines[7] = "0.0 0.0".into();
        let (_folder, file) = written("a.txt", &lines);
        let fault = read(&file, Frame::Narrow, (0, 0)).unwrap_err();
        assert!(
            fault.line == Some(5) && fault.what.contains("right_wrist and left_wrist"),
            "{fault}"
        );
        let (_folder, file) = written("b.txt", &vec!["-1 -1".to_owned(); 18]);
        let fault = read(&file, Frame::Narrow, (0, 0)).unwrap_err();
        assert!(fault.what.contains("no joint is seen"), "{fault}");
        let (_folder, file) = written("c.txt", &[]);
        fs::write(&file, [0xff, 0xd8, 0xff]).unwrap();
        assert!(read(&file, Frame::Narrow, (0, 0)).unwrap_err().what.contains("no text"));
        let missing = file.with_file_name("d.txt");
        assert!(read(&missing, Frame::Narrow, (0, 0)).unwrap_err().what.contains("check the path"));
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_change_nothing() {
        let (_folder, plain) = written("a.txt", &standing());
        let (_folder, marked) = written("b.txt", &standing());
        fs::write(&marked, format!("\u{feff}{}\r\n", standing().join("\r\n"))).unwrap();
        let [plain, marked] = [plain, marked].map(|file| read(&file, Frame::Margin40, (0, 0)));
        assert_eq!(plain.unwrap(), marked.unwrap());
    }

    #[test]
    fn json_gives_the_skeleton_of_the_lines_in_the_frame_that_it_names() {
        let numbers: Vec<String> =
            standing().iter().map(|line| format!("{}, 0.9", line.replace(' ', ", "))).collect();
        let people = format!(r#""people": [{{"pose_keypoints_2d": [{}]}}]"#, numbers.join(", "));
        let (_folder, plain) = written("a.txt", &standing());
        let (_folder, bare) = written("b.json", &[format!("\u{feff}{{{people}}}")]);
        let canvas = format!(r#"[{{{people}, "canvas_width": 300, "canvas_height": 400}}]"#);
        let (_folder, own) = written("c.json", &[canvas]);
        let of = |file: &Path, frame| read(file, frame, (64, 64));
        let frame = Frame::PixelsOf(300, 400);
        assert_eq!(of(&bare, frame).unwrap(), of(&plain, frame).unwrap());
        assert_eq!(of(&bare, Frame::Margin40).unwrap(), of(&plain, Frame::Margin40).unwrap());
        assert_eq!(of(&own, Frame::Pixels).unwrap(), of(&plain, frame).unwrap());
        assert_eq!(
            (own_frame(&own), own_frame(&bare), own_frame(&plain)),
            (Some(frame), None, None)
        );
        let error = of(&own, Frame::PixelsOf(300, 300)).unwrap_err().to_string();
        assert!(error.contains("canvas is 300x400"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_with_the_file_s_name(text in "[-0-9. nNaA\n]{0,200}") {
            let (_folder, file) = written("any.txt", &[text]);
            if let Err(fault) = read(&file, Frame::Pixels, (64, 64)) {
                prop_assert!(fault.to_string().contains("any.txt"));
            }
        }
    }
}
