//! Whole numbers in a body, however they are written: to JSON Schema 60.0 is as whole as 60.

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Number;

/// Whole numbers beyond this are not told apart as floating point.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

struct Whole<T>(T);

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Whole<T>, D::Error> {
        let number = Number::deserialize(from)?;
        let of_float = |float: f64| (float.fract() == 0.0 && float.abs() <= EXACT_MAX).then_some(float as i128);
        let whole = number.as_i128().or_else(|| number.as_f64().and_then(of_float));
        let fitting = whole.and_then(|whole| T::try_from(whole).ok()).map(Whole);
        fitting.ok_or_else(|| D::Error::custom(format!("{number} is no whole number that fits here")))
    }
}

pub fn optional<'de, D: Deserializer<'de>, T: TryFrom<i128>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Whole<T>>::deserialize(from)?.map(|whole| whole.0))
}

pub fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<i64>, D::Error> {
    Ok(Vec::<Whole<i64>>::deserialize(from)?.into_iter().map(|whole| whole.0).collect())
}

pub fn optional_list<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<i64>>, D::Error> {
    let list = Option::<Vec<Whole<i64>>>::deserialize(from)?;
    Ok(list.map(|list| list.into_iter().map(|whole| whole.0).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<u32> {
        let mut from = serde_json::Deserializer::from_str(json);
        optional(&mut from).unwrap_or(None)
    }

    #[test]
    fn a_whole_number_may_be_written_as_any_number() {
        for (json, meant) in [("60", 60), ("60.0", 60), ("6e1", 60), ("4294967295", u32::MAX)] {
            assert_eq!(read(json), Some(meant), "{json}");
        }
        for json in ["60.5", "-1", "4294967296", "1e300", "\"60\"", "true", "null"] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
