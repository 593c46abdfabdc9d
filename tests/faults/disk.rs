//! The disk below the local store is full, read-only, out of inodes, or refuses to write.
//!
//! The store lies on a small file system of its own in memory, which takes root; without, only the
//! refusal by a limit on the size of files is tried, and a line says so.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::campaign::Rounds;
use crate::kit::{BINARY, Instance, wait_for};
use crate::rig::{Holdings, Plan, Rig};

const SIZE_BYTES: u64 = 16 << 20;
/// No slice of these tests is as small, in bytes.
const FILE_LIMIT_BYTES: u64 = 4_096;
/// A store that cannot be written is tried again every 10 s.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It fills up while the program runs.
    Full,
    /// It was full before.
    FullAtStart,
    /// It is read-only from a start on, and made writable under the running program. The system does
    /// not let one make it read-only while files are open for writing.
    ReadOnly,
    NoInodes,
    /// Every write to a file fails, the log's too.
    WriteErrors,
}

const TROUBLES: [Trouble; 5] = [
    Trouble::Full,
    Trouble::ReadOnly,
    Trouble::WriteErrors,
    Trouble::FullAtStart,
    Trouble::NoInodes,
];

pub fn troubled(rounds: &mut Rounds) {
    let mut rig = Rig::of(Plan::new("disk", rounds.seed));
    let store = rig.deployment.dir.path().join("store-one");
    fs::create_dir_all(&store).expect("the store's directory");
    let disk = Disk::mount(&store);
    let mut instance = start(&rig, &store);
    instance.wait_until_ready();
    while let Some(round) = rounds.next() {
        let turn = usize::try_from(round).expect("small") % TROUBLES.len();
        let trouble = disk
            .as_ref()
            .map_or(Trouble::WriteErrors, |_| TROUBLES[turn]);
        let held = Holdings::of(&instance);
        rig.flow();
        rig.let_flow(300);
        if matches!(trouble, Trouble::FullAtStart | Trouble::ReadOnly) {
            assert!(instance.terminate().success(), "{}", instance.log_tail());
            begin(trouble, disk.as_ref(), &instance);
            instance = start(&rig, &store);
            instance.wait_until_ready();
        } else {
            begin(trouble, disk.as_ref(), &instance);
        }
        wait_for("the store to be degraded", PATIENCE, || {
            tighten(trouble, disk.as_ref());
            instance.metric("kafka_dedup_store_degraded") > 0.0
        });
        rig.let_flow(300 + rounds.dice.roll(1_500));
        let (status, report) = instance.get("/readyz?verbose").expect("an answer");
        assert_eq!(status, 200, "without a disk it goes on: {report}");
        end(trouble, disk.as_ref(), &instance);
        wait_for("the store to be used again", PATIENCE, || {
            instance.metric("kafka_dedup_store_degraded") == 0.0
        });
        rig.let_flow(300);
        let tally = rig.settle(&mut [&mut instance]);
        rounds.compared(tally.received);
        held.assert_given_back(&instance);
        // What was written before and after must fit together at the next start.
        if rounds.dice.roll(2) == 0 {
            instance.end();
            instance = start(&rig, &store);
            instance.wait_until_ready();
        }
    }
    assert!(instance.terminate().success(), "{}", instance.log_tail());
}

/// A write beyond the limit on the size of files is an error then, and no signal.
fn start(rig: &Rig, store: &Path) -> Instance {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", BINARY]);
    rig.deployment
        .start_on("one", store.to_path_buf(), &[], shell)
}

fn begin(trouble: Trouble, disk: Option<&Disk>, instance: &Instance) {
    match (trouble, disk) {
        (Trouble::Full | Trouble::FullAtStart, Some(disk)) => disk.fill(),
        (Trouble::ReadOnly, Some(disk)) => disk.remount("ro"),
        (Trouble::NoInodes, Some(disk)) => disk.allow_inodes(disk.inodes_used()),
        _ => limit_files(instance, &FILE_LIMIT_BYTES.to_string()),
    }
}

/// A slice that is over makes room for the next: where that happens to come first each time, a full disk
/// would trouble nobody.
fn tighten(trouble: Trouble, disk: Option<&Disk>) {
    match (trouble, disk) {
        (Trouble::Full | Trouble::FullAtStart, Some(disk)) => disk.fill(),
        // Refused where one more has come to be used meanwhile; then there is no room either.
        (Trouble::NoInodes, Some(disk)) => drop(disk.try_remount(&inodes(disk.inodes_used()))),
        _ => {}
    }
}

fn inodes(count: u64) -> String {
    format!("size={SIZE_BYTES},nr_inodes={count}")
}

fn end(trouble: Trouble, disk: Option<&Disk>, instance: &Instance) {
    match (trouble, disk) {
        (Trouble::Full | Trouble::FullAtStart, Some(disk)) => disk.relieve(),
        (Trouble::ReadOnly, Some(disk)) => disk.remount("rw"),
        (Trouble::NoInodes, Some(disk)) => disk.allow_inodes(100_000),
        _ => limit_files(instance, "unlimited"),
    }
}

/// The soft limit of a running process.
fn limit_files(instance: &Instance, limit: &str) {
    let (limit, process) = (format!("--fsize={limit}:"), instance.id().to_string());
    run("prlimit", &[&limit, "--pid", &process]);
}

fn run(command: &str, arguments: &[&str]) {
    let status = Command::new(command).args(arguments).status();
    let status = status.unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(status.success(), "{command} {arguments:?}: {status}");
}

/// A file system in memory. Dropped: let go of.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount(path: &Path) -> Option<Self> {
        let options = format!("size={SIZE_BYTES}");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path)
            .status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!(
                "disk: no file system can be mounted (that takes root): only write errors are tried"
            );
            return None;
        }
        Some(Self {
            path: path.to_path_buf(),
        })
    }

    fn remount(&self, options: &str) {
        let status = self.try_remount(options).expect("mount");
        assert!(status.success(), "remount {options}: {status}");
    }

    fn try_remount(&self, options: &str) -> std::io::Result<ExitStatus> {
        let mut mount = Command::new("mount");
        mount.arg("-o").arg(format!("remount,{options}"));
        mount.arg(&self.path).stderr(Stdio::null()).status()
    }

    fn allow_inodes(&self, count: u64) {
        self.remount(&inodes(count));
    }

    fn inodes_used(&self) -> u64 {
        let path = CString::new(self.path.display().to_string()).expect("a path");
        // SAFETY: all-zero is a value of this plain struct.
        let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the path ends in a NUL, and the struct is there to be written.
        let status = unsafe { libc::statvfs(path.as_ptr(), &raw mut found) };
        assert_eq!(status, 0, "statvfs");
        found.f_files - found.f_ffree
    }

    /// Takes all that is free.
    fn fill(&self) {
        let mut options = fs::OpenOptions::new();
        let ballast = options.append(true).create(true).open(self.ballast());
        let mut ballast = ballast.expect("the ballast");
        let zeros = std::io::Read::take(std::io::repeat(0), 2 * SIZE_BYTES);
        let filled = std::io::copy(&mut { zeros }, &mut ballast);
        let error = filled.expect_err("a full disk");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
    }

    fn relieve(&self) {
        fs::remove_file(self.ballast()).expect("no ballast");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the program may still have files open there. An error has nobody to tell.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
