//! The program; see `kafka-dedup --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kafka_dedup::cli::main(std::env::args_os())
}
