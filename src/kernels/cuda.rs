//! Kernels on a GPU, through its driver alone: no CUDA is needed to build this, and the driver's library is loaded at run time.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUfunction, CUfunction_attribute, is_culib_present};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};

use super::images::{Image, SOURCES};
use super::{Grid, Limits, Machine, Plain};
use crate::error::{Error, Result};

/// The first GPU of this process, with our kernels. What is begun on it runs one after another.
pub struct Gpu {
    stream: Arc<CudaStream>,
    kernels: HashMap<String, CUfunction>,
    limits: Limits,
    /// For which GPUs the kernels that were loaded had been compiled.
    image: String,
}

// SAFETY: functions of a driver's module may be used by any thread that the context is bound to.
unsafe impl Send for Gpu {}

impl Gpu {
    /// Loads the kernels that were compiled for such a GPU, or else has its driver compile them.
    ///
    /// # Errors
    /// When there is no driver, no GPU, or the driver refuses the kernels, being older than they are.
    pub fn new() -> Result<Gpu> {
        // SAFETY: it only looks for the driver's library; without it, everything below would panic.
        if !unsafe { is_culib_present() } {
            return Err(Error::load(
                "the GPU's driver (libcuda) cannot be loaded: install it, or mount it into the container",
            ));
        }
        let context = CudaContext::new(0).map_err(|error| refused("a context on the GPU", error))?;
        let asked = |attribute| {
            let number = context.attribute(attribute).map_err(|error| refused("what the GPU is", error))?;
            Ok::<_, Error>(usize::try_from(number).unwrap_or(0))
        };
        let limits = Limits {
            shared_bytes: asked(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            multiprocessors: asked(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        };
        let capability = context.compute_capability().map_err(|error| refused("what the GPU is", error))?;
        let mut kernels = HashMap::new();
        let mut image = String::new();
        for source in &SOURCES {
            let chosen = source.image_for(capability);
            image = chosen.to_string();
            load(chosen, source.kernels, limits, &mut kernels)
                .map_err(|error| refused(format_args!("the kernels for {image}"), error))?;
        }
        // No other stream ever runs here: there is nothing to keep track of.
        unsafe { context.disable_event_tracking() };
        Ok(Gpu { stream: context.default_stream(), kernels, limits, image })
    }

    /// For which GPUs the kernels that run here were compiled, as `sm_90`, or `compute_80` for those that the driver
    /// compiled.
    pub fn image(&self) -> &str {
        &self.image
    }
}

/// Why the first GPU computes nothing for this process any more: errors such as a wrong address stay with its context, which all
/// CUDA libraries of a process share.
pub fn failure() -> Option<String> {
    // SAFETY: it only looks for the driver's library.
    if !unsafe { is_culib_present() } {
        return None;
    }
    CudaContext::new(0).and_then(|context| context.synchronize()).err().map(told)
}

/// Into the context that is bound to this thread, which keeps the module for as long as it lives.
fn load(
    image: Image,
    names: &[&str],
    limits: Limits,
    kernels: &mut HashMap<String, CUfunction>,
) -> std::result::Result<(), DriverError> {
    // SAFETY: images are whole, and text ends with a zero.
    let module = unsafe { result::module::load_data(image.bytes().as_ptr().cast()) }?;
    for name in names {
        let c_name = CString::new(*name).expect("a kernel's name");
        // SAFETY: the module was loaded just now and is never unloaded.
        let function = unsafe { result::module::get_function(module, c_name) }?;
        let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let bytes = i32::try_from(limits.shared_bytes).unwrap_or(i32::MAX);
        // SAFETY: as above.
        unsafe { result::function::set_function_attribute(function, most, bytes) }?;
        kernels.insert((*name).to_owned(), function);
    }
    Ok(())
}

fn refused(what: impl std::fmt::Display, error: DriverError) -> Error {
    Error::load(format!("the GPU's driver refused {what}: {}", told(error)))
}

fn told(error: DriverError) -> String {
    let text = error.error_string().ok().and_then(|text| text.to_str().ok().map(str::to_owned));
    text.unwrap_or_else(|| format!("{:?}", error.0))
}

fn failed(error: DriverError) -> Error {
    Error::internal(format!("the GPU failed: {}", told(error)))
}

impl Machine for Gpu {
    type Buffer = CudaSlice<u8>;

    fn limits(&self) -> Limits {
        self.limits
    }

    fn allocate(&self, bytes: usize) -> Result<CudaSlice<u8>> {
        // SAFETY: nobody reads what has not been written.
        let buffer = unsafe { self.stream.alloc(bytes.max(1)) };
        buffer.map_err(|error| Error::load(format!("{bytes} bytes of the GPU's memory: {}", told(error))))
    }

    fn address(&self, buffer: &CudaSlice<u8>) -> u64 {
        buffer.device_ptr(&self.stream).0
    }

    fn write(&self, buffer: &mut CudaSlice<u8>, at: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut place = buffer.slice_mut(at..at + bytes.len());
        self.stream.memcpy_htod(bytes, &mut place).map_err(failed)
    }

    unsafe fn launch<A: Plain>(&self, kernel: &str, grid: Grid, args: &A) -> Result<()> {
        let function = self.kernels[kernel];
        let mut params = [std::ptr::from_ref(args).cast_mut().cast::<c_void>()];
        self.stream.context().bind_to_thread().map_err(failed)?;
        // SAFETY: the caller's; the driver copies what `params` points to.
        let begun = unsafe {
            let (blocks, threads) = ((grid.blocks, 1, 1), (grid.threads, 1, 1));
            result::launch_kernel(function, blocks, threads, grid.shared_bytes, self.stream.cu_stream(), &mut params)
        };
        begun.map_err(failed)
    }

    fn read(&self, buffer: &CudaSlice<u8>, into: &mut [u8]) -> Result<()> {
        if !into.is_empty() {
            self.stream.memcpy_dtoh(&buffer.slice(..into.len()), into).map_err(failed)?;
        }
        self.stream.synchronize().map_err(failed)
    }
}
