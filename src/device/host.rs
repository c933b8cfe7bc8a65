//! The part of this machine that is ours: a container's limits, not the host's.

use std::path::Path;

use super::topology::Memory;

/// CPUs this process may use, at least 1: the smallest of the affinity mask and the cgroup's quota (v1 and v2),
/// both of which the standard library reads.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Memory of this process in bytes, as the kernel counts it; `None` where there is no procfs.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessMemory {
    pub virtual_bytes: u64,
    pub resident_bytes: u64,
}

pub fn process_memory() -> Option<ProcessMemory> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_whitespace().map(|field| field.parse::<u64>().ok());
    let page = page_size();
    Some(ProcessMemory { virtual_bytes: pages.next()?? * page, resident_bytes: pages.next()?? * page })
}

/// Memory of the machine, or of the container where its limit leaves less; free is what can still be had without
/// swapping. `None` where there is no procfs.
pub fn memory() -> Option<Memory> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name: &str| {
        let line = machine.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    };
    let (total, free) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    // Without a limit the file says "max".
    let limits = read("memory.max").zip(read("memory.current"));
    let (total, free) =
        limits.map_or((total, free), |(most, used)| (most.min(total), most.saturating_sub(used).min(free)));
    Some(Memory { total, used: total.saturating_sub(free) })
}

/// Bytes that can still be written below a directory.
pub fn free_disk(directory: &Path) -> Option<u64> {
    let path = std::ffi::CString::new(directory.as_os_str().as_encoded_bytes()).ok()?;
    // SAFETY: plain numbers, of which zeros are some.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: it reads a path that ends, and writes there.
    let failed = unsafe { libc::statvfs(path.as_ptr(), &raw mut found) } != 0;
    (!failed).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

/// Asks the system for large pages where nothing has been written to yet: giving out small ones one by one takes longer
/// than to receive what is put there.
pub fn want_large_pages(memory: &[u8]) {
    const PAGE: usize = 2 << 20;
    let skipped = memory.as_ptr().align_offset(PAGE).min(memory.len());
    let bytes = (memory.len() - skipped) / PAGE * PAGE;
    if bytes > 0 {
        let start = memory[skipped..].as_ptr().cast_mut().cast();
        // SAFETY: whole pages of memory that is ours, of which the advice changes nothing.
        let _ = unsafe { libc::madvise(start, bytes, libc::MADV_HUGEPAGE) }; // else it is only slower
    }
}

/// User plus system time of this process in seconds.
pub fn process_cpu_seconds() -> Option<f64> {
    let fields = process_stat()?;
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    #[allow(clippy::cast_precision_loss)] // exact up to 2^53 ticks
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// Ends the process on the spot: without what libraries do at its end, for one of them may still be at work.
pub fn end_process(code: i32) -> ! {
    // SAFETY: nothing of this process is used any more.
    unsafe { libc::_exit(code) }
}

/// Seconds since this process started, known to a tick.
pub fn process_age_seconds() -> Option<f64> {
    let started: f64 = process_stat()?.get(19)?.parse().ok()?;
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it only writes there.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) } != 0;
    #[allow(clippy::cast_precision_loss)] // exact up to 2^53
    let since_boot = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    (!failed).then(|| (since_boot - started / TICKS_PER_SECOND).max(0.0))
}

/// When this process started, in seconds since the epoch, which the system knows to a second.
pub fn process_start_seconds() -> Option<f64> {
    let ticks: f64 = process_stat()?.get(19)?.parse().ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks / TICKS_PER_SECOND)
}

pub fn open_fds() -> Option<usize> {
    Some(Path::new("/proc/self/fd").read_dir().ok()?.count())
}

/// How many there may be.
pub fn max_open_fds() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// The kernel's `USER_HZ`, which is 100 on every architecture Linux supports today.
const TICKS_PER_SECOND: f64 = 100.0;

fn page_size() -> u64 {
    // SAFETY: sysconf only reads.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// The fields of `/proc/self/stat` after the command name, whose parentheses may hold anything.
fn process_stat() -> Option<Vec<String>> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Gives memory that this thread has freed back to the operating system. Reading a model takes several times what it
/// takes in the end, and the allocator would keep that for an occasion that does not come.
pub fn give_back_memory() {
    // SAFETY: it may be called at any time from any thread, whichever allocator is in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_measured() {
        assert!(cpus() >= 1);
        assert!(process_memory().unwrap().resident_bytes > 1 << 20);
        assert!(process_cpu_seconds().unwrap() >= 0.0);
        assert!(process_start_seconds().unwrap() > 1.6e9);
        let (age, now) = (process_age_seconds().unwrap(), std::time::SystemTime::now());
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64() - process_start_seconds().unwrap();
        assert!((age - since).abs() < 1.5, "{age} {since}");
        assert!(open_fds().unwrap() >= 3);
    }
}
