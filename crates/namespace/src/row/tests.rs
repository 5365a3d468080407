use std::fmt::Write as _;
use std::path::Path;

use base::{ChunkId, GroupId};
use chunks::Chunk;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::key::{self, BodyId, Count, GarbageCount};
use crate::manifest;

const ID: ContainerId = ContainerId(0x0003_0123_4567_89ab);
const NOW: Timestamp = Timestamp::from_ticks(179_518_958_965_132);
const BODY: Version = Version(179_518_958_965_132);

fn metadata() -> Metadata {
    [(
        "x-object-meta-colour".to_owned(),
        Bytes::from_static(b"blue"),
    )]
    .into()
}

fn manifest() -> Vec<u8> {
    let chunk = |random, bytes| Chunk {
        id: ChunkId::new(GroupId(2), NOW.millis(), random),
        bytes,
    };
    manifest::encode(&[chunk(1, 4 << 20), chunk(2, 77)])
}

fn object<'a>(metadata: &'a Metadata, body: Body<'a>) -> ObjectRow<'a, &'a Metadata> {
    ObjectRow {
        head: ObjectHead {
            modified: NOW.next(),
            created: NOW,
            bytes: (4 << 20) + 77,
            md5: *b"0123456789abcdef",
            content_type: "text/plain".into(),
            delete_at: Some(1_800_000_000),
        },
        metadata,
        body,
    }
}

/// A row of each kind.
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn samples() -> Vec<(&'static str, Bytes, Bytes)> {
    let (metadata, manifest) = (metadata(), manifest());
    let id = BodyId {
        container: ID,
        name: "a/b".into(),
        version: BODY,
    };
    let head = ContainerHead {
        id: ID,
        created: NOW,
        modified: NOW.next(),
        changed: NOW,
        policy: 3,
    };
    let chunks = || Body::Chunks {
        version: BODY,
        manifest: Raw(&manifest),
    };
    let account = AccountRow {
        metadata: metadata.clone(),
        ..AccountRow::new(NOW)
    };
    let container = ContainerRow {
        head,
        metadata: metadata.clone(),
    };
    let name = ContainerNameRow {
        account: "AUTH_test".into(),
        name: "photos".into(),
    };
    let garbage = GarbageRow {
        queued: NOW,
        bytes: (4 << 20) + 77,
        body: chunks(),
    };
    let user = UserRow {
        role: Role::Reseller,
        groups: vec!["blue".into()],
        generation: 7,
        verifier: "$argon2id$...".into(),
    };
    let part = PartRow {
        manifest: Raw(&manifest),
    };
    let upload = UploadRow {
        touched: NOW,
        bytes: 4 << 20,
    };
    let line = AccountContainerRow { listed: NOW };
    let secret = SecretRow { secret: [7; 32] };
    let inline = object(&metadata, Body::Inline { end: Raw(b"end") });
    let parts = object(&metadata, Body::Parts { version: BODY });
    vec![
        ("account", key::account("AUTH_test"), encode(&account)),
        (
            "account total (counter)",
            key::account_total(Count::Bytes, "AUTH_test"),
            Bytes::new(),
        ),
        (
            "container list",
            key::account_container("AUTH_test", "photos", ID),
            encode(&line),
        ),
        (
            "container",
            key::container("AUTH_test", "photos"),
            container.encode(),
        ),
        ("container name", key::container_name(ID), encode(&name)),
        (
            "container count (counter)",
            key::container_count(Count::Objects, ID),
            Bytes::new(),
        ),
        ("object, inline", key::object(ID, "a/b"), encode(&inline)),
        (
            "object, chunks",
            key::object(ID, "a/b"),
            encode(&object(&metadata, chunks())),
        ),
        ("object, parts", key::object(ID, "a/b"), encode(&parts)),
        (
            "inline body",
            key::body(ID, "a/b"),
            Bytes::from_static(b"hello"),
        ),
        ("manifest part", id.part(4 << 20), encode(&part)),
        ("pending upload", id.upload(), encode(&upload)),
        ("garbage", id.garbage(), encode(&garbage)),
        (
            "garbage count (counter)",
            key::garbage_count(GarbageCount::Bytes),
            Bytes::new(),
        ),
        (
            "expiry",
            key::expiry(1_800_000_000, ID, "a/b"),
            Bytes::new(),
        ),
        ("user", key::user("test", "tester"), encode(&user)),
        ("secret", key::secret("tokens"), encode(&secret)),
    ]
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// What was ever written stays readable: the bytes do not change. All rows but a container's are of version 1.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "rewrites the golden file when told to"
)]
fn rows_are_as_they_were() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rows.v2.txt");
    let mut rows = String::new();
    for (name, key, value) in samples() {
        writeln!(rows, "{name}\n  {}\n  {}", hex(&key), hex(&value)).unwrap();
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &rows).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), rows);
}

#[test]
fn a_container_of_version_1_has_the_first_policy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rows.v1.txt");
    let golden = std::fs::read_to_string(path).unwrap();
    let mut lines = golden.lines().skip_while(|line| *line != "container");
    let value = lines.nth(2).unwrap().trim();
    let bytes = value.as_bytes().chunks(2).map(|digits| {
        let digits = std::str::from_utf8(digits).unwrap();
        u8::from_str_radix(digits, 16).unwrap()
    });
    let read = ContainerRow::decode(&bytes.collect::<Vec<_>>()).unwrap();
    assert_eq!((read.head.id, read.head.policy), (ID, 0));
    assert_eq!(read.metadata, metadata());
}

#[test]
fn an_object_reads_as_it_was_written() {
    let (metadata, manifest) = (metadata(), manifest());
    let chunks = Body::Chunks {
        version: BODY,
        manifest: Raw(&manifest),
    };
    for body in [
        Body::Inline { end: Raw(b"end") },
        chunks,
        Body::Parts { version: BODY },
    ] {
        let row = object(&metadata, body);
        let bytes = encode(&row);
        let read: ObjectRead<'_> = decode(&bytes).unwrap();
        assert_eq!((&read.head, &read.body), (&row.head, &row.body));
        assert_eq!(read.metadata.owned(&bytes), metadata);
        let (head, _) = decode_front::<ObjectHead<'_>>(&bytes).unwrap();
        assert_eq!(head, row.head);
    }
}

#[test]
fn what_is_cut_short_too_long_or_of_another_version_is_refused() {
    let row = ContainerNameRow {
        account: "a".into(),
        name: "b".into(),
    };
    let good = encode(&row);
    assert_eq!(decode_owned::<ContainerNameRow>(&good), Ok(row));
    let longer = [&good[..], &[0]].concat();
    let later = [&[2], &good[1..]].concat();
    for bad in [&good[..good.len() - 1], &[], &longer, &later] {
        let read = decode_owned::<ContainerNameRow>(bad);
        assert!(matches!(read, Err(Error::Damaged(_))), "{read:?}");
    }
}

prop_compose! {
    fn any_object()(
        ticks: u64, bytes: u64, md5: [u8; 16], content_type: String, delete_at: Option<u64>,
        metadata in btree_map(any::<String>(), vec(any::<u8>(), 0..20), 0..5),
    ) -> (ObjectHead<'static>, Metadata) {
        let head = ObjectHead {
            modified: Timestamp::from_ticks(ticks),
            created: Timestamp::from_ticks(bytes),
            bytes,
            md5,
            content_type: content_type.into(),
            delete_at,
        };
        let metadata = metadata.into_iter().map(|(name, value)| (name, value.into()));
        (head, metadata.collect())
    }
}

proptest! {
    #[test]
    fn any_object_reads_as_it_was_written((head, metadata) in any_object(), version: u64) {
        let version = Version(version);
        let row = ObjectRow { head, metadata: &metadata, body: Body::Parts { version } };
        let bytes = encode(&row);
        let read: ObjectRead<'_> = decode(&bytes).unwrap();
        prop_assert_eq!(read.head, row.head);
        prop_assert_eq!(&read.metadata.owned(&bytes), &metadata);
        prop_assert_eq!(read.body, row.body);
    }

    #[test]
    fn any_bytes_are_a_row_or_an_error(mut bytes: Vec<u8>) {
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        let _ = decode::<ObjectRead<'_>>(&bytes);
        let _ = decode::<GarbageRow<'_>>(&bytes);
        let _ = decode::<PartRow<'_>>(&bytes);
        let _ = ContainerRow::decode(&bytes);
        let _ = decode_owned::<AccountRow>(&bytes);
        let _ = decode_owned::<ContainerNameRow>(&bytes);
        let _ = decode_owned::<UserRow>(&bytes);
    }

    /// A damaged row must not make us ask for memory that it does not have.
    #[test]
    fn any_flipped_byte_is_survived(at: prop::sample::Index, with: u8) {
        for (_, _, value) in samples() {
            if !value.is_empty() {
                let mut value = value.to_vec();
                let at = at.index(value.len());
                value[at] ^= with;
                let _ = decode::<ObjectRead<'_>>(&value);
                let _ = decode::<GarbageRow<'_>>(&value);
                let _ = ContainerRow::decode(&value);
            }
        }
    }
}
