//! What another node may call here.

use std::collections::HashMap;
use std::future::Future;

use base::ShardId;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::call::Call;
use crate::export;
use crate::replica::Refusal;
use crate::wire::{self, Answer, Reply};
use crate::{Procedure, Query, Shard, Shards, Wire};

/// Runs one kind of call.
type Run = Box<dyn Fn(Shard, Bytes) -> BoxFuture<'static, Bytes> + Send + Sync>;

/// The procedures and queries that may come over the wire, by their names. Made once, at start.
#[derive(Default)]
pub struct Registry {
    runs: HashMap<&'static str, Run>,
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
            .add(export::OPEN, |shard, ()| async move {
                shard.open_export_here().await
            })
            .add(export::READ, |shard, read| async move {
                shard.read_export_here(read).await
            })
    }

    #[must_use]
    pub fn procedure<P: Procedure>(self) -> Self {
        self.add(P::NAME, |shard, (call, procedure): (Call, P)| async move {
            shard.execute_here(call, procedure).await
        })
    }

    #[must_use]
    pub fn query<Q: Query>(self) -> Self {
        self.add(Q::NAME, |shard, query: Q| async move {
            shard.query_here(query).await
        })
    }

    fn add<C, T, E, F>(mut self, name: &'static str, run: fn(Shard, C) -> F) -> Self
    where
        C: Wire,
        T: Wire,
        E: Wire,
        F: Future<Output = Result<T, Refusal<E>>> + Send + 'static,
    {
        let run: Run = Box::new(move |shard, call| {
            async move {
                let answer = match wire::decode(&call) {
                    Ok(call) => Answer::from(run(shard.clone(), call).await),
                    Err(malformed) => Answer::NotUnderstood(format!("{name}: {malformed}")),
                };
                let position = shard.position();
                wire::encode(&Reply { position, answer })
            }
            .boxed()
        });
        let before = self.runs.insert(name, run);
        assert!(before.is_none(), "only one call has the name {name}");
        self
    }

    /// The names of all calls.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.runs.keys().copied()
    }

    /// Runs an encoded call and gives the encoded answer, whatever the bytes are. For who bounds the
    /// length of `call`: that bounds the memory it takes.
    ///
    /// # Cancel safety
    /// As [`Shard::execute`].
    pub async fn call(&self, shards: &Shards, shard: ShardId, name: &str, call: Bytes) -> Bytes {
        let why = match self.runs.get(name) {
            Some(run) if shard.0 < shards.count() => {
                return run(shards.get(shard).clone(), call).await;
            }
            Some(_) => format!("there is no shard {shard}"),
            None => format!("there is no {}", name.escape_debug()),
        };
        wire::encode(&Reply {
            position: 0,
            answer: Answer::<(), ()>::NotUnderstood(why),
        })
    }
}

#[cfg(test)]
mod tests;
