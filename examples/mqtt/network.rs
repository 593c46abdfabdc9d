//! The mobile network between an MQTT client and its broker: a TCP proxy that knows where MQTT packets
//! begin and end, loses acknowledgements, and cuts connections.
//!
//! Opens one loopback port; its tasks end with the runtime they were spawned on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;
use rumqttc::mqttbytes::{self, PacketType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Bytes of a packet; far beyond those of the scene.
const LARGEST: usize = 1 << 20;

/// What the packets of one direction meet.
#[derive(Debug, Default)]
pub struct Way {
    /// Of so many PUBACKs one is lost: 0 for none, 1 for all.
    pub lose_one_in: AtomicU32,
    /// PUBACKs that were lost.
    pub lost: AtomicU64,
    /// SUBACKs that have passed.
    pub subscribed: AtomicU64,
}

/// A network with all its connections, to one broker.
#[derive(Debug)]
pub struct Network {
    pub port: u16,
    pub to_broker: Arc<Way>,
    pub to_client: Arc<Way>,
    /// Connections that were cut.
    pub cut: AtomicU64,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Network {
    /// Listens on a port of its own for a broker on that one.
    ///
    /// # Errors
    /// What binding the port answers.
    pub async fn start(port: u16, broker: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let network = Self {
            port,
            to_broker: Arc::default(),
            to_client: Arc::default(),
            cut: AtomicU64::new(0),
            connections: Arc::default(),
        };
        let connections = Arc::clone(&network.connections);
        let (to_broker, to_client) = (
            Arc::clone(&network.to_broker),
            Arc::clone(&network.to_client),
        );
        let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, broker));
        tokio::spawn(async move {
            // What cannot be accepted, its sender tries again.
            while let Ok((client, _)) = listener.accept().await {
                let ways = (Arc::clone(&to_broker), Arc::clone(&to_client));
                let connection = tokio::spawn(connect(client, broker, ways));
                let mut connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
                connections.retain(|connection| !connection.is_finished());
                connections.push(connection.abort_handle());
            }
        });
        Ok(network)
    }

    /// Cuts up to `count` connections, picked at random: all at once and both ways, with what is in them.
    pub fn cut(&self, count: usize) {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.is_finished());
        for _ in 0..count.min(connections.len()) {
            let which = rand::rng().random_range(0..connections.len());
            connections.swap_remove(which).abort();
            self.cut.fetch_add(1, Relaxed);
        }
    }
}

/// Passes packets both ways until one end is gone; then the other goes too.
async fn connect(
    client: TcpStream,
    broker: SocketAddr,
    (to_broker, to_client): (Arc<Way>, Arc<Way>),
) -> io::Result<()> {
    let broker = TcpStream::connect(broker).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_client, into_client) = client.into_split();
    let (from_broker, into_broker) = broker.into_split();
    tokio::select! {
        ended = pass(from_client, into_broker, &to_broker) => ended,
        ended = pass(from_broker, into_client, &to_client) => ended,
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: &Way) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        match mqttbytes::check(bytes.iter(), LARGEST) {
            Ok(header) => {
                let packet: Vec<u8> = bytes.drain(..header.frame_length()).collect();
                if way.passes(header.packet_type().map_err(io::Error::other)?) {
                    to.write_all(&packet).await?;
                }
            }
            Err(mqttbytes::Error::InsufficientBytes(_)) => {
                bytes.reserve(4096);
                if from.read_buf(&mut bytes).await? == 0 {
                    return Ok(());
                }
            }
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

impl Way {
    fn passes(&self, packet: PacketType) -> bool {
        let one_in = self.lose_one_in.load(Relaxed);
        match packet {
            PacketType::PubAck if one_in > 0 && rand::rng().random_range(0..one_in) == 0 => {
                self.lost.fetch_add(1, Relaxed);
                false
            }
            PacketType::SubAck => {
                self.subscribed.fetch_add(1, Relaxed);
                true
            }
            _ => true,
        }
    }
}
