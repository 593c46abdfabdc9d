//! stub
pub mod broker;
mod jars;
mod process;
use crate::exit::Stop;
#[derive(Debug, clap::Args)]
pub struct DemoArgs {}
pub fn run(_: DemoArgs) -> Result<(), Stop> { Ok(()) }
