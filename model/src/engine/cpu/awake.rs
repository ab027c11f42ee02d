//! Threads that stay awake while a pass runs.
//!
//! A pass is hundreds of short parallel regions with little between them. rayon's idle threads sleep after some
//! microseconds, and waking one takes longer than a short region does, on virtual machines much longer: most regions would
//! be over before a second thread comes.

use std::sync::atomic::{AtomicBool, Ordering};

/// Looks for work before the core is offered to other programs, with longer pauses from one to the next: many threads
/// that look at one queue slow it down.
const LOOKS: u32 = 64;

/// Runs `work` on a thread of a pool whose other threads look for work without sleeping until it ends.
pub(super) fn during<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let caller = rayon::current_thread_index();
    if caller.is_none() || rayon::current_num_threads() == 1 {
        return work();
    }
    let ended = AtomicBool::new(false);
    rayon::scope(|scope| {
        scope.spawn_broadcast(|_, thread| {
            if Some(thread.index()) != caller {
                look_for_work(&ended);
            }
        });
        let _end = End(&ended);
        work()
    })
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
