//! The record of one chunk: a header block, then the payload. Byte by byte in
//! docs/formats/segment.md.
//!
//! The header's checksum starts from where the header lies: device, segment, its secret salt, offset. So a
//! record is recognised only in its own place, and no client can forge one inside its payload.

use base::env::BLOCK_BYTES;
use base::{ChunkId, ContainerId, DeviceId, Timestamp, Version, checksum};
use bytes::Bytes;

use super::{CHUNK_BYTES_MAX, FRAME_BYTES, Fragment, Label, Owner};
use crate::Error;

/// A header is one block.
pub(crate) const HEADER_BYTES: usize = BLOCK_BYTES;

const MAGIC: &[u8; 8] = b"MRTCHNK2";
/// Version 1 had only whole chunks, and did not say where in the body they begin.
const MAGIC_1: &[u8; 8] = b"MRTCHNK1";
const FRAMES_MAX: usize = CHUNK_BYTES_MAX / FRAME_BYTES;
const FRAMES_AT: usize = 64;
const OFFSET_AT: usize = FRAMES_AT + 4 * FRAMES_MAX;
const CHUNK_BYTES_AT: usize = OFFSET_AT + 8;
const FRAGMENT_AT: usize = CHUNK_BYTES_AT + 4;
const NAMES_AT: usize = FRAGMENT_AT + 4;
const NAMES_AT_1: usize = OFFSET_AT;
const CRC_AT: usize = HEADER_BYTES - 8;

/// All names of an owner together. A header has room for a little more.
pub const OWNER_BYTES_MAX: usize = 3800;
const _: () = assert!(NAMES_AT + OWNER_BYTES_MAX <= CRC_AT);

/// A segment, as a header's checksum sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) device: DeviceId,
    pub(crate) segment: u64,
    pub(crate) salt: u128,
}

/// Where a record lies, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) payload_bytes: u32,
}

impl Place {
    /// The header, the payload, and what fills its last block.
    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(self.payload_bytes)
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + self.record_bytes()
    }
}

pub(crate) fn record_bytes(payload_bytes: u32) -> u64 {
    (HEADER_BYTES as u64 + u64::from(payload_bytes)).next_multiple_of(BLOCK_BYTES as u64)
}

/// Everything about a chunk but its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: ChunkId,
    pub(crate) label: Label,
    /// When it was first written to a device: compaction keeps it.
    pub(crate) written: Timestamp,
    pub(crate) payload_bytes: u32,
    /// The CRC-32C of each frame.
    pub(crate) frames: Vec<u32>,
}

impl Record {
    /// # Errors
    /// [`Error::Invalid`] for a payload or an owner that no record can hold.
    pub(crate) fn new(
        id: ChunkId,
        label: Label,
        written: Timestamp,
        payload: &[Bytes],
    ) -> Result<Self, Error> {
        let bytes: usize = payload.iter().map(Bytes::len).sum();
        if !(1..=CHUNK_BYTES_MAX).contains(&bytes) {
            return Err(Error::invalid(format!("a chunk of {bytes} bytes")));
        }
        let owner = &label.owner;
        let names = owner.account.len() + owner.container.len() + owner.object.len();
        if names > OWNER_BYTES_MAX {
            return Err(Error::invalid(format!("an owner of {names} bytes")));
        }
        Ok(Self {
            id,
            label,
            written,
            payload_bytes: u32::try_from(bytes).expect("a chunk is small"),
            frames: frame_crcs(payload),
        })
    }

    /// Writes the header that the record has at this place into `block`, which is zeros.
    pub(crate) fn encode(&self, site: &Site, offset: u64, block: &mut [u8]) {
        let (owner, mut names_at) = (&self.label.owner, NAMES_AT);
        put(block, 0, MAGIC);
        let names = [&owner.account, &owner.container, &owner.object];
        for (i, name) in names.into_iter().enumerate() {
            let len = u16::try_from(name.len()).expect("checked when the record was made");
            put(block, 8 + 2 * i, &len.to_le_bytes());
            put(block, names_at, name.as_bytes());
            names_at += name.len();
        }
        block[14] = u8::from(self.label.is_last);
        put(block, 16, &self.id.0.to_le_bytes());
        put(block, 32, &self.payload_bytes.to_le_bytes());
        put(block, 40, &owner.container_id.0.to_le_bytes());
        put(block, 48, &owner.version.0.to_le_bytes());
        put(block, 56, &self.written.ticks().to_le_bytes());
        for (i, crc) in self.frames.iter().enumerate() {
            put(block, FRAMES_AT + 4 * i, &crc.to_le_bytes());
        }
        put(block, OFFSET_AT, &self.label.offset.to_le_bytes());
        if let Some(fragment) = self.label.fragment {
            put(block, CHUNK_BYTES_AT, &fragment.chunk_bytes.to_le_bytes());
            let Fragment {
                index,
                data,
                parity,
                ..
            } = fragment;
            put(block, FRAGMENT_AT, &[data, parity, index]);
        }
        let crc = header_crc(block, site, offset);
        put(block, CRC_AT, &crc.to_le_bytes());
    }
}

/// A header that was recognised, still in the block that it was read into.
#[derive(Clone, Copy)]
pub(crate) struct Header<'a> {
    block: &'a [u8],
}

impl<'a> Header<'a> {
    /// `None` unless `block` is a header that was written to this place.
    pub(crate) fn decode(block: &'a [u8], site: &Site, offset: u64) -> Option<Self> {
        let header = Self { block };
        let ours = block.len() == HEADER_BYTES
            && (block.starts_with(MAGIC) || block.starts_with(MAGIC_1))
            && block[CRC_AT..] == header_crc(block, site, offset).to_le_bytes();
        // After the checksum only our own bugs could make these wrong.
        let fits = ours
            && (1..=CHUNK_BYTES_MAX).contains(&header.payload_len())
            && header.names_end() <= CRC_AT;
        fits.then_some(header)
    }

    /// A block that [`Header::decode`] has recognised before.
    pub(crate) fn again(block: &'a [u8]) -> Self {
        Self { block }
    }

    pub(crate) fn id(&self) -> ChunkId {
        ChunkId(u128::from_le_bytes(field(self.block, 16)))
    }

    pub(crate) fn payload_bytes(&self) -> u32 {
        u32::from_le_bytes(field(self.block, 32))
    }

    fn payload_len(&self) -> usize {
        usize::try_from(self.payload_bytes()).expect("32 bits fit")
    }

    fn name_len(&self, i: usize) -> usize {
        usize::from(u16::from_le_bytes(field(self.block, 8 + 2 * i)))
    }

    fn names_end(&self) -> usize {
        self.names_at() + (0..3).map(|i| self.name_len(i)).sum::<usize>()
    }

    fn is_version_1(&self) -> bool {
        self.block.starts_with(MAGIC_1)
    }

    fn names_at(&self) -> usize {
        match self.is_version_1() {
            true => NAMES_AT_1,
            false => NAMES_AT,
        }
    }

    fn body_offset(&self) -> u64 {
        match self.is_version_1() {
            true => 0,
            false => u64::from_le_bytes(field(self.block, OFFSET_AT)),
        }
    }

    fn name(&self, i: usize) -> String {
        let start = self.names_at() + (0..i).map(|i| self.name_len(i)).sum::<usize>();
        let name = &self.block[start..start + self.name_len(i)];
        String::from_utf8_lossy(name).into_owned()
    }

    /// Which part of the chunk this is; `None`: all of it.
    pub(crate) fn fragment(&self) -> Option<Fragment> {
        let [data, parity, index] = field(self.block, FRAGMENT_AT);
        (data > 0 && !self.is_version_1()).then(|| Fragment {
            index,
            data,
            parity,
            chunk_bytes: u32::from_le_bytes(field(self.block, CHUNK_BYTES_AT)),
        })
    }

    fn frame_crc(&self, frame: usize) -> u32 {
        u32::from_le_bytes(field(self.block, FRAMES_AT + 4 * frame))
    }

    /// Checks the frames that begin at frame `first`: whole ones, but for the payload's last.
    /// Answers with the first bad one.
    pub(crate) fn check_frames(&self, first: usize, bytes: &[u8]) -> Result<(), usize> {
        for (i, frame) in bytes.chunks(FRAME_BYTES).enumerate() {
            if checksum::crc32c(frame) != self.frame_crc(first + i) {
                return Err(first + i);
            }
        }
        Ok(())
    }

    pub(crate) fn to_record(self) -> Record {
        let frames = self.payload_len().div_ceil(FRAME_BYTES);
        Record {
            id: self.id(),
            label: Label {
                owner: Owner {
                    account: self.name(0),
                    container: self.name(1),
                    container_id: ContainerId(u64::from_le_bytes(field(self.block, 40))),
                    object: self.name(2),
                    version: Version(u64::from_le_bytes(field(self.block, 48))),
                },
                offset: self.body_offset(),
                is_last: self.block[14] != 0,
                fragment: self.fragment(),
            },
            written: Timestamp::from_ticks(u64::from_le_bytes(field(self.block, 56))),
            payload_bytes: self.payload_bytes(),
            frames: (0..frames).map(|frame| self.frame_crc(frame)).collect(),
        }
    }
}

fn header_crc(block: &[u8], site: &Site, offset: u64) -> u64 {
    checksum::crc64_of(&[
        &site.salt.to_le_bytes(),
        &site.device.0.to_le_bytes(),
        &site.segment.to_le_bytes(),
        &offset.to_le_bytes(),
        &block[..CRC_AT],
    ])
}

/// The checksum of each frame, however the payload is cut into pieces.
fn frame_crcs(payload: &[Bytes]) -> Vec<u32> {
    let mut crcs = Vec::with_capacity(FRAMES_MAX);
    let (mut frame, mut room) = (Vec::new(), FRAME_BYTES);
    for piece in payload {
        let mut rest = piece.as_ref();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(room));
            frame.push(part);
            room -= part.len();
            rest = after;
            if room == 0 {
                crcs.push(checksum::crc32c_of(&frame));
                frame.clear();
                room = FRAME_BYTES;
            }
        }
    }
    if !frame.is_empty() {
        crcs.push(checksum::crc32c_of(&frame));
    }
    crcs
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(super) fn field<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    block[at..at + N]
        .try_into()
        .expect("a slice of N bytes is an array of N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: Site = Site {
        device: DeviceId(3),
        segment: 17,
        salt: 0x5a17,
    };

    const FRAGMENT: Fragment = Fragment {
        index: 5,
        data: 4,
        parity: 2,
        chunk_bytes: 4_000_001,
    };

    fn owner(object: &str) -> Owner {
        Owner {
            account: "AUTH_a".into(),
            container: "photos".into(),
            container_id: ContainerId(9),
            object: object.into(),
            version: Version(700_000),
        }
    }

    fn record(payload: &[Bytes]) -> Record {
        let (id, written) = (ChunkId(0xabc), Timestamp::from_secs(8));
        Record::new(id, owner("ünï/1").into(), written, payload).unwrap()
    }

    fn encoded(record: &Record) -> Vec<u8> {
        let mut block = vec![0; HEADER_BYTES];
        record.encode(&SITE, 8192, &mut block);
        block
    }

    #[test]
    fn the_format_stays() {
        let payload = [Bytes::from(vec![7; FRAME_BYTES + 1])];
        crate::golden::check("record-2.txt", &encoded(&record(&payload)));
        let mut fragment = record(&payload);
        fragment.label = Label {
            offset: 0x0102_0304_0506,
            is_last: true,
            fragment: Some(FRAGMENT),
            ..fragment.label
        };
        crate::golden::check("record-2-fragment.txt", &encoded(&fragment));
    }

    #[test]
    fn a_header_of_version_1_is_a_whole_chunk() {
        let payload = [Bytes::from(vec![7; FRAME_BYTES + 1])];
        let block = crate::golden::bytes("record-1.txt");
        let header = Header::decode(&block, &SITE, 8192).unwrap();
        assert_eq!(header.to_record(), record(&payload));
    }

    #[test]
    fn a_header_comes_back_as_it_was() {
        for len in [1, FRAME_BYTES, FRAME_BYTES + 1, CHUNK_BYTES_MAX] {
            let record = record(&[Bytes::from(vec![7; len])]);
            let block = encoded(&record);
            let header = Header::decode(&block, &SITE, 8192).unwrap();
            assert_eq!(header.to_record(), record);
        }
        let mut record = record(&[Bytes::from_static(b"x")]);
        record.label.offset = u64::MAX;
        record.label.fragment = Some(FRAGMENT);
        let block = encoded(&record);
        let header = Header::decode(&block, &SITE, 8192).unwrap();
        assert_eq!(
            (header.to_record(), header.fragment()),
            (record, Some(FRAGMENT))
        );
    }

    #[test]
    fn a_header_is_recognised_only_in_its_place() {
        let block = encoded(&record(&[Bytes::from_static(b"x")]));
        assert!(Header::decode(&block, &SITE, 4096).is_none());
        for other in [
            Site { salt: 1, ..SITE },
            Site {
                segment: 18,
                ..SITE
            },
            Site {
                device: DeviceId(4),
                ..SITE
            },
        ] {
            assert!(Header::decode(&block, &other, 8192).is_none());
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let block = encoded(&record(&[Bytes::from_static(b"x")]));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = block.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad, &SITE, 8192).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn frames_do_not_depend_on_how_the_payload_is_cut() {
        let payload: Vec<u8> = testkit::Random::new(1).bytes(3 * FRAME_BYTES + 5);
        let whole = frame_crcs(&[Bytes::from(payload.clone())]);
        assert_eq!(whole.len(), 4);
        for cut in [1, 4096, FRAME_BYTES - 1, FRAME_BYTES, 2 * FRAME_BYTES + 1] {
            let pieces: Vec<_> = payload.chunks(cut).map(Bytes::copy_from_slice).collect();
            assert_eq!(frame_crcs(&pieces), whole, "cut every {cut}");
        }
    }

    #[test]
    fn a_bad_frame_is_named() {
        let mut payload = vec![1; 2 * FRAME_BYTES + 5];
        let block = encoded(&record(&[Bytes::from(payload.clone())]));
        let header = Header::decode(&block, &SITE, 8192).unwrap();
        assert_eq!(header.check_frames(0, &payload), Ok(()));
        assert_eq!(header.check_frames(1, &payload[FRAME_BYTES..]), Ok(()));
        payload[2 * FRAME_BYTES] ^= 1;
        assert_eq!(header.check_frames(0, &payload), Err(2));
        assert_eq!(header.check_frames(1, &payload[FRAME_BYTES..]), Err(2));
    }

    #[test]
    fn what_no_record_can_hold_is_refused() {
        let new = |object: &str, payload: Vec<u8>| {
            let payload = [Bytes::from(payload)];
            Record::new(
                ChunkId(1),
                owner(object).into(),
                Timestamp::default(),
                &payload,
            )
        };
        new(&"x".repeat(OWNER_BYTES_MAX - 12), vec![0]).unwrap();
        for refused in [
            new(&"x".repeat(OWNER_BYTES_MAX - 11), vec![0]),
            new("x", vec![]),
            new("x", vec![0; CHUNK_BYTES_MAX + 1]),
        ] {
            assert!(matches!(refused, Err(Error::Invalid(_))));
        }
    }
}
