//! MQTT into Kafka, each message once: see README.md in this directory.
//!
//! ```text
//! cargo run --example mqtt -- run       the whole scene on this machine
//! cargo run --example mqtt -- bridge    the bridge alone, between brokers of your own
//! ```

mod bridge;
pub mod comparison;
mod mosquitto;
mod network;
mod scene;
pub mod trucks;

use std::env;
use std::process::ExitCode;

use clap::Parser;
use kafka_dedup::exit::{Status, Stop};

/// MQTT into Kafka, each message once
#[derive(Debug, Parser)]
#[command(name = "mqtt")]
enum Cli {
    Run(scene::RunArgs),
    Bridge(bridge::BridgeArgs),
}

pub fn main() -> ExitCode {
    // The scene runs this program as kafka-dedup, so that nothing else has to be built first.
    if env::args_os()
        .nth(1)
        .is_some_and(|command| command == "kafka-dedup")
    {
        return kafka_dedup::cli::main(env::args_os().skip(1));
    }
    let ended = match Cli::parse() {
        Cli::Run(args) => scene::run(&args),
        Cli::Bridge(args) => run_bridge(args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            eprintln!("mqtt: {stop}");
            ExitCode::from(stop.status as u8)
        }
    }
}

/// What ends the bridge, a restart may help.
fn run_bridge(args: bridge::BridgeArgs) -> Result<(), Stop> {
    let failed = |sentence: String| Stop {
        status: Status::Restart,
        sentence,
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|error| failed(error.to_string()))?;
    runtime
        .block_on(bridge::run(args))
        .map_err(|error| failed(error.to_string()))
}
