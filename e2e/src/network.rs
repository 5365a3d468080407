//! A network of our own, in which anything may happen to a packet.
//!
//! Each host is a network namespace with one TUN device, and this process carries every packet from one to
//! the other: at once, later, or not at all, as the [`Link`] between the two says, each way for itself. So
//! faults need nothing of the machine but `/dev/net/tun`, no two runs can meet, and there is nothing to clean
//! up: namespaces have no names, and both they and the devices are gone with their last user.
//!
//! What talks to a host from within its namespace, as clients do, does not go over the network.
//!
//! Sketch: a packet costs one read, one lock and one write, some 10 us; most hold 9,000 bytes.

mod link;
mod namespace;

pub use link::Link;
pub use namespace::Namespace;

use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::Result;
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};

/// What waits beyond this is dropped, as a router does.
const WAITING_PACKETS_MAX: usize = 4096;
/// Jumbo frames: a fifth of the work.
const PACKET_BYTES_MAX: usize = 9000;
const HOSTS_MAX: usize = 200;

/// Number of a host, from 0.
pub type Host = usize;

/// A network without hosts at first, all links perfect. It is gone when it is dropped.
pub struct Network {
    shared: Arc<Shared>,
    namespaces: Vec<Arc<Namespace>>,
    threads: Vec<JoinHandle<()>>,
    /// Every thread that reads packets polls the reading end, and ends when this is closed.
    alive: Option<PipeWriter>,
    ended: PipeReader,
}

impl Network {
    /// Everything random comes from `seed`.
    pub fn new(seed: u64) -> Result<Self> {
        let (ended, alive) = io::pipe()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(seed)),
            changed: Condvar::new(),
        });
        let deliverer = Arc::clone(&shared);
        let threads = vec![thread::spawn(move || deliverer.deliver())];
        Ok(Self {
            shared,
            namespaces: Vec::new(),
            threads,
            alive: Some(alive),
            ended,
        })
    }

    /// Adds a host and gives its number.
    pub fn add_host(&mut self) -> Result<Host> {
        let host = self.namespaces.len();
        anyhow::ensure!(host < HOSTS_MAX, "so many hosts");
        let (namespace, device) = Namespace::with_device(address(host), PACKET_BYTES_MAX)?;
        let device = Arc::new(device);
        self.shared.state.lock().devices.push(Arc::clone(&device));
        self.namespaces.push(Arc::new(namespace));
        let (shared, ended) = (Arc::clone(&self.shared), self.ended.try_clone()?);
        self.threads
            .push(thread::spawn(move || shared.carry(host, &device, &ended)));
        Ok(host)
    }

    pub fn namespace(&self, host: Host) -> &Arc<Namespace> {
        &self.namespaces[host]
    }

    /// Changes what happens to packets of one host to another, from the next one on.
    pub fn set(&self, from: Host, to: Host, link: Link) {
        self.shared
            .state
            .lock()
            .links
            .insert((from, to), link.into());
    }

    /// Makes all links perfect again.
    pub fn heal(&self) {
        self.shared.state.lock().links.clear();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.alive = None;
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic in one has been printed; the rest must still end.
            let _ = thread.join();
        }
    }
}

/// Where a host is found in this network.
pub fn address(host: Host) -> Ipv4Addr {
    let last = u8::try_from(host + 1).expect("fewer than HOSTS_MAX");
    Ipv4Addr::new(10, 0, 0, last)
}

/// The host that a packet goes to.
fn destination(packet: &[u8]) -> Option<Host> {
    const VERSION_4: u8 = 4;
    let is_ours = packet.first()? >> 4 == VERSION_4 && packet.get(16..19)? == [10, 0, 0];
    let last = usize::from(*packet.get(19)?);
    is_ours.then(|| last.checked_sub(1))?
}

/// Whether this process may make networks.
pub fn is_possible() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/dev/net/tun").exists()
}

struct Shared {
    state: Mutex<State>,
    /// There is a packet to deliver earlier than any before, or nothing more to do.
    changed: Condvar,
}

struct State {
    devices: Vec<Arc<File>>,
    links: HashMap<(Host, Host), link::State>,
    waiting: BinaryHeap<Waiting>,
    random: fastrand::Rng,
    closed: bool,
}

impl State {
    fn new(seed: u64) -> Self {
        Self {
            devices: Vec::new(),
            links: HashMap::new(),
            waiting: BinaryHeap::new(),
            random: fastrand::Rng::with_seed(seed),
            closed: false,
        }
    }
}

/// A packet under way. The greatest is the next to arrive.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: std::cmp::Reverse<Instant>,
    to: Host,
    packet: Vec<u8>,
}

impl Shared {
    /// Carries what comes from one host, to the end of the network.
    fn carry(&self, from: Host, device: &File, ended: &PipeReader) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            let mut fds = [
                PollFd::new(device, PollFlags::IN),
                PollFd::new(ended, PollFlags::IN),
            ];
            // Interrupted at worst: the reads below cannot block.
            let _ = poll(&mut fds, None);
            if !fds[1].revents().is_empty() {
                return;
            }
            while let Ok(bytes) = (&*device).read(&mut buffer) {
                self.send(from, &buffer[..bytes]);
            }
        }
    }

    fn send(&self, from: Host, packet: &[u8]) {
        let Some(to) = destination(packet) else {
            return;
        };
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(device) = state.devices.get(to) else {
            return;
        };
        let now = Instant::now();
        let due = match state.links.get_mut(&(from, to)) {
            Some(link) => link.arrival(packet.len(), now, &mut state.random),
            None => Some(now),
        };
        match due {
            None => {}
            Some(due) if due <= now => put(device, packet),
            Some(_) if state.waiting.len() >= WAITING_PACKETS_MAX => {}
            Some(due) => {
                state.waiting.push(Waiting {
                    due: std::cmp::Reverse(due),
                    to,
                    packet: packet.to_vec(),
                });
                self.changed.notify_one();
            }
        }
    }

    /// Delivers what had to wait, to the end of the network.
    fn deliver(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            let now = Instant::now();
            match state.waiting.peek().map(|waiting| waiting.due.0) {
                Some(due) if due <= now => {
                    let waiting = state.waiting.pop().expect("just seen");
                    put(&state.devices[waiting.to], &waiting.packet);
                }
                Some(due) => {
                    self.changed.wait_for(&mut state, due - now);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }
}

/// A device that takes no more loses the packet.
fn put(device: &File, packet: &[u8]) {
    let _ = (&*device).write(packet);
}

#[cfg(test)]
mod tests;
