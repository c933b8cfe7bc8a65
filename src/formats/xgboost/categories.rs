//! The categories of a data frame's columns, which xgboost keeps since 3.1: for each feature either
//! `{"offsets": [0, 3, ..], "values": [85, 108, 109, ..]}`, text end to end, or `{"type": .., "values": [10, 20, ..]}`,
//! whole numbers (it takes no others for categories).

use super::document::Input;
use crate::error::{Error, Result};

/// What the codes 0, 1, .. of a feature stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Categories {
    Text(Vec<String>),
    /// Text that is not ASCII. The Python package counts characters where bytes are meant, so that names end in wrong
    /// places and the last are cut: nobody can tell what they were.
    Garbled,
    Numbers(Vec<i64>),
}

/// Reads `{"enc": [..], ..}`; `None` for features that are no categories.
pub(super) fn parse<I: Input>(input: &mut I) -> Result<Vec<Option<Categories>>> {
    let mut features = Vec::new();
    input.fields(|name, input| match name {
        "enc" => input.array(|input| {
            let feature = parse_feature(input)?;
            features.push(feature);
            Ok(())
        }),
        _ => input.skip(),
    })?;
    Ok(features)
}

fn parse_feature<I: Input>(input: &mut I) -> Result<Option<Categories>> {
    let (mut offsets, mut values) = (None, Vec::new());
    input.fields(|name, input| match name {
        "offsets" => input.numbers::<i64>().map(|given| offsets = Some(given)),
        "values" => input.numbers::<i64>().map(|given| values = given),
        _ => input.skip(),
    })?;
    let Some(offsets) = offsets else { return Ok(Some(Categories::Numbers(values))) };
    if offsets.is_empty() && values.is_empty() {
        return Ok(None);
    }
    if values.iter().any(|byte| !(0..128).contains(byte)) {
        return Ok(Some(Categories::Garbled));
    }
    texts(&offsets, &values).map(|texts| Some(Categories::Text(texts)))
}

fn texts(offsets: &[i64], values: &[i64]) -> Result<Vec<String>> {
    let wrong = || Error::load("the offsets and values of categories do not make text");
    let bytes: Vec<u8> = values.iter().filter_map(|value| u8::try_from(*value).ok()).collect();
    let ends: Option<Vec<usize>> = offsets.iter().map(|end| usize::try_from(*end).ok()).collect();
    let text = |ends: &[usize]| {
        let text = bytes.get(ends[0]..ends[1]).and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.map(str::to_owned).ok_or_else(wrong)
    };
    let ends = ends.filter(|ends| ends.is_sorted()).ok_or_else(wrong)?;
    ends.windows(2).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::super::json::Json;
    use super::*;

    fn read(text: &str) -> Result<Vec<Option<Categories>>> {
        parse(&mut Json::new(&text.into()))
    }

    #[test]
    fn text_and_numbers_are_told_apart() {
        let text = r#"{"enc": [{"offsets": [0, 3, 5], "values": [85, 108, 109, 97, 98]}, {"offsets": [], "values": []},
            {"type": 15, "values": [10, -2]}, {"offsets": [0, 4], "values": [75, -61, -74, 108]}], "sorted_idx": [0, 1]}"#;
        let expected = [
            Some(Categories::Text(vec!["Ulm".into(), "ab".into()])),
            None,
            Some(Categories::Numbers(vec![10, -2])),
            Some(Categories::Garbled),
        ];
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn offsets_lie_within_the_text() {
        for offsets in ["[0, 9]", "[2, 1]", "[-1, 1]", "[0, 9223372036854775807]"] {
            let text = format!(r#"{{"enc": [{{"offsets": {offsets}, "values": [97, 98]}}]}}"#);
            assert!(read(&text).unwrap_err().message().contains("offsets"), "{offsets}");
        }
    }
}
