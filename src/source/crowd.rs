//! Work for as many threads as bring more than fewer do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::width::Width;

/// How often to look whether more threads would bring more.
const LOOK: Duration = Duration::from_millis(300);

/// Lets threads work, each with a buffer of its own, until all have come back. More are added as long as the bytes that
/// they count grow faster for it.
pub fn crowd(mut width: Width, buffer_bytes: usize, brought: &AtomicU64, work: &(dyn Fn(&mut [u8]) + Sync)) {
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
