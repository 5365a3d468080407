//! Rows as the tree stores them: a kind, a checksum over key and value, the value.

use base::checksum::crc32c_of;
use bytes::Bytes;
use heed::{RoTxn, RwTxn};

use super::{Database, damaged, read_error};
use crate::Error;

/// Checksum and kind.
const HEAD_BYTES: usize = 5;
/// What LMDB puts before a value that has pages of its own.
const PAGE_HEAD_BYTES: usize = 16;
/// Of LMDB, where the processor's pages are as long.
const PAGE_BYTES: usize = 4096;

/// How much of a value of `bytes` fills whole pages of the tree, if no more than 64 bytes go beyond:
/// those had better be part of another row. Else all of it. So 4 KiB take one page, not two.
pub fn whole_pages(bytes: usize) -> usize {
    const BEYOND_MAX: usize = 64;
    let stored = PAGE_HEAD_BYTES + HEAD_BYTES + bytes;
    let beyond = stored % PAGE_BYTES;
    match stored > PAGE_BYTES && beyond <= BEYOND_MAX {
        true => bytes - beyond,
        false => bytes,
    }
}

const ROW: u8 = 0;
const COUNTER: u8 = 1;

/// What is stored under a key, before it is known to be whole.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) stored: &'a [u8],
}

/// What is stored under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row<'a> {
    Value(&'a [u8]),
    Counter(i64),
}

impl<'a> Found<'a> {
    pub(crate) fn check(self) -> Result<Row<'a>, Error> {
        check(self.key, self.stored)
    }
}

/// Reads what is stored under `key`.
fn check<'a>(key: &[u8], stored: &'a [u8]) -> Result<Row<'a>, Error> {
    let bad = |what: &str| damaged(format!("{}: {what}", key.escape_ascii()));
    let Some(([a, b, c, d, kind], value)) = stored.split_first_chunk::<HEAD_BYTES>() else {
        return Err(bad("cut short"));
    };
    if u32::from_le_bytes([*a, *b, *c, *d]) != checksum(key, *kind, value) {
        return Err(bad("wrong checksum"));
    }
    match (*kind, <[u8; 8]>::try_from(value)) {
        (ROW, _) => Ok(Row::Value(value)),
        (COUNTER, Ok(sum)) => Ok(Row::Counter(i64::from_le_bytes(sum))),
        _ => Err(bad("of an unknown kind")),
    }
}

impl Row<'_> {
    fn kind(&self) -> u8 {
        match self {
            Self::Value(_) => ROW,
            Self::Counter(_) => COUNTER,
        }
    }
}

fn checksum(key: &[u8], kind: u8, value: &[u8]) -> u32 {
    let key_bytes = u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes();
    crc32c_of(&[&key_bytes, key, &[kind], value])
}

pub(crate) fn get<'a>(
    database: &Database<'_>,
    txn: &'a RoTxn,
    key: &[u8],
) -> Result<Option<Row<'a>>, Error> {
    let stored = database.get(txn, key).map_err(|error| read_error(&error))?;
    stored.map(|stored| check(key, stored)).transpose()
}

pub(crate) fn put(
    database: &Database<'_>,
    txn: &mut RwTxn,
    key: &[u8],
    row: Row<'_>,
) -> Result<(), heed::Error> {
    let sum;
    let value = match row {
        Row::Value(value) => value,
        Row::Counter(of) => {
            sum = of.to_le_bytes();
            &sum
        }
    };
    let crc = checksum(key, row.kind(), value).to_le_bytes();
    // Written straight into the page.
    database.put_reserved(txn, key, HEAD_BYTES + value.len(), |space| {
        use std::io::Write;
        space.write_all(&crc)?;
        space.write_all(&[row.kind()])?;
        space.write_all(value)
    })
}

/// A value that outlives the transaction.
pub(crate) fn copied(value: &[u8]) -> Bytes {
    Bytes::copy_from_slice(value)
}

#[cfg(test)]
mod tests {
    use base::ShardId;

    use super::*;
    use crate::tree::Tree;

    const SAMPLES: [(&[u8], Row<'_>); 3] = [
        (b"counter", Row::Counter(-2)),
        (b"empty", Row::Value(b"")),
        (b"row", Row::Value(b"\0value\xff")),
    ];

    /// A tree with one shard.
    fn create(dir: &std::path::Path, shard: ShardId) {
        let memo = crate::replica::Memo::new(raft::ReplicaId(1));
        let memos = std::collections::BTreeMap::from([(shard, memo)]);
        Tree::create(dir, 1 << 20, 1, &memos).unwrap();
    }

    /// One line for each sample: key and what is stored, in hexadecimal. `BLESS=1` rewrites the file.
    #[test]
    fn the_format_stays() {
        let dir = tempfile::tempdir().unwrap();
        let shard = ShardId(0);
        create(dir.path(), shard);
        let tree = Tree::open(dir.path(), device::Access::ReadWrite, 1 << 20).unwrap();
        let database = tree.database(shard);
        let mut txn = tree.write().unwrap();
        let mut text = String::new();
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        for (key, row) in SAMPLES {
            put(&database, &mut txn, key, row).unwrap();
            let stored = database.get(&txn, key).unwrap().unwrap();
            text += &format!("{} {}\n", hex(key), hex(stored));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tree-rows-1.txt");
        if std::env::var_os("BLESS").is_some() {
            #[expect(clippy::disallowed_methods, reason = "a file of the repository")]
            std::fs::write(path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap();
        assert_eq!(text, golden, "the format has changed");
        let unhex = |hex: &str| -> Vec<u8> {
            let digits = hex.as_bytes().chunks(2);
            let byte = |two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
            digits.map(byte).collect()
        };
        for (line, (key, row)) in golden.lines().zip(SAMPLES) {
            let (stored_key, stored) = line.split_once(' ').unwrap();
            assert_eq!(unhex(stored_key), key);
            assert_eq!(check(key, &unhex(stored)), Ok(row));
        }
    }

    #[test]
    fn any_bytes_are_a_row_or_an_error() {
        let seed = u64::from(std::process::id());
        let mut random = testkit::Random::new(seed);
        for _ in 0..5_000 {
            let len = usize::try_from(random.below(40)).unwrap();
            let (key, mut stored) = (random.bytes(5), random.bytes(len));
            assert!(
                check(&key, &stored).is_err() || stored.len() >= HEAD_BYTES,
                "seed {seed}"
            );
            // With the right checksum it is what its kind says, or an error.
            if let Some(([a, b, c, d, kind], value)) = stored.split_first_chunk_mut::<HEAD_BYTES>()
            {
                *kind %= 3;
                [*a, *b, *c, *d] = checksum(&key, *kind, value).to_le_bytes();
                let (kind, value) = (*kind, value.to_vec());
                match check(&key, &stored) {
                    Ok(Row::Value(read)) => {
                        assert_eq!((kind, read), (ROW, &value[..]), "seed {seed}")
                    }
                    Ok(Row::Counter(sum)) => {
                        assert_eq!(
                            (kind, &sum.to_le_bytes()[..]),
                            (COUNTER, &value[..]),
                            "seed {seed}"
                        );
                    }
                    Err(_) => assert!(
                        kind > COUNTER || kind == COUNTER && value.len() != 8,
                        "seed {seed}"
                    ),
                }
            }
        }
    }

    #[test]
    fn little_beyond_whole_pages_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let shard = ShardId(0);
        create(dir.path(), shard);
        let tree = Tree::open(dir.path(), device::Access::ReadWrite, 1 << 20).unwrap();
        let database = tree.database(shard);
        let pages = |bytes: usize| {
            let mut txn = tree.write().unwrap();
            put(&database, &mut txn, b"key", Row::Value(&vec![7; bytes])).unwrap();
            database.stat(&txn).unwrap().overflow_pages
        };
        for (bytes, whole) in [(4096, 1), (8192, 2), (16384, 4)] {
            assert_eq!(pages(bytes), whole + 1);
            assert_eq!(pages(whole_pages(bytes)), whole);
            assert_eq!(pages(whole_pages(bytes) + 1), whole + 1);
        }
        for bytes in [0, 30, 4075, 4075 + 65, 16000] {
            assert_eq!(whole_pages(bytes), bytes);
        }
    }
}
