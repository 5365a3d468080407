//! The node port: who may come in, and how many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use base::metrics::Report;
use bytes::Bytes;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authority::{BadCredentials, Credentials};
use crate::config::{Config, JOIN_BYTES_MAX, Lane};
use crate::error::Fault;
use crate::frame::{BadFrame, Header, Hello, Kind, Purpose, Verdict};
use crate::metrics::Listening;
use crate::session::Session;
use crate::tls;
use crate::wire::{self, FrameReader, Pulse};

/// Refused connections that are logged at once; then one a second.
const WARNINGS_BURST: u32 = 8;

/// What the other nodes of the cluster call.
pub trait Service: Send + Sync + 'static {
    /// Whether a node with a good certificate is one of the cluster, as far as this node knows: asked when
    /// it connects and for each call. This, not an expiry, is how trust is taken back.
    fn admits(&self, node: NodeId) -> bool;

    /// Answers a call, or refuses it in words that the caller's service understands.
    ///
    /// # Cancel safety
    /// The future is dropped when the caller has gone, or its deadline has passed. What must run to its end
    /// runs in a task of its own.
    fn call(&self, call: Call) -> impl Future<Output = Result<Vec<Bytes>, Bytes>> + Send;

    /// Answers somebody who has no certificate and asks for one. Anybody can say anything here.
    ///
    /// # Cancel safety
    /// As [`Service::call`].
    fn join(
        &self,
        from: SocketAddr,
        request: Bytes,
    ) -> impl Future<Output = Result<Bytes, Bytes>> + Send;
}

/// A call by another node.
#[derive(Debug)]
pub struct Call {
    pub from: NodeId,
    pub lane: Lane,
    /// What is called. Numbers are given by whoever puts the services together.
    pub service: u16,
    pub body: Bytes,
    /// Until when the caller waits, by this node's clock.
    pub deadline: Instant,
}

/// The node port.
pub struct Listener<S> {
    tcp: TcpListener,
    shared: Arc<Shared<S>>,
}

/// What the connections of a listener share.
pub(crate) struct Shared<S> {
    pub(crate) service: S,
    pub(crate) config: Config,
    pub(crate) metrics: Listening,
    cluster: u128,
    tls: Arc<ServerConfig>,
    joins: Mutex<Bucket>,
    warnings: Mutex<Bucket>,
    /// Memory for bodies being handled, see [`crate::LaneConfig::handling_bytes_max`].
    small_bytes: Arc<Semaphore>,
    bulk_bytes: Arc<Semaphore>,
}

impl<S: Service> Listener<S> {
    /// # Errors
    /// If TLS cannot work with the credentials.
    pub fn new(
        tcp: TcpListener,
        credentials: &Credentials,
        config: Config,
        service: S,
    ) -> Result<Self, BadCredentials> {
        let room = |lane| Arc::new(Semaphore::new(config.lane(lane).handling_bytes_max));
        Ok(Self {
            tcp,
            shared: Arc::new(Shared {
                service,
                metrics: Listening::default(),
                cluster: credentials.cluster(),
                tls: tls::server(credentials)?,
                joins: Mutex::new(Bucket::new(config.joins_burst)),
                warnings: Mutex::new(Bucket::new(WARNINGS_BURST)),
                small_bytes: room(Lane::Small),
                bulk_bytes: room(Lane::Bulk),
                config,
            }),
        })
    }

    pub fn report(&self, to: &mut dyn Report) {
        self.shared.metrics.report(to);
    }

    /// Serves until `stop` is ready; then takes no more calls, lets those in flight end, and returns
    /// when they have or when the time for it is over. What is left then is cut off.
    ///
    /// # Cancel safety
    /// Dropping it cuts off everything at once.
    pub async fn serve(&self, stop: impl Future<Output = ()>) {
        let config = &self.shared.config;
        let handshakes = Arc::new(Semaphore::new(config.handshakes_max));
        let (stopping, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let (tcp, from) = tokio::select! {
                () = stop.as_mut() => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.tcp.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        refused_by_system(&error).await;
                        continue;
                    }
                },
            };
            match handshakes.clone().try_acquire_owned() {
                Ok(handshake) if connections.len() < config.connections_max => {
                    let (shared, stopped) = (self.shared.clone(), stopped.clone());
                    connections.spawn(shared.receive(tcp, from, stopped, handshake));
                }
                Ok(_) | Err(_) => self.shared.refused(from, "too many connections"),
            }
        }
        // Nobody listens if there is no connection.
        let _ = stopping.send(true);
        let all_closed = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(config.grace, all_closed)
            .await
            .is_err()
        {
            let left = connections.len();
            tracing::warn!(left, "node connections cut off at shutdown");
        }
    }
}

/// Out of file descriptors or memory: others may give some back.
async fn refused_by_system(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a node's connection");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

type Reader = FrameReader<ReadHalf<TlsStream<BufReader<TcpStream>>>>;
type Writer = WriteHalf<TlsStream<BufReader<TcpStream>>>;

/// A connection whose other end has said who it is.
struct Guest {
    reader: Reader,
    writer: Writer,
    pulse: Arc<Pulse>,
    who: Who,
}

enum Who {
    Node {
        node: NodeId,
        lane: Lane,
        theirs: Hello,
    },
    Joiner {
        from: SocketAddr,
        until: Instant,
    },
}

impl<S: Service> Shared<S> {
    async fn receive(
        self: Arc<Self>,
        tcp: TcpStream,
        from: SocketAddr,
        stopped: watch::Receiver<bool>,
        handshake: OwnedSemaphorePermit,
    ) {
        let _open = self.metrics.connections.enter();
        match self.greet(tcp, from).await {
            Ok(guest) => {
                drop(handshake);
                guest.entertain(&self, stopped).await;
            }
            Err(fault) => self.refused(from, fault),
        }
    }

    fn refused(&self, from: SocketAddr, why: impl std::fmt::Display) {
        self.metrics.refused.inc();
        // Anybody can do that, so it must not fill the log.
        if self.warnings.lock().take(Instant::now()) {
            tracing::warn!(%from, %why, "connection refused on the node port");
        }
    }

    /// TLS and hellos, in bounded time.
    async fn greet(&self, tcp: TcpStream, from: SocketAddr) -> Result<Guest, Fault> {
        let until = Instant::now() + self.config.join_timeout;
        let greeting = self.greet_now(tcp, from, until);
        match tokio::time::timeout(self.config.connect_timeout, greeting).await {
            Ok(result) => result,
            Err(_) => Err(Fault::broken("said nothing")),
        }
    }

    async fn greet_now(
        &self,
        tcp: TcpStream,
        from: SocketAddr,
        until: Instant,
    ) -> Result<Guest, Fault> {
        tcp.set_nodelay(true).map_err(Fault::broken)?;
        let tls = TlsAcceptor::from(self.tls.clone());
        let mut stream = tls
            .accept(BufReader::with_capacity(wire::SOCKET_BYTES, tcp))
            .await
            .map_err(Fault::broken)?;
        let certificates = stream.get_ref().1.peer_certificates();
        let node = match certificates.and_then(|chain| chain.first()) {
            Some(certificate) => Some(tls::peer(certificate, self.cluster).map_err(Fault::broken)?),
            None => None,
        };
        stream
            .get_mut()
            .1
            .set_buffer_limit(Some(wire::SOCKET_BYTES));
        let (reader, mut writer) = tokio::io::split(stream);
        let pulse = Arc::new(Pulse::new(self.config.silence));
        let mut reader = FrameReader::new(reader, pulse.clone());
        let theirs = reader.hello().await?;
        let (who, lane) = self.who(node, &theirs, from, until)?;
        let verdict = self.verdict(&who);
        let ours = Hello {
            verdict,
            ..self.config.hello(lane)
        };
        wire::write_hello(&mut writer, &ours).await?;
        let refused = match verdict {
            Verdict::Welcome => theirs.agree(),
            Verdict::Stranger => Err(Fault::Stranger),
            Verdict::Busy => Err(Fault::Busy),
        };
        if let Err(fault) = refused {
            farewell(&mut reader, &mut writer).await;
            return Err(fault);
        }
        Ok(Guest {
            reader,
            writer,
            pulse,
            who,
        })
    }

    fn who(
        &self,
        node: Option<NodeId>,
        hello: &Hello,
        from: SocketAddr,
        until: Instant,
    ) -> Result<(Who, Lane), Fault> {
        let lane = match hello.purpose {
            Purpose::Small => Lane::Small,
            Purpose::Bulk => Lane::Bulk,
            Purpose::Join => return Ok((Who::Joiner { from, until }, Lane::Small)),
        };
        let node = node.ok_or_else(|| Fault::broken("no certificate"))?;
        let theirs = hello.clone();
        Ok((Who::Node { node, lane, theirs }, lane))
    }

    fn verdict(&self, who: &Who) -> Verdict {
        match who {
            Who::Node { node, .. } if self.service.admits(*node) => Verdict::Welcome,
            Who::Node { .. } => Verdict::Stranger,
            Who::Joiner { .. } if self.joins.lock().take(Instant::now()) => Verdict::Welcome,
            Who::Joiner { .. } => Verdict::Busy,
        }
    }

    /// The memory for bodies on a lane.
    pub(crate) fn room(&self, lane: Lane) -> &Arc<Semaphore> {
        match lane {
            Lane::Small => &self.small_bytes,
            Lane::Bulk => &self.bulk_bytes,
        }
    }
}

impl Guest {
    async fn entertain<S: Service>(self, shared: &Arc<Shared<S>>, stop: watch::Receiver<bool>) {
        let (mut reader, mut writer) = (self.reader, self.writer);
        match self.who {
            Who::Node { node, lane, theirs } => {
                let session = Session::new(shared.clone(), node, lane, &theirs, self.pulse);
                let fault = session.run(&mut reader, &mut writer, stop).await;
                if fault == Fault::Stopping {
                    farewell(&mut reader, &mut writer).await;
                }
                tracing::debug!(%node, lane = lane.name(), %fault, "connection ended");
            }
            Who::Joiner { from, until } => {
                shared.metrics.joins.inc();
                let joining = join(shared, from, &mut reader, &mut writer);
                match tokio::time::timeout_at(until, joining).await {
                    Ok(Ok(())) => farewell(&mut reader, &mut writer).await,
                    Ok(Err(fault)) => tracing::info!(%from, %fault, "join broken off"),
                    Err(_) => tracing::info!(%from, "join took too long"),
                }
            }
        }
    }
}

/// One request, one answer.
async fn join<S: Service>(
    shared: &Shared<S>,
    from: SocketAddr,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), Fault> {
    let header = reader.header().await?;
    if header.kind != Kind::Call {
        return Err(BadFrame::Unexpected(header.kind).into());
    }
    let bytes = header.body_within(JOIN_BYTES_MAX as usize)?;
    let request = reader.body(bytes).await?;
    let (kind, body) = match shared.service.join(from, request).await {
        Ok(answer) => (Kind::Answer, answer),
        Err(refusal) => (Kind::Refused, refusal),
    };
    let header = Header::new(kind, header.id, wire::fit(body.len()));
    wire::write_one(writer, header, body).await
}

/// Closes a connection so that what was written last arrives: if bytes that nobody read were left, TCP
/// would reset it. The orderly end of TLS says that every call that was begun has been answered.
async fn farewell(reader: &mut Reader, writer: &mut Writer) {
    /// Who does not hang up in this time has had what we said.
    const LINGER: Duration = Duration::from_secs(1);
    let linger = async {
        if writer.shutdown().await.is_ok() {
            while reader.skip().await.is_ok() {}
        }
    };
    let _ = tokio::time::timeout(LINGER, linger).await;
}

/// Something that may happen `burst` times at once, and then once a second.
struct Bucket {
    burst: u32,
    /// The time until all is forgotten.
    debt: Duration,
    at: Instant,
}

impl Bucket {
    const EACH: Duration = Duration::from_secs(1);

    fn new(burst: u32) -> Self {
        Self {
            burst,
            debt: Duration::ZERO,
            at: Instant::now(),
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        self.debt = self.debt.saturating_sub(passed);
        self.at = now;
        if self.debt + Self::EACH > Self::EACH * self.burst {
            return false;
        }
        self.debt += Self::EACH;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_burst_and_then_one_a_second() {
        let mut bucket = Bucket::new(3);
        let start = bucket.at;
        let mut took = |ms| bucket.take(start + Duration::from_millis(ms));
        assert_eq!(
            [0, 0, 0, 0, 900].map(&mut took),
            [true, true, true, false, false]
        );
        assert_eq!(
            [1000, 1001, 1900, 2000].map(&mut took),
            [true, false, false, true]
        );
        assert_eq!([99_000; 4].map(&mut took), [true, true, true, false]);
    }
}
