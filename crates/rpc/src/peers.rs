//! All other nodes, as somebody whom one can call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use base::NodeId;
use base::metrics::Report;
use bytes::Bytes;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::authority::{BadCredentials, Credentials};
use crate::config::{Config, Lane};
use crate::connect::{Dial, Open};
use crate::error::{CallError, Fault};
use crate::link::{Link, Outgoing, Place};
use crate::metrics::{Calling, OfLane};
use crate::tls;

/// Says where a node is now; asked whenever a connection is made.
type Resolver = dyn Fn(NodeId) -> Option<SocketAddr> + Send + Sync;

/// The connections to all other nodes. They are made when they are needed, and closed when they are idle
/// or when the last clone of this is dropped.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    cluster: u128,
    tls: Arc<ClientConfig>,
    resolver: Box<Resolver>,
    lanes: Mutex<HashMap<(NodeId, Lane), Arc<Links>>>,
    metrics: Calling,
    /// Takes the place of connections.
    #[cfg(feature = "testing")]
    carrier: Option<Box<crate::testing::Carrier>>,
}

impl Peers {
    /// # Errors
    /// If TLS cannot work with the credentials.
    pub fn new(
        credentials: &Credentials,
        config: Config,
        resolver: impl Fn(NodeId) -> Option<SocketAddr> + Send + Sync + 'static,
    ) -> Result<Self, BadCredentials> {
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                cluster: credentials.cluster(),
                tls: tls::client(credentials)?,
                resolver: Box::new(resolver),
                lanes: Mutex::default(),
                metrics: Calling::default(),
                #[cfg(feature = "testing")]
                carrier: None,
            }),
        })
    }

    /// The same node with the same settings, whose calls `carrier` carries.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn carried(&self, carrier: Box<crate::testing::Carrier>) -> Self {
        Self {
            inner: Arc::new(Inner {
                config: self.inner.config.clone(),
                cluster: self.inner.cluster,
                tls: self.inner.tls.clone(),
                resolver: Box::new(|_| None),
                lanes: Mutex::default(),
                metrics: Calling::default(),
                carrier: Some(carrier),
            }),
        }
    }

    /// Calls a service of another node. Waits for a connection, for room on it and for the answer,
    /// altogether until `deadline`.
    ///
    /// A node that cannot be reached is an error at once, and for a moment after, without another
    /// attempt.
    ///
    /// # Errors
    /// [`CallError`] says whether the call may be repeated.
    ///
    /// # Cancel safety
    /// A call that is dropped before it was sent never happens; later, its handler is cancelled when
    /// the peer learns of it.
    pub async fn call(
        &self,
        node: NodeId,
        lane: Lane,
        service: u16,
        body: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let metrics = self.inner.metrics.lane(lane);
        let start = Instant::now();
        let call = Outgoing {
            service,
            body,
            deadline,
        };
        let span = tracing::trace_span!("call", %node, service);
        let call = self.inner.call(node, lane, call, start);
        let result = call.instrument(span).await;
        metrics.duration.observe(start.elapsed());
        metrics.ended(&result);
        result
    }

    /// Closes the connections to a node that is no longer one of the cluster.
    pub fn forget(&self, node: NodeId) {
        let mut lanes = self.inner.lanes.lock();
        for lane in Lane::ALL {
            lanes.remove(&(node, lane));
        }
    }

    pub fn report(&self, to: &mut dyn Report) {
        self.inner.metrics.report(to);
    }
}

impl Inner {
    async fn call(
        &self,
        node: NodeId,
        lane: Lane,
        call: Outgoing,
        start: Instant,
    ) -> Result<Bytes, CallError> {
        #[cfg(feature = "testing")]
        if let Some(carrier) = &self.carrier {
            let (service, body, deadline) = (call.service, call.body, call.deadline);
            return carrier(node, lane, service, body, deadline).await;
        }
        let links = self.links(node, lane);
        let place = tokio::time::timeout_at(call.deadline, self.place(&links)).await;
        let place = place.map_err(|_| CallError::NotSent(Fault::Deadline))?;
        let link = place.map_err(CallError::NotSent)?;
        self.metrics.lane(lane).wait.observe(start.elapsed());
        link.call(call).await
    }

    fn links(&self, node: NodeId, lane: Lane) -> Arc<Links> {
        let mut lanes = self.lanes.lock();
        let links = lanes.entry((node, lane)).or_insert_with(|| {
            Arc::new(Links {
                node,
                lane,
                state: Mutex::default(),
            })
        });
        links.clone()
    }

    /// Waits for a link that has a slot free, and takes the slot.
    async fn place(&self, links: &Arc<Links>) -> Result<Place, Fault> {
        loop {
            let (best, opening) = self.pick(links)?;
            tokio::select! {
                biased;
                // Without a place the link broke while we waited: on to the next.
                place = slot(best.clone()) => if let Some(place) = place {
                    return Ok(place);
                },
                opened = opened(opening) => match opened {
                    Err(fault) if best.is_none() => return Err(fault),
                    Ok(()) | Err(_) => {}
                },
            }
        }
    }

    /// The link with the fewest calls, and the one that is being opened: another one is wanted when all
    /// are in use and the lane may have more. There is at least one of the two.
    fn pick(&self, links: &Arc<Links>) -> Result<(Option<Arc<Link>>, Option<Opening>), Fault> {
        let mut state = links.state.lock();
        state.bury(&self.config);
        let best = state.up.iter().min_by_key(|link| link.load()).cloned();
        let in_use = best.as_ref().is_none_or(|best| best.load() > 0);
        let connections_max = self.config.lane(links.lane).connections_max;
        if in_use && state.up.len() < connections_max && state.opening.is_none() {
            match state.backoff.check() {
                Ok(()) => state.opening = Some(self.open(links)),
                Err(fault) if best.is_none() => return Err(fault),
                Err(_) => {}
            }
        }
        Ok((best, state.opening.clone()))
    }

    /// Opens a link in a task of its own, so that it does not die with the caller who asked first.
    fn open(&self, links: &Arc<Links>) -> Opening {
        let (done, opening) = watch::channel(None);
        let metrics = self.metrics.lane(links.lane).clone();
        let (config, links) = (self.config.clone(), links.clone());
        let dial = (self.resolver)(links.node)
            .ok_or(Fault::NoAddress(links.node))
            .map(|address| Dial::node(address, links.node, self.cluster, self.tls.clone()));
        tokio::spawn(async move {
            let opened = match dial {
                Ok(dial) => dial.lane(links.lane, &config).await,
                Err(fault) => Err(fault),
            };
            let result = match opened {
                Ok(open) => {
                    metrics.connects.inc();
                    links.up(open, &config, metrics);
                    Ok(())
                }
                Err(fault) => {
                    metrics.connects_failed.inc();
                    links.failed(fault.clone(), &config);
                    Err(fault)
                }
            };
            // Perhaps nobody waits any more.
            let _ = done.send(Some(result));
        });
        opening
    }
}

/// Tells those who wait how an attempt to connect ended.
type Opening = watch::Receiver<Option<Result<(), Fault>>>;

async fn opened(opening: Option<Opening>) -> Result<(), Fault> {
    let Some(mut opening) = opening else {
        return std::future::pending().await;
    };
    match opening.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(result)) => result.clone(),
        // The task is gone without a word: the runtime is being stopped.
        Ok(None) | Err(_) => Err(Fault::Closed),
    }
}

/// Never ends if there is no link; `None` when the link is closed.
async fn slot(link: Option<Arc<Link>>) -> Option<Place> {
    match link {
        Some(link) => link.place().await,
        None => std::future::pending().await,
    }
}

/// The links to one node on one lane.
struct Links {
    node: NodeId,
    lane: Lane,
    state: Mutex<LinksState>,
}

#[derive(Default)]
struct LinksState {
    up: Vec<Arc<Link>>,
    opening: Option<Opening>,
    backoff: Backoff,
}

impl LinksState {
    /// Removes the dead.
    fn bury(&mut self, config: &Config) {
        let Self { up, backoff, .. } = self;
        up.retain(|link| {
            if !link.is_closed() {
                return true;
            }
            // Else a peer that welcomes and hangs up would be asked without pause.
            if link.is_vain() {
                backoff.failed(Fault::broken("closed by the peer at once"), config);
            } else {
                *backoff = Backoff::default();
            }
            false
        });
    }
}

impl Links {
    fn up(self: &Arc<Self>, open: Open, config: &Config, metrics: Arc<OfLane>) {
        let ours = config.hello(self.lane);
        let idle = config.idle;
        let link = Link::new(&ours, &open.theirs, open.pulse, idle, metrics.clone());
        let link = Arc::new(link);
        {
            let mut state = self.state.lock();
            state.up.push(link.clone());
            state.opening = None;
        }
        let (node, lane) = (self.node, self.lane.name());
        let (links, config) = (Arc::downgrade(self), config.clone());
        tokio::spawn(async move {
            let _open = metrics.connections.enter();
            let fault = link.run(open.reader, open.writer).await;
            tracing::debug!(%node, lane, %fault, "connection closed");
            if let Some(links) = links.upgrade() {
                links.state.lock().bury(&config);
            }
        });
    }

    fn failed(&self, fault: Fault, config: &Config) {
        tracing::debug!(node = %self.node, lane = self.lane.name(), %fault, "connecting failed");
        let mut state = self.state.lock();
        state.opening = None;
        state.backoff.failed(fault, config);
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for link in &self.state.lock().up {
            link.close(Fault::Closed);
        }
    }
}

/// Keeps a peer that cannot be reached from being asked all the time.
#[derive(Default)]
struct Backoff {
    failures: u32,
    last: Option<(Instant, Fault)>,
}

impl Backoff {
    /// The last failure, if it is too early to try again.
    fn check(&self) -> Result<(), Fault> {
        match &self.last {
            Some((until, fault)) if Instant::now() < *until => Err(fault.clone()),
            Some(_) | None => Ok(()),
        }
    }

    fn failed(&mut self, fault: Fault, config: &Config) {
        let wait = config.backoff_min * 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        self.last = Some((Instant::now() + wait.min(config.backoff_max), fault));
    }
}
