//! The program; see `kafka-dedup --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    kafka_dedup::cli::main(std::env::args_os())
}
