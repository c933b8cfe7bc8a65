//! Joins requests' tensors along the batch axis and cuts the results apart again: `split(join(x)) == x`.

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Joins jobs' inputs, tensor by tensor. All jobs have the same names, dtypes and inner dimensions, as the
/// signature check and the batcher's shape guarantee. One job alone is shared, not copied.
///
/// # Errors
/// When they do differ, as the outputs of one request's pieces may.
pub fn join(jobs: &[&[Tensor]]) -> Result<Vec<Tensor>> {
    let [first, _, ..] = jobs else {
        return Ok(jobs.first().map(|only| only.to_vec()).unwrap_or_default());
    };
    let joined = first.iter().enumerate().map(|(index, like)| {
        let parts = || jobs.iter().map(|job| &job[index]);
        if parts().any(|part| part.shape().dims().is_empty() || part.shape().dims()[1..] != like.shape().dims()[1..]) {
            let name = like.name();
            return Err(Error::internal(format!("\"{name}\" has another shape in another part of the batch")));
        }
        let rows = parts().map(Tensor::rows).sum();
        let mut data = BytesMut::with_capacity(parts().map(|tensor| tensor.data().len()).sum());
        parts().for_each(|tensor| data.extend_from_slice(tensor.data()));
        Tensor::new(like.name().clone(), like.dtype(), like.shape().with_rows(rows), data.freeze())
    });
    joined.collect()
}

/// Cuts each tensor along its outermost dimension into pieces of `rows[0]`, `rows[1]`, ... rows; the result has
/// one list of tensors per piece. Data is shared, not copied.
///
/// # Errors
/// When a tensor does not have exactly that many rows: it was not made row by row from what was joined.
pub fn split(tensors: &[Tensor], rows: &[usize]) -> Result<Vec<Vec<Tensor>>> {
    let total: usize = rows.iter().sum();
    let mut pieces: Vec<Vec<Tensor>> = rows.iter().map(|_| Vec::with_capacity(tensors.len())).collect();
    for tensor in tensors {
        let dims = tensor.shape().dims();
        if dims.first() != Some(&total) {
            return Err(Error::internal(format!(
                "output \"{}\" has shape {} for a batch of {total} rows, so it cannot be shared out: \
                 serve this model with --max_batch_size=1",
                tensor.name(),
                tensor.shape()
            )));
        }
        let inner: usize = dims[1..].iter().product();
        let mut rest = tensor.data().clone();
        for (piece, &rows) in pieces.iter_mut().zip(rows) {
            let data = rest.split_to(data_length(&rest, tensor.dtype(), rows * inner));
            piece.push(Tensor::new(tensor.name().clone(), tensor.dtype(), tensor.shape().with_rows(rows), data)?);
        }
    }
    Ok(pieces)
}

/// Bytes that the first `elements` elements take.
fn data_length(data: &Bytes, dtype: DType, elements: usize) -> usize {
    match dtype.size() {
        Some(size) => elements * size,
        None => (0..elements).fold(0, |end, _| {
            let length = data.get(end..).and_then(|rest| rest.first_chunk::<4>());
            let length = length.map_or(0, |prefix| 4 + u32::from_le_bytes(*prefix) as usize);
            (end + length).min(data.len())
        }),
    }
}

/// How many rows each piece of a request has when no piece may have more than `max_rows`.
pub fn piece_rows(rows: usize, max_rows: usize) -> Vec<usize> {
    let full = std::iter::repeat_n(max_rows, rows / max_rows);
    let rest = rows % max_rows;
    full.chain((rest > 0).then_some(rest)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tensor::{Shape, push_bytes_element};

    /// A job's tensors: one of fixed-size elements, one of BYTES, with payloads that tell every row apart.
    fn job(rows: usize, inner: usize, seed: u8) -> Vec<Tensor> {
        let shape = Shape::new(vec![rows, inner]).unwrap();
        let mut fixed = Vec::new();
        let mut text = Vec::new();
        for element in (0..).take(rows * inner) {
            let value = u16::from(seed) << 8 | element;
            fixed.extend(value.to_le_bytes());
            push_bytes_element(&mut text, &vec![seed; usize::from(element % 3)]).unwrap();
        }
        vec![
            Tensor::new("fixed", DType::Uint16, shape.clone(), fixed.into()).unwrap(),
            Tensor::new("text", DType::Bytes, shape, text.into()).unwrap(),
        ]
    }

    proptest! {
        #[test]
        fn splitting_what_was_joined_gives_it_back(
            rows in proptest::collection::vec(1..9_usize, 1..9),
            inner in 0..4_usize,
        ) {
            let jobs: Vec<Vec<Tensor>> = rows.iter().zip(1..).map(|(rows, seed)| job(*rows, inner, seed)).collect();
            let joined = join(&jobs.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(joined[0].rows(), rows.iter().sum::<usize>());
            prop_assert_eq!(split(&joined, &rows).unwrap(), jobs);
        }

        #[test]
        fn pieces_cover_the_rows_and_stay_within_the_limit(rows in 1..1000_usize, max_rows in 1..100_usize) {
            let pieces = piece_rows(rows, max_rows);
            prop_assert_eq!(pieces.iter().sum::<usize>(), rows);
            prop_assert!(pieces.iter().all(|piece| (1..=max_rows).contains(piece)));
        }
    }

    #[test]
    fn an_output_without_the_batchs_rows_is_refused() {
        let error = split(&job(3, 1, 0), &[1, 1]).unwrap_err();
        assert!(error.message().contains("--max_batch_size=1"), "{error}");
    }
}
