//! How a connection to another node begins: TCP, TLS, hellos; and how a joiner speaks to the cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use bytes::Bytes;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{BufReader, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::Fingerprint;
use crate::config::{Config, JOIN_BYTES_MAX, JOINED_BYTES_MAX, Lane};
use crate::error::{CallError, Fault};
use crate::frame::{BadFrame, Header, Hello, Kind, Purpose, VERSIONS, Verdict};
use crate::tls;
use crate::wire::{self, FrameReader, Pulse};

/// A connection whose ends have greeted each other.
pub(crate) struct Open {
    pub(crate) reader: FrameReader<ReadHalf<TlsStream<BufReader<TcpStream>>>>,
    pub(crate) writer: WriteHalf<TlsStream<BufReader<TcpStream>>>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) theirs: Hello,
}

/// Where to, and as whom.
pub(crate) struct Dial {
    pub(crate) address: SocketAddr,
    pub(crate) name: ServerName<'static>,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Dial {
    pub(crate) fn node(
        address: SocketAddr,
        node: NodeId,
        cluster: u128,
        tls: Arc<ClientConfig>,
    ) -> Self {
        Self {
            address,
            name: tls::server_name(node, cluster),
            tls,
        }
    }

    /// Connects for a lane, in the time that the configuration gives.
    pub(crate) async fn lane(self, lane: Lane, config: &Config) -> Result<Open, Fault> {
        let address = self.address;
        let opening = self.open(config.hello(lane), config.silence);
        match tokio::time::timeout(config.connect_timeout, opening).await {
            Ok(result) => result,
            Err(_) => Err(unreachable(address, "no answer")),
        }
    }

    async fn open(self, ours: Hello, silence: Duration) -> Result<Open, Fault> {
        let failed = |error: std::io::Error| unreachable(self.address, &why(&error));
        let tcp = TcpStream::connect(self.address).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let tls = TlsConnector::from(self.tls);
        let mut stream = tls
            .connect(self.name, BufReader::with_capacity(wire::SOCKET_BYTES, tcp))
            .await
            .map_err(failed)?;
        stream
            .get_mut()
            .1
            .set_buffer_limit(Some(wire::SOCKET_BYTES));
        let (reader, mut writer) = tokio::io::split(stream);
        let pulse = Arc::new(Pulse::new(silence));
        let mut reader = FrameReader::new(reader, pulse.clone());
        wire::write_hello(&mut writer, &ours).await?;
        // In TLS 1.3 it is here that a client learns that its certificate was refused.
        let theirs = reader.hello().await.map_err(|fault| match fault {
            Fault::Broken(reason) => unreachable(self.address, &reason),
            Fault::Stopping => unreachable(self.address, "closed by the peer"),
            other => other,
        })?;
        theirs.agree()?;
        match theirs.verdict {
            Verdict::Welcome => {}
            Verdict::Stranger => return Err(Fault::Stranger),
            Verdict::Busy => return Err(Fault::Busy),
        }
        Ok(Open {
            reader,
            writer,
            pulse,
            theirs,
        })
    }
}

fn unreachable(address: SocketAddr, reason: &str) -> Fault {
    Fault::Unreachable {
        address: address.to_string(),
        reason: reason.into(),
    }
}

/// An error of TLS in the words of this crate.
fn why(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            format!("its certificate is not that of the node we look for: {reason:?}")
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("it refused our certificate: {alert:?}")
        }
        _ => error.to_string(),
    }
}

/// Asks a node of the cluster whose authority has this fingerprint to let this process join.
///
/// What `request` says is between the caller and [`crate::Service::join`]; at most 8 KiB.
///
/// # Errors
/// [`CallError::Refused`] has the words of the handler.
pub async fn join(
    address: SocketAddr,
    authority: Fingerprint,
    request: Bytes,
    deadline: Instant,
) -> Result<Bytes, CallError> {
    let (bytes, max) = (request.len(), JOIN_BYTES_MAX as usize);
    if bytes > max {
        return Err(CallError::NotSent(Fault::TooLarge { bytes, max }));
    }
    let tls = tls::joiner(authority).map_err(|bad| CallError::NotSent(Fault::broken(bad)))?;
    let dial = Dial {
        address,
        name: tls::any_name(),
        tls,
    };
    let hello = Hello {
        versions: VERSIONS,
        purpose: Purpose::Join,
        verdict: Verdict::Welcome,
        body_bytes_max: JOINED_BYTES_MAX,
        in_flight_max: 1,
    };
    // No silence is too long here: the deadline is all there is.
    let opening = dial.open(hello, Duration::MAX);
    let opened = tokio::time::timeout_at(deadline, opening).await;
    let opened = opened.map_err(|_| CallError::NotSent(Fault::Deadline))?;
    let mut open = opened.map_err(CallError::NotSent)?;
    match tokio::time::timeout_at(deadline, ask(&mut open, request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(fault)) => Err(CallError::Unknown(fault)),
        Err(_) => Err(CallError::Unknown(Fault::Deadline)),
    }
}

async fn ask(open: &mut Open, request: Bytes) -> Result<Result<Bytes, CallError>, Fault> {
    let header = Header::new(Kind::Call, 1, wire::fit(request.len()));
    wire::write_one(&mut open.writer, header, request).await?;
    let header = open.reader.header().await?;
    let bytes = header.body_within(JOINED_BYTES_MAX as usize)?;
    let body = open.reader.body(bytes).await?;
    match header.kind {
        Kind::Answer => Ok(Ok(body)),
        Kind::Refused => Ok(Err(CallError::Refused(body))),
        Kind::Unfinished => Ok(Err(CallError::Unknown(Fault::Unfinished))),
        other => Err(BadFrame::Unexpected(other).into()),
    }
}
