//! Every number that a run logged, by its name.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;

/// One logged quantity over the steps.
#[derive(Debug, PartialEq)]
pub(super) struct Series {
    /// Its key; for a number of a list `list.name`.
    pub key: String,
    /// Steps and values, in the order of the file.
    pub points: Vec<(f64, f64)>,
}

/// Reads a log of JSON lines. Every number beside `step` is a quantity, on its own or in a list of `[name, number]`
/// pairs or in an object. What is no number, or none that [`drawable`] takes, and a last line that was cut off, is passed
/// over.
pub(super) fn read(path: &Path) -> Result<Vec<Series>, Error> {
    let text = torch_ext::file::read_to_string(path).map_err(Error::io(path, "read"))?;
    let mut all = Vec::new();
    for line in text.lines() {
        let Ok(line) = serde_json::from_str::<Map<String, Value>>(line) else { continue };
        let Some(step) = line.get("step").and_then(Value::as_f64).and_then(drawable) else {
            continue;
        };
        for (key, value) in line.iter().filter(|(key, _)| *key != "step") {
            take(&mut all, key, step, value);
        }
    }
    Ok(all)
}

/// A number that can stand on an axis. Runs compute in f32, so nothing beyond its range is a quantity of one; and sums and
/// differences of larger numbers would leave the range of f64, where an axis has no end. What is too small for f32 is 0.
pub(super) fn drawable(x: f64) -> Option<f64> {
    if x.abs() < f64::from(f32::MIN_POSITIVE) {
        return Some(0.0);
    }
    (x.abs() <= f64::from(f32::MAX)).then_some(x)
}

fn take(all: &mut Vec<Series>, key: &str, step: f64, value: &Value) {
    match value {
        Value::Number(number) => {
            let Some(value) = number.as_f64().and_then(drawable) else { return };
            match all.iter_mut().find(|series| series.key == key) {
                Some(series) => series.points.push((step, value)),
                None => all.push(Series { key: key.to_owned(), points: vec![(step, value)] }),
            }
        }
        Value::Array(pairs) => {
            for pair in pairs {
                if let Some([Value::String(name), value]) = pair.as_array().map(Vec::as_slice) {
                    take(all, &format!("{key}.{name}"), step, value);
                }
            }
        }
        Value::Object(inner) => {
            for (name, value) in inner {
                take(all, &format!("{key}.{name}"), step, value);
            }
        }
        _ => {}
    }
}

impl Series {
    /// Under which heading it stands.
    pub fn group(&self) -> &'static str {
        let (list, name) = self.key.split_once('.').unwrap_or((&self.key, &self.key));
        if ["validation", "likeness", "fidelity"].iter().any(|word| name.contains(word)) {
            return "Validation";
        }
        match list {
            "loss" | "terms" => "Loss",
            "gradient_norm" | "gradient_norms" => "Norm of the gradient",
            "gradient_shares" => "Share of the gradient",
            "learning_rate" | "seconds" => "Course",
            _ => "Concept",
        }
    }

    /// What it is called among those of its group.
    pub fn title(&self) -> String {
        let (list, name) = self.key.split_once('.').unwrap_or(("", &self.key));
        let name = name.replace(['_', '.'], " ");
        match (list, name.as_str()) {
            ("", "loss") => "all terms, weighted".to_owned(),
            ("", "gradient norm") => "all terms".to_owned(),
            ("", "norm") => "norm of the vectors".to_owned(),
            ("", "seconds") => "seconds a step".to_owned(),
            _ => name,
        }
    }
}

/// The points in at most `most` consecutive groups of one size, each a mean of steps and of values; and that size.
pub(super) fn thinned(points: &[(f64, f64)], most: usize) -> (Vec<(f64, f64)>, usize) {
    let size = points.len().div_ceil(most).max(1);
    let mean = |group: &[(f64, f64)]| {
        let count = group.len() as f64;
        let (x, y) = group.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
        (x / count, y / count)
    };
    (points.chunks(size).map(mean).collect(), size)
}

/// An exponential moving average over about `window` points, corrected for its start.
pub(super) fn smoothed(points: &[(f64, f64)], window: f64) -> Vec<(f64, f64)> {
    let keep = 1.0 - 2.0 / (window + 1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let average = |&(x, y): &(f64, f64)| {
        sum = sum * keep + y;
        weight = weight * keep + 1.0;
        (x, sum / weight)
    };
    points.iter().map(average).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_wherever_they_stand_in_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = concat!(
            r#"{"step":1,"loss":0.5,"terms":[["a",0.2],["b",0.3]],"note":"x","nothing":null}"#,
            "\n",
            r#"{"step":2,"loss":0.25,"measures":[["likeness",1]],"more":{"b":{"c":7}}}"#,
            "\n",
            r#"{"step":3,"lo"#
        );
        std::fs::write(file.path(), lines).unwrap();
        let found = read(file.path()).unwrap();
        let series = |key: &str, points: &[(f64, f64)]| Series {
            key: key.to_owned(),
            points: points.to_vec(),
        };
        assert_eq!(
            found,
            [
                series("loss", &[(1.0, 0.5), (2.0, 0.25)]),
                series("terms.a", &[(1.0, 0.2)]),
                series("terms.b", &[(1.0, 0.3)]),
                series("measures.likeness", &[(2.0, 1.0)]),
                series("more.b.c", &[(2.0, 7.0)]),
            ]
        );
    }

    #[test]
    fn what_a_run_logs_stands_under_its_own_heading() {
        for (key, group, title) in [
            ("loss", "Loss", "all terms, weighted"),
            ("terms.reconstruction", "Loss", "reconstruction"),
            ("gradient_norm", "Norm of the gradient", "all terms"),
            ("gradient_norms.reconstruction", "Norm of the gradient", "reconstruction"),
            ("gradient_shares.reconstruction", "Share of the gradient", "reconstruction"),
            ("norm", "Concept", "norm of the vectors"),
            ("measures.cosine_to_class", "Concept", "cosine to class"),
            ("validation_loss", "Validation", "validation loss"),
            ("fidelity", "Validation", "fidelity"),
            ("learning_rate", "Course", "learning rate"),
        ] {
            let series = Series { key: key.to_owned(), points: Vec::new() };
            assert_eq!((series.group(), &*series.title()), (group, title), "{key}");
        }
    }

    #[test]
    fn long_series_become_means_of_equal_groups() {
        let points: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), f64::from(i * i))).collect();
        let (found, size) = thinned(&points, 4);
        assert_eq!(size, 3);
        assert_eq!(found, [(1.0, 5.0 / 3.0), (4.0, 50.0 / 3.0), (7.0, 149.0 / 3.0), (9.0, 81.0)]);
        assert_eq!(thinned(&points, 10), (points, 1));
    }

    #[test]
    fn an_average_starts_at_the_first_value_and_forgets_it() {
        let points: Vec<(f64, f64)> =
            (0..100).map(|i| (f64::from(i), f64::from(u8::from(i > 0)))).collect();
        let found = smoothed(&points, 3.0); // half of the old, half of the new
        assert!(found[0].1.abs() < 1e-12);
        assert!((found[1].1 - 1.0 / 1.5).abs() < 1e-12);
        assert!((found[99].1 - 1.0).abs() < 1e-12);
    }
}
