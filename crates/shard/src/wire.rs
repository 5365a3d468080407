//! The wire form of calls and answers; byte by byte in docs/formats/call.md.
//!
//! Decoding reads no further than the bytes go and asks for no more memory than a small multiple of
//! them: what came from another node may be anything.

use base::DeviceId;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::replica::Refusal;
use crate::{Error, Execution};

/// The first byte of every call and answer.
const VERSION: u8 = 2;

/// What is answered to a call.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reply<T, E> {
    /// An entry of the shard that is decided, or 0.
    pub(crate) position: u64,
    pub(crate) answer: Answer<T, E>,
}

/// What came of a call.
#[derive(Serialize, Deserialize)]
pub(crate) enum Answer<T, E> {
    Done(T),
    Refused(E),
    Failed(Error),
    /// Nothing was tried: there is no such name or shard here, or the call cannot be read.
    NotUnderstood(String),
    /// Nothing was done: the shard is not led here, but perhaps on this device.
    Elsewhere(Option<DeviceId>),
    /// Nothing was done: whether an earlier try was is not remembered. This entry is decided.
    Forgotten(u64),
}

impl<T, E> From<Result<T, Refusal<E>>> for Answer<T, E> {
    fn from(result: Result<T, Refusal<E>>) -> Self {
        match result {
            Ok(output) => Self::Done(output),
            Err(Refusal::Failed(Execution::Refused(error))) => Self::Refused(error),
            Err(Refusal::Failed(Execution::Shard(error))) => Self::Failed(error),
            Err(Refusal::Elsewhere(hint)) => Self::Elsewhere(hint),
            Err(Refusal::Forgotten(position)) => Self::Forgotten(position),
        }
    }
}

/// Bytes that are no call or no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(String);

/// The bytes of a procedure, a query or an answer.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let bytes = postcard::to_extend(value, vec![VERSION]);
    let bytes = bytes.expect("values on the wire hold nothing that postcard cannot write");
    bytes.into()
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let len = bytes.len();
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(Malformed(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(Malformed(format!("{len} bytes: {error}"))),
        },
        Some((version, _)) => Err(Malformed(format!("of version {version}"))),
        None => Err(Malformed("empty".to_owned())),
    }
}
