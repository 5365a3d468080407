//! What can be done with one shard.

use std::sync::Arc;
use std::time::Duration;

use base::ShardId;
use base::env::Env;

use crate::core::Core;
use crate::latch::Latches;
use crate::remote;
use crate::replica::{Refusal, Unseen};
use crate::table::{Place, Table};
use crate::{Error, Execution, Procedure, Query, View};

/// One shard. Cheap to clone.
#[derive(Clone)]
pub struct Shard {
    env: Env,
    id: ShardId,
    home: Home,
}

/// Where a shard lives.
#[derive(Clone)]
enum Home {
    /// On replicas, here or elsewhere.
    Replicas(Arc<Table>),
    /// In memory alone, for tests.
    Memory(Arc<Core>, Latches),
}

/// After a question that got no answer.
const SOON: Duration = Duration::from_millis(200);
/// A shard without a leader gets one in this time, or is out of order for longer.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(5);
/// Between two looks for the leader.
const SEARCH_PAUSE: Duration = Duration::from_millis(25);

impl Shard {
    pub(crate) fn replicated(env: Env, id: ShardId, table: Arc<Table>) -> Self {
        let home = Home::Replicas(table);
        Self { env, id, home }
    }

    pub(crate) fn volatile(env: Env, core: Arc<Core>) -> Self {
        let id = core.id();
        let home = Home::Memory(core, Latches::default());
        Self { env, id, home }
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
        let table = match &self.home {
            Home::Replicas(table) => table,
            Home::Memory(core, latches) => {
                return self.execute_in_memory(core, latches, &procedure).await;
            }
        };
        let mut search = Search::new(&self.env);
        loop {
            let answer = match table.place(self.id, search.hint.take(), search.tries) {
                Place::Here(replica) => replica.execute(&procedure).await,
                Place::There(device) => {
                    remote::ask(&table.post, device, self.id, P::NAME, &procedure).await
                }
                Place::Nowhere => return Err(missing().into()),
            };
            match answer {
                Err(Refusal::Elsewhere(hint)) => search.on(hint).await?,
                Err(Refusal::Failed(error)) => return Err(error),
                Ok(output) => return Ok(output),
            }
        }
    }

    /// Answers `query`, where the shard is led, from a linearizable snapshot: it sees everything that
    /// was acknowledged before the call.
    pub async fn query<Q: Query>(&self, query: Q) -> Result<Q::Output, Execution<Q::Error>> {
        let table = match &self.home {
            Home::Replicas(table) => table,
            Home::Memory(core, _) => return query.answer(&core.view()?),
        };
        #[cfg(feature = "canary")]
        if Q::NAME.ends_with(".list")
            && crate::Canary::ListFromFollower.is_planted()
            && let Some(view) = table.stale_view(self.id)
        {
            return query.answer(&view?);
        }
        let mut search = Search::new(&self.env);
        loop {
            let answer = match table.place(self.id, search.hint.take(), search.tries) {
                Place::Here(replica) => replica.query(&query).await,
                Place::There(device) => {
                    remote::ask(&table.post, device, self.id, Q::NAME, &query).await
                }
                Place::Nowhere => return Err(missing().into()),
            };
            match answer.map_err(|refusal| refusal.map(unchanged)) {
                Err(Refusal::Elsewhere(hint)) => search.on(hint).await?,
                // Asking again does no harm.
                Err(Refusal::Failed(Execution::Shard(Error::Unavailable { .. })))
                    if search.is_worth_it() =>
                {
                    search.on(None).await?;
                }
                Err(Refusal::Failed(error)) => return Err(error),
                Ok(output) => return Ok(output),
            }
        }
    }

    /// As [`Shard::execute`], if the shard is led here.
    pub(crate) async fn execute_here<P: Procedure>(
        &self,
        procedure: P,
    ) -> Result<P::Output, Refusal<P::Error>> {
        match &self.home {
            Home::Replicas(table) => match table.leader(self.id) {
                Some(replica) => replica.execute(&procedure).await,
                None => Err(self.elsewhere(table)),
            },
            Home::Memory(core, latches) => {
                let executed = self.execute_in_memory(core, latches, &procedure).await;
                executed.map_err(Refusal::Failed)
            }
        }
    }

    /// As [`Shard::query`], if the shard is led here.
    pub(crate) async fn query_here<Q: Query>(
        &self,
        query: Q,
    ) -> Result<Q::Output, Refusal<Q::Error>> {
        match &self.home {
            Home::Replicas(table) => match table.leader(self.id) {
                Some(replica) => replica.query(&query).await,
                None => Err(self.elsewhere(table)),
            },
            Home::Memory(core, _) => {
                let view = core.view()?;
                query.answer(&view).map_err(Refusal::Failed)
            }
        }
    }

    fn elsewhere<E>(&self, table: &Table) -> Refusal<E> {
        match table.place(self.id, None, 0) {
            Place::Here(replica) => Refusal::Elsewhere(replica.leader()),
            Place::There(device) => Refusal::Elsewhere(Some(device)),
            Place::Nowhere => Refusal::Elsewhere(None),
        }
    }

    /// A linearizable snapshot as [`Shard::query`] uses it, for who knows that the shard is here. Do
    /// not hold it across an `await`: it pins pages of the B-tree.
    pub async fn view(&self) -> Result<View, Error> {
        let table = match &self.home {
            Home::Replicas(table) => table,
            Home::Memory(core, _) => return core.view(),
        };
        let mut search = Search::new(&self.env);
        loop {
            let hint = match table.place(self.id, search.hint.take(), search.tries) {
                Place::Here(replica) => match replica.view().await {
                    Ok(view) => return Ok(view),
                    Err(Unseen::Elsewhere(hint)) => hint,
                    Err(Unseen::Failed(error)) => return Err(error),
                },
                // Nobody who looks for a view can go there.
                Place::There(_) => return Err(Error::Unavailable { retry_in: SOON }),
                Place::Nowhere => return Err(missing()),
            };
            search.on(hint).await?;
        }
    }

    /// The replica that leads here.
    #[cfg(test)]
    pub(crate) fn leader(&self) -> Arc<crate::replica::Replica> {
        match &self.home {
            Home::Replicas(table) => table.leader(self.id).expect("it leads here"),
            Home::Memory(..) => panic!("no shard with replicas"),
        }
    }

    async fn execute_in_memory<P: Procedure>(
        &self,
        core: &Core,
        latches: &Latches,
        procedure: &P,
    ) -> Result<P::Output, Execution<P::Error>> {
        let _held = latches.hold(procedure.latches()).await;
        let (batch, output) = {
            let view = core.view()?;
            procedure.plan(core.tick(self.env.clock.now()), &view)?
        };
        if !batch.is_empty() {
            core.apply([batch.encode()].iter(), |memo| memo.applied.index += 1)?;
        }
        Ok(output)
    }
}

/// No device that is here has the shard.
fn missing() -> Error {
    Error::Unavailable {
        retry_in: Duration::from_secs(30),
    }
}

/// A question changes nothing, so its outcome is never unknown.
fn unchanged<E>(error: Execution<E>) -> Execution<E> {
    match error {
        Execution::Shard(Error::Unknown) => Error::Unavailable { retry_in: SOON }.into(),
        other => other,
    }
}

/// Looking for the leader of a shard.
struct Search<'a> {
    env: &'a Env,
    until: Duration,
    hint: Option<base::DeviceId>,
    tries: usize,
}

impl<'a> Search<'a> {
    fn new(env: &'a Env) -> Self {
        Self {
            env,
            until: env.clock.monotonic() + SEARCH_TIME_MAX,
            hint: None,
            tries: 0,
        }
    }

    fn is_worth_it(&self) -> bool {
        self.env.clock.monotonic() < self.until
    }

    /// The one that was asked does not lead; `hint` may.
    async fn on(&mut self, hint: Option<base::DeviceId>) -> Result<(), Error> {
        if !self.is_worth_it() {
            return Err(Error::Unavailable { retry_in: SOON });
        }
        self.tries += 1;
        // The first hint is usually right; after that somebody is being elected.
        if hint.is_none() || self.tries > 1 {
            tokio::time::sleep(SEARCH_PAUSE).await;
        }
        self.hint = hint;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
