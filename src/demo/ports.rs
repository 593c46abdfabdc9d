//! Ports for the servers that the demo and the tests start.
//!
//! Binds loopback ports for a moment.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use rand::RngExt;

/// Ports that nobody listens on, below the range from which the system hands out ports to outgoing
/// connections: else a client's connection could sit on the port of a broker that is just restarting.
///
/// # Errors
/// What binding a port that the system picks answers, where none was found below the range.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end: u16 = range
        .split_whitespace()
        .next()
        .and_then(|low| low.parse().ok())
        .unwrap_or(0);
    let mut listeners = Vec::with_capacity(count);
    for attempt in 0.. {
        if listeners.len() == count {
            break;
        }
        let below = if end > 12_000 && attempt < 100 {
            rand::rng().random_range(10_000..end)
        } else {
            0
        };
        match TcpListener::bind((Ipv4Addr::LOCALHOST, below)) {
            Ok(listener) => listeners.push(listener),
            Err(error) if below == 0 => return Err(error),
            Err(_) => {}
        }
    }
    // All are held until the last is found, so that none is found twice.
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}
