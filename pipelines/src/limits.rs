//! What the numbers of a configuration may be, said by their keys.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};

use crate::Error;

/// Refuses numbers outside of `range`, NaN among them; `give` says what it is.
pub(crate) fn within<T: PartialOrd + Display>(
    range: &impl RangeBounds<T>,
    give: &str,
    numbers: &[(&str, T)],
) -> Result<(), Error> {
    match numbers.iter().find(|(_, number)| !range.contains(number)) {
        None => Ok(()),
        Some((key, number)) => Err(Error::Usage(format!("{key} is {number}; give {give}"))),
    }
}

/// Shares of what is left out: from nothing to less than all.
pub(crate) fn shares(numbers: &[(&str, f64)]) -> Result<(), Error> {
    within(&(0.0..1.0), "a share from 0 to below 1", numbers)
}

/// Numbers without a sign.
pub(crate) fn not_negative(numbers: &[(&str, f64)]) -> Result<(), Error> {
    within(&(0.0..f64::INFINITY), "a finite number from 0 up", numbers)
}

/// A number above zero; `usual` is one that does.
pub(crate) fn positive(key: &str, number: f64, usual: &str) -> Result<(), Error> {
    let range = (Bound::Excluded(0.0), Bound::Excluded(f64::INFINITY));
    within(&range, &format!("one above 0, such as {usual}"), &[(key, number)])
}

/// Refuses steps, samples and the like outside of `least` to `most`: more is a mistake, and some of it would not fit into memory.
pub(crate) fn counts(least: u64, most: u64, numbers: &[(&str, u64)]) -> Result<(), Error> {
    within(&(least..=most), &format!("a whole number from {least} to {most}"), numbers)
}

/// Refuses numbers outside of 0 to `most`.
pub(crate) fn up_to(most: f64, numbers: &[(&str, f64)]) -> Result<(), Error> {
    within(&(0.0..=most), &format!("a number from 0 to {most}"), numbers)
}

/// Sizes of networks.
pub(crate) fn sizes(numbers: &[(&str, i64)]) -> Result<(), Error> {
    within(&(1..), "at least 1", numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_the_number_and_what_to_give_are_said() {
        let said = shares(&[("drop_all", 0.5), ("drop_each", f64::NAN)]).unwrap_err().to_string();
        assert_eq!(said, "drop_each is NaN; give a share from 0 to below 1");
        assert!(shares(&[("drop_all", 0.0)]).is_ok() && shares(&[("drop_all", 1.0)]).is_err());
        assert!(not_negative(&[("l1_weight", f64::INFINITY)]).is_err());
        let said = counts(1, 4096, &[("batch_size", 0)]).unwrap_err().to_string();
        assert_eq!(said, "batch_size is 0; give a whole number from 1 to 4096");
        assert!(up_to(1.0, &[("lr_end", 1.0)]).is_ok());
        assert!(up_to(1.0, &[("lr_end", f64::NAN)]).is_err());
        assert!(sizes(&[("rank", 1)]).is_ok() && sizes(&[("rank", 0)]).is_err());
    }
}
