//! numpy's types of numbers, where they show in the answer.

use half::f16;

use crate::tensor::DType;

/// What numpy has, on x86-64, of a number in an array of this type: integers keep the bits that they have room for.
pub fn stored(value: f64, dtype: DType) -> f64 {
    // As the instructions of conversion say that a number does not fit.
    let wide = |value: f64| if value.abs() < i64::MAX as f64 { value as i64 } else { i64::MIN };
    let narrow = |value: f64| i32::try_from(wide(value)).unwrap_or(i32::MIN);
    match dtype {
        DType::Bool => f64::from(u8::from(value != 0.0)),
        DType::Int8 => f64::from(narrow(value) as i8),
        DType::Int16 => f64::from(narrow(value) as i16),
        DType::Int32 => f64::from(narrow(value)),
        DType::Int64 => wide(value) as f64,
        DType::Uint8 => f64::from(narrow(value) as u8),
        DType::Uint16 => f64::from(narrow(value) as u16),
        DType::Uint32 => f64::from(wide(value) as u32),
        DType::Uint64 if value >= i64::MAX as f64 => (value as u64) as f64,
        DType::Uint64 => (wide(value) as u64) as f64,
        DType::Fp16 => f16::from_f64(value).to_f64(),
        DType::Fp32 => f64::from(value as f32),
        _ => value,
    }
}

/// An integer with the bits that its type has room for.
#[allow(clippy::cast_precision_loss)] // as numbers here are all `f64`
pub fn wrapped(value: i64, dtype: DType) -> f64 {
    match dtype {
        DType::Bool => f64::from(u8::from(value != 0)),
        DType::Int8 => f64::from(value as i8),
        DType::Int16 => f64::from(value as i16),
        DType::Int32 => f64::from(value as i32),
        DType::Uint8 => f64::from(value as u8),
        DType::Uint16 => f64::from(value as u16),
        DType::Uint32 => f64::from(value as u32),
        DType::Uint64 => (value as u64) as f64,
        _ => value as f64,
    }
}

/// The type that numpy finds for numbers of two types.
pub fn promoted(one: DType, other: DType) -> DType {
    let wider = |one: DType, other: DType| if bytes(one) >= bytes(other) { one } else { other };
    match (one, other) {
        _ if one == other => one,
        (DType::Bool, dtype) | (dtype, DType::Bool) => dtype,
        _ if is_float(one) || is_float(other) => wider(float_of(one), float_of(other)),
        _ if is_signed(one) == is_signed(other) => wider(one, other),
        _ => {
            let (signed, unsigned) = if is_signed(one) { (one, other) } else { (other, one) };
            match bytes(unsigned) {
                least if bytes(signed) > least => signed,
                1 => DType::Int16,
                2 => DType::Int32,
                4 => DType::Int64,
                _ => DType::Fp64,
            }
        }
    }
}

/// The type of a function of numbers that gives fractions.
pub fn float_of(dtype: DType) -> DType {
    match dtype {
        float if is_float(float) => float,
        DType::Bool | DType::Int8 | DType::Uint8 => DType::Fp16,
        DType::Int16 | DType::Uint16 => DType::Fp32,
        _ => DType::Fp64,
    }
}

fn bytes(dtype: DType) -> usize {
    dtype.size().unwrap_or(8)
}

pub fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::Fp16 | DType::Fp32 | DType::Fp64)
}

fn is_signed(dtype: DType) -> bool {
    matches!(dtype, DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `numpy.result_type` of numpy 2.4.
    #[test]
    fn types_are_promoted_as_numpy_does() {
        use DType::{Bool, Fp16, Fp32, Fp64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};
        for (one, other, expected) in [
            (Bool, Int8, Int8),
            (Int8, Int16, Int16),
            (Uint8, Uint32, Uint32),
            (Int8, Uint8, Int16),
            (Int32, Uint8, Int32),
            (Int16, Uint16, Int32),
            (Int32, Uint32, Int64),
            (Int64, Uint64, Fp64),
            (Int8, Fp16, Fp16),
            (Int16, Fp16, Fp32),
            (Int32, Fp32, Fp64),
            (Uint16, Fp32, Fp32),
            (Bool, Fp16, Fp16),
            (Fp16, Fp32, Fp32),
        ] {
            assert_eq!((promoted(one, other), promoted(other, one)), (expected, expected), "{one} {other}");
        }
    }

    /// As numpy 2.4 stores them on x86-64.
    #[test]
    fn integers_keep_the_bits_that_they_have_room_for() {
        use DType::{Bool, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};
        for (value, dtype, expected) in [
            (0.5, Bool, 1.0),
            (200.7, Int8, -56.0),
            (300.9, Uint8, 44.0),
            (40_000.2, Int16, -25_536.0),
            (3e9, Int16, 0.0),
            (3e9, Uint16, 0.0),
            (3e9, Int32, -2_147_483_648.0),
            (5e9, Uint32, 705_032_704.0),
            (f64::INFINITY, Int32, -2_147_483_648.0),
            (f64::INFINITY, Int64, -9_223_372_036_854_775_808.0),
            (1e19, Uint64, 1e19),
        ] {
            assert_eq!(stored(value, dtype), expected, "{value} as {dtype}");
        }
    }
}
