//! The services of the node port and the bodies of their calls; docs/formats/node.md has them field by field.

use base::{DeviceId, GroupId, NodeId, ShardId};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use map::Epoch;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::control::Refusal;

/// Messages of Raft, many in one call; the answer has those that could be answered at once.
pub(crate) const RAFT: u16 = 1;
/// A piece of a snapshot.
pub(crate) const PIECE: u16 = 2;
/// A procedure or query.
pub(crate) const CALL: u16 = 3;
/// To the control leader: a report.
pub(crate) const REPORT: u16 = 4;
/// To the node of a device: make a replica.
pub(crate) const PREPARE: u16 = 5;
/// To the node of a member: keep out older writers.
pub(crate) const FENCE: u16 = 6;
/// To the control leader: somebody wants to join.
pub(crate) const JOIN: u16 = 7;
/// To the control leader: how is the cluster?
pub(crate) const STATUS: u16 = 8;
/// To any node: its map, if it is newer than this.
pub(crate) const MAP: u16 = 9;
/// What chunks are asked for: whoever answers that is plugged in.
pub const CHUNKS: std::ops::RangeInclusive<u16> = 64..=127;

const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prepare {
    pub(crate) device: DeviceId,
    pub(crate) shard: ShardId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Raise {
    pub(crate) group: GroupId,
    pub(crate) epoch: Epoch,
}

/// What a new node is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) node: NodeId,
    pub(crate) cluster: u128,
    pub(crate) shards: u16,
    /// DER, as that of the authority.
    pub(crate) certificate: Vec<u8>,
    pub(crate) authority: Vec<u8>,
    /// [`map::Map::encode`].
    pub(crate) map: Vec<u8>,
}

/// Why a node did not do what another one asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Declined {
    /// It does not lead the control group, or cannot prove it: ask another one.
    #[error("this node does not lead the control group")]
    NotLeading,
    /// Nothing happened, or it does not matter: try again.
    #[error("not now: {0}")]
    Unavailable(String),
    #[error(transparent)]
    Refused(Refusal),
    /// The call is not understood.
    #[error("not understood: {0}")]
    Malformed(String),
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let bytes = postcard::to_extend(value, vec![VERSION]);
    let bytes = bytes.expect("values on the wire hold nothing that postcard cannot write");
    bytes.into()
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Declined> {
    let why = match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => return Ok(value),
            Ok((_, rest)) => format!("{} bytes too many", rest.len()),
            Err(error) => error.to_string(),
        },
        Some((version, _)) => format!("version {version}"),
        None => "empty".to_owned(),
    };
    Err(Declined::Malformed(why))
}

/// Before each message of a batch: device (16), shard (2), length (4), little-endian.
pub(crate) const MESSAGE_HEAD_BYTES: usize = 22;

/// A message of Raft, as one piece of a batch.
pub(crate) fn message_head(device: DeviceId, shard: ShardId, message: &Bytes) -> Bytes {
    let mut head = BytesMut::with_capacity(MESSAGE_HEAD_BYTES);
    head.put_u128_le(device.0);
    head.put_u16_le(shard.0);
    head.put_u32_le(u32::try_from(message.len()).expect("messages are bounded"));
    head.freeze()
}

/// Messages as one piece, which is empty if there are none.
pub(crate) fn batch(messages: impl Iterator<Item = (DeviceId, ShardId, Bytes)>) -> Bytes {
    let mut batch = BytesMut::new();
    for (device, shard, message) in messages {
        batch.put(message_head(device, shard, &message));
        batch.put(message);
    }
    batch.freeze()
}

/// The messages of a batch.
pub(crate) fn messages(mut batch: Bytes) -> Result<Vec<(DeviceId, ShardId, Bytes)>, Declined> {
    let mut messages = Vec::new();
    while !batch.is_empty() {
        if batch.len() < MESSAGE_HEAD_BYTES {
            return Err(Declined::Malformed("a message is cut short".to_owned()));
        }
        let device = DeviceId(batch.get_u128_le());
        let shard = ShardId(batch.get_u16_le());
        let len = batch.get_u32_le() as usize;
        if batch.len() < len {
            return Err(Declined::Malformed("a message is cut short".to_owned()));
        }
        messages.push((device, shard, batch.split_to(len)));
    }
    Ok(messages)
}

/// What precedes a piece of a snapshot, or the bytes of a call: as a message without a length.
pub(crate) fn address(device: DeviceId, shard: ShardId) -> Bytes {
    let mut head = BytesMut::with_capacity(18);
    head.put_u128_le(device.0);
    head.put_u16_le(shard.0);
    head.freeze()
}

/// A device, a shard, and what follows.
pub(crate) fn addressed(mut body: Bytes) -> Result<(DeviceId, ShardId, Bytes), Declined> {
    if body.len() < 18 {
        return Err(Declined::Malformed("no address".to_owned()));
    }
    let device = DeviceId(body.get_u128_le());
    let shard = ShardId(body.get_u16_le());
    Ok((device, shard, body))
}

/// The longest name of a procedure.
const NAME_BYTES_MAX: usize = 255;

/// The name of a call, before its bytes.
pub(crate) fn name(name: &str) -> Bytes {
    let len = u8::try_from(name.len()).expect("names are short");
    let mut head = BytesMut::with_capacity(1 + NAME_BYTES_MAX);
    head.put_u8(len);
    head.put_slice(name.as_bytes());
    head.freeze()
}

pub(crate) fn named(mut body: Bytes) -> Result<(String, Bytes), Declined> {
    let malformed = || Declined::Malformed("no name".to_owned());
    if body.is_empty() {
        return Err(malformed());
    }
    let len = usize::from(body.get_u8());
    if body.len() < len {
        return Err(malformed());
    }
    let name = body.split_to(len);
    let name = str::from_utf8(&name).map_err(|_| malformed())?.to_owned();
    Ok((name, body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEVICE: DeviceId = DeviceId(0x0102);
    const SHARD: ShardId = ShardId(0x0304);

    #[test]
    fn bodies_are_as_they_were() {
        let message = Bytes::from_static(b"abc");
        let head = message_head(DEVICE, SHARD, &message);
        let expected = [&[2, 1][..], &[0; 14], &[4, 3], &[3, 0, 0, 0]].concat();
        assert_eq!(head, expected);
        let batch = [&head[..], b"abc", &head, b"abc"].concat();
        let one = (DEVICE, SHARD, message);
        assert_eq!(messages(batch.into()), Ok(vec![one.clone(), one]));
        assert_eq!(address(DEVICE, SHARD), expected[..18]);
        let addressed = addressed([&expected[..18], b"xy"].concat().into());
        assert_eq!(addressed, Ok((DEVICE, SHARD, Bytes::from_static(b"xy"))));
        let body = [&name("a.b")[..], b"xy"].concat();
        assert_eq!(body, b"\x03a.bxy");
        let (name, rest) = named(body.into()).unwrap();
        assert_eq!((name.as_str(), &rest[..]), ("a.b", &b"xy"[..]));
        let (device, shard) = (DeviceId(1), ShardId(2));
        assert_eq!(encode(&Prepare { device, shard }), &[1, 1, 2][..]);
        let (group, epoch) = (GroupId(3), Epoch(300));
        assert_eq!(encode(&Raise { group, epoch }), &[1, 3, 0xac, 2][..]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = messages(bytes.clone());
            let _ = addressed(bytes.clone());
            let _ = named(bytes.clone());
            let _ = decode::<Prepare>(&bytes);
            let _ = decode::<Welcome>(&bytes);
            let _ = decode::<crate::Report>(&bytes);
            let _ = decode::<crate::control::JoinRequest>(&bytes);
        }
    }
}
