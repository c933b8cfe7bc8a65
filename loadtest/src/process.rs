//! A server under test: a child process held to one core, whose CPU time can be read, and which
//! does not outlive the experiment.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::{prctl, signal::Signal};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::http;

/// The calling thread, to the calls that take a process id.
const SELF: Pid = Pid::from_raw(0);

/// The cores this process may run on, in ascending order.
pub fn allowed_cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(SELF)?;
    Ok((0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect())
}

/// Holds the calling thread, and the threads it starts from now on, to one core.
pub fn pin_to(core: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(SELF, &set)
}

/// CPU time, user and system, of all threads this process has had.
pub fn own_cpu_time() -> Result<Duration> {
    cpu_time(SELF)
}

fn cpu_time(pid: Pid) -> Result<Duration> {
    Ok(clock_gettime(clock_getcpuclockid(pid)?)?.into())
}

/// How long `core` has not been idle since the machine started, whoever used it, to the 10 ms that
/// the kernel counts in.
pub fn core_busy_time(core: usize) -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    parse_busy_time(&stat, core).with_context(|| format!("/proc/stat has no core {core}"))
}

fn parse_busy_time(stat: &str, core: usize) -> Option<Duration> {
    let name = format!("cpu{core}");
    let mut fields = stat
        .lines()
        .map(str::split_ascii_whitespace)
        .find_map(|mut fields| (fields.next() == Some(&name)).then_some(fields))?
        .map(|ticks| ticks.parse::<u64>().ok());
    // user nice system idle iowait irq softirq steal; the guest times after these are in user.
    let mut ticks = [0; 8];
    for tick in &mut ticks {
        *tick = fields.next()??;
    }
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks;
    let busy = user + nice + system + irq + softirq + steal;
    Some(Duration::from_millis(10 * busy))
}

/// A loopback address that nothing listens on.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts `command`, which is to listen on `address`, on one core.
    pub fn spawn(mut command: Command, address: SocketAddr, core: usize) -> Result<Self> {
        let prepare = move || {
            pin_to(core)?;
            // Dropping kills the child, but nothing is dropped when a signal ends this process.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: `prepare` runs between fork and exec and makes only system calls.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { child, address })
    }

    /// Waits until a GET of `path` is answered with 200.
    pub fn wait_ready(&mut self, path: &str, timeout: Duration) -> Result<()> {
        let request = http::request(self.address, path, None);
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended before it was ready: {status}");
            }
            let last = match http::exchange(self.address, &request) {
                Ok((200, _)) => return Ok(()),
                Ok((status, _)) => format!("status {status}"),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() >= deadline {
                bail!("the server is not ready after {timeout:?}: {last}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// CPU time, user and system, of all threads the server has had.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(Pid::from_raw(self.child.id().try_into()?)).context("the server has ended")
    }

    /// Hands the server its standard input, which must have been piped, and ends it.
    pub fn feed(&mut self, input: &[u8]) -> Result<()> {
        let mut stdin = self.child.stdin.take().context("stdin is not piped")?;
        Ok(io::Write::write_all(&mut stdin, input)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the server has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_runs_on_its_core_and_its_cpu_time_grows() {
        let core = *allowed_cores().unwrap().last().unwrap();
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"]);
        let server = Server::spawn(busy, free_address().unwrap(), core).unwrap();

        let pid = Pid::from_raw(server.child.id().try_into().unwrap());
        let set = sched_getaffinity(pid).unwrap();
        let cores = (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap());
        assert_eq!(cores.collect::<Vec<_>>(), [core]);

        let before = server.cpu_time().unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(server.cpu_time().unwrap() > before);
    }

    #[test]
    fn a_core_is_busy_whenever_it_is_not_idle() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 9 9 9 9 9 9 9 9 9 9\n\
                    cpu10 1 2 3 1000 2000 4 5 6 1 2\nintr 1\n";
        assert_eq!(parse_busy_time(stat, 10), Some(Duration::from_millis(210)));
        assert_eq!(parse_busy_time(stat, 0), None);
    }

    #[test]
    fn a_server_that_ends_is_not_waited_for() {
        let server = Command::new("false");
        let mut server = Server::spawn(server, free_address().unwrap(), 0).unwrap();
        let error = server.wait_ready("/", Duration::from_secs(30)).unwrap_err();
        assert!(error.to_string().contains("ended before it was ready"));
    }
}
