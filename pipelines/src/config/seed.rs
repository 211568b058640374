//! Seeds in a configuration: 64 bits, where TOML's whole numbers have 63. One that TOML has no number for is text.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// Says what a seed may be.
const EXPECTED: &str = "a seed from 0 to 18446744073709551615";

/// Reads a seed as it is typed.
pub fn parse_seed(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("'{text}' is no seed; give {EXPECTED}"))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field so")]
pub(crate) fn serialize<S: Serializer>(seed: &u64, to: S) -> Result<S::Ok, S::Error> {
    match i64::try_from(*seed) {
        Ok(number) => to.serialize_i64(number),
        Err(_) => to.collect_str(seed),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    from.deserialize_any(Seed)
}

struct Seed;

impl Visitor<'_> for Seed {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: Error>(self, seed: u64) -> Result<u64, E> {
        Ok(seed)
    }

    fn visit_i64<E: Error>(self, seed: i64) -> Result<u64, E> {
        parse_seed(&seed.to_string()).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse_seed(text).map_err(E::custom)
    }
}
