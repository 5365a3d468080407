//! What can be done with one shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::env::Env;
use base::{DeviceId, ShardId};
use bytes::Bytes;

use crate::call::Call;
use crate::core::Core;
use crate::export::{Export, Exports, Piece, Read};
use crate::latch::Latches;
use crate::remote;
use crate::replica::{Refusal, Replica, Unseen};
use crate::search::{SOON, Search};
use crate::table::{Place, Table};
use crate::{Error, Execution, Procedure, Query, View};
use crate::{export, wire};

/// One shard. Cheap to clone.
#[derive(Clone)]
pub struct Shard {
    env: Env,
    id: ShardId,
    home: Home,
    /// Up to where the log is decided, as other nodes have said.
    seen: Arc<AtomicU64>,
    exports: Arc<Exports>,
}

/// Where a shard lives.
#[derive(Clone)]
enum Home {
    /// On replicas, here or elsewhere.
    Replicas(Arc<Table>),
    /// In memory alone, for tests.
    Memory(Arc<Core>, Latches),
}

impl Shard {
    pub(crate) fn replicated(env: Env, id: ShardId, table: Arc<Table>) -> Self {
        Self {
            env,
            id,
            home: Home::Replicas(table),
            seen: Arc::default(),
            exports: Arc::default(),
        }
    }

    pub(crate) fn volatile(env: Env, core: Arc<Core>) -> Self {
        Self {
            env,
            id: core.id(),
            home: Home::Memory(core, Latches::default()),
            seen: Arc::default(),
            exports: Arc::default(),
        }
    }

    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Plans `procedure` under latches on its keys, commits what it planned and returns its output,
    /// all of it where the shard is led. On `Ok` the effects survive power loss and every later
    /// [`Shard::query`] sees them.
    ///
    /// A try without an answer is repeated, for up to half a minute, and has its effects once.
    ///
    /// # Errors
    /// [`Error::Unknown`] if no answer came, or came when nobody remembered the first try any more. After
    /// any other nothing was done.
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
        let mut call = table.calls.first_try(self.position());
        let mut search = Search::new(&self.env);
        loop {
            let (asked, answer) = match table.place(self.id, search.hint.take(), search.tries) {
                Place::Here(replica) => {
                    let answer = replica.execute(&call.as_told_here(), &procedure).await;
                    (replica.device(), answer)
                }
                Place::There(device) => {
                    let answer = self.execute_there(table, device, &call, &procedure).await;
                    (device, answer)
                }
                Place::Nowhere => return Err(call.failed(missing()).into()),
            };
            let next = match answer {
                Ok(output) => return Ok(output),
                Err(Refusal::Elsewhere(hint)) => search.on(hint).await,
                Err(Refusal::Forgotten(_)) if call.is_repeat => Err(Error::Unknown),
                Err(Refusal::Forgotten(position)) => {
                    // It did nothing, so this is the first try.
                    call.since = position;
                    search.on(Some(asked)).await
                }
                Err(Refusal::Failed(Execution::Shard(Error::Unknown))) => {
                    call.is_repeat = true;
                    search.again().await
                }
                Err(Refusal::Failed(Execution::Shard(error))) => Err(error),
                Err(Refusal::Failed(refused)) => return Err(refused),
            };
            next.map_err(|error| call.failed(error))?;
        }
    }

    /// Asks for an execution on another node, until a replica here knows that the shard is led by another one.
    async fn execute_there<P: Procedure>(
        &self,
        table: &Table,
        device: DeviceId,
        call: &Call,
        procedure: &P,
    ) -> Result<P::Output, Refusal<P::Error>> {
        let bytes = wire::encode(&(call, procedure));
        let ask = remote::ask(table, device, self, P::NAME, bytes);
        tokio::select! {
            biased;
            answer = ask => answer,
            // It may have been done before.
            _ = table.replaced(self.id, device) => Err(Error::Unknown.into()),
        }
    }

    /// Answers `query` from a linearizable snapshot, which sees everything that was acknowledged before the
    /// call: here, if a replica here keeps up, else where the shard is led.
    pub async fn query<Q: Query>(&self, query: Q) -> Result<Q::Output, Execution<Q::Error>> {
        let table = match &self.home {
            Home::Replicas(table) => table,
            Home::Memory(core, _) => return query.answer(&core.view()?),
        };
        let mut search = Search::new(&self.env);
        loop {
            let place = match search.tries {
                0 => table.nearest(self.id),
                tries => table.place(self.id, search.hint.take(), tries),
            };
            let answer = match place {
                Place::Here(replica) => replica.query(&query).await,
                Place::There(device) => {
                    let ask = remote::ask(table, device, self, Q::NAME, wire::encode(&query));
                    tokio::select! {
                        biased;
                        answer = ask => answer,
                        next = table.replaced(self.id, device) => {
                            Err(Refusal::Elsewhere(Some(next)))
                        }
                    }
                }
                Place::Nowhere => return Err(missing().into()),
            };
            match answer.map_err(|refusal| refusal.map(unchanged)) {
                Err(Refusal::Elsewhere(hint)) => search.on(hint).await?,
                // Not an answer to a query.
                Err(Refusal::Forgotten(_)) => search.on(None).await?,
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
        call: Call,
        procedure: P,
    ) -> Result<P::Output, Refusal<P::Error>> {
        match &self.home {
            Home::Replicas(table) => match table.leader(self.id) {
                Some(replica) => replica.execute(&call, &procedure).await,
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

    /// An entry that is decided, as late as this node knows one.
    pub(crate) fn position(&self) -> u64 {
        match &self.home {
            Home::Replicas(table) => {
                let seen = self.seen.load(Ordering::Relaxed);
                table.position(self.id).max(seen)
            }
            Home::Memory(..) => 0,
        }
    }

    /// Another node has said that this entry is decided.
    pub(crate) fn saw(&self, position: u64) {
        self.seen.fetch_max(position, Ordering::Relaxed);
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

    /// Opens a linearizable view somewhere, to be read by [`Shard::read_export`]: piece by piece, all of one moment.
    ///
    /// # Errors
    /// [`Error::Unavailable`] also while too many are open.
    pub async fn open_export(&self) -> Result<Export, Error> {
        let table = match &self.home {
            Home::Replicas(table) => table,
            Home::Memory(core, _) => {
                return self.exports.open(&self.env, DeviceId(0), core.view()?);
            }
        };
        let mut search = Search::new(&self.env);
        loop {
            let place = match search.tries {
                0 => table.nearest(self.id),
                tries => table.place(self.id, search.hint.take(), tries),
            };
            let answer = match place {
                Place::Here(replica) => self.open_export_of(&replica).await,
                Place::There(device) => {
                    remote::ask(table, device, self, export::OPEN, wire::encode(&())).await
                }
                Place::Nowhere => return Err(missing()),
            };
            match answer {
                Ok(export) => return Ok(export),
                Err(Refusal::Elsewhere(hint)) => search.on(hint).await?,
                Err(Refusal::Failed(Execution::Shard(Error::Unknown))) => search.on(None).await?,
                Err(Refusal::Failed(Execution::Shard(error))) => return Err(error),
                // No answers to this call.
                Err(Refusal::Forgotten(_) | Refusal::Failed(Execution::Refused(()))) => {
                    return Err(Error::Unknown);
                }
            }
        }
    }

    async fn open_export_of(&self, replica: &Arc<Replica>) -> Result<Export, Refusal<()>> {
        let view = replica.view().await?;
        Ok(self.exports.open(&self.env, replica.device(), view)?)
    }

    /// As [`Shard::open_export`], if the shard is led here.
    pub(crate) async fn open_export_here(&self) -> Result<Export, Refusal<()>> {
        match &self.home {
            Home::Replicas(table) => match table.leader(self.id) {
                Some(replica) => self.open_export_of(&replica).await,
                None => Err(self.elsewhere(table)),
            },
            Home::Memory(core, _) => Ok(self.exports.open(&self.env, DeviceId(0), core.view()?)?),
        }
    }

    /// The rows behind a key, in ascending order, as far as they fit into a piece; all that there are if it is
    /// the last.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the view is open no more: nothing is left but to open another one;
    /// [`Error::Unknown`] if no answer came: the same may be asked again; [`Error::Damaged`] if a row is damaged.
    pub async fn read_export(&self, export: &Export, after: Bytes) -> Result<Piece, Error> {
        let read = Read {
            number: export.number,
            after,
        };
        let table = match &self.home {
            Home::Replicas(table) => table,
            Home::Memory(..) => return self.exports.read(read).await,
        };
        if table.get(self.id, export.device).is_some() {
            return self.exports.read(read).await;
        }
        let call = wire::encode(&read);
        match remote::ask(table, export.device, self, export::READ, call).await {
            Ok(piece) => Ok(piece),
            Err(Refusal::Failed(Execution::Shard(error))) => Err(error),
            Err(Refusal::Elsewhere(_)) => Err(Error::Unavailable { retry_in: SOON }),
            // No answers to this call.
            Err(Refusal::Forgotten(_) | Refusal::Failed(Execution::Refused(()))) => {
                Err(Error::Unknown)
            }
        }
    }

    /// As [`Shard::read_export`], if the view is open here.
    pub(crate) async fn read_export_here(&self, read: Read) -> Result<Piece, Refusal<()>> {
        Ok(self.exports.read(read).await?)
    }

    /// The replica that leads here.
    #[cfg(test)]
    pub(crate) fn leader(&self) -> Arc<Replica> {
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

#[cfg(test)]
mod tests;
