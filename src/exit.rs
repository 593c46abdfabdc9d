//! How the process ends: one status for each kind of ending, and the sentence that goes with it.

use std::fmt;

/// Exit statuses; a supervisor decides from them whether a restart can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done, or stopped when asked to.
    Done = 0,
    /// `verify` or the demo's audit found a difference.
    AuditFailed = 1,
    /// Bad usage or config: a person must change a flag or the file.
    Usage = 64,
    /// Kafka could not be reached at start.
    Unreachable = 69,
    /// A defect of this program.
    Internal = 70,
    /// Fatal for this process, but a restart helps (fenced, fatal client error).
    Restart = 75,
    /// The environment contradicts the config (partition counts, journal of another deployment).
    Contradiction = 78,
    /// Stopped by Ctrl-C or SIGTERM before a command had its answer.
    Interrupted = 130,
}

/// Why the process, or one of its workers, must end: a status and one sentence for a person that
/// says what happened, where, and what to do next.
#[derive(Debug, Clone)]
pub struct Stop {
    /// What the process exits with.
    pub status: Status,
    /// What happened, where, and what to do.
    pub sentence: String,
}

impl Stop {
    /// The environment contradicts the config: status 78.
    pub fn contradiction(sentence: impl Into<String>) -> Self {
        Self {
            status: Status::Contradiction,
            sentence: sentence.into(),
        }
    }

    /// Fatal here, but a restart helps: status 75.
    pub fn restart(sentence: impl Into<String>) -> Self {
        Self {
            status: Status::Restart,
            sentence: sentence.into(),
        }
    }

    /// Kafka cannot be reached: status 69.
    pub fn unreachable(sentence: impl Into<String>) -> Self {
        Self {
            status: Status::Unreachable,
            sentence: sentence.into(),
        }
    }

    /// Bad usage or config: status 64.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self {
            status: Status::Usage,
            sentence: sentence.into(),
        }
    }

    /// Asked to end before the answer was there: status 130.
    pub fn interrupted(sentence: impl Into<String>) -> Self {
        Self {
            status: Status::Interrupted,
            sentence: sentence.into(),
        }
    }

    /// A defect of this program: status 70.
    pub fn internal(sentence: impl Into<String>) -> Self {
        Self {
            status: Status::Internal,
            sentence: sentence.into(),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Stop {}

/// Ends the process without exit handlers: librdkafka's threads still run, and the handlers of the
/// libraries they use would free what they hold.
#[allow(unsafe_code)]
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit has no preconditions and does not return.
    unsafe { libc::_exit(status) }
}

/// Ends the process as `kill -9` does, for fault tests. Not part of a release.
#[cfg(feature = "failpoints")]
#[allow(unsafe_code)]
pub fn die() -> ! {
    // SAFETY: kill takes two plain integers and touches no memory of ours.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    loop {
        std::thread::park();
    }
}
