//! Who looks at a process: a browser that has its status page open, and Prometheus.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a browser waits before it asks for the next stream of updates; the server tells it.
const RETRY: Duration = Duration::from_millis(200);
/// Between two looks at whether to go on.
const LOOK: Duration = Duration::from_millis(100);

fn ask(address: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// Bytes of an answer.
pub fn whole(address: SocketAddr, path: &str) -> usize {
    let mut answer = Vec::new();
    let stream = ask(address, path);
    let read = stream.and_then(|mut stream| stream.read_to_end(&mut answer));
    read.unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{path}");
    answer.len()
}

/// Bytes of a stream of updates up to the end of the first.
pub fn first_update(address: SocketAddr) -> usize {
    let mut stream = ask(address, "/live").expect("the server listens");
    let mut answer = Vec::new();
    let mut piece = [0; 1 << 16];
    while updates(&answer) == 0 {
        let read = stream.read(&mut piece).expect("an answer");
        assert!(read > 0, "the stream has an update");
        answer.extend_from_slice(&piece[..read]);
    }
    answer.len()
}

/// Reads as a page does that is left open, and gives how many updates it got.
pub fn follow(address: SocketAddr, go_on: impl Fn() -> bool) -> usize {
    let mut all = 0;
    while go_on() {
        let mut stream = ask(address, "/live").expect("the server listens");
        stream.set_read_timeout(Some(LOOK)).expect("a timeout");
        let mut answer = Vec::new();
        let mut piece = [0; 1 << 16];
        while go_on() {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => answer.extend_from_slice(&piece[..read]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        all += updates(&answer);
        std::thread::sleep(RETRY);
    }
    all
}

/// Those that have ended: an empty line after each.
fn updates(stream: &[u8]) -> usize {
    stream.windows(2).filter(|two| two == b"\n\n").count()
}
