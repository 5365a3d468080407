//! A segment file: a head that is written twice, then records. Byte by byte in
//! docs/formats/segment.md.

use std::io;

use base::env::{BLOCK_BYTES, File};
use base::{DeviceId, Timestamp, checksum};

use super::record::{Site, field};
use crate::aligned::Aligned;

/// Where records begin: behind both copies of the head.
pub(crate) const RECORDS_AT: u64 = 2 * BLOCK_BYTES as u64;

const MAGIC: &[u8; 8] = b"MRTSEGM\n";
const VERSION: u16 = 1;
const CRC_AT: usize = BLOCK_BYTES - 8;

/// The name of a segment's file.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:016x}.segment")
}

/// The number of the segment in a file of this name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(".segment")?, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) site: Site,
    pub(crate) created: Timestamp,
}

/// What was found where a head should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Head(Head),
    /// Nothing was ever written there: the segment was never used.
    Blank,
    /// Both copies are damaged or cannot be read, or a later version wrote them.
    Unknown,
}

impl Head {
    /// Both copies, to be written at the beginning of the file.
    pub(crate) fn encode(&self) -> Aligned {
        let mut both = Aligned::zeroed(2 * BLOCK_BYTES);
        for block in both.chunks_mut(BLOCK_BYTES) {
            block[..8].copy_from_slice(MAGIC);
            block[8..10].copy_from_slice(&VERSION.to_le_bytes());
            block[16..32].copy_from_slice(&self.site.device.0.to_le_bytes());
            block[32..48].copy_from_slice(&self.site.salt.to_le_bytes());
            block[48..56].copy_from_slice(&self.site.segment.to_le_bytes());
            block[56..64].copy_from_slice(&self.created.ticks().to_le_bytes());
            let crc = checksum::crc64_of(&[&block[..CRC_AT]]);
            block[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        }
        both
    }

    fn decode(block: &[u8]) -> Option<Self> {
        let crc = checksum::crc64_of(&[&block[..CRC_AT]]);
        let known = block.starts_with(MAGIC)
            && block[CRC_AT..] == crc.to_le_bytes()
            && field(block, 8) == VERSION.to_le_bytes();
        known.then(|| Self {
            site: Site {
                device: DeviceId(u128::from_le_bytes(field(block, 16))),
                salt: u128::from_le_bytes(field(block, 32)),
                segment: u64::from_le_bytes(field(block, 48)),
            },
            created: Timestamp::from_ticks(u64::from_le_bytes(field(block, 56))),
        })
    }

    /// Reads the head of segment `number` of `device`.
    pub(crate) fn read(file: &dyn File, device: DeviceId, number: u64) -> io::Result<Read> {
        let mut blank = true;
        for copy in 0..2 {
            let mut block = Aligned::zeroed(BLOCK_BYTES);
            let read = file.read_at(&mut block, copy * BLOCK_BYTES as u64);
            let head = read.is_ok().then(|| Self::decode(&block)).flatten();
            if let Some(head) = head
                && (head.site.device, head.site.segment) == (device, number)
            {
                return Ok(Read::Head(head));
            }
            blank &= read.is_ok() && block.iter().all(|byte| *byte == 0);
        }
        Ok(if blank { Read::Blank } else { Read::Unknown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::env::{Disk as _, Open};
    use std::io::IoSlice;
    use std::path::Path;

    #[test]
    fn the_format_stays() {
        let head = Head {
            site: Site {
                device: DeviceId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
                segment: 0x1112_1314,
                salt: 0x2122_2324_2526_2728_292a_2b2c_2d2e_2f30,
            },
            created: Timestamp::from_secs(1_795_000_000),
        };
        crate::golden::check("segment-head-1.txt", &head.encode());
        assert_eq!(Head::decode(&head.encode()[..BLOCK_BYTES]), Some(head));
    }

    #[test]
    fn names_and_numbers_match() {
        for number in [0, 1, 0xabc, u64::MAX] {
            assert_eq!(number_of(&file_name(number)), Some(number));
        }
        for name in ["1.segment", "00000000000000AB.segment", "x", "identity.new"] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_head_survives_the_loss_of_either_copy() {
        let (device, path) = (DeviceId(1), Path::new("/d/s"));
        let site = Site {
            device,
            segment: 5,
            salt: 77,
        };
        let created = Timestamp::from_secs(3);
        let head = Head { site, created };
        let disk = testkit::SimDisk::new(1 << 20);
        disk.create_dir(Path::new("/d")).unwrap();
        let file = disk.open(path, Open::Direct).unwrap();
        let read = |number| Head::read(&*file, device, number).unwrap();
        assert_eq!(read(5), Read::Blank);

        file.write_at(&[IoSlice::new(&head.encode())], 0).unwrap();
        assert_eq!(read(5), Read::Head(head));
        assert_eq!(read(6), Read::Unknown, "another segment's head");

        disk.flip(path, 40, &[1]);
        assert_eq!(read(5), Read::Head(head));
        disk.flip(path, 4096 + 4095, &[1]);
        assert_eq!(read(5), Read::Unknown);
        disk.flip(path, 40, &[1]);
        assert_eq!(read(5), Read::Head(head));
    }
}
