//! What can be done with one shard.

use std::sync::Arc;
use std::time::Duration;

use base::ShardId;
use base::env::Env;
use bytes::Bytes;
use device::Purpose;

use crate::commit::Proposer;
use crate::core::Core;
use crate::latch::{Held, Latches};
use crate::raft::LogId;
use crate::remote::{self, Remote};
use crate::{Error, Execution, Procedure, Query, View};

/// One shard. Cheap to clone.
#[derive(Clone)]
pub struct Shard {
    env: Env,
    id: ShardId,
    latches: Latches,
    home: Home,
}

/// Where a shard lives.
#[derive(Clone)]
enum Home {
    Raft(Arc<Core>, Arc<Proposer>),
    /// In memory alone, for tests.
    Memory(Arc<Core>),
    /// On a device that is missing.
    Absent,
    /// On another node.
    Remote(Arc<dyn Remote>),
}

/// After a question that got no answer.
const SOON: Duration = Duration::from_millis(200);

impl Shard {
    fn new(env: Env, id: ShardId, home: Home) -> Self {
        Self {
            env,
            id,
            latches: Latches::default(),
            home,
        }
    }

    pub(crate) fn raft(env: Env, proposer: Arc<Proposer>) -> Self {
        let core = proposer.core().clone();
        Self::new(env, core.id(), Home::Raft(core, proposer))
    }

    pub(crate) fn volatile(env: Env, core: Arc<Core>) -> Self {
        Self::new(env, core.id(), Home::Memory(core))
    }

    pub(crate) fn absent(env: Env, id: ShardId) -> Self {
        Self::new(env, id, Home::Absent)
    }

    pub(crate) fn remote(env: Env, id: ShardId, remote: Arc<dyn Remote>) -> Self {
        Self::new(env, id, Home::Remote(remote))
    }

    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Plans `procedure` under latches on its keys, commits what it planned and returns its output,
    /// all of it where the shard is led. On `Ok` the effects survive power loss and every later
    /// [`Shard::query`] sees them.
    ///
    /// # Cancel safety
    /// A dropped call may have committed or not, as after [`Error::Unknown`].
    pub async fn execute<P: Procedure>(
        &self,
        procedure: P,
    ) -> Result<P::Output, Execution<P::Error>> {
        if let Home::Remote(remote) = &self.home {
            return remote::call(&**remote, self.id, P::NAME, procedure).await;
        }
        self.ready().await?;
        let held = self.latches.hold(procedure.latches()).await;
        let core = self.core()?;
        let (batch, output) = {
            let view = core.view()?;
            procedure.plan(core.tick(self.env.clock.now()), &view)?
        };
        if !batch.is_empty() {
            let purpose = match batch.grows() {
                true => Purpose::Grow,
                false => Purpose::Reclaim,
            };
            self.commit(batch.encode(), purpose, held).await?;
        }
        Ok(output)
    }

    /// Answers `query`, where the shard is led, from a linearizable snapshot: it sees everything that
    /// was acknowledged before the call.
    pub async fn query<Q: Query>(&self, query: Q) -> Result<Q::Output, Execution<Q::Error>> {
        let Home::Remote(remote) = &self.home else {
            let view = self.view().await?;
            return query.answer(&view);
        };
        let answer = remote::call(&**remote, self.id, Q::NAME, query).await;
        answer.map_err(|error| match error {
            // Nothing can have happened.
            Execution::Shard(Error::Unknown) => Error::Unavailable { retry_in: SOON }.into(),
            other => other,
        })
    }

    /// A linearizable snapshot as [`Shard::query`] uses it, for who knows that the shard is here. Do
    /// not hold it across an `await`: it pins pages of the B-tree.
    pub async fn view(&self) -> Result<View, Error> {
        if let Home::Raft(_, proposer) = &self.home {
            proposer.linearize().await?;
        }
        self.core()?.view()
    }

    fn core(&self) -> Result<&Core, Error> {
        match &self.home {
            Home::Raft(core, _) | Home::Memory(core) => Ok(core),
            Home::Absent => Err(Error::Unavailable {
                retry_in: Duration::from_secs(30),
            }),
            Home::Remote(_) => Err(Error::Unavailable { retry_in: SOON }),
        }
    }

    /// Waits until this node may plan, and has the memory for it.
    async fn ready(&self) -> Result<(), Error> {
        if let Home::Raft(_, proposer) = &self.home {
            proposer.linearize().await?;
            proposer.host().room().await?;
        }
        Ok(())
    }

    async fn commit(&self, batch: Bytes, purpose: Purpose, held: Held) -> Result<(), Error> {
        match &self.home {
            Home::Raft(_, proposer) => {
                let host = proposer.host();
                host.admit(batch.len() as u64, purpose).await?;
                let started = self.env.clock.monotonic();
                proposer.commit(batch, held).await?;
                let took = self.env.clock.monotonic() - started;
                host.metrics().commit_duration.observe(took);
                Ok(())
            }
            Home::Memory(core) => {
                let next = |applied: Option<LogId>| LogId {
                    index: applied.map_or(0, |log_id| log_id.index + 1),
                    ..LogId::default()
                };
                core.apply(&[batch], |memo| memo.applied = Some(next(memo.applied)))?;
                Ok(())
            }
            Home::Absent | Home::Remote(_) => Err(self.core().err().unwrap_or(Error::Unknown)),
        }
    }

    /// The state that openraft drives.
    #[cfg(test)]
    pub(crate) fn machine(&self) -> crate::raft::StateMachine {
        match &self.home {
            Home::Raft(core, proposer) => {
                crate::raft::StateMachine::new(proposer.host().clone(), core.clone())
            }
            _ => panic!("not a shard with a log"),
        }
    }

    /// Ends the shard's Raft group.
    pub(crate) async fn stop(&self) {
        if let Home::Raft(_, proposer) = &self.home
            && let Some(raft) = proposer.raft()
            && let Err(error) = raft.shutdown().await
        {
            tracing::warn!(shard = %self.id, %error, "stopping a shard");
        }
    }
}

#[cfg(test)]
mod tests;
