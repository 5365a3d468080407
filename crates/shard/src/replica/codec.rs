//! The bodies of a replica's records in the log, and what the tree remembers of it; bytes in
//! docs/formats/log.md and docs/formats/tree.md.

use std::collections::{BTreeMap, BTreeSet};

use base::DeviceId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::{Ballot, LogId, Membership, Payload, ReplicaId};

use super::{Effects, Entry};
use crate::Error;
use crate::batch::split;
use crate::call::RequestId;

/// Of a state and a memo.
const VERSION: u8 = 1;
const ENTRY_VERSION: u8 = 2;

const BLANK: u8 = 0;
const EFFECTS: u8 = 1;
const MEMBERSHIP: u8 = 2;
const CUT: u8 = 3;

/// An entry record of the log.
#[derive(Debug)]
pub(crate) enum LogRecord {
    Entry(Entry),
    /// The entries from this index on are gone.
    Cut(u64),
}

/// Version, kind, term and index; and of effects the time, the id of the call and the length of its outcome.
const HEAD_BYTES: usize = 46;

impl LogRecord {
    /// In pieces, so that the batch is not copied.
    pub(crate) fn encode_entry(entry: &Entry) -> Vec<Bytes> {
        match &entry.payload {
            Payload::Blank => vec![head(BLANK, entry.id).freeze()],
            Payload::Data(effects) => {
                let mut head = head(EFFECTS, entry.id);
                head.put_u64_le(effects.time);
                head.put_u64_le(effects.request.origin);
                head.put_u64_le(effects.request.number);
                let outcome = &effects.outcome;
                head.put_u32_le(u32::try_from(outcome.len()).expect("an outcome is short"));
                vec![head.freeze(), effects.batch.clone(), outcome.clone()]
            }
            Payload::Membership(membership) => {
                let mut head = head(MEMBERSHIP, entry.id);
                put_membership(&mut head, membership);
                vec![head.freeze()]
            }
        }
    }

    pub(crate) fn encode_cut(from: u64) -> Vec<Bytes> {
        let from = LogId {
            term: 0,
            index: from,
        };
        vec![head(CUT, from).freeze()]
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self, Error> {
        let version = body.first().copied();
        if let Some(version) = version.filter(|version| *version != ENTRY_VERSION) {
            return Err(Error::Damaged(format!(
                "an entry in the log has format {version}, this program knows {ENTRY_VERSION}"
            )));
        }
        let decoded = get_head(&mut body).and_then(|(kind, id)| {
            let payload = match kind {
                CUT => return Some(Self::Cut(id.index)),
                BLANK => Payload::Blank,
                EFFECTS => Payload::Data(get_effects(&mut body)?),
                MEMBERSHIP => Payload::Membership(get_membership(&mut body)?),
                _ => return None,
            };
            Some(Self::Entry(Entry { id, payload }))
        });
        decoded
            .filter(|_| body.is_empty())
            .ok_or_else(|| Error::Damaged("an entry in the log".into()))
    }
}

fn head(kind: u8, id: LogId) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEAD_BYTES);
    out.put_u8(ENTRY_VERSION);
    out.put_u8(kind);
    put_log_id(&mut out, id);
    out
}

fn get_head(body: &mut Bytes) -> Option<(u8, LogId)> {
    if body.try_get_u8().ok()? != ENTRY_VERSION {
        return None;
    }
    let kind = body.try_get_u8().ok()?;
    Some((kind, get_log_id(body)?))
}

fn get_effects(body: &mut Bytes) -> Option<Effects> {
    let time = body.try_get_u64_le().ok()?;
    let request = RequestId {
        origin: body.try_get_u64_le().ok()?,
        number: body.try_get_u64_le().ok()?,
    };
    let outcome_bytes = body.try_get_u32_le().ok()? as usize;
    let batch_bytes = body.len().checked_sub(outcome_bytes)?;
    let batch = split(body, batch_bytes)?;
    Some(Effects {
        time,
        request,
        batch,
        outcome: std::mem::take(body),
    })
}

pub(super) fn put_log_id(out: &mut BytesMut, id: LogId) {
    out.put_u64_le(id.term);
    out.put_u64_le(id.index);
}

pub(super) fn get_log_id(body: &mut Bytes) -> Option<LogId> {
    let term = body.try_get_u64_le().ok()?;
    let index = body.try_get_u64_le().ok()?;
    Some(LogId { term, index })
}

fn put_membership(out: &mut BytesMut, membership: &Membership) {
    for voters in [membership.voters(), membership.outgoing()] {
        out.put_u16_le(count(voters.len()));
        for replica in voters {
            out.put_u64_le(replica.0);
        }
    }
    let members = membership.members();
    out.put_u16_le(count(members.len()));
    for (replica, device) in members {
        out.put_u64_le(replica.0);
        out.put_u128_le(device.0);
    }
}

fn get_membership(body: &mut Bytes) -> Option<Membership> {
    let mut voters = || -> Option<BTreeSet<ReplicaId>> {
        let count = body.try_get_u16_le().ok()?;
        (0..count)
            .map(|_| body.try_get_u64_le().ok().map(ReplicaId))
            .collect()
    };
    let (voters, outgoing) = (voters()?, voters()?);
    let count = body.try_get_u16_le().ok()?;
    let member = |_| {
        let replica = ReplicaId(body.try_get_u64_le().ok()?);
        Some((replica, DeviceId(body.try_get_u128_le().ok()?)))
    };
    let devices: BTreeMap<_, _> = (0..count).map(member).collect::<Option<_>>()?;
    Membership::from_parts(voters, outgoing, devices)
}

fn count(len: usize) -> u16 {
    u16::try_from(len).expect("a shard has a handful of replicas")
}

/// The state record of a shard: who lives here, and what it has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateRecord {
    /// 0 when the last one has been given up.
    pub(crate) replica: ReplicaId,
    pub(crate) ballot: Ballot,
}

impl StateRecord {
    /// Nobody lives here any more.
    pub(crate) const NOBODY: Self = Self {
        replica: ReplicaId(0),
        ballot: Ballot {
            term: 0,
            voted: None,
        },
    };

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(25);
        out.put_u8(VERSION);
        out.put_u64_le(self.replica.0);
        out.put_u64_le(self.ballot.term);
        out.put_u64_le(self.ballot.voted.map_or(0, |voted| voted.0));
        out.freeze()
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self, Error> {
        let mut decode = || {
            if body.try_get_u8().ok()? != VERSION {
                return None;
            }
            let replica = ReplicaId(body.try_get_u64_le().ok()?);
            let term = body.try_get_u64_le().ok()?;
            let voted = body.try_get_u64_le().ok()?;
            let voted = (voted != 0).then_some(ReplicaId(voted));
            body.is_empty().then_some(Self {
                replica,
                ballot: Ballot { term, voted },
            })
        };
        decode().ok_or_else(|| Error::Damaged("a vote in the log".into()))
    }
}

/// What the tree remembers of a replica beside the shard's rows: up to where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memo {
    pub(crate) replica: ReplicaId,
    pub(crate) applied: LogId,
    pub(crate) membership: Membership,
    /// The newest time that a procedure was given, in ticks.
    pub(crate) time: u64,
}

impl Memo {
    /// Of a replica that knows nothing yet.
    pub(crate) fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            applied: LogId::default(),
            membership: Membership::default(),
            time: 0,
        }
    }

    /// Of the first replica of a new shard: the only voter.
    pub(crate) fn first(replica: ReplicaId, device: DeviceId) -> Self {
        Self {
            // Whoever has nothing is behind that.
            applied: LogId { term: 0, index: 1 },
            membership: Membership::alone(replica, device),
            ..Self::new(replica)
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(VERSION);
        out.put_u64_le(self.replica.0);
        out.put_u64_le(self.time);
        put_log_id(&mut out, self.applied);
        put_membership(&mut out, &self.membership);
        out.freeze()
    }

    pub(crate) fn decode(mut body: Bytes) -> Result<Self, Error> {
        let mut decode = || {
            if body.try_get_u8().ok()? != VERSION {
                return None;
            }
            let replica = ReplicaId(body.try_get_u64_le().ok()?);
            let time = body.try_get_u64_le().ok()?;
            let applied = get_log_id(&mut body)?;
            let membership = get_membership(&mut body)?;
            body.is_empty().then_some(Self {
                replica,
                applied,
                membership,
                time,
            })
        };
        decode().ok_or_else(|| Error::Damaged("the memo of a shard in the tree".into()))
    }
}

/// Splits a length-prefixed piece off `bytes`.
pub(crate) fn get_piece(bytes: &mut Bytes) -> Option<Bytes> {
    let len = bytes.try_get_u32_le().ok()? as usize;
    split(bytes, len)
}

pub(crate) fn put_piece<P: AsRef<[u8]>>(out: &mut BytesMut, parts: &[P]) {
    let len = parts.iter().map(|part| part.as_ref().len()).sum::<usize>();
    out.put_u32_le(u32::try_from(len).expect("rows are far smaller than 4 GiB"));
    for part in parts {
        out.put_slice(part.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LogId = LogId { term: 3, index: 5 };

    fn membership() -> Membership {
        let set = |ids: &[u64]| ids.iter().map(|id| ReplicaId(*id)).collect();
        let devices = [1, 2, 3, 4].map(|id| (ReplicaId(id), DeviceId(u128::from(id) << 100)));
        let parts = (set(&[1, 2]), set(&[2, 3]), BTreeMap::from(devices));
        Membership::from_parts(parts.0, parts.1, parts.2).unwrap()
    }

    fn effects() -> Effects {
        Effects {
            time: 77,
            request: RequestId {
                origin: 8,
                number: 9,
            },
            batch: "batch".into(),
            outcome: "outcome".into(),
        }
    }

    #[test]
    fn an_entry_of_another_version_is_refused_by_name() {
        let blank = Payload::Blank;
        let entry = Entry {
            id: ID,
            payload: blank,
        };
        let mut body = LogRecord::encode_entry(&entry).concat();
        body[0] = 1;
        let refused = LogRecord::decode(body.into()).unwrap_err().to_string();
        assert!(
            refused.contains("format 1, this program knows 2"),
            "{refused}"
        );
    }

    #[test]
    fn entries_read_as_they_were_written() {
        let payloads = [
            Payload::Blank,
            Payload::Data(effects()),
            Payload::Membership(membership()),
        ];
        for payload in payloads {
            let entry = Entry { id: ID, payload };
            let body: Bytes = LogRecord::encode_entry(&entry).concat().into();
            let LogRecord::Entry(read) = LogRecord::decode(body.clone()).unwrap() else {
                panic!("a cut");
            };
            assert_eq!(read, entry);
            for end in 0..18 {
                assert!(LogRecord::decode(body.slice(..end)).is_err(), "{end}");
            }
        }
        let cut = LogRecord::decode(LogRecord::encode_cut(8).concat().into());
        assert!(matches!(cut, Ok(LogRecord::Cut(8))));
    }

    #[test]
    fn votes_and_memos_read_as_they_were_written() {
        for voted in [None, Some(ReplicaId(1))] {
            let state = StateRecord {
                replica: ReplicaId(4),
                ballot: Ballot { term: 7, voted },
            };
            assert_eq!(StateRecord::decode(state.encode()).unwrap(), state);
        }
        assert!(StateRecord::decode(Bytes::from_static(b"\x01")).is_err());

        let memo = Memo {
            replica: ReplicaId(1),
            applied: ID,
            membership: membership(),
            time: 99,
        };
        for memo in [memo, Memo::new(ReplicaId(2))] {
            let body = memo.encode();
            assert_eq!(Memo::decode(body.clone()).unwrap(), memo);
            assert!(Memo::decode(body.slice(1..)).is_err());
            assert!(Memo::decode(body.slice(..body.len() - 1)).is_err());
        }
    }

    /// One line for each sample: what it is, and its bytes in hexadecimal. `BLESS=1` rewrites the file.
    #[test]
    fn the_formats_stay() {
        let entry = |payload| LogRecord::encode_entry(&Entry { id: ID, payload }).concat();
        let state = StateRecord {
            replica: ReplicaId(4),
            ballot: Ballot {
                term: 7,
                voted: Some(ReplicaId(1)),
            },
        };
        let memo = Memo {
            replica: ReplicaId(1),
            applied: ID,
            membership: membership(),
            time: 99,
        };
        let samples = [
            ("blank", entry(Payload::Blank)),
            ("effects", entry(Payload::Data(effects()))),
            ("membership", entry(Payload::Membership(membership()))),
            ("cut", LogRecord::encode_cut(8).concat()),
            ("state", state.encode().to_vec()),
            ("memo", memo.encode().to_vec()),
        ];
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let lines = samples
            .iter()
            .map(|(name, bytes)| format!("{name} {}\n", hex(bytes)));
        let text: String = lines.collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/replica-2.txt");
        if std::env::var_os("BLESS").is_some() {
            #[expect(clippy::disallowed_methods, reason = "a file of the repository")]
            std::fs::write(path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap();
        // That what is written reads as it was, other tests say.
        assert_eq!(text, golden, "the format has changed");
    }
}
