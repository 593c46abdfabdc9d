//! The program; see `kafka-dedup --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fault tests name places at which the process dies; a release has no such places.
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    kafka_dedup::cli::main(std::env::args_os())
}
