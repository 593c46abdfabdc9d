//! Child processes that never outlive this one: brokers, and the service under demonstration.
//!
//! Touches processes only. Linux ties a child to its parent with `PR_SET_PDEATHSIG`, which fires
//! when the *thread* that spawned it ends, so every child is spawned from one thread that never
//! ends before the process does.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// The address of the thread that spawns; its name in the process list is `spawner`.
static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();

/// Starts a command in a process group of its own, so that Ctrl-C in a terminal reaches only us,
/// and has the kernel kill it when this process ends in whatever way, `kill -9` included.
///
/// # Errors
/// What `Command::spawn` answers, or that the spawning thread could not be started.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    let parent = libc::pid_t::try_from(std::process::id()).map_err(io::Error::other)?;
    command.process_group(0);
    // SAFETY: between fork and exec only async-signal-safe calls are made.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have gone before the line above; then nobody would send the signal.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    let (answer, child) = mpsc::channel();
    let spawner = SPAWNER.get_or_init(|| Mutex::new(start_spawner()));
    let gone = || io::Error::other("the thread that starts child processes is gone");
    spawner
        .lock()
        .map_err(|_| gone())?
        .send((command, answer))
        .map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// Starts the spawning thread. Where the thread cannot be had, the sender answers every order with
/// an error, because nobody receives.
fn start_spawner() -> mpsc::Sender<Order> {
    let (orders, inbox) = mpsc::channel::<Order>();
    let run = move || {
        for (mut command, answer) in inbox {
            // Nobody waiting for the answer means nobody owns the child: end it.
            if let Err(mpsc::SendError(Ok(mut orphan))) = answer.send(command.spawn()) {
                kill(&mut orphan);
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("spawner".into()).spawn(run) {
        tracing::error!(%error, "no thread to start child processes from");
    }
    orders
}

/// Sends SIGKILL and collects the child. Does nothing to a child that has been collected.
pub fn kill(child: &mut Child) {
    // Both fail only when the child is gone already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// Sends SIGTERM. Does nothing to a child that has ended.
pub fn ask_to_end(child: &mut Child) {
    if let (Ok(None), Ok(pid)) = (child.try_wait(), libc::pid_t::try_from(child.id())) {
        // SAFETY: the child is not collected yet (`try_wait` above), so the pid is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Waits until the child has ended; `None` when it has not by `deadline`.
///
/// # Errors
/// What `Child::try_wait` answers.
pub fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}
