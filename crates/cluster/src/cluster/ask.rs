//! What a node asks of the control leader, whoever that is now.
//!
//! The control shard's replicas are in the map, so their nodes are asked one after the other, the one that
//! answered last time first. Who does not lead says so at once. A report goes to all of them: whoever will lead is to
//! have heard it.

use std::sync::Arc;
use std::time::Duration;

use base::{NodeId, ShardId};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use map::{Epoch, Map};
use rpc::JoinToken;
use tokio::time::Instant;

use super::Cluster;
use crate::control::Refusal;
use crate::report::{Answer, Reign, Report};
use crate::status::Status;
use crate::wire::{self, Declined};

/// A report is of use until the next but one.
const REPORT_TIME_MAX: Duration = Duration::from_secs(1);

/// A node that is silent for so long is not waited for while there are others to ask.
const ATTEMPT_TIME_MAX: Duration = Duration::from_millis(400);

/// A person waits; in this time another leader has been elected.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(8);

/// Who has heard nothing of the control leader for so long may know only nodes that do not lead any more, and asks for a map.
const LOST_AFTER: Duration = Duration::from_secs(45);

/// So many at once: if a thousand nodes are lost, each is asked some six times a second.
const ASKED_FOR_MAP: usize = 3;

/// Between two rounds of asking everybody.
const PAUSE: Duration = Duration::from_millis(200);

impl Cluster {
    /// Reports. Gives the controller's reign, and a newer map.
    pub(super) async fn ask_report(
        &self,
        report: &Report,
    ) -> Result<(Reign, Option<Map>), Declined> {
        let answer = self.ask_all(wire::REPORT, wire::encode(report)).await?;
        let Answer { reign, map } = wire::decode(&answer)?;
        let map = map.map(|map| Map::decode(&map)).transpose();
        let map = map.map_err(|bad| Declined::Malformed(bad.to_string()))?;
        Ok((reign, map))
    }

    pub(super) async fn ask_status(&self) -> Result<Status, Declined> {
        let deadline = Instant::now() + REQUEST_TIME_MAX;
        let answer = self
            .ask_patiently(wire::STATUS, Bytes::new(), deadline)
            .await?;
        wire::decode(&answer)
    }

    /// Has a request to join decided: gives the encoded welcome.
    pub(super) async fn ask_join(&self, request: Bytes) -> Result<Bytes, Declined> {
        let deadline = Instant::now() + REQUEST_TIME_MAX;
        self.ask_patiently(wire::JOIN, request, deadline).await
    }

    /// A token names the authority, whose certificate every node has in its own credentials.
    pub(super) async fn ask_token(&self, life: Duration) -> Result<JoinToken, Declined> {
        let env = &self.inner.parts.env;
        let credentials = self.inner.parts.home.credentials();
        let credentials = credentials.map_err(|error| Declined::Unavailable(error.to_string()))?;
        let credentials = credentials.ok_or(Declined::Refused(Refusal::NoAuthority))?;
        let expires = env.clock.now().after(life);
        let token = JoinToken::new(&*env.entropy, expires, credentials.authority());
        self.add_token(&token).await?;
        Ok(token)
    }

    /// As [`Cluster::ask`], again and again while there may be a leader soon.
    async fn ask_patiently(
        &self,
        service: u16,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, Declined> {
        loop {
            match self.ask(service, body.clone(), deadline).await {
                Err(Declined::NotLeading | Declined::Unavailable(_))
                    if Instant::now() + PAUSE < deadline =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Tells all who may lead; gives the answer of the one who does.
    async fn ask_all(&self, service: u16, body: Bytes) -> Result<Bytes, Declined> {
        let deadline = Instant::now() + REPORT_TIME_MAX;
        let ask = async |node| {
            (
                node,
                self.ask_one(node, service, body.clone(), deadline).await,
            )
        };
        let mut asked: FuturesUnordered<_> = self.control_nodes().into_iter().map(ask).collect();
        let mut last = Declined::NotLeading;
        while let Some((node, answer)) = asked.next().await {
            match answer {
                Ok(answer) => {
                    *self.inner.leader.lock() = Some(node);
                    return Ok(answer);
                }
                Err(declined) => last = declined,
            }
        }
        Err(last)
    }

    async fn ask_one(
        &self,
        node: NodeId,
        service: u16,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, Declined> {
        match node == self.inner.parts.node {
            true => self.lead(node, service, body).await,
            false => self.ask_node(node, service, body, deadline).await,
        }
    }

    /// Asks the control leader.
    async fn ask(&self, service: u16, body: Bytes, deadline: Instant) -> Result<Bytes, Declined> {
        let mut last = Declined::NotLeading;
        for node in self.control_nodes() {
            let attempt =
                deadline.min(Instant::now() + ATTEMPT_TIME_MAX.max(deadline_share(deadline)));
            match self.ask_one(node, service, body.clone(), attempt).await {
                Ok(answer) => {
                    *self.inner.leader.lock() = Some(node);
                    return Ok(answer);
                }
                Err(declined @ (Declined::NotLeading | Declined::Unavailable(_))) => {
                    last = declined;
                }
                Err(declined @ (Declined::Refused(_) | Declined::Malformed(_))) => {
                    return Err(declined);
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(last)
    }

    /// The nodes that may lead the control group, the likeliest first.
    fn control_nodes(&self) -> Vec<NodeId> {
        let map = self.inner.parts.map.load();
        let replicas = map.shards.get(&ShardId::CONTROL);
        let devices = replicas.into_iter().flat_map(|one| one.devices());
        let nodes = devices.filter_map(|id| map.devices.get(&id).map(|device| device.node));
        let mut nodes: Vec<_> = nodes.collect();
        // Before the shard is in the map, it is where the cluster began.
        nodes.extend(nodes.is_empty().then_some(NodeId::FIRST));
        let last = *self.inner.leader.lock();
        nodes.sort_by_key(|node| (Some(*node) != last, *node));
        nodes.dedup();
        nodes
    }

    /// If the control leader has not answered for long, the control group may have moved while this node was away. Any
    /// node may have a map that says where it is now.
    pub(super) async fn find_way(&self) {
        if self.unconfirmed() <= LOST_AFTER {
            return;
        }
        let parts = &self.inner.parts;
        let map = parts.map.get();
        let others = map.nodes.keys().copied().filter(|node| *node != parts.node);
        let mut others: Vec<_> = others.collect();
        if let Some(shift) = parts.env.entropy.u64().checked_rem(others.len() as u64) {
            others.rotate_left(usize::try_from(shift).expect("fewer than there are nodes"));
        }
        let asked = others.into_iter().take(ASKED_FOR_MAP);
        let newer = join_all(asked.map(|node| self.ask_map(node, map.epoch))).await;
        let newest = newer.into_iter().flatten().max_by_key(|map| map.epoch);
        if let Some(newest) = newest {
            tracing::info!(epoch = %newest.epoch, "another node had a newer map");
            self.adopt(Arc::new(newest)).await;
        }
    }

    /// The map of another node, if it is newer than `known`.
    async fn ask_map(&self, node: NodeId, known: Epoch) -> Option<Map> {
        let deadline = Instant::now() + REPORT_TIME_MAX;
        let answer = self.ask_node(node, wire::MAP, wire::encode(&known), deadline);
        let map: Option<Vec<u8>> = wire::decode(&answer.await.ok()?).ok()?;
        Map::decode(&map?).ok()
    }
}

/// A third of the time that is left: there are three to be asked.
fn deadline_share(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()) / 3
}
