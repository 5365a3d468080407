//! How a leader executes a procedure: once, however often the call is tried.
//!
//! What is known of a call is looked up where its entry is proposed, under the same lock: so of two tries only one is
//! proposed, whether or not they have latches in common. A try that changes nothing is not proposed, unless it is a
//! repetition: then all replicas have to know that the call is over, since an earlier try may still be on its way here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use device::Purpose;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::effects::decode_outcome;
use super::outcomes::Recalled;
use super::{Effects, Fate, OUT_OF_SERVICE, Refusal, Replica, Waiter};
use crate::call::Call;
use crate::latch::Held;
use crate::{Batch, Error, Execution, Procedure};

/// An append to another node holds up to 256 KiB and one entry more, and must fit a message of 1 MiB.
const ENTRY_BYTES_MAX: usize = 512 << 10;

impl Replica {
    /// Plans the procedure and commits what it planned, or says what came of an earlier try.
    pub(crate) async fn execute<P: Procedure>(
        self: &Arc<Self>,
        call: &Call,
        procedure: &P,
    ) -> Result<P::Output, Refusal<P::Error>> {
        if self.signal.has_failed.load(Ordering::Acquire) {
            return Err(self.refuse_for_good().await);
        }
        let term = self.lead().await?;
        self.host.room().await?;
        let held = self.latches.hold(procedure.latches()).await;
        if call.is_repeat
            && let Some(outcome) = self.recall(call).await?
        {
            return self.known::<P>(&outcome);
        }
        let planned = {
            let view = self.core.view()?;
            procedure.plan(self.core.tick(self.env.clock.now()), &view)
        };
        let (batch, decided) = match planned {
            Ok((batch, output)) => (batch, Ok(output)),
            Err(Execution::Refused(error)) => (Batch::new(), Err(error)),
            Err(Execution::Shard(error)) => return Err(error.into()),
        };
        if batch.is_empty() && !call.is_repeat {
            // It is an answer like that to a query: was it true?
            if !self.rules.load(Ordering::Acquire) && self.prove().await? != term {
                return Err(Refusal::Elsewhere(None));
            }
        } else {
            let purpose = match batch.grows() {
                true => Purpose::Grow,
                false => Purpose::Reclaim,
            };
            let effects = Effects::new(call.request, &batch, &decided);
            self.commit(term, call, effects, purpose, held).await?;
        }
        decided.map_err(|error| Refusal::Failed(Execution::Refused(error)))
    }

    /// Its log has failed. Others may lead, if there are any.
    async fn refuse_for_good<E>(&self) -> Refusal<E> {
        if !self.outlives_its_log() {
            return Refusal::Elsewhere(None);
        }
        // The device says why, if it knows.
        match self.host.admit(0, Purpose::Reclaim).await {
            Ok(()) => OUT_OF_SERVICE.into(),
            Err(error) => error.into(),
        }
    }

    /// What came of an earlier try of the call; of one that is under way, when that is known.
    async fn recall<E>(&self, call: &Call) -> Result<Option<Bytes>, Refusal<E>> {
        loop {
            let recalled = {
                let state = self.state.lock();
                match state.outcomes.recall(call) {
                    Recalled::Nothing => return Ok(None),
                    Recalled::Outcome(outcome) => return Ok(Some(outcome)),
                    Recalled::Forgotten => {
                        return Err(Refusal::Forgotten(state.raft.applied()));
                    }
                    Recalled::Pending(index) => index,
                }
            };
            self.done_up_to(recalled).await;
        }
    }

    fn known<P: Procedure>(&self, outcome: &[u8]) -> Result<P::Output, Refusal<P::Error>> {
        self.host.metrics().recalled.inc();
        let decided = decode_outcome::<P::Output, P::Error>(outcome).ok_or(Error::Unknown)?;
        decided.map_err(|error| Refusal::Failed(Execution::Refused(error)))
    }

    /// Commits a batch that was planned in `term`; the latches are held until it is done, also if this call
    /// is dropped.
    async fn commit<E>(
        self: &Arc<Self>,
        term: u64,
        call: &Call,
        effects: Effects,
        purpose: Purpose,
        held: Held,
    ) -> Result<(), Refusal<E>> {
        let bytes = raft::Data::bytes(&effects);
        if bytes > ENTRY_BYTES_MAX {
            tracing::error!(bytes, "a batch is too large for a message");
            return Err(Error::OutOfSpace.into());
        }
        self.host.admit(bytes as u64, purpose).await?;
        let started = self.now();
        let (done, fate) = oneshot::channel();
        let waiter = Waiter {
            request: call.request,
            held,
            queued: self.host.budget().queue(bytes as u64),
            done,
        };
        self.propose(term, call, effects, waiter)?;
        let span = tracing::trace_span!("commit", shard = %self.shard(), term);
        let fate = fate.instrument(span).await;
        let metrics = self.host.metrics();
        metrics.commit_duration.observe(self.now() - started);
        match fate {
            Ok(Fate::Done) => Ok(()),
            Ok(Fate::Replaced) => Err(Refusal::Elsewhere(None)),
            Ok(Fate::Unknown) | Err(_) => Err(Error::Unknown.into()),
        }
    }

    fn propose<E>(
        self: &Arc<Self>,
        term: u64,
        call: &Call,
        mut effects: Effects,
        waiter: Waiter,
    ) -> Result<(), Refusal<E>> {
        let mut state = self.state.lock();
        if state.is_over {
            return Err(Refusal::Elsewhere(None));
        }
        match state.outcomes.recall(call) {
            Recalled::Nothing => {}
            Recalled::Forgotten => return Err(Refusal::Forgotten(state.raft.applied())),
            // Two tries have met here: whoever still listens asks again.
            Recalled::Pending(_) | Recalled::Outcome(_) => return Err(Error::Unknown.into()),
        }
        effects.time = self.core.newest_time();
        let proposed = state.raft.propose(term, effects);
        let id = proposed.map_err(|_| self.elsewhere(&state))?;
        self.host.metrics().entries.inc();
        state.wait(id, waiter);
        self.act(&mut state);
        let has_others = !state.raft.is_only_voter() || state.raft.membership().members().len() > 1;
        drop(state);
        if has_others {
            // The others are sent all that has come until the task runs.
            self.signal.changed.notify_one();
        }
        Ok(())
    }

    /// Commits what may be no batch at all.
    #[cfg(test)]
    pub(crate) async fn commit_bytes(self: &Arc<Self>, batch: Bytes) -> Result<(), Refusal<()>> {
        let term = self.lead().await?;
        let held = self.latches.hold(Vec::new()).await;
        let call = crate::call::Calls::new(&self.env).first_try(self.position());
        let effects = Effects {
            time: 0,
            request: call.request,
            batch,
            outcome: Bytes::new(),
        };
        self.commit(term, &call, effects, Purpose::Grow, held).await
    }
}
