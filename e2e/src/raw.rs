//! A socket without manners: sends any bytes, reads whatever comes.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::http::{self, Response};

/// A server that neither answers nor hangs up for so long hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server made of some bytes.
#[derive(Debug)]
pub struct Reaction {
    /// In the order in which they came.
    pub answers: Vec<Response>,
    /// Whether the server ended the connection; it did not if it waits for more.
    pub closed: bool,
}

impl Reaction {
    pub fn statuses(&self) -> Vec<u16> {
        self.answers.iter().map(|answer| answer.status).collect()
    }
}

/// Whether the client says that it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It has sent all, and waits for answers.
    HalfClose,
    /// It waits for the server to end the connection.
    Wait,
}

/// Sends `bytes` on a new connection and reads answers to the end of it.
pub fn send(address: SocketAddr, bytes: &[u8], after: After) -> io::Result<Reaction> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A server may refuse and hang up before it has read everything.
    let _ = stream.write_all(bytes);
    if after == After::HalfClose {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut stream = BufReader::new(stream);
    let mut answers = Vec::new();
    while let Ok((answer, _)) = http::read(&mut stream, false) {
        answers.push(answer);
    }
    let closed = match stream.read(&mut [0; 1]) {
        Ok(_) => true,
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ),
    };
    Ok(Reaction { answers, closed })
}

/// Sends `bytes` and hangs up without reading.
pub fn vanish(address: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    TcpStream::connect(address)?.write_all(bytes)
}

/// Sends `bytes`, then one more byte after each pause until the server hangs up. Gives its answers.
pub fn dribble(address: SocketAddr, bytes: &[u8], pause: Duration) -> io::Result<Vec<Response>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(bytes)?;
    stream.set_read_timeout(Some(pause))?;
    let steps = PATIENCE.as_nanos() / pause.as_nanos();
    let mut received = Vec::new();
    for _ in 0..steps {
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answers(&received)),
            Ok(count) => received.extend_from_slice(&piece[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                if stream.write_all(b"x").is_err() {
                    return Ok(answers(&received));
                }
            }
            // A reset takes what was not read yet with it.
            Err(_) => return Ok(answers(&received)),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn answers(mut received: &[u8]) -> Vec<Response> {
    let mut answers = Vec::new();
    while let Ok((answer, _)) = http::read(&mut received, false) {
        answers.push(answer);
    }
    answers
}
