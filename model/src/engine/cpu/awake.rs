//! Threads that stay awake while a pass runs.
//!
//! A pass is hundreds of short parallel regions with little between them. rayon's idle threads sleep after some
//! microseconds, and waking one takes longer than a short region does, on virtual machines much longer: most regions would
//! be over before a second thread comes.
//!
//! A thread that looks for work until a pass ends may have a job half done below it on its stack: it looked while that
//! job waited for another. Were it a job of the same pass, the two would wait for each other for ever. So threads begin
//! to look before the pass does or not at all. Then whatever waits began before what it waits for (a job before those it
//! splits off, a job before what its thread does meanwhile, a look before its pass), and no wait can close a circle, as
//! long as jobs wait for nothing but jobs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Looks for work before the core is offered to other programs, with longer pauses from one to the next: many threads
/// that look at one queue slow it down.
const LOOKS: u32 = 64;

/// How long a pass waits for threads that sleep or are busy: what it takes to wake one on a virtual machine.
const PATIENCE: Duration = Duration::from_micros(100);

/// Runs `work` on a thread of a pool whose other threads, those that are free, look for more of it without sleeping until
/// it ends.
pub(super) fn during<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let caller = rayon::current_thread_index();
    let threads = rayon::current_num_threads();
    if caller.is_none() || threads == 1 {
        return work();
    }
    let (begin, ended) = (Begin::new(), AtomicBool::new(false));
    rayon::scope(|scope| {
        scope.spawn_broadcast(|_, thread| {
            if Some(thread.index()) != caller && begin.join() {
                look_for_work(&ended);
            }
        });
        let _end = End(&ended);
        begin.close(threads - 1);
        work()
    })
}

/// Who looks: threads join until it is closed.
struct Begin(AtomicUsize);

impl Begin {
    const CLOSED: usize = 1 << (usize::BITS - 1);

    fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Whether the calling thread came before the work began.
    fn join(&self) -> bool {
        self.0.fetch_add(1, Ordering::AcqRel) & Self::CLOSED == 0
    }

    /// Waits for `all`, but not long, and lets nobody join from then on.
    fn close(&self, all: usize) {
        let begun = Instant::now();
        while self.0.load(Ordering::Acquire) < all && begun.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        self.0.fetch_or(Self::CLOSED, Ordering::AcqRel);
    }
}

/// Ends the wait of the others, also where the work panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn look_for_work(ended: &AtomicBool) {
    let mut looks = 0_u32;
    while !ended.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            looks = 0;
            continue;
        }
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(LOOKS) {
            std::thread::yield_now();
        }
        for _ in 0..looks % LOOKS {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits its work to the depth given.
    fn tree(depth: u32) -> u64 {
        if depth == 0 {
            return 1;
        }
        let (left, right) = rayon::join(|| tree(depth - 1), || tree(depth - 1));
        left + right
    }

    #[test]
    fn passes_that_run_side_by_side_end() {
        for threads in [2, 3, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        for _ in 0..1000 {
                            assert_eq!(pool.install(|| during(|| tree(4) + tree(5))), 16 + 32);
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn nobody_joins_once_the_work_began() {
        let begin = Begin::new();
        assert!(begin.join());
        begin.close(2);
        assert!(!begin.join());
    }
}
