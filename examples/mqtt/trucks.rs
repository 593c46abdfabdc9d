//! The trucks: each an MQTT 3.1.1 client of its own, with a persistent session, that reports where it is
//! with QoS 1 and sends again, after a reconnect, whatever was not acknowledged.
//!
//! Touches one MQTT broker, by way of the mobile network.

use std::collections::HashMap;
use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka_dedup::exit::Stop;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, Request};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Positions that a truck has handed to its client and that are not acknowledged.
const UNACKNOWLEDGED: u64 = 20;
/// Far more packet ids than are ever used at once, so that none is used anew while it is still waited for.
const PACKET_IDS: u16 = 1000;
/// A truck that waits longer for an acknowledgement gives its connection up and makes another.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// Before the next connection.
const PAUSE: Duration = Duration::from_millis(200);
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What is to be reported.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// 1 or more.
    pub trucks: u64,
    /// Of each truck.
    pub positions: u64,
    /// How long the reporting takes, where the machine can follow.
    pub drive: Duration,
    /// Ways and speeds follow from it.
    pub seed: u64,
}

impl Plan {
    /// The ids of all positions.
    pub fn ids(self) -> impl Iterator<Item = String> {
        (0..self.trucks)
            .flat_map(move |truck| (0..self.positions).map(move |sequence| id(truck, sequence)))
    }
}

/// What the truck gives its position so that it can be told from every other, also when it is sent
/// twice: its name, and a number that only it counts. A real truck keeps the number where a restart
/// does not reach it, or takes a random UUID.
fn id(truck: u64, sequence: u64) -> String {
    format!("truck-{truck:03}-{sequence:06}")
}

/// The payload.
#[derive(Debug, Serialize, Deserialize)]
pub struct Position {
    pub id: String,
    pub truck: u64,
    pub sequence: u64,
    at: u64,
    latitude: f64,
    longitude: f64,
}

/// What all trucks did so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Positions that were made.
    pub reported: AtomicU64,
    /// PUBLISH packets, of which some are repetitions.
    pub sent: AtomicU64,
    /// Positions that the MQTT broker has taken over.
    pub acknowledged: AtomicU64,
}

/// All trucks. Dropped: they stop where they are.
#[derive(Debug)]
pub struct Fleet {
    pub tally: Arc<Tally>,
    trucks: JoinSet<Result<(), Stop>>,
}

impl Fleet {
    /// Starts all trucks, on the runtime that this is called on, with an MQTT broker at this port.
    pub fn start(plan: Plan, port: u16) -> Self {
        let tally = Arc::<Tally>::default();
        let mut trucks = JoinSet::new();
        for number in 0..plan.trucks {
            trucks.spawn(Truck::new(number, plan, port, Arc::clone(&tally)).drive());
        }
        Self { tally, trucks }
    }

    /// Whether all have reported everything, and had it acknowledged.
    ///
    /// # Errors
    /// That a truck broke down.
    pub fn has_arrived(&mut self) -> Result<bool, Stop> {
        while let Some(ended) = self.trucks.try_join_next() {
            ended.map_err(|_| Stop::internal("a truck panicked"))??;
        }
        Ok(self.trucks.is_empty())
    }
}

struct Truck {
    number: u64,
    plan: Plan,
    tally: Arc<Tally>,
    client: AsyncClient,
    connection: EventLoop,
    random: StdRng,
    place: (f64, f64),
    /// Whether the MQTT broker knows it.
    has_session: bool,
    reported: u64,
    acknowledged: u64,
    /// When each packet that is not acknowledged was sent on this connection, by its packet id.
    sent: HashMap<u16, Instant>,
}

impl Truck {
    fn new(number: u64, plan: Plan, port: u16, tally: Arc<Tally>) -> Self {
        let mut options = MqttOptions::new(format!("truck-{number:03}"), "127.0.0.1", port);
        options
            .set_clean_session(false)
            .set_keep_alive(KEEP_ALIVE)
            .set_inflight(PACKET_IDS);
        let (client, connection) = AsyncClient::new(options, UNACKNOWLEDGED as usize);
        let mut random =
            StdRng::seed_from_u64(plan.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let place = (
            random.random_range(36.0..44.0),
            random.random_range(-98.0..-88.0),
        );
        Self {
            number,
            plan,
            tally,
            client,
            connection,
            random,
            place,
            has_session: false,
            reported: 0,
            acknowledged: 0,
            sent: HashMap::new(),
        }
    }

    /// Reports all positions, each when it is due; returns when all are acknowledged.
    async fn drive(mut self) -> Result<(), Stop> {
        let every = self.plan.drive.div_f64(self.plan.positions as f64);
        // Not all trucks at the same moments.
        let mut due = Instant::now() + every.mul_f64(self.random.random());
        while self.acknowledged < self.plan.positions {
            let may_report = self.reported < self.plan.positions
                && self.reported - self.acknowledged < UNACKNOWLEDGED;
            let patience = self
                .sent
                .values()
                .min()
                .map(|&sent| sent + ACKNOWLEDGED_WITHIN);
            // A poll may be given up for a report, which happens between packets; or it is a connection
            // attempt, which is begun anew, and no more often than there is room for reports.
            tokio::select! {
                biased;
                () = sleep_until(due), if may_report => {
                    self.report()?;
                    due += every;
                }
                () = until(patience) => {
                    self.connection.clean();
                    self.come_back().await;
                }
                event = self.connection.poll() => match event {
                    Ok(event) => self.note(&event)?,
                    Err(_) => self.come_back().await,
                },
            }
        }
        Ok(())
    }

    fn report(&mut self) -> Result<(), Stop> {
        let failed = |error: &dyn std::error::Error| {
            Stop::internal(format!("truck {} cannot report: {error}", self.number))
        };
        let mut drift = || self.random.random_range(-0.001..0.001);
        self.place = (self.place.0 + drift(), self.place.1 + drift());
        let position = Position {
            id: id(self.number, self.reported),
            truck: self.number,
            sequence: self.reported,
            at: epoch_ms(),
            latitude: rounded(self.place.0),
            longitude: rounded(self.place.1),
        };
        let payload = serde_json::to_vec(&position).map_err(|error| failed(&error))?;
        let topic = format!("truck/{:03}/position", self.number);
        self.client
            .try_publish(topic, QoS::AtLeastOnce, false, payload)
            .map_err(|error| failed(&error))?;
        self.reported += 1;
        self.tally.reported.fetch_add(1, Relaxed);
        Ok(())
    }

    fn note(&mut self, event: &Event) -> Result<(), Stop> {
        match event {
            Event::Outgoing(Outgoing::Publish(packet)) => {
                self.sent.insert(*packet, Instant::now());
                self.tally.sent.fetch_add(1, Relaxed);
            }
            Event::Incoming(Packet::PubAck(answer)) => {
                self.sent.remove(&answer.pkid);
                self.acknowledged += 1;
                self.tally.acknowledged.fetch_add(1, Relaxed);
            }
            Event::Incoming(Packet::ConnAck(answer)) => {
                if self.has_session && !answer.session_present {
                    let number = self.number;
                    let sentence =
                        format!("the MQTT broker has lost the session of truck {number}");
                    return Err(Stop::internal(sentence));
                }
                self.has_session = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes ready for the next connection, on which the session goes on: what was sent and not
    /// acknowledged is sent again with the packet ids that it had, marked as such (MQTT-4.4.0-1,
    /// MQTT-3.3.1-1), before what was not sent yet. The client library has put all of it in one list,
    /// neither in order nor marked.
    async fn come_back(&mut self) {
        self.sent.clear();
        self.connection
            .pending
            .make_contiguous()
            .sort_by_key(sequence);
        for request in &mut self.connection.pending {
            if let Request::Publish(publish) = request {
                publish.dup = publish.pkid != 0;
            }
        }
        sleep(PAUSE).await;
    }
}

/// What a request reports, as the truck counts.
fn sequence(request: &Request) -> Option<u64> {
    let Request::Publish(publish) = request else {
        return None;
    };
    let position: Position = serde_json::from_slice(&publish.payload).ok()?;
    Some(position.sequence)
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => future::pending().await,
    }
}

/// To about a metre.
fn rounded(degrees: f64) -> f64 {
    (degrees * 1e5).round() / 1e5
}

fn epoch_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
