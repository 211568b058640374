//! Joints in files: eighteen lines `x y`, or a row of an annotation CSV.

use std::path::Path;

use super::{Fault, Frame, JOINTS, Skeleton};

/// The joints as a file holds them.
pub(super) type Points = [(f64, f64); 18];

/// What is written for a joint that is not seen.
const NOT_SEEN: f64 = -1.0;

/// Reads a file of eighteen lines `x y`, `-1 -1` for a joint that is not seen.
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
    let bytes = torch_ext::file::read(file).map_err(|source| {
        vec![fault(None, format!("cannot be read: {source}{}", models::advice(&source)))]
    })?;
    let text = String::from_utf8(bytes).map_err(|_| {
        vec![fault(None, "is no text; a pose file holds 18 lines `x y`, one for each joint, and a picture of a pose ends in .png".into())]
    })?;
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
