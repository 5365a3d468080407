//! What other nodes call: each service number to who answers it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::NodeId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use rpc::Call;
use serde::Serialize;

use super::{Cluster, jobs};
use crate::control::{self, Join, JoinRequest, Joined};
use crate::wire::{self, Declined, Welcome};

/// Who does not understand us is of another version: another node may take over.
const LATER: Duration = Duration::from_secs(5);

/// Answers calls of a range of services that another crate defines.
pub trait Handler: Send + Sync + 'static {
    /// As [`rpc::Service::call`].
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Vec<Bytes>, Bytes>>;
}

/// The node port's service.
pub struct Service {
    cluster: Cluster,
    chunks: Option<Arc<dyn Handler>>,
}

impl Service {
    /// `chunks` answers the services of [`wire::CHUNKS`].
    pub fn new(cluster: Cluster, chunks: Option<Arc<dyn Handler>>) -> Self {
        Self { cluster, chunks }
    }
}

impl rpc::Service for Service {
    fn admits(&self, node: NodeId) -> bool {
        self.cluster
            .inner
            .parts
            .map
            .load()
            .nodes
            .contains_key(&node)
    }

    async fn call(&self, call: Call) -> Result<Vec<Bytes>, Bytes> {
        if wire::CHUNKS.contains(&call.service)
            && let Some(chunks) = &self.chunks
        {
            return chunks.call(call).await;
        }
        match call.service {
            wire::PIECE | wire::CALL => self.cluster.replica(call).await,
            _ => {
                let answer = self.cluster.answer(call).await;
                answer
                    .map(|answer| vec![answer])
                    .map_err(|why| wire::encode(&why))
            }
        }
    }

    async fn join(&self, from: SocketAddr, request: Bytes) -> Result<Bytes, Bytes> {
        let answer = self.cluster.ask_join(request).await;
        if let Err(why) = &answer {
            tracing::warn!(%from, %why, "a node was not let in");
        }
        answer.map_err(|why| wire::encode(&why))
    }
}

impl Cluster {
    /// What is refused in the words of shards.
    async fn replica(&self, call: Call) -> Result<Vec<Bytes>, Bytes> {
        let unknown = |why: Declined| {
            tracing::warn!(from = %call.from, %why, "a call was not understood");
            wire::encode(&shard::Error::Unavailable { retry_in: LATER })
        };
        let (device, shard, body) = wire::addressed(call.body).map_err(unknown)?;
        let replication = &self.inner.parts.replication;
        let answer = match call.service {
            wire::PIECE => replication.receive_piece(device, shard, body).await,
            _ => {
                let (name, body) = wire::named(body).map_err(unknown)?;
                replication.answer(device, shard, name, body).await
            }
        };
        answer
            .map(|answer| vec![answer])
            .map_err(|error| wire::encode(&error))
    }

    async fn answer(&self, call: Call) -> Result<Bytes, Declined> {
        match call.service {
            wire::RAFT => {
                let replication = &self.inner.parts.replication;
                let messages = wire::messages(call.body)?.into_iter();
                let answers = messages.filter_map(|(device, shard, message)| {
                    let (to, answer) = replication.receive(device, shard, message)?;
                    Some((to, shard, answer))
                });
                Ok(wire::batch(answers))
            }
            wire::PREPARE => {
                // To its end, whether the caller waits or not: a replica is not left half made.
                let (cluster, prepare) = (self.clone(), wire::decode(&call.body)?);
                let prepared = tokio::spawn(async move { cluster.prepare(prepare).await });
                let failed =
                    |error: tokio::task::JoinError| Declined::Unavailable(error.to_string());
                Ok(wire::encode(&prepared.await.map_err(failed)??))
            }
            wire::FENCE => {
                self.raise(wire::decode(&call.body)?).await;
                Ok(Bytes::new())
            }
            wire::MAP => {
                let (known, map) = (wire::decode(&call.body)?, self.inner.parts.map.load());
                let newer = (map.epoch > known).then(|| map.encode());
                Ok(wire::encode(&newer))
            }
            service => self.lead(call.from, service, call.body).await,
        }
    }

    /// What only the control leader answers.
    pub(super) async fn lead(
        &self,
        from: NodeId,
        service: u16,
        body: Bytes,
    ) -> Result<Bytes, Declined> {
        match service {
            wire::REPORT => encoded(self.hear(from, wire::decode(&body)?).await),
            wire::STATUS => encoded(self.answer_status().await),
            wire::JOIN => encoded(self.let_in(wire::decode(&body)?).await),
            other => Err(Declined::Malformed(format!("there is no service {other}"))),
        }
    }

    /// Lets a node in, where the authority's key is.
    async fn let_in(&self, request: JoinRequest) -> Result<Welcome, Declined> {
        self.ruling().await?;
        let parts = &self.inner.parts;
        let authority = {
            let view = parts.control.view().await.map_err(jobs::unavailable)?;
            control::authority(&view).map_err(super::declined)?
        };
        let malformed = |bad: rpc::BadCredentials| Declined::Malformed(bad.to_string());
        // A key that cannot be signed must not use up the token.
        authority
            .sign(NodeId::FIRST, &request.public_key)
            .map_err(malformed)?;
        let public_key = request.public_key.clone();
        let Joined { node, map } = self.execute(Join { request }).await?;
        let certificate = authority.sign(node, &public_key).map_err(malformed)?;
        tracing::info!(%node, epoch = %map.epoch, "a node has joined");
        let welcome = Welcome {
            node,
            cluster: parts.cluster,
            shards: parts.shards,
            certificate,
            authority: authority.certificate().to_vec(),
            map: map.encode(),
        };
        // Its calls are let in as soon as this node knows the map.
        self.adopt(Arc::new(map)).await;
        Ok(welcome)
    }
}

fn encoded<T: Serialize>(answer: Result<T, Declined>) -> Result<Bytes, Declined> {
    answer.map(|answer| wire::encode(&answer))
}
