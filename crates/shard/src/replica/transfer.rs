//! How a replica that is too far behind gets the whole shard: pieces of the leader's tree, one at a time,
//! into a file, and then in place of its own state; bytes in docs/formats/replica.md.
//!
//! A piece whose answer is lost is sent again; who receives says which one it wants. Two transfers are under
//! way from a device at a time, however many replicas are behind.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::DeviceId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::{LogId, ReplicaId};

use super::codec::{get_log_id, get_piece, put_log_id, put_piece};
use super::{Fate, Memo, Replica, SnapshotData, Spool, State};
use crate::Error;

const VERSION: u8 = 1;

/// A piece is tried again so often, with growing pauses: half a minute in all.
const TRIES_MAX: u32 = 8;
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Before a transfer that failed is begun anew.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);
/// What is on its way to the disk takes no longer, or the device is out of service.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(1);

/// What comes before the rows of each piece.
struct Head {
    from: ReplicaId,
    to: ReplicaId,
    term: u64,
    base: LogId,
    number: u32,
    is_last: bool,
}

/// What the receiver says of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It goes on with the piece of this number.
    Wants(u32),
    /// All of it has taken the place of the replica's state, or is no news.
    Done,
    /// It does not take this snapshot.
    Refused,
}

/// A snapshot that is coming in.
pub(super) struct Receiving {
    from: ReplicaId,
    base: LogId,
    memo: Memo,
    spool: Spool,
    next: u32,
}

impl Replica {
    /// Begins to send a snapshot, unless one is under way to that replica.
    pub(super) fn send_snapshot(self: &Arc<Self>, state: &mut State, to: ReplicaId) {
        let device = state.raft.membership().device(to);
        let Some(device) = device.filter(|_| !state.sending.contains(&to)) else {
            return;
        };
        state.sending.push(to);
        let me = self.clone();
        let term = state.raft.term();
        tokio::spawn(async move {
            let sent = me.send_state(to, device, term).await;
            if sent.is_none() {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
            let mut state = me.state.lock();
            state.sending.retain(|one| *one != to);
            state.raft.snapshot_sent(me.now(), to, sent);
            me.act(&mut state);
        });
    }

    /// Sends the shard as its tree has it; gives up to where that was.
    async fn send_state(
        self: &Arc<Self>,
        to: ReplicaId,
        device: DeviceId,
        term: u64,
    ) -> Option<u64> {
        let _turn = self.host.transfers().acquire().await.ok()?;
        let (host, shard) = (self.host.clone(), self.shard());
        let opened = off(move || SnapshotData::of_tree(host.tree(), shard)).await;
        let (memo, mut data) = opened
            .inspect_err(|error| tracing::error!(%shard, %error, "no snapshot can be made"))
            .ok()?;
        let started = self.now();
        tracing::info!(%shard, %device, base = %memo.applied, "sending a snapshot");
        let mut piece = Bytes::new();
        let mut head = Head {
            from: self.id(),
            to,
            term,
            base: memo.applied,
            number: 0,
            is_last: false,
        };
        loop {
            let (read, back) = off(move || (data.next_piece(), data)).await;
            data = back;
            let next = read
                .inspect_err(|error| tracing::error!(%shard, %error, "a snapshot breaks off"))
                .ok()?;
            head.is_last = next.is_none();
            let sent = self.send_piece(device, &head, &memo, &piece).await?;
            if sent == Answer::Done {
                let seconds = (self.now() - started).as_secs_f64();
                tracing::info!(%shard, %device, seconds, pieces = head.number, "snapshot installed");
                return Some(memo.applied.index);
            }
            head.number += 1;
            piece = next?;
        }
    }

    /// Sends a piece until it is answered for.
    async fn send_piece(
        &self,
        device: DeviceId,
        head: &Head,
        memo: &Memo,
        rows: &Bytes,
    ) -> Option<Answer> {
        let mut pause = PAUSE_MIN;
        for _ in 0..TRIES_MAX {
            if !self.state.lock().is_leader() {
                return None;
            }
            let piece = head.encode(memo, rows);
            let answer = self.post.send_piece(device, self.shard(), piece).await;
            match answer.ok().and_then(Answer::decode) {
                Some(Answer::Done) => return Some(Answer::Done),
                Some(answer @ Answer::Wants(number)) if number == head.number + 1 => {
                    return Some(answer);
                }
                // It has lost what came before.
                Some(Answer::Wants(number)) if number != head.number => return None,
                Some(Answer::Refused) => return None,
                Some(Answer::Wants(_)) | None => {}
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        None
    }

    /// Takes a piece of a snapshot; gives the answer for its sender.
    pub(crate) async fn receive_piece(self: &Arc<Self>, piece: Bytes) -> Bytes {
        let mut receiving = self.receiving.lock().await;
        let answer = match Head::decode(piece) {
            Some((head, memo, rows)) => self.take_piece(&mut receiving, head, memo, &rows).await,
            None => Answer::Refused,
        };
        answer.encode()
    }

    async fn take_piece(
        self: &Arc<Self>,
        receiving: &mut Option<Receiving>,
        head: Head,
        memo: Option<Memo>,
        rows: &Bytes,
    ) -> Answer {
        if head.to != self.id() || self.state.lock().is_over {
            return Answer::Refused;
        }
        let is_known = receiving
            .as_ref()
            .is_some_and(|one| (one.from, one.base) == (head.from, head.base));
        if !is_known {
            let (Some(memo), 0) = (memo, head.number) else {
                return Answer::Refused;
            };
            let Ok(spool) = self.host.spool(self.shard()) else {
                return Answer::Refused;
            };
            *receiving = Some(Receiving {
                from: head.from,
                base: head.base,
                memo,
                spool,
                next: 0,
            });
        }
        let one = receiving.as_mut().expect("just looked");
        if head.number != one.next {
            return Answer::Wants(one.next);
        }
        if !rows.is_empty()
            && let Err(error) = one.spool.push(rows)
        {
            tracing::warn!(shard = %self.shard(), %error, "a snapshot cannot be received");
            *receiving = None;
            return Answer::Refused;
        }
        one.next += 1;
        if !head.is_last {
            return Answer::Wants(one.next);
        }
        let one = receiving.take().expect("it is there");
        match self.install(head.term, one).await {
            Ok(()) => Answer::Done,
            Err(error) => {
                let (shard, device) = (self.shard(), self.device);
                tracing::warn!(%shard, %device, %error, "a snapshot was not installed");
                Answer::Refused
            }
        }
    }

    /// Puts a snapshot in the place of the state.
    async fn install(self: &Arc<Self>, term: u64, snapshot: Receiving) -> Result<(), Error> {
        let _applying = self.applying.lock().await;
        let Receiving {
            base, memo, spool, ..
        } = snapshot;
        let expected = {
            let mut state = self.state.lock();
            let expected = state.raft.expect_snapshot(self.now(), term, base);
            self.act(&mut state);
            expected
        };
        let Some(write) = expected else {
            return Ok(());
        };
        self.written(write).await?;
        let memo = Memo {
            replica: self.id(),
            ..memo
        };
        let membership = memo.membership.clone();
        let (host, core) = (self.host.clone(), self.core.clone());
        let mut data = SnapshotData::Spool(spool);
        let installed = off(move || host.install(&core, memo, &mut data)).await;
        installed.map_err(|error| Error::Damaged(error.to_string()))?;
        let mut state = self.state.lock();
        state.raft.installed(base, membership);
        state.outcomes.replaced(base.index);
        // What became of entries that were proposed here is not known from a state.
        state.done(base.index, |_| Fate::Unknown);
        self.act(&mut state);
        drop(state);
        self.signal.changed.notify_one();
        Ok(())
    }

    /// Waits until a write is durable.
    async fn written(&self, write: u64) -> Result<(), Error> {
        let until = self.now() + WRITE_TIME_MAX;
        while self.signal.written.load(Ordering::Acquire) < write {
            if self.signal.has_failed.load(Ordering::Acquire) || self.now() > until {
                return Err(Error::Unknown);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Runs what waits for the disk where it holds up nobody.
async fn off<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run)
        .await
        .expect("reading and writing the tree does not panic")
}

impl Head {
    fn encode(&self, memo: &Memo, rows: &Bytes) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + rows.len());
        out.put_u8(VERSION);
        out.put_u64_le(self.from.0);
        out.put_u64_le(self.to.0);
        out.put_u64_le(self.term);
        put_log_id(&mut out, self.base);
        out.put_u32_le(self.number);
        out.put_u8(self.is_last.into());
        if self.number == 0 {
            put_piece(&mut out, &[memo.encode()]);
        }
        out.put_slice(rows);
        out.freeze()
    }

    fn decode(mut piece: Bytes) -> Option<(Self, Option<Memo>, Bytes)> {
        if piece.try_get_u8().ok()? != VERSION {
            return None;
        }
        let mut number = || piece.try_get_u64_le().ok();
        let (from, to, term) = (number()?, number()?, number()?);
        let head = Self {
            from: ReplicaId(from),
            to: ReplicaId(to),
            term,
            base: get_log_id(&mut piece)?,
            number: piece.try_get_u32_le().ok()?,
            is_last: piece.try_get_u8().ok()? == 1,
        };
        let memo = match head.number {
            0 => Some(Memo::decode(get_piece(&mut piece)?).ok()?),
            _ => None,
        };
        Some((head, memo, piece))
    }
}

impl Answer {
    fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(6);
        out.put_u8(VERSION);
        match self {
            Self::Wants(number) => {
                out.put_u8(0);
                out.put_u32_le(number);
            }
            Self::Done => out.put_u8(1),
            Self::Refused => out.put_u8(2),
        }
        out.freeze()
    }

    fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        match bytes.try_get_u8().ok()? {
            0 => Some(Self::Wants(bytes.try_get_u32_le().ok()?)),
            1 => Some(Self::Done),
            2 => Some(Self::Refused),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_answers_read_as_they_were_written() {
        for number in [0, 7] {
            let head = Head {
                from: ReplicaId(1),
                to: ReplicaId(2),
                term: 3,
                base: LogId { term: 2, index: 9 },
                number,
                is_last: number > 0,
            };
            let memo = Memo::first(ReplicaId(1), DeviceId(4));
            let piece = head.encode(&memo, &Bytes::from_static(b"rows"));
            let (read, its_memo, rows) = Head::decode(piece.clone()).unwrap();
            assert_eq!(
                (read.to, read.base, read.number),
                (head.to, head.base, number)
            );
            assert_eq!(its_memo, (number == 0).then_some(memo));
            assert_eq!(rows, "rows");
            assert!((0..46).all(|end| Head::decode(piece.slice(..end)).is_none()));
        }
        for answer in [Answer::Wants(7), Answer::Done, Answer::Refused] {
            assert_eq!(Answer::decode(answer.encode()), Some(answer));
        }
        assert_eq!(Answer::decode(Bytes::from_static(b"\x01\x09")), None);
    }
}
