//! This server as a node of a cluster: who it is, how it reaches the others, and what it answers them.

mod groups;
mod join;
mod outside;

use std::sync::Arc;

use anyhow::{Context as _, bail};
use base::env::Env;
use base::{NodeId, ShardId};
use bytes::Bytes;
use chunks::{AllDevices, Fence, Fenced, Storage};
use cluster::{
    CHUNKS, Cluster, Condition, DeviceReport, Directory, Handler, Home, Parts, Replication,
    Service, Wires, control,
};
use device::{Device, State};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use map::Current;
use namespace::Namespace;
use rpc::{Call, Credentials, Listener, Peers};
use shard::Shards;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::devices::Newcomers;
use crate::config::Config;

use groups::Groups;
pub(super) use join::join_if_told;
pub(super) use outside::Outside;

/// The service number under which nodes answer for their devices.
const CHUNK_SERVICE: u16 = *CHUNKS.start();

/// A node that takes part in its cluster until it is closed.
pub(super) struct Node {
    pub(super) cluster: Cluster,
    pub(super) id: NodeId,
    pub(super) port: Arc<Listener<Service>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a node stands on.
pub(super) struct Ground<'a> {
    pub(super) env: &'a Env,
    pub(super) config: &'a Config,
    pub(super) shards: &'a Arc<Shards>,
    pub(super) devices: &'a [Device],
    /// Those of them that are to be added to the map.
    pub(super) new: Newcomers,
    pub(super) outside: &'a Outside,
    /// The cluster's id, by the devices.
    pub(super) cluster: u128,
    pub(super) port: TcpListener,
}

impl Node {
    /// Becomes a node, and opens the namespace of all of them.
    pub(super) async fn open(ground: Ground<'_>) -> anyhow::Result<(Self, Namespace)> {
        let Ground {
            env,
            config,
            shards,
            devices,
            new,
            outside,
            cluster: cluster_id,
            port,
        } = ground;
        let home = Home::new(env.clone(), &config.data);
        let control = shards.get(ShardId::CONTROL);
        let credentials = credentials(&home, control, cluster_id).await?;
        let id = credentials.node();
        let addresses = addresses(config, &port)?;
        let map = map_of(&home, id, control, (devices, &new), &addresses).await?;
        let current = Current::new(map);

        let directory = Directory::new();
        directory.learn(&current.get()).await;
        let peers = peers(&credentials, &directory)?;
        let wires = Wires::new(id, current.clone(), peers.clone());
        let groups = Groups::new(env, shards);
        wires.connect(&(groups.clone() as Arc<dyn Replication>));
        outside.connect(wires, current.clone());

        let fence = fence(&current);
        let fenced =
            |device: &Device| Arc::new(Fenced::new(Arc::new(device.clone()), fence.clone()));
        let server = chunks::Server::new(devices.iter().map(fenced));
        let all = AllDevices::new(
            id,
            server.here(),
            current.clone(),
            peers.clone(),
            CHUNK_SERVICE,
        );
        let namespace = Namespace::open(
            env.clone(),
            Arc::clone(shards),
            current.clone(),
            Arc::new(all),
            namespace::Config {
                node: id,
                is_shared: true,
                ..config.namespace()
            },
        );
        let cluster = Cluster::new(Parts {
            env: env.clone(),
            node: id,
            cluster: cluster_id,
            shards: shards.count(),
            home,
            map: current.clone(),
            directory,
            fence,
            control: control.clone(),
            replication: groups,
            peers,
            fill: Arc::new(namespace.chunks().clone()),
            devices: Arc::new(reports(devices.to_vec(), new, current, server.clone())),
            addresses,
            map_wanted: namespace.chunks().map_wanted().clone(),
            config: config.cluster(),
        });
        let service = Service::new(cluster.clone(), Some(Arc::new(ChunkCalls(server))));
        let port = Listener::new(port, &credentials, rpc::Config::default(), service)?;
        Ok((Self::run(id, cluster, Arc::new(port)), namespace))
    }

    fn run(id: NodeId, cluster: Cluster, port: Arc<Listener<Service>>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let told = move || {
            let mut stopped = stopped.clone();
            async move {
                // If the sender has gone, so has the server.
                let _ = stopped.wait_for(|stop| *stop).await;
            }
        };
        let running = {
            let (cluster, told) = (cluster.clone(), told());
            tokio::spawn(async move { cluster.run(told).await })
        };
        let serving = {
            let (port, told) = (port.clone(), told());
            tokio::spawn(async move { port.serve(told).await })
        };
        Self {
            cluster,
            id,
            port,
            stop,
            tasks: vec![running, serving],
        }
    }

    /// Takes no more part, and waits until others know.
    pub(super) async fn close(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the node ended");
            }
        }
    }
}

/// Who this node is; the first one of a cluster makes itself.
async fn credentials(
    home: &Home,
    control: &shard::Shard,
    cluster: u128,
) -> anyhow::Result<Credentials> {
    let credentials = match home.credentials()? {
        Some(credentials) if credentials.cluster() == cluster => credentials,
        Some(_) => bail!("the data directory and this node's certificate are of two clusters"),
        None => cluster::found(home, control, cluster).await?,
    };
    if let Err(error) = home.spread_credentials(&credentials) {
        // Another directory has them.
        tracing::warn!(%error, "a data directory does not say which node this is");
    }
    Ok(credentials)
}

fn peers(credentials: &Credentials, directory: &Directory) -> anyhow::Result<Peers> {
    let directory = directory.clone();
    let find = move |node| directory.get(node);
    Ok(Peers::new(credentials, rpc::Config::default(), find)?)
}

/// The newest map that this node knows; of a cluster of one it makes it.
async fn map_of(
    home: &Home,
    id: NodeId,
    control: &shard::Shard,
    (devices, new): (&[Device], &Newcomers),
    addresses: &[String],
) -> anyhow::Result<map::Map> {
    match home.map()? {
        Some(map) if map.nodes.len() > 1 => Ok(map),
        Some(_) | None if id == NodeId::FIRST => {
            let ids = devices.iter().map(Device::id).collect();
            let found = control::Found {
                devices: ids,
                new: new.ids(),
                addresses: addresses.to_vec(),
            };
            let map = control.execute(found).await;
            map.context("reading the map")
        }
        Some(map) => Ok(map),
        None => bail!("this node has lost the map of its cluster"),
    }
}

/// Where the other nodes find this one.
fn addresses(config: &Config, port: &TcpListener) -> anyhow::Result<Vec<String>> {
    if !config.node_address.is_empty() {
        return Ok(vec![config.node_address.clone()]);
    }
    let address = port.local_addr()?;
    if address.ip().is_unspecified() {
        bail!("node_listen {address} is no address that others can reach: set node_address");
    }
    Ok(vec![address.to_string()])
}

/// Closed until the map is known to be fresh, as that of a node alone is: it was read from the control shard just now, and
/// nobody else can have changed it.
fn fence(map: &Current) -> Arc<Fence> {
    let fence = Fence::new(map.clone());
    if map.load().nodes.len() == 1 {
        fence.open();
    }
    Arc::new(fence)
}

/// How the devices are, whenever that is asked.
fn reports(
    devices: Vec<Device>,
    new: Newcomers,
    map: Current,
    server: chunks::Server,
) -> impl Fn() -> Vec<DeviceReport> + Send + Sync {
    move || {
        let report = |device: &Device| {
            let space = device.space().ok();
            let (health, now) = (device.health(), device.env().clock.monotonic());
            let hangs = health.hangs(now) || server.hangs(device.id());
            let works = health.state() == State::Healthy && !hangs;
            let is_new = new.is_new(&*device.env().disk, device.id(), &map.load());
            DeviceReport {
                device: device.id(),
                bytes: space.as_ref().map_or(0, |space| space.total_bytes),
                bytes_free: Storage::free_bytes(device).unwrap_or(0),
                condition: match (works && space.is_some(), is_new) {
                    (true, true) => Condition::New,
                    (true, false) => Condition::Good,
                    (false, _) => Condition::Broken,
                },
            }
        };
        devices.iter().map(report).collect()
    }
}

/// Answers other nodes for the devices of this one.
struct ChunkCalls(chunks::Server);

impl Handler for ChunkCalls {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Vec<Bytes>, Bytes>> {
        async move { self.0.serve(call.body).await }.boxed()
    }
}
