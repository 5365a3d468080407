//! The listener: accepts, bounds, stops.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base::env::Env;
use base::metrics::Report;
use http::StatusCode;
use hyper::server::conn::http1;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::config::Config;
use crate::connection;
use crate::metrics::Numbers;
use crate::refusal::Refusal;
use crate::register::{InFlight, Register};
use crate::transaction::Transactions;
use crate::{Request, Response};

/// A front door.
pub trait Service: Send + Sync + 'static {
    /// Answers a request. What is left of its body is read or cut off by the gateway.
    ///
    /// # Cancel safety
    /// The call is dropped when the connection breaks.
    fn answer(&self, request: &mut Request) -> impl Future<Output = Response> + Send;
}

/// What the connections of a server share, whatever it serves.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) env: Env,
    pub(crate) protocol: http1::Builder,
    pub(crate) transactions: Transactions,
    pub(crate) register: Register,
    pub(crate) numbers: Numbers,
}

impl Core {
    pub(crate) fn new(config: Config, env: Env) -> Self {
        Self {
            config,
            protocol: connection::protocol(),
            transactions: Transactions::new(&*env.entropy),
            register: Register::default(),
            numbers: Numbers::default(),
            env,
        }
    }
}

/// An HTTP server in front of a [`Service`].
pub struct Server<S> {
    core: Arc<Core>,
    service: Arc<S>,
}

impl<S: Service> Server<S> {
    pub fn new(config: Config, env: Env, service: S) -> Self {
        Self {
            core: Arc::new(Core::new(config, env)),
            service: Arc::new(service),
        }
    }

    /// Serves until `stop` is ready; then accepts no more, lets the requests in flight end, and
    /// returns when they have or when the time for it is over.
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let room = Arc::new(Semaphore::new(self.core.config.connections_max));
        let (stopping, stopped) = watch::channel(false);
        // Nothing is ever sent: the channel closes when the last connection has dropped its end.
        let (open, mut all_closed) = mpsc::channel::<()>(1);
        let mut stop = std::pin::pin!(stop);
        loop {
            let tcp = tokio::select! {
                () = stop.as_mut() => break,
                accepted = listener.accept() => accepted,
            };
            match (tcp, room.clone().try_acquire_owned()) {
                (Err(error), _) => refused_by_system(&error).await,
                (Ok((tcp, _)), Err(_)) => self.refuse(&tcp),
                (Ok((tcp, peer)), Ok(place)) => {
                    let (stopped, open) = (stopped.clone(), open.clone());
                    let opened = Open::new(self.core.clone(), peer);
                    let service = self.service.clone();
                    tokio::spawn(async move {
                        let (core, slot) = (opened.core.clone(), opened.slot.clone());
                        connection::drive(quick(tcp), core, service, slot, stopped).await;
                        drop((opened, place, open));
                    });
                }
            }
        }
        drop((listener, open));
        // Nobody listens if there is no connection.
        let _ = stopping.send(true);
        let grace = Duration::from_secs(self.core.config.shutdown_grace_s);
        if tokio::time::timeout(grace, all_closed.recv())
            .await
            .is_err()
        {
            let left = self.core.numbers.connections.get();
            tracing::warn!(left, "connections cut off at shutdown");
        }
    }

    /// What is in flight right now.
    pub fn requests(&self) -> Vec<InFlight> {
        let now = self.core.env.clock.monotonic();
        self.core.register.snapshot(now)
    }

    pub fn report(&self, to: &mut dyn Report) {
        self.core.numbers.report(to);
    }

    /// Says why and closes, without waiting for anything.
    fn refuse(&self, tcp: &TcpStream) {
        self.core.numbers.connections_refused.add(1);
        let refusal = Refusal::new(&self.core, StatusCode::SERVICE_UNAVAILABLE);
        // If the kernel does not take these few bytes at once, the client gets none.
        let _ = tcp.try_write(&refusal.bytes);
    }
}

impl<S> Clone for Server<S> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            service: self.service.clone(),
        }
    }
}

/// A connection's place in the register and the numbers, given back however it ends.
struct Open {
    core: Arc<Core>,
    slot: Arc<crate::register::Slot>,
}

impl Open {
    fn new(core: Arc<Core>, peer: std::net::SocketAddr) -> Self {
        core.numbers.connections.add(1);
        let slot = core.register.open(peer);
        Self { core, slot }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.core.register.close(&self.slot);
        self.core.numbers.connections.add(-1);
    }
}

/// Without this a small answer to a kept-alive connection may wait for the client's delayed ACK.
fn quick(tcp: TcpStream) -> TcpStream {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    tcp
}

/// Out of file descriptors or memory: accepting at once again would only burn the processor.
async fn refused_by_system(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_do_not_wait_for_acknowledgements() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await;
        assert!(quick(tcp.unwrap()).nodelay().unwrap());
    }
}
