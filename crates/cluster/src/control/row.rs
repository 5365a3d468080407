//! Keys and values. All keys begin with `M`, and there are no other rows that do.

use base::NodeId;
use bytes::Bytes;
use map::Map;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shard::{Execution, View};

use super::{Refusal, refuse};
use crate::report::Reign;

/// The map: [`Map::encode`].
pub(crate) const MAP: &[u8] = b"M";
/// The authority: [`AuthorityRow`].
pub(super) const AUTHORITY: &[u8] = b"Ma";
/// The keys of nodes that joined, by number: [`super::tokens::KeyRow`].
pub(super) const KEYS: &[u8] = b"Mk";
/// Behind all of them.
pub(super) const KEYS_END: &[u8] = b"Ml";
/// Who is the controller: [`ReignRow`].
pub(super) const REIGN: &[u8] = b"Mr";
/// Join tokens, by id: see `tokens`.
pub(super) const TOKENS: &[u8] = b"Mt";
/// Behind all of them.
pub(super) const TOKENS_END: &[u8] = b"Mu";

/// Before the fields of every row but the map.
const VERSION: u8 = 1;

/// The cluster's authority with its key, as [`rpc::Authority::to_pem`] gives it.
#[derive(Serialize, Deserialize)]
pub(super) struct AuthorityRow {
    pub(super) pem: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReignRow {
    pub(super) reign: Reign,
}

pub(super) fn token(id: u64) -> Bytes {
    [TOKENS, &id.to_be_bytes()].concat().into()
}

pub(super) fn node_key(node: NodeId) -> Bytes {
    [KEYS, &node.0.to_be_bytes()].concat().into()
}

/// The node that a key of [`node_key`] names.
pub(super) fn node_of(key: &[u8]) -> Result<NodeId, Execution<Refusal>> {
    let number = key
        .strip_prefix(KEYS)
        .and_then(|number| number.try_into().ok());
    match number {
        Some(number) => Ok(NodeId(u32::from_be_bytes(number))),
        None => refuse(Refusal::Damaged("not the key of a node's row".to_owned())),
    }
}

pub(super) fn encode<T: Serialize>(row: &T) -> Bytes {
    let bytes = postcard::to_extend(row, vec![VERSION]);
    bytes
        .expect("rows hold nothing that postcard cannot write")
        .into()
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Execution<Refusal>> {
    let why = match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((row, [])) => return Ok(row),
            Ok((_, rest)) => format!("{} bytes too many", rest.len()),
            Err(error) => error.to_string(),
        },
        Some((version, _)) => format!("version {version}"),
        None => "empty".to_owned(),
    };
    refuse(Refusal::Damaged(why))
}

pub(super) fn get<T: DeserializeOwned>(
    view: &View,
    key: &[u8],
) -> Result<Option<T>, Execution<Refusal>> {
    let row = view.get(key)?;
    row.map(|row| decode(&row)).transpose()
}

/// The map, which is empty before there is one.
pub(super) fn map(view: &View) -> Result<Map, Execution<Refusal>> {
    match view.get(MAP)? {
        Some(row) => Map::decode(&row).or_else(|bad| refuse(Refusal::Damaged(bad.to_string()))),
        None => Ok(Map::default()),
    }
}

/// The authority, for who has the control shard here: its key never travels by itself.
pub fn authority(view: &View) -> Result<rpc::Authority, Execution<Refusal>> {
    match get::<AuthorityRow>(view, AUTHORITY)? {
        Some(row) => rpc::Authority::from_pem(&row.pem)
            .or_else(|bad| refuse(Refusal::Damaged(bad.to_string()))),
        None => refuse(Refusal::NoAuthority),
    }
}
