//! The database `meta`: which log belongs to the tree, and a memo of each shard.

use base::ShardId;
use bytes::Bytes;
use heed::{RoTxn, RwTxn};

use super::{Database, Row, damaged, read_error, row};
use crate::Error;
use crate::replica::Memo;

const VERSION: u8 = 1;
const TREE: &[u8] = b"tree";
const SHARD: &[u8] = b"shard";

/// Remembers the log that belongs to the tree.
pub(super) fn put_tree(
    meta: &Database<'_>,
    txn: &mut RwTxn,
    log_id: u64,
) -> Result<(), heed::Error> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&log_id.to_le_bytes());
    row::put(meta, txn, TREE, Row::Value(&value))
}

/// The log that belongs to the tree.
pub(super) fn tree(meta: &Database<'_>, txn: &RoTxn) -> Result<u64, Error> {
    match value(meta, txn, TREE)? {
        [VERSION, id @ ..] => {
            let id = id
                .try_into()
                .map_err(|_| damaged("the tree's head".into()))?;
            Ok(u64::from_le_bytes(id))
        }
        _ => Err(damaged("the tree's head is of an unknown version".into())),
    }
}

fn key(shard: ShardId) -> Vec<u8> {
    [SHARD, &shard.0.to_be_bytes()].concat()
}

pub(super) fn put_memo(
    meta: &Database<'_>,
    txn: &mut RwTxn,
    shard: ShardId,
    memo: &Memo,
) -> Result<(), heed::Error> {
    row::put(meta, txn, &key(shard), Row::Value(&memo.encode()))
}

pub(super) fn delete_memo(
    meta: &Database<'_>,
    txn: &mut RwTxn,
    shard: ShardId,
) -> Result<(), heed::Error> {
    meta.delete(txn, &key(shard)).map(drop)
}

pub(super) fn memo(meta: &Database<'_>, txn: &RoTxn, shard: ShardId) -> Result<Memo, Error> {
    let value = value(meta, txn, &key(shard))?;
    Memo::decode(Bytes::copy_from_slice(value))
}

/// The shards of this tree.
pub(super) fn shards(meta: &Database<'_>, txn: &RoTxn) -> Result<Vec<ShardId>, Error> {
    let rows = meta.prefix_iter(txn, SHARD);
    let mut shards = Vec::new();
    for row in rows.map_err(|error| read_error(&error))? {
        let (key, _) = row.map_err(|error| read_error(&error))?;
        let number = key[SHARD.len()..].try_into();
        let number = number.map_err(|_| damaged("the name of a shard".into()))?;
        shards.push(ShardId(u16::from_be_bytes(number)));
    }
    Ok(shards)
}

fn value<'a>(meta: &Database<'_>, txn: &'a RoTxn, key: &[u8]) -> Result<&'a [u8], Error> {
    match row::get(meta, txn, key)? {
        Some(Row::Value(value)) => Ok(value),
        _ => Err(damaged(format!("{} is missing", key.escape_ascii()))),
    }
}
