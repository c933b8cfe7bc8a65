//! Requests' rows to one batch and back, on a GPU: `kernels/batch.cu`.

use super::{Grid, Machine, Plain, number};
use crate::error::{Error, Result};
use crate::tensor::DType;

#[derive(Clone, Copy)]
#[repr(C)]
struct PieceArgs {
    data: u64,
    first_row: u32,
    rows: u32,
    outer: u32,
    inner: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    pieces: u64,
    data: u64,
    means: u64,
    scales: u64,
    padding: f64,
    piece_count: u32,
    rows: u32,
    outer: u32,
    inner: u32,
    channels: u32,
    channel_elements: u32,
    piece_type: u32,
    batch_type: u32,
}

// SAFETY: a u64 and four u32.
unsafe impl Plain for PieceArgs {}
// SAFETY: u64 and f64 before u32, of which there are an even number.
unsafe impl Plain for Args {}

/// The rows of one request, little-endian and row-major: `[rows, outer, inner]`.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub bytes: &'a [u8],
    pub rows: usize,
    pub outer: usize,
    pub inner: usize,
}

/// What pieces become: `[rows, outer, inner]`, each at least theirs.
#[derive(Clone, Debug)]
pub struct Form {
    pub from: DType,
    /// The same, or one of floats.
    pub to: DType,
    /// At least those of all pieces: what is beyond them is padding.
    pub rows: usize,
    pub outer: usize,
    pub inner: usize,
    /// What stands where a row has no element, of floats; others are padded with zeros.
    pub padding: f64,
    pub normal: Option<Normal>,
}

/// `(value - mean) * scale` of floats, in single precision, by channels that follow each other every `elements` elements of a batch's row.
#[derive(Clone, Debug)]
pub struct Normal {
    pub means: Vec<f32>,
    pub scales: Vec<f32>,
    pub elements: usize,
}

impl Form {
    fn check(&self, pieces: &[Piece]) -> Result<()> {
        let size = size_of_type(self.from)?;
        if self.to != self.from && !is_float(self.to) {
            return Err(Error::invalid(format!("{} can be cast to floats, not to {}", self.from, self.to)));
        }
        let fits = |piece: &Piece| {
            piece.bytes.len() == piece.rows * piece.outer * piece.inner * size
                && piece.outer <= self.outer
                && piece.inner <= self.inner
        };
        if !pieces.iter().all(fits) || pieces.iter().map(|piece| piece.rows).sum::<usize>() > self.rows {
            return Err(Error::invalid(
                "rows that do not have the size that they say, or more than a batch has room for",
            ));
        }
        let normal = self.normal.as_ref().filter(|_| is_float(self.to));
        if normal.is_some_and(|normal| {
            normal.means.is_empty() || normal.means.len() != normal.scales.len() || normal.elements == 0
        }) {
            return Err(Error::invalid("each channel has a mean and a scale, and at least one element"));
        }
        Ok(())
    }

    fn args(&self, pieces: u64, piece_count: usize, data: u64) -> Result<Args> {
        Ok(Args {
            pieces,
            data,
            means: 0,
            scales: 0,
            padding: self.padding,
            piece_count: number(piece_count),
            rows: number(self.rows),
            outer: number(self.outer),
            inner: number(self.inner),
            channels: 1,
            channel_elements: 1,
            piece_type: code(self.from)?,
            batch_type: code(self.to)?,
        })
    }

    fn grid(&self) -> Grid {
        const THREADS: usize = 256;
        const MOST_BLOCKS: usize = 1 << 12;
        let blocks = (self.rows * self.outer * self.inner).div_ceil(THREADS).clamp(1, MOST_BLOCKS);
        Grid { blocks: number(blocks), threads: number(THREADS), shared_bytes: 0 }
    }
}

/// Gathers pieces, one after another, to a batch: cast, normalised and padded. [`reference`] says the same.
///
/// # Errors
/// When pieces do not fit the form; else as [`Machine::allocate`] and [`Machine::launch`].
pub fn gather<M: Machine>(machine: &M, pieces: &[Piece], form: &Form) -> Result<Vec<u8>> {
    form.check(pieces)?;
    let buffers = pieces.iter().map(|piece| machine.upload(piece.bytes)).collect::<Result<Vec<_>>>()?;
    let placed = machine.upload(&placed(machine, pieces, &buffers))?;
    let mut all = vec![0; form.rows * form.outer * form.inner * size_of_type(form.to)?];
    let batch = machine.allocate(all.len())?;
    let normal = form.normal.as_ref();
    let normal = normal.map(|normal| Ok((machine.upload(&normal.means)?, machine.upload(&normal.scales)?, normal)));
    let normal = normal.transpose()?;
    let mut args = form.args(machine.address(&placed), pieces.len(), machine.address(&batch))?;
    if let Some((means, scales, normal)) = &normal {
        (args.means, args.scales) = (machine.address(means), machine.address(scales));
        (args.channels, args.channel_elements) = (number(normal.means.len()), number(normal.elements));
    }
    // SAFETY: `Args` is the kernel's `Batch`; pieces fit it, as was checked, and all buffers live until the batch is read.
    unsafe { machine.launch("batch_gather", form.grid(), &args) }?;
    machine.read(&batch, &mut all)?;
    Ok(all)
}

/// Gives the rows of a batch of `form.to` back, to pieces of these shapes, whose bytes are looked at no further than how many
/// they are. Nothing is cast.
///
/// # Errors
/// As [`gather`].
pub fn split<M: Machine>(machine: &M, batch: &[u8], pieces: &[Piece], form: &Form) -> Result<Vec<Vec<u8>>> {
    let form = Form { from: form.to, normal: None, ..form.clone() };
    form.check(pieces)?;
    if batch.len() != form.rows * form.outer * form.inner * size_of_type(form.to)? {
        return Err(Error::invalid("a batch that does not have the size that it says"));
    }
    let buffers = pieces.iter().map(|piece| machine.allocate(piece.bytes.len())).collect::<Result<Vec<_>>>()?;
    let placed = machine.upload(&placed(machine, pieces, &buffers))?;
    let all = machine.upload(batch)?;
    let args = form.args(machine.address(&placed), pieces.len(), machine.address(&all))?;
    // SAFETY: as in `gather`.
    unsafe { machine.launch("batch_split", form.grid(), &args) }?;
    let read = |(piece, buffer): (&Piece, &M::Buffer)| {
        let mut bytes = vec![0; piece.bytes.len()];
        machine.read(buffer, &mut bytes).map(|()| bytes)
    };
    pieces.iter().zip(&buffers).map(read).collect()
}

fn placed<M: Machine>(machine: &M, pieces: &[Piece], buffers: &[M::Buffer]) -> Vec<PieceArgs> {
    let mut first_row = 0;
    let place = |(piece, buffer): (&Piece, &M::Buffer)| {
        let data = machine.address(buffer);
        let [rows, outer, inner] = [piece.rows, piece.outer, piece.inner].map(number);
        first_row += rows;
        PieceArgs { data, first_row: first_row - rows, rows, outer, inner }
    };
    pieces.iter().zip(buffers).map(place).collect()
}

/// [`gather`] without any kernel.
///
/// # Errors
/// As there.
pub fn reference(pieces: &[Piece], form: &Form) -> Result<Vec<u8>> {
    form.check(pieces)?;
    let (from, to) = (size_of_type(form.from)?, size_of_type(form.to)?);
    let is_copied = !is_float(form.to) || (form.from == form.to && form.normal.is_none());
    let mut nothing = vec![0; to];
    store(form.to, form.padding, &mut nothing);
    let mut batch = nothing.repeat(form.rows * form.outer * form.inner);
    let mut row = 0;
    for piece in pieces {
        for (at, element) in piece.bytes.chunks_exact(from).enumerate() {
            let (inner, outer) = (at % piece.inner, at / piece.inner % piece.outer);
            let place = outer * form.inner + inner;
            let here = (row + at / piece.inner / piece.outer) * form.outer * form.inner + place;
            let here = &mut batch[here * to..][..to];
            if is_copied {
                here.copy_from_slice(element);
                continue;
            }
            let mut value = load(form.from, element);
            if let Some(Normal { means, scales, elements }) = &form.normal {
                let channel = place / elements % means.len();
                #[allow(clippy::cast_possible_truncation)] // in single precision
                let normal = (value as f32 - means[channel]) * scales[channel];
                value = f64::from(normal);
            }
            store(form.to, value, here);
        }
        row += piece.rows;
    }
    Ok(batch)
}

macro_rules! number_of {
    ($type:ty, $bytes:expr) => {
        <$type>::from_le_bytes($bytes.try_into().expect("bytes of that type"))
    };
}

#[allow(clippy::cast_precision_loss)] // as when kernels cast
fn load(dtype: DType, bytes: &[u8]) -> f64 {
    match dtype {
        DType::Bool => f64::from(bytes[0] != 0),
        DType::Uint8 => f64::from(bytes[0]),
        DType::Uint16 => f64::from(number_of!(u16, bytes)),
        DType::Uint32 => f64::from(number_of!(u32, bytes)),
        DType::Uint64 => number_of!(u64, bytes) as f64,
        DType::Int8 => f64::from(number_of!(i8, bytes)),
        DType::Int16 => f64::from(number_of!(i16, bytes)),
        DType::Int32 => f64::from(number_of!(i32, bytes)),
        DType::Int64 => number_of!(i64, bytes) as f64,
        DType::Fp16 => number_of!(half::f16, bytes).to_f64(),
        DType::Bf16 => number_of!(half::bf16, bytes).to_f64(),
        DType::Fp32 => f64::from(number_of!(f32, bytes)),
        DType::Fp64 => number_of!(f64, bytes),
        DType::Bytes | DType::Json => 0.0,
    }
}

/// Integers are only copied, and padded with what is there: zero.
#[allow(clippy::cast_possible_truncation)] // floats are rounded
fn store(dtype: DType, value: f64, bytes: &mut [u8]) {
    match dtype {
        DType::Fp16 => bytes.copy_from_slice(&half::f16::from_f32(value as f32).to_le_bytes()),
        DType::Bf16 => bytes.copy_from_slice(&half::bf16::from_f32(value as f32).to_le_bytes()),
        DType::Fp32 => bytes.copy_from_slice(&(value as f32).to_le_bytes()),
        DType::Fp64 => bytes.copy_from_slice(&value.to_le_bytes()),
        _ => {}
    }
}

/// `Type` of the kernels.
fn code(dtype: DType) -> Result<u32> {
    Ok(match dtype {
        DType::Bool => 0,
        DType::Uint8 => 1,
        DType::Int8 => 2,
        DType::Uint16 => 3,
        DType::Int16 => 4,
        DType::Uint32 => 5,
        DType::Int32 => 6,
        DType::Uint64 => 7,
        DType::Int64 => 8,
        DType::Fp16 => 9,
        DType::Bf16 => 10,
        DType::Fp32 => 11,
        DType::Fp64 => 12,
        DType::Bytes | DType::Json => return Err(Error::invalid("text has no place on a GPU")),
    })
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::Fp16 | DType::Bf16 | DType::Fp32 | DType::Fp64)
}

fn size_of_type(dtype: DType) -> Result<usize> {
    dtype.size().ok_or_else(|| Error::invalid("text has no place on a GPU"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::processor::Processor;
    use super::*;
    use crate::kernels::on_machines;

    const FLOATS: [DType; 4] = [DType::Fp16, DType::Bf16, DType::Fp32, DType::Fp64];

    fn form() -> impl Strategy<Value = (Form, Vec<(usize, usize, usize)>, Vec<u8>)> {
        let from = proptest::sample::select(&DType::ALL[..13]);
        let to = proptest::option::of(proptest::sample::select(&FLOATS[..]));
        let pieces = proptest::collection::vec((0..4_usize, 1..5_usize, 1..6_usize), 0..5);
        let bytes = proptest::collection::vec(any::<u8>(), 3 * 4 * 5 * 8 * 5);
        (from, to, pieces, any::<bool>(), 0..3_usize, bytes).prop_map(|(from, to, pieces, is_normal, spare, bytes)| {
            let rows = pieces.iter().map(|(rows, ..)| rows).sum::<usize>() + spare;
            let normal = Normal { means: vec![0.5, -3.0], scales: vec![2.0, 0.1], elements: 3 };
            let to = to.unwrap_or(from);
            let normal = Some(normal).filter(|_| is_normal);
            (Form { from, to, rows, outer: 4, inner: 5, padding: -1.5, normal }, pieces, bytes)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn kernels_give_what_the_reference_gives((form, shapes, bytes) in form()) {
            let size = form.from.size().unwrap();
            let piece = |(rows, outer, inner): &(usize, usize, usize)| {
                let bytes = &bytes[..rows * outer * inner * size];
                Piece { bytes, rows: *rows, outer: *outer, inner: *inner }
            };
            let pieces: Vec<Piece> = shapes.iter().map(piece).collect();
            let expected = reference(&pieces, &form).unwrap();
            let size = form.to.size().unwrap();
            on_machines!(machine => {
                let batch = gather(machine, &pieces, &form).unwrap();
                for (at, (one, other)) in batch.chunks_exact(size).zip(expected.chunks_exact(size)).enumerate() {
                    let are_nan = load(form.to, one).is_nan() && load(form.to, other).is_nan();
                    prop_assert!(one == other || are_nan, "{at}: {one:?}, not {other:?}");
                }
                if form.from == form.to && (form.normal.is_none() || !is_float(form.to)) {
                    let back = split(machine, &batch, &pieces, &form).unwrap();
                    let given: Vec<&[u8]> = pieces.iter().map(|piece| piece.bytes).collect();
                    prop_assert_eq!(back, given);
                }
            });
        }
    }

    #[test]
    fn all_halves_and_what_lies_around_them_are_cast_as_they_should() {
        let halves: Vec<u16> = (0..=u16::MAX).collect();
        let around = |half: &u16| {
            let bits = half::f16::from_bits(*half).to_f32().to_bits();
            // Half way to the next one, and a little less and more than that.
            [bits, bits + (1 << 12) - 1, bits + (1 << 12), bits + (1 << 12) + 1]
        };
        let singles: Vec<u32> =
            halves.iter().step_by(7).chain(&[0x7BFF, 0xFBFF, 1, 0, 0x3FF, 0x400]).flat_map(around).collect();
        let cast = |bytes: &[u8], from: DType, to: DType| {
            let rows = bytes.len() / from.size().unwrap();
            let form = Form { from, to, rows, outer: 1, inner: 1, padding: 0.0, normal: None };
            let pieces = [Piece { bytes, rows, outer: 1, inner: 1 }];
            let is_nan = |bytes: &[u8]| load(to, bytes).is_nan();
            let expected = reference(&pieces, &form).unwrap();
            on_machines!(machine => {
                let batch = gather(machine, &pieces, &form).unwrap();
                let mut both = batch.chunks_exact(to.size().unwrap()).zip(expected.chunks_exact(to.size().unwrap()));
                let differ = both.position(|(one, other)| one != other && !(is_nan(one) && is_nan(other)));
                assert_eq!(differ, None, "{from} to {to}");
            });
        };
        let bytes_of_singles: Vec<u8> = singles.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let bytes_of_halves: Vec<u8> = halves.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        for (bytes, from, to) in [
            (&bytes_of_singles, DType::Fp32, DType::Fp16),
            (&bytes_of_singles, DType::Fp32, DType::Bf16),
            (&bytes_of_halves, DType::Fp16, DType::Fp32),
            (&bytes_of_halves, DType::Bf16, DType::Fp32),
        ] {
            cast(bytes, from, to);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let form = Form { from: DType::Fp32, to: DType::Fp32, rows: 2, outer: 1, inner: 2, padding: 0.0, normal: None };
        let bytes = [0; 24];
        let piece = Piece { bytes: &bytes[..16], rows: 2, outer: 1, inner: 2 };
        let refused = |pieces: &[Piece], form: &Form| gather(&Processor, pieces, form).unwrap_err().to_string();
        assert!(gather(&Processor, &[piece], &form).is_ok());
        assert!(refused(&[Piece { bytes: &bytes, ..piece }], &form).contains("do not have the size"));
        assert!(refused(&[Piece { bytes: &bytes, rows: 3, ..piece }], &form).contains("more than a batch"));
        assert!(refused(&[piece], &Form { to: DType::Int32, ..form.clone() }).contains("can be cast to floats"));
        assert!(refused(&[], &Form { from: DType::Bytes, to: DType::Bytes, ..form.clone() }).contains("text"));
    }
}
