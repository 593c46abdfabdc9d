//! sled panics on damage that it did not expect. A damaged cache is no defect of ours: such a panic
//! becomes an error with the panic's text, and nothing of it shows on standard error.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What went wrong in sled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(super) struct Failure {
    pub why: String,
    /// It says nothing of what is on the disk: too many open files, no memory, no permission, no room, a
    /// lock.
    pub passing: bool,
}

impl Failure {
    pub fn lasting(why: String) -> Self {
        Self {
            why,
            passing: false,
        }
    }

    /// Another handle has the database open.
    pub fn is_lock(&self) -> bool {
        self.why.contains("could not acquire lock")
    }

    fn of(error: &sled::Error) -> Self {
        let why = first_line(&error.to_string());
        let passing = match error {
            sled::Error::Io(error) => {
                error.raw_os_error().is_some_and(is_passing)
                    || why.contains("could not acquire lock")
            }
            _ => false,
        };
        Self { why, passing }
    }
}

/// sled writes when it opens a database, so that a full disk is in the way of reading too.
fn is_passing(os_error: i32) -> bool {
    matches!(
        os_error,
        libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::EACCES
            | libc::EPERM
            | libc::ENOSPC
            | libc::EDQUOT
            | libc::EROFS
    )
}

/// Runs what calls sled; a panic is an error with its text. What `work` touches must not be used
/// again after an error: sled leaves it half done.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, Failure> {
    silence_guarded_panics();
    let outer = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::of(&error)),
        Err(panic) => {
            let text = first_line(&text_of(&*panic));
            Err(Failure::lasting(format!("sled panicked: {text}")))
        }
    }
}

/// Once for the process: the hook that was there before still sees every other panic.
fn silence_guarded_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                before(info);
            }
        }));
    });
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no text".to_owned())
}

/// sled's errors carry whole backtraces.
fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_says_nothing_of_what_is_on_the_disk() {
        let io = |code| sled::Error::Io(std::io::Error::from_raw_os_error(code));
        assert!(Failure::of(&io(libc::EMFILE)).passing);
        assert!(Failure::of(&io(libc::ENOSPC)).passing);
        assert!(!Failure::of(&io(libc::EIO)).passing);
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        let error = guarded::<()>(|| panic!("page {} is gone", 7)).unwrap_err();
        assert_eq!(error.why, "sled panicked: page 7 is gone");
        assert!(!error.passing);
        assert_eq!(guarded(|| Ok(7)), Ok(7));
        assert!(!GUARDED.get());
    }
}
