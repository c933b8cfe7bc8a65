//! Kernels on this processor: their sources, compiled by the machine's own C++ compiler. What they compute is tested so; how
//! fast they are is not.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use libloading::{Library, Symbol};

use super::{Grid, Limits, Machine, Plain};
use crate::error::Result;

/// As much as a GPU's, and few multiprocessors, so that few rows are many.
pub struct Processor;

/// Compiled once for all tests of this process.
fn libraries() -> &'static [Library] {
    static LIBRARIES: OnceLock<Vec<Library>> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder for the compiled kernels");
        sources().iter().map(|source| compile(source, folder.path())).collect()
    })
}

/// All kernels' sources.
fn sources() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let files = folder.read_dir().expect("the folder of the kernels").map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "cu")).collect()
}

fn compile(source: &Path, folder: &Path) -> Library {
    let library = folder.join(source.file_stem().unwrap()).with_extension("so");
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let flags = "-std=c++17 -O1 -Wall -Wextra -Werror -ffp-contract=off -fPIC -shared -pthread -x c++ -o";
    let mut command = Command::new(&compiler);
    command.args(flags.split(' ')).args([library.as_path(), source]);
    let output = command.output().unwrap_or_else(|error| {
        panic!("these tests compile {} and need a C++ compiler: {}: {error}", source.display(), compiler.display())
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: it was compiled just now from what is here, and runs nothing when it is loaded.
    unsafe { Library::new(&library) }.expect("a library that was compiled just now")
}

impl Machine for Processor {
    /// Words, so that all numbers are where they may be.
    type Buffer = Vec<u64>;

    fn limits(&self) -> Limits {
        Limits { shared_bytes: 96 << 10, multiprocessors: 1 }
    }

    fn allocate(&self, bytes: usize) -> Result<Vec<u64>> {
        const ANYTHING: u64 = 0xA5A5_A5A5_A5A5_A5A5;
        Ok(vec![ANYTHING; bytes.div_ceil(8).max(1)])
    }

    fn address(&self, buffer: &Vec<u64>) -> u64 {
        buffer.as_ptr() as u64
    }

    fn write(&self, buffer: &mut Vec<u64>, at: usize, bytes: &[u8]) -> Result<()> {
        super::bytes_mut(buffer)[at..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    unsafe fn launch<A: Plain>(&self, kernel: &str, grid: Grid, args: &A) -> Result<()> {
        type Kernel<A> = unsafe extern "C" fn(*const A, u32, u32, u32);
        // SAFETY: `kernel.h` gives all kernels this signature.
        let found = libraries().iter().find_map(|library| unsafe { library.get::<Kernel<A>>(kernel).ok() });
        let run: Symbol<Kernel<A>> = found.unwrap_or_else(|| panic!("no kernel is called {kernel}"));
        // SAFETY: the caller's.
        unsafe { run(args, grid.blocks, grid.threads, grid.shared_bytes) };
        Ok(())
    }

    fn read(&self, buffer: &Vec<u64>, into: &mut [u8]) -> Result<()> {
        into.copy_from_slice(&super::bytes(buffer)[..into.len()]);
        Ok(())
    }
}
