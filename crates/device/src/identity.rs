//! Who a device is: `DIR/identity`, written once when the directory is made. Byte by byte in
//! docs/formats/identity.md.
//!
//! The file holds two copies of one block, so that one bad sector does not orphan the device; it is
//! written under another name, synced and renamed, and never changed after.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use base::env::{BLOCK_BYTES, Disk, Open};
use base::{DeviceId, Timestamp, checksum};

use crate::Error;

const MAGIC: &[u8; 8] = b"MARTLET\n";
const VERSION: u16 = 1;
/// Where the fields end and the checksum over them stands.
const CRC_AT: usize = 56;

/// Who a device is. Never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: u128,
    pub device: DeviceId,
    /// How many shards the cluster has.
    pub shards: u16,
    /// When the directory was made.
    pub created: Timestamp,
}

impl Identity {
    fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..8].copy_from_slice(MAGIC);
        block[8..10].copy_from_slice(&VERSION.to_le_bytes());
        block[10..12].copy_from_slice(&self.shards.to_le_bytes());
        block[16..32].copy_from_slice(&self.cluster.to_le_bytes());
        block[32..48].copy_from_slice(&self.device.0.to_le_bytes());
        block[48..56].copy_from_slice(&self.created.ticks().to_le_bytes());
        let crc = checksum::crc64_of(&[&block[..CRC_AT]]);
        block[CRC_AT..CRC_AT + 8].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// `None` if the block is damaged or was never one of ours.
    fn decode(block: &[u8; BLOCK_BYTES]) -> Option<Result<Self, Error>> {
        let crc = checksum::crc64_of(&[&block[..CRC_AT]]);
        if &block[..8] != MAGIC || field(block, CRC_AT) != crc.to_le_bytes() {
            return None;
        }
        let version = u16::from_le_bytes(field(block, 8));
        if version != VERSION {
            return Some(Err(Error::foreign(format!(
                "the directory has format {version}, this program knows {VERSION}"
            ))));
        }
        Some(Ok(Self {
            cluster: u128::from_le_bytes(field(block, 16)),
            device: DeviceId(u128::from_le_bytes(field(block, 32))),
            shards: u16::from_le_bytes(field(block, 10)),
            created: Timestamp::from_ticks(u64::from_le_bytes(field(block, 48))),
        }))
    }

    /// Reads the identity of `dir`; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Damaged`] if both copies are; [`Error::Foreign`] if a later version wrote it.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join("identity");
        let what = || format!("reading {}", path.display());
        let file = match disk.open(&path, Open::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| Error::io(what(), error))?,
        };
        for copy in 0..2 {
            let mut block = [0; BLOCK_BYTES];
            // A copy that cannot be read is as good as a damaged one.
            let read = file.read_at(&mut block, copy * BLOCK_BYTES as u64);
            if let (Ok(BLOCK_BYTES), Some(identity)) = (read, Self::decode(&block)) {
                return identity.map(Some);
            }
        }
        Err(Error::damaged(format!(
            "{}: both copies are damaged",
            path.display()
        )))
    }

    /// Writes the identity of `dir`, durably.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
        let (new, path) = (dir.join("identity.new"), dir.join("identity"));
        let block = self.encode();
        let write = || {
            let file = disk.open(&new, Open::Write)?;
            file.truncate(0)?;
            file.write_at(&[IoSlice::new(&block), IoSlice::new(&block)], 0)?;
            file.sync()?;
            disk.rename(&new, &path)?;
            disk.sync_dir(dir)
        };
        write().map_err(|error| Error::io(format!("writing {}", path.display()), error))
    }
}

fn field<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    block[at..at + N]
        .try_into()
        .expect("a slice of N bytes is an array of N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity {
        cluster: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        device: DeviceId(7),
        shards: 16,
        created: Timestamp::from_secs(1_795_000_000),
    };

    #[test]
    fn the_format_stays() {
        crate::golden::check("identity-1.txt", &IDENTITY.encode());
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let block = IDENTITY.encode();
        assert_eq!(Identity::decode(&block).unwrap().unwrap(), IDENTITY);
        for bit in 0..(CRC_AT + 8) * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(&bad).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn one_bad_copy_is_survived_and_two_are_not() {
        let env = base::env::Env::real();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Identity::read(&*env.disk, dir.path()).unwrap(), None);
        IDENTITY.write(&*env.disk, dir.path()).unwrap();

        let path = dir.path().join("identity");
        let file = env.disk.open(&path, Open::Write).unwrap();
        for (copy, survives) in [(0, true), (1, false)] {
            file.write_at(&[IoSlice::new(b"oops")], copy * BLOCK_BYTES as u64)
                .unwrap();
            let read = Identity::read(&*env.disk, dir.path());
            assert_eq!(read.is_ok(), survives, "{read:?}");
        }
    }
}
