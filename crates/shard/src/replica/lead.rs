//! What a leader does for its callers beside executing procedures: it proves that it leads, answers queries, hands over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::DeviceId;
use raft::{Refused, ReplicaId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Replica;
use crate::{Error, Execution, Led, Query, View};

/// Why a replica did not do what it was asked for.
pub(crate) enum Refusal<E> {
    /// It does not lead. Nothing was done; this one may lead.
    Elsewhere(Option<DeviceId>),
    /// Nothing was done, since an earlier try may have been: that is not remembered. This entry is decided.
    Forgotten(u64),
    Failed(Execution<E>),
}

impl<E> Refusal<E> {
    pub(crate) fn map(self, change: impl FnOnce(Execution<E>) -> Execution<E>) -> Self {
        match self {
            Self::Elsewhere(hint) => Self::Elsewhere(hint),
            Self::Forgotten(position) => Self::Forgotten(position),
            Self::Failed(error) => Self::Failed(change(error)),
        }
    }
}

impl<E> From<Error> for Refusal<E> {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Why there is no view.
pub(crate) enum Unseen {
    Elsewhere(Option<DeviceId>),
    Failed(Error),
}

impl<E> From<Unseen> for Refusal<E> {
    fn from(unseen: Unseen) -> Self {
        match unseen {
            Unseen::Elsewhere(hint) => Self::Elsewhere(hint),
            Unseen::Failed(error) => error.into(),
        }
    }
}

impl<E> From<Elsewhere> for Refusal<E> {
    fn from(elsewhere: Elsewhere) -> Self {
        Self::Elsewhere(elsewhere.0)
    }
}

/// Not here; perhaps on this device.
pub(crate) struct Elsewhere(pub(crate) Option<DeviceId>);

/// How a replica stands in its group.
pub(crate) struct Stand {
    pub(crate) leads: bool,
    pub(crate) has_leader: bool,
    /// Entries that the member lacks that is most behind; only who leads knows.
    pub(crate) behind: u64,
}

/// A leader that has just been elected needs a round and a write before it may decide.
const LEAD_TIME_MAX: Duration = Duration::from_secs(2);
/// A quorum that does not answer in this time had better be asked again.
const PROOF_TIME_MAX: Duration = Duration::from_secs(2);

/// What went wrong here does not mend itself.
pub(super) const OUT_OF_SERVICE: Error = Error::Unavailable {
    retry_in: Duration::from_secs(30),
};

impl Replica {
    /// Whether it leads, or believes to.
    pub(crate) fn is_leader(&self) -> bool {
        self.rules.load(Ordering::Acquire) || self.state.lock().is_leader()
    }

    /// The device of the replica that leads, as far as this one knows.
    pub(crate) fn leader(&self) -> Option<DeviceId> {
        let state = self.state.lock();
        if state.is_over {
            return None;
        }
        let leader = state.raft.leader()?;
        state.raft.membership().device(leader)
    }

    /// The term in which this replica may decide.
    pub(super) async fn lead(&self) -> Result<u64, Elsewhere> {
        let watcher = {
            let mut state = self.state.lock();
            if let Some(term) = state.raft.leads().filter(|_| !state.is_over) {
                return Ok(term);
            }
            if !state.is_leader() {
                return Err(self.elsewhere(&state));
            }
            let (tell, watcher) = oneshot::channel();
            let last = state.raft.last().index;
            state.watching.push((last, tell));
            watcher
        };
        // However it ends, what counts is how things are then.
        let _ = timeout(LEAD_TIME_MAX, watcher).await;
        let state = self.state.lock();
        let term = state.raft.leads().filter(|_| !state.is_over);
        term.ok_or_else(|| self.elsewhere(&state))
    }

    pub(super) fn elsewhere(&self, state: &super::State) -> Elsewhere {
        let leader = state.raft.leader().filter(|id| *id != state.raft.id());
        Elsewhere(leader.and_then(|id| state.raft.membership().device(id)))
    }

    /// Proves that this replica leads, and waits until all that was acknowledged before the call has been
    /// done here. Gives the term.
    pub(super) async fn prove(self: &Arc<Self>) -> Result<u64, Elsewhere> {
        let term = self.lead().await?;
        if self.rules.load(Ordering::Acquire) {
            return Ok(term);
        }
        let proof = timeout(PROOF_TIME_MAX, self.ask()).await;
        let Ok(Some(index)) = proof else {
            return Err(Elsewhere(None));
        };
        // However it ends, what counts is how things are then.
        let _ = timeout(PROOF_TIME_MAX, self.done_up_to(index)).await;
        let state = self.state.lock();
        match state.raft.leads() {
            Some(now) if now == term && state.raft.applied() >= index => Ok(term),
            _ => Err(self.elsewhere(&state)),
        }
    }

    /// Proof that this replica leads, in which term.
    pub(crate) async fn proof(self: &Arc<Self>) -> Option<u64> {
        self.prove().await.ok()
    }

    /// A linearizable snapshot.
    pub(crate) async fn view(self: &Arc<Self>) -> Result<View, Unseen> {
        // Whatever was acknowledged is done here, and nobody else leads.
        if !self.rules.load(Ordering::Acquire) && !self.outlives_its_log() {
            let proof = match self.is_leader() {
                true => self.prove().await.map(|_| ()),
                false => self.keep_up().await,
            };
            proof.map_err(|Elsewhere(hint)| Unseen::Elsewhere(hint))?;
        }
        self.core.view().map_err(Unseen::Failed)
    }

    /// The only voter answers reads also when its log has failed: nobody else can know more.
    pub(super) fn outlives_its_log(&self) -> bool {
        self.signal.has_failed.load(Ordering::Acquire) && self.state.lock().raft.is_only_voter()
    }

    pub(crate) async fn query<Q: Query>(
        self: &Arc<Self>,
        query: &Q,
    ) -> Result<Q::Output, Refusal<Q::Error>> {
        let view = self.view().await?;
        query.answer(&view).map_err(Refusal::Failed)
    }

    /// Whether a start need not wait for it: it leads, or others may, or it cannot.
    pub(crate) fn is_ready(&self) -> bool {
        self.rules.load(Ordering::Acquire)
            || self.signal.has_failed.load(Ordering::Acquire)
            || !self.state.lock().raft.is_only_voter()
    }

    /// What it says of its shard, if it leads.
    pub(crate) fn led(&self) -> Option<Led> {
        /// A learner that lacks no more than this is as good as a voter.
        const BEHIND_MAX: u64 = 100;

        let state = self.state.lock();
        if !state.is_leader() {
            return None;
        }
        let raft = &state.raft;
        let membership = raft.membership();
        let of = |id: &ReplicaId| membership.device(*id).map(|device| (device, *id));
        let others = raft.others(self.now());
        let device_of = |id: ReplicaId| membership.device(id);
        let last = raft.last().index;
        let ready = others
            .iter()
            .filter(|(_, matched, is_near)| *is_near && matched + BEHIND_MAX >= last);
        let near = others.iter().filter(|(_, _, is_near)| *is_near);
        let near = near.filter_map(|(id, ..)| device_of(*id));
        Some(Led {
            shard: self.shard(),
            leader: self.device,
            term: raft.term(),
            voters: membership.voters().iter().filter_map(of).collect(),
            learners: membership.learners().filter_map(|id| of(&id)).collect(),
            ready: ready.filter_map(|(id, ..)| device_of(*id)).collect(),
            near: near.chain([self.device]).collect(),
            is_settled: raft.is_settled(),
        })
    }

    /// How it stands in its group.
    pub(crate) fn stand(&self) -> Stand {
        let state = self.state.lock();
        let raft = &state.raft;
        let last = raft.last().index;
        let others = raft.others(self.now());
        let behind = others
            .iter()
            .map(|(_, matched, _)| last.saturating_sub(*matched))
            .max();
        Stand {
            leads: state.is_leader(),
            has_leader: raft.leader().is_some() && !state.is_over,
            behind: behind.unwrap_or_default(),
        }
    }

    /// Makes this the membership of the group, if it still leads in this term; returns when the change
    /// has begun.
    pub(crate) fn change(
        self: &Arc<Self>,
        term: u64,
        voters: &[(DeviceId, ReplicaId)],
        learners: &[(DeviceId, ReplicaId)],
    ) -> Result<(), Refused> {
        let members = |all: &[(DeviceId, ReplicaId)]| -> Vec<_> {
            all.iter().map(|(device, id)| (*id, *device)).collect()
        };
        let wanted = raft::Membership::new(members(voters), members(learners));
        let mut state = self.state.lock();
        if state.is_over || state.raft.term() != term {
            return Err(Refused::NotLeader);
        }
        state.raft.change(self.now(), &wanted)?;
        self.act(&mut state);
        drop(state);
        self.signal.changed.notify_one();
        Ok(())
    }

    /// Lets the replica on this device lead.
    pub(crate) fn transfer(self: &Arc<Self>, to: DeviceId) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.is_over {
            return Err(Refused::NotLeader);
        }
        let mut members = state.raft.membership().members();
        let to = members.find(|(_, device)| *device == to);
        let (to, _) = to.ok_or(Refused::Impossible)?;
        drop(members);
        state.raft.transfer(self.now(), to)?;
        self.act(&mut state);
        Ok(())
    }
}
