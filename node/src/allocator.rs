//! The process's allocator: mimalloc, told to keep what it has.
//!
//! Matrix products take and return megabytes of packing buffers hundreds of times a step. By default
//! mimalloc gives memory unused for a second back to the system, and each step then pays for clearing
//! fresh pages: a gigabyte a step for `bench-34m`.
#![allow(unsafe_code)] // one call into mimalloc

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's option list; its crate does not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Keeps freed memory for the next allocation, for ever.
pub(crate) fn keep_memory() {
    // SAFETY: sets an integer option of the allocator; any value is allowed, −1 means never.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_purge_delay() {
        // 1,000 ms is the default of the purge delay and of no option near it.
        // SAFETY: reads an integer.
        assert_eq!(unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }, 1000);
        keep_memory();
        // SAFETY: reads an integer.
        assert_eq!(unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }, -1);
    }
}
