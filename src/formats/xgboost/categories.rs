//! The categories of a data frame's columns, which xgboost keeps since 3.1: for each feature either
//! `{"offsets": [0, 3, ..], "values": [85, 108, 109, ..]}`, text end to end, or `{"type": .., "values": [10, 20, ..]}`,
//! whole numbers (it takes no others for categories).

use super::document::Input;
use crate::error::{Error, Result};

/// What the codes 0, 1, .. of a feature stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Categories {
    Text(Vec<String>),
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
    texts(&offsets, &values).map(|texts| Some(Categories::Text(texts)))
}

fn texts(offsets: &[i64], values: &[i64]) -> Result<Vec<String>> {
    let wrong = || Error::load("the offsets and values of categories do not make text");
    // Signed, as C's char.
    let byte = |value: &i64| i8::try_from(*value).ok().map(i8::cast_unsigned).or_else(|| u8::try_from(*value).ok());
    let bytes = values.iter().map(byte).collect::<Option<Vec<u8>>>().ok_or_else(wrong)?;
    let ends: Option<Vec<usize>> = offsets.iter().map(|end| usize::try_from(*end).ok()).collect();
    let text = |ends: &[usize]| {
        let text = bytes.get(ends[0]..ends[1]).and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.map(str::to_owned).ok_or_else(wrong)
    };
    let ends = ends.filter(|ends| ends.is_sorted()).ok_or_else(wrong)?;
    ends.windows(2).map(text).collect()
}
