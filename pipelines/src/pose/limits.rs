//! What the numbers of a configuration may be, said by their keys.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};

use crate::Error;

/// Refuses numbers outside of `range`, NaN among them; `give` says what it is.
pub(super) fn within<T: PartialOrd + Display>(
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
pub(super) fn shares(numbers: &[(&str, f64)]) -> Result<(), Error> {
    within(&(0.0..1.0), "a share from 0 to below 1", numbers)
}

/// Numbers without a sign.
pub(super) fn not_negative(numbers: &[(&str, f64)]) -> Result<(), Error> {
    within(&(0.0..f64::INFINITY), "a finite number from 0 up", numbers)
}

/// A number above zero; `usual` is one that does.
pub(super) fn positive(key: &str, number: f64, usual: &str) -> Result<(), Error> {
    let range = (Bound::Excluded(0.0), Bound::Excluded(f64::INFINITY));
    within(&range, &format!("one above 0, such as {usual}"), &[(key, number)])
}

/// Sizes of networks.
pub(super) fn sizes(numbers: &[(&str, i64)]) -> Result<(), Error> {
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
        assert!(sizes(&[("rank", 1)]).is_ok() && sizes(&[("rank", 0)]).is_err());
    }
}
