//! The safe face of `kernels/`: what is computed on GPUs by kernels of our own.
//!
//! A kernel has one argument, a struct that is the same here and in its source. It is launched by a [`Machine`], which is a
//! GPU ([`cuda`]); and in tests this processor, for which the same sources are compiled, so that what they compute is tested on
//! every machine. Each operation has a reference that computes the same without any kernel.

pub mod batch;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod classes;
pub mod encoding;
pub mod forest;
#[cfg(feature = "cuda")]
mod images;
#[cfg(test)]
pub mod processor;
pub mod shap;
pub mod trees;

use crate::error::Result;

/// What runs kernels.
pub trait Machine {
    /// Memory that kernels can reach.
    type Buffer;

    fn limits(&self) -> Limits;

    /// Memory of so many bytes, at least, of any content.
    ///
    /// # Errors
    /// When there is not as much.
    fn allocate(&self, bytes: usize) -> Result<Self::Buffer>;

    fn address(&self, buffer: &Self::Buffer) -> u64;

    /// Copies bytes to a place in a buffer.
    ///
    /// # Errors
    /// As [`Machine::launch`].
    fn write(&self, buffer: &mut Self::Buffer, at: usize, bytes: &[u8]) -> Result<()>;

    /// Begins to run a kernel; those that are begun later run later.
    ///
    /// # Safety
    /// `args` is what the kernel takes, and what it points to lies in buffers that are large enough and live until something
    /// has been read.
    ///
    /// # Errors
    /// When the GPU refuses, or has failed at something that was begun before.
    unsafe fn launch<A: Plain>(&self, kernel: &str, grid: Grid, args: &A) -> Result<()>;

    /// Waits for all that was begun, and copies the first bytes of a buffer.
    ///
    /// # Errors
    /// As [`Machine::launch`].
    fn read(&self, buffer: &Self::Buffer, into: &mut [u8]) -> Result<()>;

    /// A buffer with these values.
    ///
    /// # Errors
    /// As [`Machine::allocate`] and [`Machine::write`].
    fn upload<T: Plain>(&self, values: &[T]) -> Result<Self::Buffer> {
        let mut buffer = self.allocate(size_of_val(values))?;
        self.write(&mut buffer, 0, bytes(values))?;
        Ok(buffer)
    }
}

/// What a kernel may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Shared memory of a block.
    pub shared_bytes: usize,
    /// Multiprocessors, each of which runs some blocks at a time.
    pub multiprocessors: usize,
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub blocks: u32,
    pub threads: u32,
    pub shared_bytes: u32,
}

/// What kernels are given as it lies in memory.
///
/// # Safety
/// Numbers, and `#[repr(C)]` structs of them that have no padding.
pub unsafe trait Plain: Copy {}

// SAFETY: they are numbers.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f64 {}

/// Trees on the first GPU of this process, and for which GPUs the kernels there were compiled.
///
/// # Errors
/// When there is no GPU, or it does not take them; and of a build without CUDA.
pub fn forest_on_gpu(packed: &forest::Packed) -> Result<(Box<dyn trees::Trees>, String)> {
    #[cfg(feature = "cuda")]
    {
        let gpu = cuda::Gpu::new()?;
        let image = gpu.image().to_owned();
        Ok((trees::on(gpu, packed)?, image))
    }
    #[cfg(not(feature = "cuda"))]
    {
        let _ = packed;
        Err(crate::error::Error::load("this stoker was built without the feature \"cuda\""))
    }
}

/// Why the first GPU computes nothing for this process any more, if it does not.
pub fn gpu_failure() -> Option<String> {
    #[cfg(feature = "cuda")]
    return cuda::failure();
    #[cfg(not(feature = "cuda"))]
    None
}

/// The GPU, for tests that are to run there, too, which `STOKER_TEST_GPU` asks for.
#[cfg(all(test, feature = "cuda"))]
pub(crate) fn test_gpu() -> Option<std::sync::MutexGuard<'static, cuda::Gpu>> {
    static GPU: std::sync::OnceLock<Option<std::sync::Mutex<cuda::Gpu>>> = std::sync::OnceLock::new();
    let gpu = GPU.get_or_init(|| {
        let asked = std::env::var_os("STOKER_TEST_GPU");
        asked.map(|_| std::sync::Mutex::new(cuda::Gpu::new().expect("the GPU that STOKER_TEST_GPU asks for")))
    });
    gpu.as_ref().map(|gpu| gpu.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// A test's body, on this processor and on the GPU if there is to be one.
#[cfg(test)]
macro_rules! on_machines {
    ($machine:ident => $body:expr) => {{
        {
            let $machine = &$crate::kernels::processor::Processor;
            $body
        }
        #[cfg(feature = "cuda")]
        if let Some(gpu) = $crate::kernels::test_gpu() {
            let $machine = &*gpu;
            $body
        }
    }};
}
#[cfg(test)]
pub(crate) use on_machines;

/// As kernels count. What is counted was bounded when it was laid out, or cut into pieces.
fn number(count: usize) -> u32 {
    u32::try_from(count).expect("less than 2^32 of what a kernel counts")
}

/// Values as they lie in memory.
pub fn bytes<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` values have no bytes that are not theirs.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes`, and any bytes are some number.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
