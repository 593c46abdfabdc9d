//! The allocator of the process, librdkafka's part of it included. Slices, the databases that hold them and
//! batches of records come and go in pieces of some kilobytes, and the system's allocator keeps most of what
//! they leave: 610 MB resident where 200 MB were in use, at 10 million ids. jemalloc gives it back.

#![allow(unsafe_code)]

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Freed memory goes back to the system by a thread of jemalloc's own, when no transaction has taken it again
/// for a while: given back at once, what one transaction frees is cleared by the kernel for the next, which
/// costs a third of the CPU time of a record. One arena, as few threads allocate much. `MALLOC_CONF` in the
/// environment adds to it.
// SAFETY: jemalloc reads this symbol as a C string when it starts; it ends with a NUL and never changes.
#[unsafe(export_name = "malloc_conf")]
pub static CONFIGURATION: &[u8; 69] =
    b"background_thread:true,dirty_decay_ms:200,muzzy_decay_ms:0,narenas:1\0";
