//! Means and how far they can be trusted.

use serde::{Deserialize, Serialize};

/// A sample's mean with its spread; the sample are the prompts, over which a method has to generalise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many values there were, at least one.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (over `count - 1`); nothing for one value.
    pub standard_deviation: Option<f64>,
    /// The mean's 95 % interval by Student's t; nothing for one value.
    pub interval: Option<[f64; 2]>,
}

impl Summary {
    /// Of these values; nothing where there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let mean = mean(values)?;
        let standard_deviation = (count > 1).then(|| {
            let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
            (squares / (count - 1) as f64).sqrt()
        });
        let interval = standard_deviation.map(|deviation| {
            let half = student_t(count - 1) * deviation / (count as f64).sqrt();
            [mean - half, mean + half]
        });
        Some(Self { count, mean, standard_deviation, interval })
    }
}

/// The mean; nothing where there are no values.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The 97.5 % quantile of Student's t for so many degrees of freedom, at least one.
fn student_t(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    TABLE.get(freedom - 1).copied().unwrap_or_else(|| {
        // Abramowitz and Stegun 26.7.5, two terms: exact to 1e-4 from here on.
        let (z, n): (f64, f64) = (1.959_964, freedom as f64);
        z + (z.powi(3) + z) / (4.0 * n)
            + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_worked_out_by_hand() {
        // mean 5; squares 9 + 1 + 1 + 1 + 0 + 0 + 4 + 16 = 32
        let found = Summary::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        let deviation = (32.0f64 / 7.0).sqrt();
        assert_eq!((found.count, found.mean), (8, 5.0));
        assert!((found.standard_deviation.unwrap() - deviation).abs() < 1e-12);
        let half = 2.365 * deviation / 8.0f64.sqrt();
        let [low, high] = found.interval.unwrap();
        assert!((low - (5.0 - half)).abs() < 1e-12 && (high - (5.0 + half)).abs() < 1e-12);
    }

    #[test]
    fn one_value_has_no_spread_and_none_has_no_summary() {
        let one = Summary::of(&[0.25]).unwrap();
        assert_eq!((one.mean, one.standard_deviation, one.interval), (0.25, None, None));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn quantiles_beyond_the_table_are_the_published_ones() {
        for (freedom, published) in
            [(1, 12.706), (30, 2.042), (40, 2.021), (60, 2.000), (120, 1.980)]
        {
            assert!(
                (student_t(freedom) - published).abs() < 6e-4,
                "{freedom}: {}",
                student_t(freedom)
            );
        }
    }
}
