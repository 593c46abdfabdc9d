//! Clocks and gauges of this process, read from the kernel.

use std::path::Path;
use std::time::Duration;

/// User and system time: of this process, this thread, or all children that ended and were waited for.
pub fn cpu_of(who: libc::c_int) -> Duration {
    // SAFETY: all zeros is a valid rusage, and getrusage writes nothing but one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(who, &raw mut usage), 0);
        usage
    };
    let of = |time: libc::timeval| {
        Duration::new(
            u64::try_from(time.tv_sec).expect("a time"),
            u32::try_from(time.tv_usec).expect("a time") * 1000,
        )
    };
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// CPU time so far of a process that runs, in seconds.
pub fn cpu_of_process(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("procfs");
    // The name may hold blanks; utime and stime are the 12th and 13th after it.
    let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    // SAFETY: sysconf takes and gives plain integers.
    ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}

/// CPU time of a job that this thread does in sections, with all that other threads of the process do
/// meanwhile, between sections too: sealing, compaction and flushing belong to the job. What this
/// thread does between sections does not (making ids, checking verdicts).
pub struct Meter {
    process: Duration,
    thread: Duration,
    inside: Duration,
}

impl Meter {
    pub fn start() -> Self {
        Self {
            process: cpu_of(libc::RUSAGE_SELF),
            thread: cpu_of(libc::RUSAGE_THREAD),
            inside: Duration::ZERO,
        }
    }

    pub fn section<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let cpu = cpu_of(libc::RUSAGE_THREAD);
        let done = work();
        self.inside += cpu_of(libc::RUSAGE_THREAD) - cpu;
        done
    }

    /// CPU time so far, in seconds.
    pub fn cpu(&self) -> f64 {
        let process = cpu_of(libc::RUSAGE_SELF) - self.process;
        let thread = cpu_of(libc::RUSAGE_THREAD) - self.thread;
        (self.inside + process.saturating_sub(thread)).as_secs_f64()
    }
}

/// What a round measured, a figure a round.
#[derive(Default, Clone)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// A field of this process's /proc/PID/status in bytes: `VmRSS` or `VmHWM`.
pub fn memory(field: &str) -> u64 {
    memory_of(std::process::id(), field)
}

/// The same of any process.
pub fn memory_of(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("procfs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a size in KiB") * 1024
}

/// Bytes that the files below a directory take on the disk. What vanishes meanwhile counts nothing.
pub fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
