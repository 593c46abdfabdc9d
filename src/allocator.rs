//! The allocator of the process. Slices and the databases that hold them come and go in pieces of some
//! kilobytes, and the system's allocator keeps most of what they leave: 610 MB resident where 200 MB
//! were in use, at 10 million ids. jemalloc gives it back.

#![allow(unsafe_code)]

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Freed memory goes back to the system at once, by a thread of jemalloc's own; few arenas, as there
/// are few threads that allocate much. `_RJEM_MALLOC_CONF` in the environment adds to it.
// SAFETY: jemalloc reads this symbol as a C string when it starts; it ends with a NUL and never changes.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static CONFIGURATION: &[u8; 67] =
    b"background_thread:true,dirty_decay_ms:0,muzzy_decay_ms:0,narenas:4\0";
