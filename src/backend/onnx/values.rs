//! Tensors to and from ONNX Runtime's values.

use bytes::Bytes;
use ort::memory::Allocator;
use ort::session::SessionInputValue;
use ort::value::{DynTensor, DynTensorValueType, DynValue, Tensor as OrtTensor, TensorElementType, TensorRef};

use crate::error::{Error, Result};
use crate::infer::TensorSpec;
use crate::tensor::{DType, Shape, Tensor, push_bytes_element};

/// Our name for an element type; `None` for those that no protocol carries (complex, 8- and 4-bit floats).
pub fn dtype(element: TensorElementType) -> Option<DType> {
    Some(match element {
        TensorElementType::Bool => DType::Bool,
        TensorElementType::Uint8 => DType::Uint8,
        TensorElementType::Uint16 => DType::Uint16,
        TensorElementType::Uint32 => DType::Uint32,
        TensorElementType::Uint64 => DType::Uint64,
        TensorElementType::Int8 => DType::Int8,
        TensorElementType::Int16 => DType::Int16,
        TensorElementType::Int32 => DType::Int32,
        TensorElementType::Int64 => DType::Int64,
        TensorElementType::Float16 => DType::Fp16,
        TensorElementType::Bfloat16 => DType::Bf16,
        TensorElementType::Float32 => DType::Fp32,
        TensorElementType::Float64 => DType::Fp64,
        TensorElementType::String => DType::Bytes,
        _ => return None,
    })
}

fn element_type(dtype: DType) -> TensorElementType {
    match dtype {
        DType::Bool => TensorElementType::Bool,
        DType::Uint8 => TensorElementType::Uint8,
        DType::Uint16 => TensorElementType::Uint16,
        DType::Uint32 => TensorElementType::Uint32,
        DType::Uint64 => TensorElementType::Uint64,
        DType::Int8 => TensorElementType::Int8,
        DType::Int16 => TensorElementType::Int16,
        DType::Int32 => TensorElementType::Int32,
        DType::Int64 => TensorElementType::Int64,
        DType::Fp16 => TensorElementType::Float16,
        DType::Bf16 => TensorElementType::Bfloat16,
        DType::Fp32 => TensorElementType::Float32,
        DType::Fp64 => TensorElementType::Float64,
        DType::Bytes | DType::Json => TensorElementType::String,
    }
}

/// A tensor where it is, if ONNX Runtime can read it there; else a copy.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) for text that is not UTF-8 or holds a NUL.
pub fn to_ort(tensor: &Tensor) -> Result<SessionInputValue<'_>> {
    macro_rules! view {
        ($type:ty) => {{
            // SAFETY: any bytes are such a number.
            let (before, numbers, after) = unsafe { tensor.data().align_to::<$type>() };
            let is_aligned = before.is_empty() && after.is_empty() && !numbers.is_empty();
            is_aligned.then(|| TensorRef::from_array_view((tensor.shape().dims(), numbers)).map(Into::into))
        }};
    }
    let view = match tensor.dtype() {
        DType::Uint8 => view!(u8),
        DType::Uint16 => view!(u16),
        DType::Uint32 => view!(u32),
        DType::Uint64 => view!(u64),
        DType::Int8 => view!(i8),
        DType::Int16 => view!(i16),
        DType::Int32 => view!(i32),
        DType::Int64 => view!(i64),
        DType::Fp32 => view!(f32),
        DType::Fp64 => view!(f64),
        DType::Bool | DType::Fp16 | DType::Bf16 | DType::Bytes | DType::Json => None,
    };
    match view {
        Some(view) => view.map_err(|error| cannot_hold(&error)),
        None => copy(tensor).map(Into::into),
    }
}

fn cannot_hold(error: &ort::Error) -> Error {
    Error::internal(error.message()).context("ONNX Runtime cannot hold an input")
}

/// Into memory that ONNX Runtime has allocated, and so aligned as it likes.
fn copy(tensor: &Tensor) -> Result<DynTensor> {
    let dims: Vec<usize> = tensor.shape().dims().to_vec();
    if tensor.dtype() == DType::Bytes {
        return strings(tensor, dims);
    }
    let failed = |error: ort::Error| cannot_hold(&error);
    let mut value = DynTensor::new(&Allocator::default(), element_type(tensor.dtype()), dims).map_err(failed)?;
    let data = tensor.data();
    if !data.is_empty() {
        // SAFETY: a fixed-size tensor that ONNX Runtime has just allocated on the CPU for this shape and dtype holds
        // elements * size bytes, which is what `Tensor::new` has checked `data` to be.
        let target = unsafe { std::slice::from_raw_parts_mut(value.data_ptr_mut().cast::<u8>(), data.len()) };
        if tensor.dtype() == DType::Bool {
            // A C++ bool that is neither 0 nor 1 is undefined behaviour; raw contents may hold any byte.
            target.iter_mut().zip(data.iter()).for_each(|(to, from)| *to = u8::from(*from != 0));
        } else {
            target.copy_from_slice(data);
        }
    }
    Ok(value)
}

fn strings(tensor: &Tensor, dims: Vec<usize>) -> Result<DynTensor> {
    let place = |index: usize| format!("input \"{}\": element {index}", tensor.name());
    let mut texts = Vec::with_capacity(tensor.shape().elements());
    for (index, element) in tensor.bytes_elements().enumerate() {
        let text = std::str::from_utf8(element).map_err(|_| Error::invalid("is not UTF-8").context(place(index)))?;
        if text.contains('\0') {
            return Err(Error::invalid("holds a NUL, which ONNX strings cannot").context(place(index)));
        }
        texts.push(text.to_owned()); // ort wants owned strings here
    }
    let value = OrtTensor::from_string_array((dims, texts.as_slice()));
    value.map(OrtTensor::upcast).map_err(|error| Error::internal(error.message()))
}

/// Copies an output out of ONNX Runtime.
///
/// # Errors
/// When the value is not what the model's signature declares.
pub fn from_ort(spec: &TensorSpec, value: &DynValue) -> Result<Tensor> {
    let place = |error: Error| error.context(format_args!("output \"{}\"", spec.name));
    let failed = |error: ort::Error| place(Error::internal(error.message()));
    let tensor = value.view().downcast::<DynTensorValueType>().map_err(failed)?;
    if dtype(*tensor.data_type()) != Some(spec.dtype) {
        return Err(place(Error::internal(format!("expected {}, got {}", spec.dtype, tensor.data_type()))));
    }
    let dims = tensor.shape().iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX)).collect();
    let shape = Shape::new(dims).map_err(place)?;
    let data = match spec.dtype.size() {
        Some(_) if shape.elements() == 0 => Bytes::new(),
        Some(size) => {
            // SAFETY: the value is a CPU tensor of this shape and element type, so it holds that many bytes, and it
            // lives until the copy is made.
            let source = unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), shape.elements() * size) };
            Bytes::copy_from_slice(source)
        }
        None => {
            let (_, texts) = tensor.try_extract_strings().map_err(failed)?;
            let mut data = Vec::new();
            for text in texts {
                push_bytes_element(&mut data, text.as_bytes())?;
            }
            data.into()
        }
    };
    Tensor::new(spec.name.clone(), spec.dtype, shape, data).map_err(place)
}
