//! Work for as many threads as bring more than fewer do.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::width::Width;
use crate::error::Result;

/// How often to look whether more threads would bring more.
const LOOK: Duration = Duration::from_millis(300);

/// What is done with a part, by a thread with this buffer, as long as the function says that it is still wanted.
pub type Work<'w, P> = dyn Fn(&P, &mut [u8], &dyn Fn() -> bool) -> Result<()> + Sync + 'w;

/// Lets threads work on the parts, in their order, each with a buffer of its own. More are added as long as the bytes
/// that they count grow faster for it. After a failure no part is begun, and `stop` is called.
///
/// # Errors
/// The first failure.
pub fn crowd<P: Sync>(
    parts: &[P],
    buffer_bytes: usize,
    brought: &AtomicU64,
    stop: &(dyn Fn() + Sync),
    work: &Work<'_, P>,
) -> Result<()> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let is_wanted = || failure.lock().expect("no thread panics with it").is_none();
    spread(Width::new(parts.len()), buffer_bytes, brought, &|buffer| {
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(part, buffer, &is_wanted) {
                next.store(parts.len(), Ordering::Relaxed);
                failure.lock().expect("no thread panics with it").get_or_insert(error); // what follows is its consequence
                stop();
            }
        }
    });
    failure.into_inner().expect("no thread panics with it").map_or(Ok(()), Err)
}

/// Until all threads have come back.
fn spread(mut width: Width, buffer_bytes: usize, brought: &AtomicU64, work: &(dyn Fn(&mut [u8]) + Sync)) {
    // In one piece: to each thread that asks for so much the allocator gives a huge page.
    let mut buffers = vec![0; width.most() * buffer_bytes];
    let mut rest = buffers.as_mut_slice();
    let (working, done) = (Mutex::new(0_usize), Condvar::new());
    let (working, done) = (&working, &done);
    std::thread::scope(|scope| {
        let mut add = |threads: usize| {
            *working.lock().expect("no thread panics with it") += threads;
            for _ in 0..threads {
                let (buffer, others) = std::mem::take(&mut rest).split_at_mut(buffer_bytes);
                rest = others;
                scope.spawn(move || {
                    work(buffer);
                    *working.lock().expect("no thread panics with it") -= 1;
                    done.notify_one();
                });
            }
        };
        add(width.first());
        let (mut begun, mut before) = (Instant::now(), 0);
        let is_done = || {
            let at_work = working.lock().expect("no thread panics with it");
            let waited = done.wait_timeout_while(at_work, LOOK, |working| *working > 0);
            *waited.expect("no thread panics with it").0 == 0
        };
        while !is_done() {
            let bytes = brought.load(Ordering::Relaxed);
            add(width.more(bytes - before, begun.elapsed()));
            (begun, before) = (Instant::now(), bytes);
        }
    });
}
