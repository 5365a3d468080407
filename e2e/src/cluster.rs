//! Several nodes on this machine: each a process of the real binary, on a network of its own where that is
//! possible, and on loopback ports otherwise.
//!
//! [`scenario`] says what happens to them; clients meanwhile read, write and list through all of them ([`load`]), and
//! everything that they saw ([`history`]) must be explained by one copy of each object.

mod availability;
mod devices;
mod fault;
mod fragments;
mod history;
mod late;
mod load;
mod loss;
mod rot;
mod scenario;
mod verify;

pub use scenario::{Plan, Report, Scenario, run};

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;

use crate::http::Endpoint;
use crate::network::{self, Network};
use crate::server::{self, Launch, Server, free_address};
use crate::session::Session;
use crate::volume::{Kind, Volume};
use crate::{promised, volume};

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    pub binary: PathBuf,
    pub seed: u64,
    /// Each node has a file system of its own that can lose its power.
    pub power_cuts: bool,
    /// For all nodes; switches canaries on.
    pub environment: Vec<(&'static str, String)>,
}

/// Each has a leader of its own, so that with three nodes every one leads something.
const SHARDS: &str = "4";
/// As small as it can be, so that log and segments are reused.
const VOLUME_BYTES: u64 = 2 << 30;

/// Number of a node, from 0.
pub type Number = usize;

/// Whether a node is to give away what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    Begin,
    End,
}

/// Running nodes and those that are down. All is gone when it is dropped, except files under its folder.
pub struct Cluster {
    setup: Setup,
    folder: PathBuf,
    nodes: Vec<Node>,
    /// Nothing where that is not possible.
    network: Option<Network>,
}

struct Node {
    // Dropped first: a file system that is in use cannot be unmounted.
    server: Option<Server>,
    volume: Option<Volume>,
    /// As it is started again after it has joined.
    launch: Launch,
    /// A second data directory.
    further: Option<PathBuf>,
    endpoint: Endpoint,
    /// Where other nodes find it.
    node_address: SocketAddr,
}

impl Cluster {
    /// Starts the first node in `folder`.
    pub fn form(setup: &Setup, folder: &Path) -> Result<Self> {
        let network = network::is_possible().then(|| Network::new(setup.seed));
        let mut cluster = Self {
            setup: setup.clone(),
            folder: folder.to_owned(),
            nodes: Vec::new(),
            network: network.transpose()?,
        };
        cluster.add_node()?;
        Ok(cluster)
    }

    /// Adds nodes until there are so many.
    pub fn grow_to(&mut self, count: usize) -> Result<()> {
        while self.nodes.len() < count {
            self.add_node()?;
        }
        Ok(())
    }

    pub fn add_node(&mut self) -> Result<()> {
        let number = self.nodes.len();
        let folder = self.folder.join(format!("node{number}"));
        fs::create_dir_all(&folder)?;
        let volume = self
            .setup
            .power_cuts
            .then(|| Volume::create(Kind::Xfs, &folder, VOLUME_BYTES));
        let volume = volume.transpose()?;
        let data = volume.as_ref().map_or(&*folder, Volume::path).join("data");
        let (endpoint, node_address) = self.add_host()?;

        let mut launch = Launch::new(&self.setup.binary, &data, &folder.join("log"))
            .with("--node-listen", &node_address.to_string())
            .with("--shards", SHARDS)
            .with("--reserve-bytes", "64MiB");
        launch.environment.clone_from(&self.setup.environment);
        launch.address = Some(endpoint.address);
        launch.namespace.clone_from(&endpoint.namespace);
        let mut first = launch.clone();
        if let Some(member) = self.nodes.first() {
            first = first
                .with("--join", &member.node_address.to_string())
                .with("--token", &self.join_token()?);
        }
        let server = first.start().with_context(|| format!("node {number}"))?;
        self.nodes.push(Node {
            server: Some(server),
            volume,
            launch,
            further: None,
            endpoint,
            node_address,
        });
        Ok(())
    }

    /// Where the next node's clients find it, and where other nodes do.
    fn add_host(&mut self) -> Result<(Endpoint, SocketAddr)> {
        let Some(network) = &mut self.network else {
            return Ok((free_address()?.into(), free_address()?));
        };
        let host = network.add_host()?;
        let endpoint = Endpoint {
            address: (network::address(host), 8080).into(),
            namespace: Some(network.namespace(host).clone()),
        };
        Ok((endpoint, (network::address(host), 7000).into()))
    }

    fn join_token(&self) -> Result<String> {
        let mut command = self.ask(0, &["token", "create"]);
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "no join token: {}", output.status);
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// How many nodes there are, up or down.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Where the clients of a node find it.
    pub fn endpoint(&self, node: Number) -> &Endpoint {
        &self.nodes[node].endpoint
    }

    /// The administrator, logged in through the first node.
    pub fn login(&self) -> Result<Session> {
        let first = &self.nodes[0];
        let (user, password) = first.launch.administrator()?;
        Session::login(first.endpoint.clone(), &user, &password)
    }

    /// Nothing where no link can be broken.
    pub fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    pub fn kill(&mut self, node: Number) -> Result<()> {
        match self.nodes[node].server.take() {
            Some(mut server) => server.kill(),
            None => bail!("node {node} does not run"),
        }
    }

    /// Forgets the last node, which is down for ever.
    fn bury_last(&mut self) {
        let last = self.nodes.pop();
        assert!(last.is_some_and(|node| node.server.is_none()), "it is down");
    }

    /// Starts a node and returns at once, ready or not.
    pub fn start(&mut self, node: Number) -> Result<()> {
        let node = &mut self.nodes[node];
        let launch = match &node.further {
            Some(further) => node
                .launch
                .clone()
                .with("--data", &further.display().to_string()),
            None => node.launch.clone(),
        };
        node.server = Some(launch.spawn()?);
        Ok(())
    }

    /// Stops a node in good order, and starts it with this second directory or without one. The first one was there.
    fn restart_with(&mut self, number: Number, further: Option<PathBuf>) -> Result<()> {
        let node = &mut self.nodes[number];
        let status = node.server.take().context("it runs")?.stop()?;
        promised!(status.success(), "node {number} stopped with {status}");
        node.further = further;
        self.start(number)?;
        self.wait_until_ready(number)
    }

    pub fn wait_until_ready(&mut self, node: Number) -> Result<()> {
        self.running(node)?.wait_until_ready()
    }

    pub fn pause(&mut self, node: Number) -> Result<()> {
        self.running(node)?.pause()
    }

    pub fn resume(&mut self, node: Number) -> Result<()> {
        self.running(node)?.resume()
    }

    fn running(&mut self, node: Number) -> Result<&mut Server> {
        let server = self.nodes[node].server.as_mut();
        server.with_context(|| format!("node {node} does not run"))
    }

    /// Cuts the power of these nodes at the same moment, and gives it back to what is left of them. They
    /// are down then.
    pub fn cut_power(&mut self, nodes: &[Number]) -> Result<()> {
        let volume = |node: &Number| self.nodes[*node].volume.as_ref();
        let volumes: Option<Vec<&Volume>> = nodes.iter().map(volume).collect();
        for volume in volumes.context("no power to cut")? {
            volume.cut()?;
        }
        // The nodes may still say something, and that must be true.
        const LAST_WORDS: Duration = Duration::from_millis(3);
        thread::sleep(LAST_WORDS);
        for node in nodes {
            self.kill(*node)?;
            self.nodes[*node]
                .volume
                .as_ref()
                .map_or(Ok(()), Volume::restore)?;
        }
        Ok(())
    }

    /// Waits until every shard and group has all the replicas that it should have.
    pub fn wait_until_whole(&self) -> Result<()> {
        const STEP: Duration = Duration::from_millis(100);
        const TIME_MAX: Duration = Duration::from_secs(120);
        if self.nodes.len() == 1 {
            return Ok(());
        }
        let deadline = Instant::now() + TIME_MAX;
        loop {
            let status = self.status(0)?;
            if status["whole"] == true {
                return Ok(());
            }
            promised!(
                Instant::now() < deadline,
                "the cluster is not whole after {TIME_MAX:?}: {status}"
            );
            thread::sleep(STEP);
        }
    }

    /// Stops all nodes in good order, and checks what they leave.
    pub fn stop(mut self) -> Result<()> {
        self.halt().map(drop)
    }

    /// Checks what the nodes hold, which must be stopped for that, and starts them again.
    pub fn check(&mut self) -> Result<()> {
        self.halt()?;
        (0..self.size()).try_for_each(|node| self.start(node))
    }

    /// As [`Cluster::stop`], when no device keeps any more what others have taken over. To see that, the nodes are
    /// stopped, and started again if it is not so yet.
    pub fn stop_when_nothing_is_left_behind(mut self) -> Result<()> {
        const TRIES_MAX: usize = 8;
        /// Two rounds of those who remove it.
        const WAIT: Duration = Duration::from_secs(25);
        let mut found = String::new();
        for _ in 0..TRIES_MAX {
            thread::sleep(WAIT);
            found = self.halt()?;
            if !found.contains("Left behind") {
                return Ok(());
            }
            for node in 0..self.size() {
                self.start(node)?;
            }
            for node in 0..self.size() {
                self.wait_until_ready(node)?;
            }
        }
        promised!(false, "after {TRIES_MAX} looks: {found}");
        Ok(())
    }

    /// Stops all nodes in good order, and gives what `martlet check` says, if it is nothing bad.
    fn halt(&mut self) -> Result<String> {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let server = node.server.take().context("all nodes run")?;
            let status = server.stop().with_context(|| format!("node {number}"))?;
            promised!(status.success(), "node {number} stopped with {status}");
        }
        let mut data = Vec::new();
        for node in &self.nodes {
            data.push(&node.launch.data);
            data.extend(&node.further);
        }
        let (is_good, found) = server::look(&self.setup.binary, &data)?;
        promised!(is_good, "martlet check: {found}");
        Ok(found)
    }

    /// How the cluster is, if this node can say.
    fn status(&self, node: Number) -> Result<Json> {
        Ok(self.whole_status(node)?["cluster"].clone())
    }

    fn whole_status(&self, node: Number) -> Result<Json> {
        let output = self.ask(node, &["status", "--json"]).output()?;
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    /// How many bodies wait for the collector, if that can be told now.
    pub fn garbage(&self) -> Result<Option<u64>> {
        Ok(self.whole_status(0)?["garbage"]["queued"].as_u64())
    }

    /// The node that leads the control group, if node 0 knows it.
    fn leader(&self) -> Result<Number> {
        let leader = self.status(0)?["leader"].as_u64();
        let leader = leader.context("the status says who leads")?;
        // Nodes are counted from 1 in the order in which they join.
        Ok(usize::try_from(leader)? - 1)
    }

    /// Tells a node that another one is to give away all that it holds, or may be used again.
    fn drain(&self, asked: Number, node: Number, how: Drain) -> Result<()> {
        let word = match how {
            Drain::Begin => "drain",
            Drain::End => "undrain",
        };
        let number = (node + 1).to_string();
        let output = self.ask(asked, &["node", word, &number]).output()?;
        ensure!(output.status.success(), "{word} {number}: {output:?}");
        Ok(())
    }

    /// An administrator's command to a node.
    fn ask(&self, node: Number, words: &[&str]) -> Command {
        let mut command = Command::new(&self.setup.binary);
        let data = &self.nodes[node].launch.data;
        command.args(words).arg("--data").arg(data);
        command
    }
}

/// Whether nodes can have file systems that lose their power.
pub fn can_cut_power() -> bool {
    volume::is_possible()
}
