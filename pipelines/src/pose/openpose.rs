//! `OpenPose`'s own JSON, and the JSON lists of `ControlNet`'s preprocessors and pose editors, which hold the same.

use serde::Deserialize;

use super::JOINTS;
use super::file::{NOT_SEEN, Points};

/// The joints of `BODY_25` in the order of [`JOINTS`]: it has the middle of the hips between the others, and feet last.
const BODY_25: [usize; 18] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18];

/// A person who is surer than this share of the surest one is one of several, not a mistake of the detector.
const SEVERAL: f64 = 0.5;

/// One picture's people.
#[derive(Deserialize)]
struct Picture {
    people: Vec<Person>,
    canvas_width: Option<f64>,
    canvas_height: Option<f64>,
}

#[derive(Deserialize)]
struct Person {
    /// Three numbers a joint: x, y and how sure the detector is. Editors write `null` for nobody.
    #[serde(alias = "pose_keypoints")]
    pose_keypoints_2d: Option<Vec<f64>>,
}

/// What a file says.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    /// The joints of its person.
    pub points: Points,
    /// What they count in, where the file says so: a picture's width and height, 1 and 1 for shares of it.
    pub canvas: Option<(u32, u32)>,
}

/// Whether a text is JSON rather than lines of numbers.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

/// The one person of a JSON text. A detector's mistakes, less than half as sure as that person, are passed over.
///
/// Errors: what was expected instead.
pub(super) fn read(text: &str) -> Result<Found, String> {
    let picture = picture(text)?;
    let mut people = Vec::new();
    for person in &picture.people {
        let Some(numbers) = person.pose_keypoints_2d.as_ref().filter(|all| !all.is_empty()) else {
            continue;
        };
        let points = points(numbers)?;
        let sure: f64 = numbers.chunks_exact(3).map(|joint| joint[2]).sum();
        if points.iter().any(|point| *point != (NOT_SEEN, NOT_SEEN)) {
            people.push((sure, points));
        }
    }
    people.sort_by(|a, b| b.0.total_cmp(&a.0));
    let points = match people[..] {
        [] => {
            return Err("this OpenPose JSON holds no person with a joint that is seen; give a pose with at least one".into());
        }
        [(surest, _), (second, _), ..] if second > SEVERAL * surest => {
            return Err(format!(
                "this OpenPose JSON holds {} people, and a pose is of one; leave the one that is meant in its list 'people'",
                people.len()
            ));
        }
        [(_, points), ..] => points,
    };
    let canvas = picture.canvas_width.zip(picture.canvas_height);
    let sane = 1.0..=f64::from(u16::MAX);
    if let Some((width, height)) = canvas.filter(|(w, h)| !sane.contains(w) || !sane.contains(h)) {
        return Err(format!(
            "canvas_width and canvas_height are {width} and {height}; write the size of the picture that the pose was taken from"
        ));
    }
    let canvas = canvas.map(|(width, height)| (width.round() as u32, height.round() as u32));
    // Nobody is as small as a pixel, so these are shares of the picture, as OpenPose's --keypoint_scale 3 writes them.
    let shares = |(x, y): (f64, f64)| (x, y) == (NOT_SEEN, NOT_SEEN) || x.max(y) <= 1.0;
    let canvas = if points.iter().all(|point| shares(*point)) { Some((1, 1)) } else { canvas };
    Ok(Found { points, canvas })
}

/// The picture of a text: an object, or a list of one.
fn picture(text: &str) -> Result<Picture, String> {
    const FORM: &str = "OpenPose's JSON {\"people\": [{\"pose_keypoints_2d\": [x, y, confidence, ...]}]} was expected";
    let failed = |error: serde_json::Error| format!("{FORM}, but: {error}");
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(failed);
    }
    let mut pictures: Vec<Picture> = serde_json::from_str(text).map_err(failed)?;
    match (pictures.pop(), pictures.len()) {
        (Some(picture), 0) => Ok(picture),
        (_, others) => Err(format!(
            "{FORM} for one picture, {} were found; put each into a file of its own",
            if others == 0 { 0 } else { others + 1 }
        )),
    }
}

/// The joints of one person; one that the detector is not sure of at all is not seen.
fn points(numbers: &[f64]) -> Result<Points, String> {
    let joints: Vec<&[f64]> = numbers.chunks(3).collect();
    let places: [usize; 18] = match (joints.len(), numbers.len() % 3) {
        (18, 0) => std::array::from_fn(|k| k),
        (25, 0) => BODY_25,
        _ => {
            return Err(format!(
                "pose_keypoints_2d holds {} numbers; 54 were expected (COCO, 18 joints of x, y and confidence) or 75 (BODY_25)",
                numbers.len()
            ));
        }
    };
    let mut points = [(NOT_SEEN, NOT_SEEN); 18];
    for (k, place) in places.into_iter().enumerate() {
        let &[x, y, sure] = joints[place] else { continue };
        if sure > 0.0 {
            if x < 0.0 || y < 0.0 {
                return Err(format!(
                    "{} is at {x} {y}; write pixels or shares of the picture from 0 (OpenPose's --keypoint_scale 0 or 3)",
                    JOINTS[k]
                ));
            }
            points[k] = (x, y);
        }
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A person of so many joints, joint k at (10 + k, 20 + 2 k).
    fn person(joints: usize, sure: f64) -> Vec<f64> {
        (0..joints).flat_map(|k| [10.0 + k as f64, 20.0 + 2.0 * k as f64, sure]).collect()
    }

    fn file(people: &[Vec<f64>]) -> String {
        let people: Vec<_> = people.iter().map(|all| json!({ "pose_keypoints_2d": all })).collect();
        json!({ "version": 1.3, "people": people }).to_string()
    }

    #[test]
    fn coco_and_body_25_give_the_same_eighteen_joints() {
        let coco = read(&file(&[person(18, 0.9)])).unwrap();
        assert_eq!(coco.points[17], (27.0, 54.0));
        assert_eq!(coco.canvas, None);
        let body = read(&file(&[person(25, 0.9)])).unwrap();
        assert_eq!(body.points[..8], coco.points[..8]);
        // right hip, left ankle and left ear stand one place further on, behind the middle of the hips
        for (k, place) in [(8, 9.0), (13, 14.0), (17, 18.0)] {
            assert_eq!(body.points[k], (10.0 + place, 20.0 + 2.0 * place));
        }
        let old = file(&[person(18, 0.9)]).replace("pose_keypoints_2d", "pose_keypoints");
        assert_eq!(read(&old).unwrap(), coco);
    }

    #[test]
    fn a_joint_without_confidence_is_not_seen() {
        let mut numbers = person(18, 0.9);
        numbers[..3].fill(0.0);
        let found = read(&file(&[numbers])).unwrap();
        assert_eq!((found.points[0], found.points[1]), ((NOT_SEEN, NOT_SEEN), (11.0, 22.0)));
        let nobody = read(&file(&[vec![0.0; 54]])).unwrap_err();
        assert!(nobody.contains("no person"), "{nobody}");
    }

    #[test]
    fn the_canvas_of_an_editor_s_list_and_shares_are_known() {
        let list = json!([{
            "people": [{ "pose_keypoints_2d": person(18, 1.0), "face_keypoints_2d": null }],
            "canvas_width": 512, "canvas_height": 768,
        }]);
        assert_eq!(read(&list.to_string()).unwrap().canvas, Some((512, 768)));
        let shares: Vec<f64> = (0..18).flat_map(|k| [0.05 * f64::from(k), 0.5, 1.0]).collect();
        assert_eq!(read(&file(&[shares])).unwrap().canvas, Some((1, 1)));
    }

    #[test]
    fn a_detector_s_mistake_is_passed_over_and_two_people_are_refused() {
        let one = read(&file(&[person(18, 0.9)])).unwrap();
        assert_eq!(read(&file(&[person(25, 0.1), vec![], person(18, 0.9)])).unwrap(), one);
        let two = read(&file(&[person(18, 0.8), person(18, 0.9)])).unwrap_err();
        assert!(two.contains("2 people"), "{two}");
    }

    #[test]
    fn what_is_no_pose_is_refused_with_what_was_expected() {
        for (text, told) in [
            ("{}", "people"),
            ("[]", "0 were found"),
            (r#"[{"people": []}, {"people": []}]"#, "2 were found"),
            (r#"{"people": []}"#, "no person"),
            (r#"{"people": [{"pose_keypoints_2d": [1, 2, 1]}]}"#, "3 numbers"),
            (r#"{"people": [{"pose_keypoints_2d": ["a"]}]}"#, "OpenPose's JSON"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        let negative = read(&file(&[person(18, 0.9).iter().map(|x| x - 15.0).collect()]));
        assert!(negative.is_err(), "no confidence is left");
        let canvas = json!({ "people": [{ "pose_keypoints_2d": person(18, 1.0) }], "canvas_width": 0, "canvas_height": 9 });
        assert!(read(&canvas.to_string()).unwrap_err().contains("canvas_width"));
    }
}
