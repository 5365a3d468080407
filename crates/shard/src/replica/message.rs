//! The wire form of messages between replicas; byte by byte in docs/formats/replica.md.

use base::DeviceId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::{Appended, Body, LogId, ReplicaId};

use super::codec::{get_log_id, get_piece, put_log_id, put_piece};
use super::{LogRecord, Message};

const VERSION: u8 = 1;

const CANVASS: u8 = 0;
const CANVASS_REPLY: u8 = 1;
const VOTE: u8 = 2;
const VOTE_REPLY: u8 = 3;
const APPEND: u8 = 4;
const MATCHED: u8 = 5;
const REJECTED: u8 = 6;
const ALIVE: u8 = 7;
const TAKE_OVER: u8 = 8;
const READ_INDEX: u8 = 9;
const READ_INDEX_REPLY: u8 = 10;

/// A message of a replica on `from`.
pub(crate) fn encode(from: DeviceId, message: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(VERSION);
    out.put_u128_le(from.0);
    out.put_u64_le(message.from.0);
    out.put_u64_le(message.to.0);
    out.put_u64_le(message.term);
    match &message.body {
        Body::Canvass { last } => {
            out.put_u8(CANVASS);
            put_log_id(&mut out, *last);
        }
        Body::CanvassReply { granted } => {
            out.put_u8(CANVASS_REPLY);
            out.put_u8((*granted).into());
        }
        Body::Vote { last, is_transfer } => {
            out.put_u8(VOTE);
            put_log_id(&mut out, *last);
            out.put_u8((*is_transfer).into());
        }
        Body::VoteReply { granted } => {
            out.put_u8(VOTE_REPLY);
            out.put_u8((*granted).into());
        }
        Body::Append {
            prev,
            entries,
            commit,
            keep,
            round,
        } => {
            out.put_u8(APPEND);
            put_log_id(&mut out, *prev);
            for number in [commit, keep, round] {
                out.put_u64_le(*number);
            }
            for entry in entries {
                put_piece(&mut out, &LogRecord::encode_entry(entry));
            }
        }
        Body::AppendReply { round, outcome } => {
            match outcome {
                Appended::Matched(index) => {
                    out.put_u8(MATCHED);
                    out.put_u64_le(*index);
                }
                Appended::Rejected { prev, last } => {
                    out.put_u8(REJECTED);
                    out.put_u64_le(*prev);
                    out.put_u64_le(*last);
                }
                Appended::Alive => out.put_u8(ALIVE),
            }
            out.put_u64_le(*round);
        }
        Body::TakeOver => out.put_u8(TAKE_OVER),
        Body::ReadIndex { number } => {
            out.put_u8(READ_INDEX);
            out.put_u64_le(*number);
        }
        Body::ReadIndexReply { number, index } => {
            out.put_u8(READ_INDEX_REPLY);
            out.put_u64_le(*number);
            out.put_u64_le(*index);
        }
    }
    out.freeze()
}

/// `None` for bytes that are no message of this version.
pub(crate) fn decode(mut bytes: Bytes) -> Option<(DeviceId, Message)> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let device = DeviceId(bytes.try_get_u128_le().ok()?);
    let mut replica = || bytes.try_get_u64_le().ok().map(ReplicaId);
    let (from, to) = (replica()?, replica()?);
    let term = bytes.try_get_u64_le().ok()?;
    let body = decode_body(&mut bytes)?;
    bytes.is_empty().then_some((
        device,
        Message {
            from,
            to,
            term,
            body,
        },
    ))
}

fn decode_body(bytes: &mut Bytes) -> Option<Body<super::Effects>> {
    Some(match bytes.try_get_u8().ok()? {
        CANVASS => Body::Canvass {
            last: get_log_id(bytes)?,
        },
        CANVASS_REPLY => Body::CanvassReply {
            granted: get_bool(bytes)?,
        },
        VOTE => Body::Vote {
            last: get_log_id(bytes)?,
            is_transfer: get_bool(bytes)?,
        },
        VOTE_REPLY => Body::VoteReply {
            granted: get_bool(bytes)?,
        },
        APPEND => decode_append(bytes)?,
        MATCHED => reply(Appended::Matched(get_u64(bytes)?), bytes)?,
        REJECTED => {
            let outcome = Appended::Rejected {
                prev: get_u64(bytes)?,
                last: get_u64(bytes)?,
            };
            reply(outcome, bytes)?
        }
        ALIVE => reply(Appended::Alive, bytes)?,
        TAKE_OVER => Body::TakeOver,
        READ_INDEX => Body::ReadIndex {
            number: get_u64(bytes)?,
        },
        READ_INDEX_REPLY => Body::ReadIndexReply {
            number: get_u64(bytes)?,
            index: get_u64(bytes)?,
        },
        _ => return None,
    })
}

fn decode_append(bytes: &mut Bytes) -> Option<Body<super::Effects>> {
    let prev: LogId = get_log_id(bytes)?;
    let mut number = || get_u64(bytes);
    let (commit, keep, round) = (number()?, number()?, number()?);
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        match LogRecord::decode(get_piece(bytes)?) {
            Ok(LogRecord::Entry(entry)) => entries.push(entry),
            Ok(LogRecord::Cut(_)) | Err(_) => return None,
        }
    }
    Some(Body::Append {
        prev,
        entries,
        commit,
        keep,
        round,
    })
}

fn reply(outcome: Appended, bytes: &mut Bytes) -> Option<Body<super::Effects>> {
    let round = get_u64(bytes)?;
    Some(Body::AppendReply { round, outcome })
}

fn get_u64(bytes: &mut Bytes) -> Option<u64> {
    bytes.try_get_u64_le().ok()
}

fn get_bool(bytes: &mut Bytes) -> Option<bool> {
    match bytes.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use raft::{Entry, Payload};

    use super::*;
    use crate::replica::Effects;

    fn messages() -> Vec<Message> {
        let id = |index| LogId { term: 3, index };
        let effects = Effects {
            time: 9,
            request: crate::call::RequestId {
                origin: 1,
                number: 2,
            },
            batch: Bytes::from_static(b"batch"),
            outcome: Bytes::from_static(b"outcome"),
        };
        let entries = vec![
            Entry {
                id: id(8),
                payload: Payload::Blank,
            },
            Entry {
                id: id(9),
                payload: Payload::Data(effects),
            },
        ];
        let reply = |outcome| Body::AppendReply { round: 4, outcome };
        let bodies = vec![
            Body::Canvass { last: id(7) },
            Body::CanvassReply { granted: true },
            Body::Vote {
                last: id(7),
                is_transfer: true,
            },
            Body::VoteReply { granted: false },
            Body::Append {
                prev: id(7),
                entries,
                commit: 6,
                keep: 5,
                round: 4,
            },
            reply(Appended::Matched(9)),
            reply(Appended::Rejected { prev: 9, last: 7 }),
            reply(Appended::Alive),
            Body::TakeOver,
            Body::ReadIndex { number: 8 },
            Body::ReadIndexReply {
                number: 8,
                index: 9,
            },
        ];
        let message = |body| Message {
            from: ReplicaId(1),
            to: ReplicaId(2),
            term: 3,
            body,
        };
        bodies.into_iter().map(message).collect()
    }

    #[test]
    fn messages_read_as_they_were_written() {
        for message in messages() {
            let bytes = encode(DeviceId(5), &message);
            assert_eq!(decode(bytes.clone()), Some((DeviceId(5), message)));
            // An append without its last entries is another append.
            for end in 0..bytes.len().min(40) {
                assert_eq!(decode(bytes.slice(..end)), None, "{end}");
            }
        }
    }

    #[test]
    fn anything_may_come_and_nothing_panics() {
        let seed = 0x1234_5678_9abc_def0_u64;
        let mut random = testkit::Random::new(seed);
        for message in messages() {
            let bytes = encode(DeviceId(5), &message);
            for _ in 0..2000 {
                let mut spoiled = bytes.to_vec();
                for _ in 0..=random.below(3) {
                    let at = usize::try_from(random.below(spoiled.len() as u64)).unwrap();
                    spoiled[at] ^= 1 << random.below(8);
                }
                if let Some((device, read)) = decode(spoiled.clone().into()) {
                    assert_eq!(encode(device, &read), spoiled, "seed {seed:x}");
                }
            }
        }
    }
}
