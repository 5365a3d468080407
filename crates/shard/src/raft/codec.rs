//! The bodies of a shard's records in the log, and what the tree remembers of Raft; bytes in
//! docs/formats/log.md and docs/formats/tree.md.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::{CommittedLeaderId, EmptyNode, EntryPayload, LeaderId};

use super::{Entry, LogId, Membership, NodeId, Proposal, StoredMembership, Vote};
use crate::Error;
use crate::batch::split;

const VERSION: u8 = 1;

const BLANK: u8 = 0;
const EFFECTS: u8 = 1;
const MEMBERSHIP: u8 = 2;
const CUT: u8 = 3;

/// An entry record of the log.
#[derive(Debug)]
pub(crate) enum LogRecord {
    Entry(Entry),
    /// The entries from this one on are gone.
    Cut(LogId),
}

impl LogRecord {
    /// In pieces, so that the batches are not copied.
    pub(crate) fn encode_entry(entry: &Entry) -> Vec<Bytes> {
        match &entry.payload {
            EntryPayload::Blank => vec![head(BLANK, entry.log_id, 0).freeze()],
            EntryPayload::Normal(proposal) => {
                let mut head = head(EFFECTS, entry.log_id, 8);
                head.put_u64_le(proposal.time());
                let mut pieces = Vec::with_capacity(1 + proposal.batches().len());
                pieces.push(head.freeze());
                pieces.extend_from_slice(proposal.batches());
                pieces
            }
            EntryPayload::Membership(membership) => {
                let mut head = head(MEMBERSHIP, entry.log_id, 64);
                put_membership(&mut head, membership);
                vec![head.freeze()]
            }
        }
    }

    pub(crate) fn encode_cut(from: LogId) -> Vec<Bytes> {
        vec![head(CUT, from, 0).freeze()]
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self, Error> {
        let decoded = get_head(&mut body).and_then(|(kind, log_id)| {
            let payload = match kind {
                CUT => return Some(Self::Cut(log_id)),
                BLANK => EntryPayload::Blank,
                EFFECTS => {
                    let time = body.try_get_u64_le().ok()?;
                    let batches = vec![std::mem::take(&mut body)];
                    EntryPayload::Normal(Proposal::new(time, batches, None))
                }
                MEMBERSHIP => EntryPayload::Membership(get_membership(&mut body)?),
                _ => return None,
            };
            Some(Self::Entry(Entry { log_id, payload }))
        });
        decoded
            .filter(|_| body.is_empty())
            .ok_or_else(|| Error::Damaged("an entry in the log".into()))
    }
}

fn head(kind: u8, log_id: LogId, more: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(26 + more);
    out.put_u8(VERSION);
    out.put_u8(kind);
    put_log_id(&mut out, log_id);
    out
}

fn get_head(body: &mut Bytes) -> Option<(u8, LogId)> {
    if body.try_get_u8().ok()? != VERSION {
        return None;
    }
    let kind = body.try_get_u8().ok()?;
    Some((kind, get_log_id(body)?))
}

fn put_log_id(out: &mut BytesMut, log_id: LogId) {
    out.put_u64_le(log_id.leader_id.term);
    out.put_u64_le(log_id.leader_id.node_id);
    out.put_u64_le(log_id.index);
}

fn get_log_id(body: &mut Bytes) -> Option<LogId> {
    let term = body.try_get_u64_le().ok()?;
    let node = body.try_get_u64_le().ok()?;
    let index = body.try_get_u64_le().ok()?;
    Some(LogId::new(CommittedLeaderId::new(term, node), index))
}

fn put_membership(out: &mut BytesMut, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.put_u16_le(count(configs.len()));
    for voters in configs {
        put_nodes(out, voters.iter());
    }
    let nodes: Vec<_> = membership.nodes().map(|(node, _)| node).collect();
    put_nodes(out, nodes.into_iter());
}

fn put_nodes<'a>(out: &mut BytesMut, nodes: impl ExactSizeIterator<Item = &'a NodeId>) {
    out.put_u16_le(count(nodes.len()));
    for node in nodes {
        out.put_u64_le(*node);
    }
}

fn get_membership(body: &mut Bytes) -> Option<Membership> {
    let configs = body.try_get_u16_le().ok()?;
    let configs = (0..configs).map(|_| get_nodes(body));
    let configs: Vec<_> = configs.collect::<Option<_>>()?;
    let nodes = get_nodes(body)?;
    let named = |set: &BTreeSet<NodeId>| set.is_subset(&nodes);
    if !configs.iter().all(named) {
        return None;
    }
    let nodes = nodes.into_iter().map(|node| (node, EmptyNode::new()));
    let nodes: BTreeMap<_, _> = nodes.collect();
    Some(Membership::new(configs, nodes))
}

fn get_nodes(body: &mut Bytes) -> Option<BTreeSet<NodeId>> {
    let count = body.try_get_u16_le().ok()?;
    (0..count).map(|_| body.try_get_u64_le().ok()).collect()
}

fn count(len: usize) -> u16 {
    u16::try_from(len).expect("a shard has a handful of voters")
}

/// The state record of a shard: its vote.
pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(18);
    out.put_u8(VERSION);
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.node_id);
    out.put_u8(vote.committed.into());
    out.freeze()
}

pub(crate) fn decode_vote(mut body: Bytes) -> Result<Vote, Error> {
    let mut decode = || {
        if body.try_get_u8().ok()? != VERSION {
            return None;
        }
        let term = body.try_get_u64_le().ok()?;
        let node = body.try_get_u64_le().ok()?;
        let committed = body.try_get_u8().ok()? == 1;
        Some(Vote {
            leader_id: LeaderId::new(term, node),
            committed,
        })
    };
    decode().ok_or_else(|| Error::Damaged("a vote in the log".into()))
}

/// What the tree remembers of a shard beside its rows: up to where they are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memo {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// The newest time that a procedure was given, in ticks.
    pub(crate) time: u64,
}

impl Memo {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(VERSION);
        out.put_u64_le(self.time);
        for log_id in [&self.applied, self.membership.log_id()] {
            out.put_u8(log_id.is_some().into());
            put_log_id(&mut out, log_id.unwrap_or_default());
        }
        put_membership(&mut out, self.membership.membership());
        out.freeze()
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self, Error> {
        let mut decode = || {
            if body.try_get_u8().ok()? != VERSION {
                return None;
            }
            let time = body.try_get_u64_le().ok()?;
            let mut log_id = || {
                let is_some = body.try_get_u8().ok()? == 1;
                let log_id = get_log_id(&mut body)?;
                Some(is_some.then_some(log_id))
            };
            let (applied, made) = (log_id()?, log_id()?);
            let membership = StoredMembership::new(made, get_membership(&mut body)?);
            body.is_empty().then_some(Self {
                applied,
                membership,
                time,
            })
        };
        decode().ok_or_else(|| Error::Damaged("the memo of a shard in the tree".into()))
    }

    /// Whether the group has one voter.
    pub(crate) fn is_alone(&self) -> bool {
        self.membership.voter_ids().count() == 1
    }

    /// The index of the first entry that is not applied.
    pub(crate) fn next_index(&self) -> u64 {
        self.applied.map_or(0, |log_id| log_id.index + 1)
    }
}

/// Splits a length-prefixed piece off `bytes`.
pub(crate) fn get_piece(bytes: &mut Bytes) -> Option<Bytes> {
    let len = bytes.try_get_u32_le().ok()? as usize;
    split(bytes, len)
}

pub(crate) fn put_piece(out: &mut BytesMut, piece: &[u8]) {
    out.put_u32_le(u32::try_from(piece.len()).expect("rows are far smaller than 4 GiB"));
    out.put_slice(piece);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(3, 9), index)
    }

    fn membership() -> Membership {
        let voters = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
        let nodes = [1, 2, 3, 4].map(|node| (node, EmptyNode::new()));
        Membership::new(voters, BTreeMap::from(nodes))
    }

    #[test]
    fn entries_read_as_they_were_written() {
        let proposal = Proposal::new(77, vec!["batch".into(), "es".into()], None);
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(proposal),
            EntryPayload::Membership(membership()),
        ];
        for payload in payloads {
            let entry = Entry {
                log_id: log_id(5),
                payload,
            };
            let body: Bytes = LogRecord::encode_entry(&entry).concat().into();
            let LogRecord::Entry(read) = LogRecord::decode(body.clone()).unwrap() else {
                panic!("a cut");
            };
            assert_eq!(read.log_id, entry.log_id);
            match (&read.payload, &entry.payload) {
                (EntryPayload::Normal(a), EntryPayload::Normal(b)) => {
                    assert_eq!(a.batches().concat(), b.batches().concat());
                    assert_eq!(a.time(), b.time());
                }
                (a, b) => assert_eq!(format!("{a:?}"), format!("{b:?}")),
            }
            for end in 0..26 {
                assert!(LogRecord::decode(body.slice(..end)).is_err(), "{end}");
            }
        }
        let cut = LogRecord::decode(LogRecord::encode_cut(log_id(8)).concat().into());
        assert!(matches!(cut, Ok(LogRecord::Cut(at)) if at == log_id(8)));
    }

    #[test]
    fn votes_and_memos_read_as_they_were_written() {
        let vote = Vote::new_committed(7, 1);
        assert_eq!(decode_vote(encode_vote(&vote)).unwrap(), vote);
        assert!(decode_vote(Bytes::from_static(b"\x01")).is_err());

        let memo = Memo {
            applied: Some(log_id(4)),
            membership: StoredMembership::new(Some(log_id(2)), membership()),
            time: 99,
        };
        for memo in [memo, Memo::default()] {
            let body = memo.encode();
            assert_eq!(Memo::decode(body.clone()).unwrap(), memo);
            assert!(Memo::decode(body.slice(1..)).is_err());
            assert!(Memo::decode(body.slice(..body.len() - 1)).is_err());
        }
    }
}
