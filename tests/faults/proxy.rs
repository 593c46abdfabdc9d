//! A TCP proxy in front of one broker that knows where Kafka's requests and answers begin and end:
//! the network of the program under test, with all that a network does to it.
//!
//! Opens one loopback port; four threads a connection, which end with it.
//!
//! Every frame is read whole, waits for what the weather asks of it, and is passed on, in order. A
//! frame that has begun its way goes on after its sender has closed the connection, as it does in a
//! network: that is how a request arrives long after its sender has given it up.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::Dice;

/// No frame of a test is larger, in bytes.
const LARGEST_FRAME: usize = 128 << 20;
/// What is passed on at a time where frames cannot be told, in bytes.
const PIECE: usize = 64 << 10;
/// Frames under way, each way of a connection.
const UNDER_WAY: usize = 256;
/// Of these requests only a consumer's are caught: other clients ask them at any time.
const LIST_OFFSETS: i16 = 2;
/// How soon a change of the weather is felt.
const LOOK: Duration = Duration::from_millis(10);

/// What the network does to all frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// All connections are closed, new ones are refused.
    Cut,
    /// Connections stay open, and nothing passes: of requests, of answers, or of both. When it is
    /// over, all that was sent arrives.
    Hole {
        requests: bool,
        answers: bool,
    },
    /// Every frame takes so much longer.
    Delay(Duration),
    /// So many frames of a hundred get lost, as TCP shows it: what is lost is sent again after 200 ms
    /// to 1 s, and all that comes behind it waits. No packet is dropped in truth, as not every machine
    /// lets one.
    Loss(u64),
}

/// What becomes of one kind of request.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// The connection is reset in place of it: the broker never sees it.
    LoseRequest,
    /// The broker has done it, and the connection is reset in place of the answer.
    LoseAnswer,
    /// It arrives so much later, whether its sender still waits for it or not.
    HoldRequest(Duration),
    /// The broker does it at once, and its answer arrives so much later.
    HoldAnswer(Duration),
}

/// Requests of one kind that are waited for.
struct Trap {
    api: i16,
    act: Act,
    /// How many more are to be caught.
    left: u64,
}

/// Dropped: it is gone, with all its connections.
pub struct Proxy {
    port: u16,
    network: Arc<Network>,
}

struct Network {
    broker: SocketAddr,
    /// Takes in what is passed on as a whole.
    read: fn(&TcpStream) -> io::Result<Vec<u8>>,
    weather: Mutex<Weather>,
    trap: Mutex<Option<Trap>>,
    dice: Mutex<Dice>,
    connections: Mutex<Vec<Weak<Connection>>>,
    /// Frames that were held up or lost, and connections that were cut.
    struck: AtomicU64,
    /// Connections that were refused.
    refused: AtomicU64,
    gone: AtomicBool,
}

impl Proxy {
    /// Listens on this port for a broker on that one.
    pub fn start(port: u16, broker: u16, seed: u64) -> Self {
        Self::reading(read_frame, port, broker, seed)
    }

    /// Like [`Proxy::start`], for a listener with TLS: there is weather, but nothing is trapped.
    pub fn start_for_tls(port: u16, broker: u16, seed: u64) -> Self {
        Self::reading(read_piece, port, broker, seed)
    }

    fn reading(
        read: fn(&TcpStream) -> io::Result<Vec<u8>>,
        port: u16,
        broker: u16,
        seed: u64,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the proxy's port");
        let network = Arc::new(Network {
            broker: SocketAddr::from((Ipv4Addr::LOCALHOST, broker)),
            read,
            weather: Mutex::new(Weather::Fair),
            trap: Mutex::default(),
            dice: Mutex::new(Dice(seed | 1)),
            connections: Mutex::default(),
            struck: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        });
        let listening = Arc::clone(&network);
        thread::spawn(move || listening.listen(&listener));
        Self { port, network }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn set(&self, weather: Weather) {
        *self.network.weather.lock().expect("the weather") = weather;
        if weather == Weather::Cut {
            self.network.cut();
        }
    }

    /// The next so many requests of this kind meet this; in place of what was set before.
    pub fn trap(&self, api: i16, act: Act, count: u64) {
        *self.network.trap.lock().expect("the trap") = Some(Trap {
            api,
            act,
            left: count,
        });
    }

    /// Fair weather, and no trap. What is held back already arrives when it was to.
    pub fn heal(&self) {
        *self.network.trap.lock().expect("the trap") = None;
        self.set(Weather::Fair);
    }

    /// Frames that were held up or lost so far, and connections that were cut.
    pub fn struck(&self) -> u64 {
        self.network.struck.load(Ordering::SeqCst)
    }

    /// Connections that were refused so far.
    pub fn refused(&self) -> u64 {
        self.network.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.gone.store(true, Ordering::SeqCst);
        self.network.cut();
        // Wakes the listening thread, which waits for a connection.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// One connection of a client's and the one to the broker that belongs to it.
struct Connection {
    client: TcpStream,
    broker: TcpStream,
    closed: AtomicBool,
    /// Answers that are waited for, by the correlation id of their requests.
    answers: Mutex<HashMap<i32, Act>>,
}

impl Connection {
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for stream in [&self.client, &self.broker] {
            // It is closed already when this fails.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Requests,
    Answers,
}

struct Frame {
    arrived: Instant,
    /// With its length in front.
    bytes: Vec<u8>,
}

impl Network {
    fn listen(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().flatten() {
            if self.gone.load(Ordering::SeqCst) {
                return;
            }
            if self.weather() == Weather::Cut {
                self.refused.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let Ok(broker) = TcpStream::connect(self.broker) else {
                continue;
            };
            for stream in [&client, &broker] {
                stream.set_nodelay(true).expect("no delay");
            }
            let connection = Arc::new(Connection {
                client,
                broker,
                closed: AtomicBool::new(false),
                answers: Mutex::default(),
            });
            let mut connections = self.connections.lock().expect("the connections");
            connections.retain(|connection| connection.strong_count() > 0);
            connections.push(Arc::downgrade(&connection));
            drop(connections);
            for way in [Way::Requests, Way::Answers] {
                let (sender, receiver) = sync_channel(UNDER_WAY);
                let (from, read) = (Arc::clone(&connection), self.read);
                thread::spawn(move || take_in(&from, way, read, &sender));
                let (to, network) = (Arc::clone(&connection), Arc::clone(&self));
                thread::spawn(move || network.pass_on(&to, way, &receiver));
            }
            // The weather may have changed between the first look and now.
            if self.weather() == Weather::Cut {
                connection.close();
            }
        }
    }

    fn weather(&self) -> Weather {
        *self.weather.lock().expect("the weather")
    }

    fn cut(&self) {
        let mut connections = self.connections.lock().expect("the connections");
        for connection in connections.drain(..).filter_map(|weak| weak.upgrade()) {
            if !connection.is_closed() {
                self.struck.fetch_add(1, Ordering::SeqCst);
            }
            connection.close();
        }
    }

    /// Passes frames on until their sender has closed and all have gone their way, or the connection
    /// is closed for both.
    fn pass_on(&self, connection: &Connection, way: Way, frames: &Receiver<Frame>) {
        let mut to = match way {
            Way::Requests => &connection.broker,
            Way::Answers => &connection.client,
        };
        for frame in frames {
            if !self.endures(connection, way, &frame) {
                connection.close();
                return;
            }
            if to.write_all(&frame.bytes).is_err() && way == Way::Requests {
                connection.close();
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Holds a frame up for as long as it must be; `false` when it gets lost with its connection.
    fn endures(&self, connection: &Connection, way: Way, frame: &Frame) -> bool {
        self.sits_out_the_weather(connection, way, frame)
            && match way {
                Way::Requests => self.request_passes(connection, &frame.bytes),
                Way::Answers => self.answer_passes(connection, &frame.bytes),
            }
    }

    fn sits_out_the_weather(&self, connection: &Connection, way: Way, frame: &Frame) -> bool {
        let mut held_up = false;
        let mut lost_until = None;
        loop {
            let waits = match self.weather() {
                Weather::Fair | Weather::Cut => false,
                Weather::Hole { requests, answers } => match way {
                    Way::Requests => requests,
                    Way::Answers => answers,
                },
                Weather::Delay(delay) => frame.arrived.elapsed() < delay,
                Weather::Loss(of_a_hundred) => {
                    let until = *lost_until.get_or_insert_with(|| self.sent_again_at(of_a_hundred));
                    Instant::now() < until
                }
            };
            if connection.is_closed() {
                return false;
            }
            if !waits {
                return true;
            }
            if !held_up {
                held_up = true;
                self.struck.fetch_add(1, Ordering::SeqCst);
            }
            thread::sleep(LOOK);
        }
    }

    fn sent_again_at(&self, of_a_hundred: u64) -> Instant {
        let mut dice = self.dice.lock().expect("the dice");
        let lost = dice.roll(100) < of_a_hundred;
        let after_ms = if lost { 200 + dice.roll(800) } else { 0 };
        Instant::now() + Duration::from_millis(after_ms)
    }

    fn request_passes(&self, connection: &Connection, frame: &[u8]) -> bool {
        let Some((api, correlation)) = request_header(frame) else {
            return true;
        };
        match self.caught(api, frame) {
            None => true,
            Some(Act::LoseRequest) => {
                self.struck.fetch_add(1, Ordering::SeqCst);
                false
            }
            Some(Act::HoldRequest(time)) => self.hold(connection, time),
            Some(act) => {
                let mut answers = connection.answers.lock().expect("the answers");
                answers.insert(correlation, act);
                true
            }
        }
    }

    fn answer_passes(&self, connection: &Connection, frame: &[u8]) -> bool {
        let act = answer_header(frame).and_then(|correlation| {
            let mut answers = connection.answers.lock().expect("the answers");
            answers.remove(&correlation)
        });
        match act {
            None => true,
            Some(Act::HoldAnswer(time)) => self.hold(connection, time),
            Some(_) => {
                self.struck.fetch_add(1, Ordering::SeqCst);
                false
            }
        }
    }

    fn caught(&self, api: i16, frame: &[u8]) -> Option<Act> {
        if api == LIST_OFFSETS && !is_read_committed(frame) {
            return None;
        }
        let mut trap = self.trap.lock().expect("the trap");
        let trap = trap.as_mut().filter(|it| it.api == api && it.left > 0)?;
        trap.left -= 1;
        Some(trap.act)
    }

    fn hold(&self, connection: &Connection, time: Duration) -> bool {
        self.struck.fetch_add(1, Ordering::SeqCst);
        let until = Instant::now() + time;
        while Instant::now() < until && !connection.is_closed() {
            thread::sleep(LOOK);
        }
        !connection.is_closed()
    }
}

/// Reads frames until the sender has closed.
fn take_in(
    connection: &Connection,
    way: Way,
    read: fn(&TcpStream) -> io::Result<Vec<u8>>,
    frames: &SyncSender<Frame>,
) {
    let from = match way {
        Way::Requests => &connection.client,
        Way::Answers => &connection.broker,
    };
    while let Ok(bytes) = read(from) {
        let arrived = Instant::now();
        if frames.send(Frame { arrived, bytes }).is_err() {
            return;
        }
    }
}

fn read_frame(mut from: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let size = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
    assert!(size <= LARGEST_FRAME, "a frame of {size} bytes");
    let mut bytes = vec![0; 4 + size];
    bytes[..4].copy_from_slice(&length);
    from.read_exact(&mut bytes[4..])?;
    Ok(bytes)
}

fn read_piece(mut from: &TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PIECE];
    let length = from.read(&mut bytes)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// API key and correlation id: behind the length come `api_key: i16`, `api_version: i16`,
/// `correlation_id: i32`.
fn request_header(frame: &[u8]) -> Option<(i16, i32)> {
    let api = frame.get(4..6)?.try_into().ok()?;
    let correlation = frame.get(8..12)?.try_into().ok()?;
    Some((i16::from_be_bytes(api), i32::from_be_bytes(correlation)))
}

/// Whether a ListOffsets request comes from a consumer of committed records: behind the client's id,
/// and an empty list of tags from version 6 on, come `replica_id: i32`, `isolation_level: i8`.
fn is_read_committed(frame: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes = frame.get(at..at + 2)?.try_into().ok()?;
        usize::try_from(i16::from_be_bytes(bytes)).ok()
    };
    let (Some(version), Some(id)) = (number(6), number(12)) else {
        return false;
    };
    let body = 14 + id + usize::from(version >= 6);
    frame.get(body + 4) == Some(&1)
}

/// The correlation id: it comes behind the length.
fn answer_header(frame: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(frame.get(4..8)?.try_into().ok()?))
}
