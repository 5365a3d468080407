//! The bytes of the log, byte by byte in docs/formats/log.md: file headers, batches, records.

use base::checksum::crc64_of;
use base::env::BLOCK_BYTES;
use bytes::Bytes;

use super::{Kind, Record};

const FILE_MAGIC: &[u8; 8] = b"MRTLTLOG";
const BATCH_MAGIC: &[u8; 4] = b"mbat";
const VERSION: u16 = 1;

/// Two copies of the file header, each in a block of its own.
pub(super) const HEADER_BYTES: u64 = 2 * BLOCK_BYTES as u64;
pub(super) const BATCH_HEADER_BYTES: usize = 40;
pub(super) const RECORD_HEADER_BYTES: usize = 16;

/// Where the fields of a file header end and the checksum over them stands.
const FILE_CRC_AT: usize = 40;
/// Where the fields of a batch header end and the checksum over them and the records stands.
const BATCH_CRC_AT: usize = 32;

/// The head of a log file: which place in the log the file has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// Drawn when the log was made; part of every checksum, so that no client can forge a batch
    /// inside its data.
    pub(super) salt: u64,
    /// Each use of a file has the next number.
    pub(super) sequence: u64,
    pub(super) file_bytes: u64,
}

/// What a block says about a file's header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderBlock {
    Valid(FileHeader),
    /// All zeros: never written.
    Blank,
    /// A header of a version that we do not know.
    Foreign(u16),
    Bad,
}

impl FileHeader {
    pub(super) fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_BYTES);
        block.fill(0);
        block[..8].copy_from_slice(FILE_MAGIC);
        block[8..10].copy_from_slice(&VERSION.to_le_bytes());
        block[16..24].copy_from_slice(&self.salt.to_le_bytes());
        block[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        block[32..40].copy_from_slice(&self.file_bytes.to_le_bytes());
        let crc = crc64_of(&[&block[..FILE_CRC_AT]]);
        block[FILE_CRC_AT..FILE_CRC_AT + 8].copy_from_slice(&crc.to_le_bytes());
    }
}

impl HeaderBlock {
    pub(super) fn decode(block: &[u8]) -> Self {
        if block.iter().all(|byte| *byte == 0) {
            return Self::Blank;
        }
        let crc = crc64_of(&[&block[..FILE_CRC_AT]]);
        if &block[..8] != FILE_MAGIC || u64_at(block, FILE_CRC_AT) != crc {
            return Self::Bad;
        }
        match u16::from_le_bytes(field(block, 8)) {
            VERSION => Self::Valid(FileHeader {
                salt: u64_at(block, 16),
                sequence: u64_at(block, 24),
                file_bytes: u64_at(block, 32),
            }),
            version => Self::Foreign(version),
        }
    }
}

/// The head of a batch, as far as it can be judged without the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) file: u64,
    pub(super) sequence: u64,
    pub(super) records: u32,
    /// Of the records, without padding.
    pub(super) payload_bytes: u32,
}

impl BatchHeader {
    /// Writes the header in front of the records that `batch` holds from [`BATCH_HEADER_BYTES`] on.
    pub(super) fn encode(&self, batch: &mut [u8], salt: u64) {
        batch[..4].copy_from_slice(BATCH_MAGIC);
        batch[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        batch[8..16].copy_from_slice(&self.file.to_le_bytes());
        batch[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        batch[24..28].copy_from_slice(&self.records.to_le_bytes());
        batch[28..32].fill(0);
        let crc = self.crc(batch, salt);
        batch[BATCH_CRC_AT..BATCH_CRC_AT + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the head; `None` if there is none. Says nothing about the records.
    pub(super) fn decode(head: &[u8]) -> Option<Self> {
        (&head[..4] == BATCH_MAGIC).then(|| Self {
            payload_bytes: u32::from_le_bytes(field(head, 4)),
            file: u64_at(head, 8),
            sequence: u64_at(head, 16),
            records: u32::from_le_bytes(field(head, 24)),
        })
    }

    /// Header and records, without padding.
    pub(super) fn bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.payload_bytes as usize
    }

    /// Whether the records in `batch`, which begins with this header, are those that were written.
    pub(super) fn verify(&self, batch: &[u8], salt: u64) -> bool {
        u64_at(batch, BATCH_CRC_AT) == self.crc(batch, salt)
    }

    fn crc(&self, batch: &[u8], salt: u64) -> u64 {
        let records = &batch[BATCH_HEADER_BYTES..self.bytes()];
        crc64_of(&[&salt.to_le_bytes(), &batch[..BATCH_CRC_AT], records])
    }
}

/// The bytes that a record takes in a batch.
pub(super) fn record_bytes(body: &[Bytes]) -> usize {
    RECORD_HEADER_BYTES + body.iter().map(Bytes::len).sum::<usize>()
}

/// Writes a record to the front of `room` and returns what is left of it.
pub(super) fn encode_record<'a>(
    room: &'a mut [u8],
    stream: u16,
    kind: Kind,
    body: &[Bytes],
) -> &'a mut [u8] {
    let body_bytes: usize = body.iter().map(Bytes::len).sum();
    let body_bytes = u32::try_from(body_bytes).expect("an append is smaller than a file");
    let (tag, mark) = match kind {
        Kind::State => (1, 0),
        Kind::Entry(mark) => (2, mark),
    };
    room[..4].copy_from_slice(&body_bytes.to_le_bytes());
    room[4..6].copy_from_slice(&stream.to_le_bytes());
    room[6] = tag;
    room[7] = 0;
    room[8..16].copy_from_slice(&u64::to_le_bytes(mark));
    let mut room = &mut room[RECORD_HEADER_BYTES..];
    for piece in body {
        let (here, rest) = room.split_at_mut(piece.len());
        here.copy_from_slice(piece);
        room = rest;
    }
    room
}

/// The records of a batch whose checksum is right; `None` if they are nonsense nevertheless.
pub(super) fn decode_records(header: &BatchHeader, mut payload: Bytes) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    for _ in 0..header.records {
        if payload.len() < RECORD_HEADER_BYTES {
            return None;
        }
        let head = payload.split_to(RECORD_HEADER_BYTES);
        let body_bytes = u32::from_le_bytes(field(&head, 0)) as usize;
        if payload.len() < body_bytes {
            return None;
        }
        let kind = match head[6] {
            1 => Kind::State,
            2 => Kind::Entry(u64_at(&head, 8)),
            _ => return None,
        };
        records.push(Record {
            stream: u16::from_le_bytes(field(&head, 4)),
            kind,
            body: vec![payload.split_to(body_bytes)],
        });
    }
    payload.is_empty().then_some(records)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N]
        .try_into()
        .expect("a slice of N bytes is an array of N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: FileHeader = FileHeader {
        salt: 0x0102_0304_0506_0708,
        sequence: 9,
        file_bytes: 1 << 20,
    };

    #[test]
    fn every_flipped_bit_of_a_file_header_is_seen() {
        let mut block = vec![0; BLOCK_BYTES];
        assert_eq!(HeaderBlock::decode(&block), HeaderBlock::Blank);
        HEADER.encode(&mut block);
        assert_eq!(HeaderBlock::decode(&block), HeaderBlock::Valid(HEADER));
        for bit in 0..(FILE_CRC_AT + 8) * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(HeaderBlock::decode(&block), HeaderBlock::Bad, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// Two records in a batch, and its header.
    fn batch() -> (BatchHeader, Vec<u8>) {
        let body = [Bytes::from_static(b"ab"), Bytes::new(), "cde".into()];
        let mut batch = vec![0; BATCH_HEADER_BYTES + 2 * record_bytes(&body)];
        let room = encode_record(&mut batch[BATCH_HEADER_BYTES..], 3, Kind::Entry(77), &body);
        assert!(encode_record(room, 4, Kind::State, &body).is_empty());
        let header = BatchHeader {
            file: 5,
            sequence: 6,
            records: 2,
            payload_bytes: u32::try_from(batch.len() - BATCH_HEADER_BYTES).unwrap(),
        };
        header.encode(&mut batch, 42);
        (header, batch)
    }

    #[test]
    fn the_format_stays() {
        let mut block = vec![0; BLOCK_BYTES];
        HEADER.encode(&mut block);
        crate::golden::check("log-file-1.txt", &block);
        crate::golden::check("log-batch-1.txt", &batch().1);
    }

    /// What a disk may give for a batch: the records that are found in it, as the replay looks for them.
    fn records_of(bytes: &[u8]) -> Option<(BatchHeader, Vec<Record>)> {
        let header = BatchHeader::decode(bytes).filter(|header| header.bytes() <= bytes.len())?;
        let payload = Bytes::copy_from_slice(&bytes[BATCH_HEADER_BYTES..header.bytes()]);
        Some((header, decode_records(&header, payload)?))
    }

    /// Without the checksum, which no damage gets past: the decoder is safe by itself.
    #[test]
    fn any_bytes_are_a_batch_or_none() {
        let mut random = testkit::Random::new(23);
        let mut decoded = 0;
        for _ in 0..20_000 {
            let (_, mut bytes) = batch();
            for _ in 0..=random.below(3) {
                let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
                // Most numbers of a batch are small.
                bytes[at] = u8::try_from(random.below(256)).unwrap() >> random.below(8);
            }
            let Some((header, records)) = records_of(&bytes) else {
                continue;
            };
            decoded += 1;
            let mut again = vec![0; header.payload_bytes as usize];
            let mut room = &mut again[..];
            for record in &records {
                room = encode_record(room, record.stream, record.kind, &record.body);
            }
            assert!(room.is_empty());
            let payload = Bytes::from(again);
            let read = decode_records(&header, payload).expect("what was just written");
            assert_eq!(format!("{read:?}"), format!("{records:?}"));
        }
        assert!(decoded > 1000, "{decoded} of them were batches");
    }

    #[test]
    fn any_block_is_a_file_header_or_none() {
        let mut random = testkit::Random::new(24);
        for _ in 0..2_000 {
            let mut block = random.bytes(BLOCK_BYTES);
            assert_eq!(HeaderBlock::decode(&block), HeaderBlock::Bad);
            assert_eq!(BatchHeader::decode(&block), None);
            block[..8].copy_from_slice(FILE_MAGIC);
            assert_eq!(HeaderBlock::decode(&block), HeaderBlock::Bad);
            let crc = crc64_of(&[&block[..FILE_CRC_AT]]);
            block[FILE_CRC_AT..FILE_CRC_AT + 8].copy_from_slice(&crc.to_le_bytes());
            match HeaderBlock::decode(&block) {
                HeaderBlock::Foreign(version) => assert_ne!(version, VERSION),
                HeaderBlock::Valid(header) => {
                    let mut again = vec![0; BLOCK_BYTES];
                    header.encode(&mut again);
                    assert_eq!(HeaderBlock::decode(&again), HeaderBlock::Valid(header));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_batch_reads_as_it_was_written() {
        let body = [Bytes::from_static(b"ab"), Bytes::new(), "cde".into()];
        let mut batch = vec![0xee; BATCH_HEADER_BYTES + 2 * record_bytes(&body)];
        let room = encode_record(&mut batch[BATCH_HEADER_BYTES..], 3, Kind::Entry(77), &body);
        assert!(encode_record(room, 4, Kind::State, &body).is_empty());
        let header = BatchHeader {
            file: 5,
            sequence: 6,
            records: 2,
            payload_bytes: u32::try_from(batch.len() - BATCH_HEADER_BYTES).unwrap(),
        };
        header.encode(&mut batch, 42);

        assert_eq!(BatchHeader::decode(&batch), Some(header));
        assert!(header.verify(&batch, 42));
        assert!(!header.verify(&batch, 43));
        let payload = Bytes::copy_from_slice(&batch[BATCH_HEADER_BYTES..]);
        let records = decode_records(&header, payload.clone()).unwrap();
        assert_eq!(records[0].stream, 3);
        assert_eq!(records[0].kind, Kind::Entry(77));
        assert_eq!(records[1].kind, Kind::State);
        assert_eq!(records[1].body.concat(), b"abcde");
        assert!(decode_records(&header, payload.slice(1..)).is_none());

        for bit in 0..batch.len() * 8 {
            batch[bit / 8] ^= 1 << (bit % 8);
            let seen = BatchHeader::decode(&batch)
                .is_some_and(|h| h.bytes() <= batch.len() && h.verify(&batch, 42));
            assert!(!seen, "bit {bit}");
            batch[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
