//! The files of a backup: docs/formats/backup.md has them byte by byte, tests/golden/ an example.
//!
//! A part is some rows of one shard, a manifest says which parts there are. Both end with a checksum over all that is
//! before it, and the manifest has those of the parts: so no byte can be another, and no part of another backup.

use base::checksum::crc64_of;
use base::{ShardId, Timestamp};
use bytes::{Buf, BufMut, Bytes};
use shard::Exported;

const VERSION: u16 = 1;

const PART_MAGIC: &[u8; 8] = b"MRTBKPT\n";
const PART_HEAD_BYTES: usize = 32;
const CRC_BYTES: usize = 8;
/// Kind, length of the key, length of the value.
const ROW_HEAD_BYTES: usize = 7;
/// A part is in memory as a whole; an object store takes it with one request.
const PART_BYTES_MAX: usize = 16 << 20;

const MANIFEST_MAGIC: &[u8; 8] = b"MRTBKUP\n";
pub const MANIFEST_NAME: &str = "manifest";

const ROW: u8 = 0;
const COUNTER: u8 = 1;

/// These bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(&'static str);

/// What a backup consists of. With it, and not before, the backup is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Drawn at random; also in every part.
    pub id: u128,
    /// Of which cluster it is.
    pub cluster: u128,
    pub began: Timestamp,
    pub ended: Timestamp,
    /// Of each shard, in their order.
    pub shards: Vec<ShardParts>,
}

/// What is saved of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardParts {
    /// The last entry of its log that is in it.
    pub position: u64,
    pub parts: Vec<PartSum>,
}

/// How a part can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSum {
    pub bytes: u32,
    /// The checksum that it ends with.
    pub crc: u64,
}

/// The name of a part's file or object.
pub fn part_name(shard: ShardId, number: u32) -> String {
    format!("shard-{:04}.{number:06}", shard.0)
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let shards = u16::try_from(self.shards.len()).expect("shards are counted in 16 bits");
        out.put_slice(MANIFEST_MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(shards);
        out.put_u32_le(0);
        out.put_u128_le(self.id);
        out.put_u128_le(self.cluster);
        out.put_u64_le(self.began.ticks());
        out.put_u64_le(self.ended.ticks());
        for shard in &self.shards {
            out.put_u64_le(shard.position);
            let parts = u32::try_from(shard.parts.len());
            out.put_u32_le(parts.expect("parts are counted in 32 bits"));
            for part in &shard.parts {
                out.put_u32_le(part.bytes);
                out.put_u64_le(part.crc);
            }
        }
        out.put_u64_le(crc64_of(&[&out]));
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let (mut fields, _) = checked(bytes, MANIFEST_MAGIC)?;
        Self::fields(&mut fields)
            .filter(|_| fields.is_empty())
            .ok_or(Invalid("not as long as it says"))
    }

    fn fields(from: &mut &[u8]) -> Option<Self> {
        let shards = from.try_get_u16_le().ok()?;
        from.try_get_u32_le().ok()?;
        let id = from.try_get_u128_le().ok()?;
        let cluster = from.try_get_u128_le().ok()?;
        let mut time = || from.try_get_u64_le().ok().map(Timestamp::from_ticks);
        let (began, ended) = (time()?, time()?);
        let shards = (0..shards).map(|_| ShardParts::fields(from));
        Some(Self {
            id,
            cluster,
            began,
            ended,
            shards: shards.collect::<Option<_>>()?,
        })
    }
}

impl ShardParts {
    fn fields(from: &mut &[u8]) -> Option<Self> {
        let position = from.try_get_u64_le().ok()?;
        let parts = from.try_get_u32_le().ok()?;
        let part = |_| {
            let bytes = from.try_get_u32_le().ok()?;
            let crc = from.try_get_u64_le().ok()?;
            Some(PartSum { bytes, crc })
        };
        let parts = (0..parts).map(part).collect::<Option<_>>()?;
        Some(Self { position, parts })
    }
}

/// A part that is being written.
pub struct Part {
    bytes: Vec<u8>,
}

impl Part {
    /// The part of this number, from 0, of a shard.
    pub fn new(backup: u128, shard: ShardId, number: u32) -> Self {
        let mut bytes = Vec::new();
        bytes.put_slice(PART_MAGIC);
        bytes.put_u16_le(VERSION);
        bytes.put_u16_le(shard.0);
        bytes.put_u32_le(number);
        bytes.put_u128_le(backup);
        Self { bytes }
    }

    /// Takes a row, unless the part is full. An empty one takes any.
    pub fn push(&mut self, key: &[u8], row: &Exported) -> bool {
        let value_bytes = match row {
            Exported::Row(value) => value.len(),
            Exported::Counter(_) => size_of::<i64>(),
        };
        let bytes = self.bytes.len() + ROW_HEAD_BYTES + key.len() + value_bytes + CRC_BYTES;
        if bytes > PART_BYTES_MAX && self.bytes.len() > PART_HEAD_BYTES {
            return false;
        }
        put_row(&mut self.bytes, key, row);
        true
    }

    /// The bytes, and how they can be known.
    pub fn seal(mut self) -> (Vec<u8>, PartSum) {
        let crc = crc64_of(&[&self.bytes]);
        self.bytes.put_u64_le(crc);
        let bytes = u32::try_from(self.bytes.len());
        let bytes = bytes.expect("a part is far smaller than 4 GiB");
        (self.bytes, PartSum { bytes, crc })
    }
}

/// The rows of the part of this number, of this shard, of the backup with this manifest.
pub fn rows(
    manifest: &Manifest,
    shard: ShardId,
    number: u32,
    bytes: Bytes,
) -> Result<Vec<(Bytes, Exported)>, Invalid> {
    let parts = manifest.shards.get(usize::from(shard.0));
    let sum = parts.and_then(|shard| shard.parts.get(number as usize));
    let sum = sum.ok_or(Invalid("the manifest does not have it"))?;
    let (mut fields, crc) = checked(&bytes, PART_MAGIC)?;
    if (bytes.len(), crc) != (sum.bytes as usize, sum.crc) {
        return Err(Invalid("not the one that the manifest means"));
    }
    let short = |_| Invalid("not as long as it says");
    let is_it = (
        fields.try_get_u16_le().map_err(short)?,
        fields.try_get_u32_le().map_err(short)?,
        fields.try_get_u128_le().map_err(short)?,
    );
    if is_it != (shard.0, number, manifest.id) {
        return Err(Invalid("a part of something else"));
    }
    decode_rows(bytes.slice(PART_HEAD_BYTES..bytes.len() - CRC_BYTES))
}

/// Rows as they are in a part.
pub fn encode_rows(rows: &[(Bytes, Exported)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, row) in rows {
        put_row(&mut out, key, row);
    }
    out
}

/// Reads what [`encode_rows`] wrote.
pub fn decode_rows(mut from: Bytes) -> Result<Vec<(Bytes, Exported)>, Invalid> {
    let mut rows = Vec::new();
    while !from.is_empty() {
        rows.push(row(&mut from).ok_or(Invalid("a row that cannot be read"))?);
    }
    Ok(rows)
}

fn put_row(out: &mut Vec<u8>, key: &[u8], row: &Exported) {
    let sum;
    let (kind, value) = match row {
        Exported::Row(value) => (ROW, &value[..]),
        Exported::Counter(of) => {
            sum = of.to_le_bytes();
            (COUNTER, &sum[..])
        }
    };
    let key_bytes = u16::try_from(key.len());
    let value_bytes = u32::try_from(value.len());
    out.put_u8(kind);
    out.put_u16_le(key_bytes.expect("keys of rows are shorter"));
    out.put_u32_le(value_bytes.expect("a row is far smaller than 4 GiB"));
    out.put_slice(key);
    out.put_slice(value);
}

fn row(from: &mut Bytes) -> Option<(Bytes, Exported)> {
    let kind = from.try_get_u8().ok()?;
    let key_bytes = from.try_get_u16_le().ok()?.into();
    let value_bytes = from.try_get_u32_le().ok()? as usize;
    if from.len() < key_bytes + value_bytes || !(1..=shard::KEY_BYTES_MAX).contains(&key_bytes) {
        return None;
    }
    let (key, value) = (from.split_to(key_bytes), from.split_to(value_bytes));
    let row = match kind {
        ROW => Exported::Row(value),
        COUNTER => Exported::Counter(i64::from_le_bytes(value[..].try_into().ok()?)),
        _ => return None,
    };
    Some((key, row))
}

/// What is between version and checksum, if that is right; and the checksum.
fn checked<'a>(bytes: &'a [u8], magic: &[u8; 8]) -> Result<(&'a [u8], u64), Invalid> {
    let (body, crc) = bytes.split_last_chunk().ok_or(Invalid("cut short"))?;
    let rest = body.strip_prefix(magic);
    let mut rest = rest.ok_or(Invalid("of another kind"))?;
    let crc = u64::from_le_bytes(*crc);
    if crc64_of(&[body]) != crc {
        return Err(Invalid("wrong checksum"));
    }
    match rest.try_get_u16_le() {
        Ok(VERSION) => Ok((rest, crc)),
        Ok(_) | Err(_) => Err(Invalid("of a version that this program does not know")),
    }
}

#[cfg(test)]
mod tests;
