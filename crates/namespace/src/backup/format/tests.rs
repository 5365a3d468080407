use std::fmt::Write as _;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ID: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
const SHARD: ShardId = ShardId(1);

fn samples() -> Vec<(Bytes, Exported)> {
    vec![
        (Bytes::from_static(b"A"), Exported::Row(Bytes::new())),
        (Bytes::from_static(b"K\x01"), Exported::Counter(-2)),
        (
            Bytes::from_static(b"O\0name"),
            Exported::Row(Bytes::from_static(b"value")),
        ),
    ]
}

/// A backup of two shards, the second of which has one part; and that part.
fn backup(rows: &[(Bytes, Exported)]) -> (Manifest, Bytes) {
    let mut part = Part::new(ID, SHARD, 0);
    for (key, row) in rows {
        assert!(part.push(key, row));
    }
    let (bytes, sum) = part.seal();
    let manifest = Manifest {
        id: ID,
        cluster: 7,
        began: Timestamp::from_ticks(179_518_958_965_132),
        ended: Timestamp::from_ticks(179_518_958_965_133),
        shards: vec![
            ShardParts::default(),
            ShardParts {
                position: 300,
                parts: vec![sum],
            },
        ],
    };
    (manifest, bytes.into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(32).fold(String::new(), |mut hex, line| {
        for byte in line {
            write!(hex, "{byte:02x}").unwrap();
        }
        hex.push('\n');
        hex
    })
}

/// What was ever written stays readable: the bytes of version 1 do not change.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "rewrites the golden file when told to"
)]
fn backups_of_version_1_are_as_they_were() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/backup.v1.txt");
    let (manifest, part) = backup(&samples());
    let text = format!("manifest\n{}part\n{}", hex(&manifest.encode()), hex(&part));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_backup_reads_as_it_was_written() {
    let (manifest, part) = backup(&samples());
    assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
    assert_eq!(rows(&manifest, SHARD, 0, part), Ok(samples()));
}

#[test]
fn a_backup_with_any_byte_changed_or_missing_is_refused() {
    let (manifest, part) = backup(&samples());
    let encoded = manifest.encode();
    for at in 0..encoded.len() {
        for bit in 0..8 {
            let mut bytes = encoded.clone();
            bytes[at] ^= 1 << bit;
            assert!(Manifest::decode(&bytes).is_err(), "byte {at}, bit {bit}");
        }
        assert!(Manifest::decode(&encoded[..at]).is_err(), "{at} bytes");
    }
    for at in 0..part.len() {
        for bit in 0..8 {
            let mut bytes = part.to_vec();
            bytes[at] ^= 1 << bit;
            let read = rows(&manifest, SHARD, 0, bytes.into());
            assert!(read.is_err(), "byte {at}, bit {bit}");
        }
        let read = rows(&manifest, SHARD, 0, part.slice(..at));
        assert!(read.is_err(), "{at} bytes");
    }
}

#[test]
fn a_part_stands_for_no_other() {
    let (manifest, part) = backup(&samples());
    // Of another shard, of another number, of another backup, with other rows.
    assert!(rows(&manifest, ShardId(0), 0, part.clone()).is_err());
    assert!(rows(&manifest, SHARD, 1, part.clone()).is_err());
    let mut moved = manifest.clone();
    moved.shards.swap(0, 1);
    assert!(rows(&moved, ShardId(0), 0, part.clone()).is_err());
    let other = Manifest { id: 1, ..manifest };
    assert!(rows(&other, SHARD, 0, part.clone()).is_err());
    let (other, _) = backup(&samples()[1..]);
    assert!(rows(&other, SHARD, 0, part).is_err());
}

#[test]
fn a_full_part_takes_no_more_and_an_empty_one_takes_anything() {
    let mut part = Part::new(ID, SHARD, 0);
    let large = Exported::Row(vec![7; PART_BYTES_MAX].into());
    let half = Exported::Row(vec![7; PART_BYTES_MAX / 2].into());
    assert!(part.push(b"a", &half));
    assert!(!part.push(b"b", &half));
    assert!(part.push(b"c", &Exported::Counter(1)));
    assert!(part.seal().0.len() <= PART_BYTES_MAX);
    assert!(Part::new(ID, SHARD, 1).push(b"b", &large));
}

proptest! {
    #[test]
    fn any_rows_are_given_back(
        mut all in vec((vec(any::<u8>(), 1..50), vec(any::<u8>(), 0..50), any::<Option<i64>>()), 0..20)
    ) {
        let rows_of = all.drain(..).map(|(key, value, sum)| {
            let row = match sum {
                Some(sum) => Exported::Counter(sum),
                None => Exported::Row(value.into()),
            };
            (Bytes::from(key), row)
        });
        let expected: Vec<_> = rows_of.collect();
        let (manifest, part) = backup(&expected);
        prop_assert_eq!(rows(&manifest, SHARD, 0, part), Ok(expected));
    }

    #[test]
    fn any_bytes_are_a_backup_or_an_error(bytes: Vec<u8>) {
        // With a head and a checksum that are right, so that what is between them is looked at.
        for magic in [MANIFEST_MAGIC, PART_MAGIC] {
            let mut all = [&magic[..], &1u16.to_le_bytes(), &bytes].concat();
            let crc = crc64_of(&[&all]);
            all.put_u64_le(crc);
            let _ = Manifest::decode(&all);
            let bytes = u32::try_from(all.len()).unwrap();
            let (mut manifest, _) = backup(&[]);
            manifest.shards[1].parts[0] = PartSum { bytes, crc };
            let _ = rows(&manifest, SHARD, 0, all.into());
        }
    }
}
