//! Whether the client library takes the properties, asked of itself: one client of each kind is made,
//! without brokers, and let go of.

use std::collections::BTreeSet;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use super::report::Report;
use crate::config::Config;
use crate::exit::Stop;
use crate::kafka::clients;

/// Connects to nothing; reads the files that properties name (keys, certificates).
///
/// # Errors
/// 64, with each property that is refused, as `run` would be.
pub fn report(out: &mut Report, config: &Config) -> Result<(), Stop> {
    let consumers = [
        ("a consumer", clients::consumer_config(config, 0)),
        ("a consumer", clients::journal_reader_config(config)),
        ("a consumer", clients::observer_config(config)),
    ];
    let producers = [
        ("a producer", clients::producer_config(config, 0)),
        ("a producer", clients::admin_config(config)),
    ];
    let consumers = consumers.map(|(kind, client)| (kind, attempt(client, consumer)));
    let producers = producers.map(|(kind, client)| (kind, attempt(client, producer)));
    // What is wrong with one kind is often wrong with all of them.
    let refusals: BTreeSet<String> = consumers
        .into_iter()
        .chain(producers)
        .filter_map(|(kind, refusal)| Some(format!("{} (of {kind})", refusal?)))
        .collect();
    if refusals.is_empty() {
        out.ok("librdkafka takes the properties");
        return Ok(());
    }
    let refusals: Vec<String> = refusals.into_iter().collect();
    Err(Stop::usage(format!(
        "librdkafka does not take the configuration: {}. Correct kafka.properties, \
         kafka.consumer_properties or kafka.producer_properties",
        refusals.join("; ")
    )))
}

fn attempt(
    mut client: ClientConfig,
    make: fn(&ClientConfig) -> Result<(), KafkaError>,
) -> Option<String> {
    // Without it there is nobody to connect to.
    client.remove("bootstrap.servers");
    make(&client).err().map(|error| clients::refusal(&error))
}

fn consumer(client: &ClientConfig) -> Result<(), KafkaError> {
    client.create::<BaseConsumer>().map(drop)
}

fn producer(client: &ClientConfig) -> Result<(), KafkaError> {
    client.create::<BaseProducer>().map(drop)
}
