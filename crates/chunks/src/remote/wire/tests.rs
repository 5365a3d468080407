use proptest::prelude::*;

use super::*;
use crate::testing::label;

const DEVICE: DeviceId = DeviceId(7);

fn id(number: u64) -> ChunkId {
    ChunkId::new(GroupId(3), 1, number)
}

fn body(call: &Call<'_>) -> Bytes {
    encode(DEVICE, call).concat().into()
}

fn write(label: Label, payload: Vec<Bytes>) -> Call<'static> {
    Call::Write {
        epoch: Epoch(5),
        id: id(1),
        label: Cow::Owned(label),
        payload: payload.into(),
    }
}

fn calls() -> Vec<Call<'static>> {
    vec![
        write(label("o"), vec![Bytes::from_static(b"payload")]),
        Call::Read {
            id: id(2),
            index: None,
            range: 5..9,
        },
        Call::Read {
            id: id(2),
            index: Some(5),
            range: 5..9,
        },
        Call::Delete {
            ids: vec![id(1), id(2)].into(),
        },
        Call::Delete {
            ids: Vec::new().into(),
        },
        Call::List {
            group: GroupId(3),
            after: None,
        },
        Call::List {
            group: GroupId(3),
            after: Some(id(4)),
        },
        Call::Describe { id: id(6) },
    ]
}

#[test]
fn golden() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let device = "07000000000000000000000000000000";
    let chunk = "010000000000010000000000_03000000".replace('_', "");
    let calls = calls();
    let label = "0161016301016fa08d06_00_00_00".replace('_', "");
    assert_eq!(
        hex(&body(&calls[0])),
        format!("0201{device}0500000000000000{chunk}7069e3f40d00{label}7061796c6f6164")
    );
    let listed = "040000000000010000000000_03000000".replace('_', "");
    assert_eq!(
        hex(&body(&calls[6])),
        format!("0204{device}03000000{listed}")
    );
    assert_eq!(
        hex(&encode_refusal(StorageError::Damaged("x".into()))),
        "020178"
    );
    assert_eq!(hex(&encode_refusal(StorageError::Stale)), "03");
}

#[test]
fn calls_survive_the_wire() {
    for call in calls() {
        assert_eq!(decode(body(&call)), Ok((DEVICE, call)));
    }
}

#[test]
fn a_call_that_is_cut_or_too_long_is_none() {
    for call in calls() {
        let whole = body(&call);
        for end in 0..whole.len() {
            if let Ok((_, shorter)) = decode(whole.slice(..end)) {
                // A list of ids has no end of its own.
                let is_list = matches!(call, Call::Delete { .. } | Call::List { .. });
                assert!(is_list && shorter != call, "{end} of {call:?}");
            }
        }
        let longer = Bytes::from([&whole[..], b"x"].concat());
        assert!(decode(longer).is_err(), "{call:?}");
    }
}

#[test]
fn what_a_device_would_not_take_is_no_call() {
    let bounds = Err(Malformed::BOUNDS);
    let full = Bytes::from(vec![1; CHUNK_BYTES_MAX]);
    decode(body(&write(label("o"), vec![full.clone()]))).unwrap();
    let over = vec![full, Bytes::from_static(b"x")];
    for payload in [over, vec![]] {
        assert_eq!(decode(body(&write(label("o"), payload))), bounds);
    }
    let long = label(&"x".repeat(OWNER_BYTES_MAX - 1));
    let refused = decode(body(&write(long, vec![Bytes::from_static(b"x")])));
    assert_eq!(refused, Err(Malformed::LABEL));
    let mib = 1 << 20;
    #[expect(clippy::reversed_empty_ranges, reason = "that is the point")]
    let ranges = [0..0, 5..4, 0..mib + 1, 4 * mib - 1..4 * mib + 1];
    for range in ranges {
        let read = Call::Read {
            id: id(1),
            index: None,
            range,
        };
        assert_eq!(decode(body(&read)), bounds, "{read:?}");
    }
    let ids = vec![id(1); DELETE_MAX + 1].into();
    assert_eq!(decode(body(&Call::Delete { ids })), bounds);
}

#[test]
fn a_flipped_bit_in_a_payload_is_seen() {
    let mut call = body(&write(label("o"), vec![Bytes::from_static(b"payload")])).to_vec();
    *call.last_mut().unwrap() ^= 4;
    assert_eq!(decode(call.into()), Err(Malformed::CHECKSUM));
    let answer = encode_payload(Bytes::from_static(b"payload")).concat();
    let decoded = decode_payload(answer.clone().into(), 7);
    assert_eq!(decoded, Ok(Bytes::from_static(b"payload")));
    assert_eq!(
        decode_payload(answer.clone().into(), 6),
        Err(Malformed::BOUNDS)
    );
    for byte in 0..answer.len() {
        let mut bad = answer.clone();
        bad[byte] ^= 1;
        assert_eq!(decode_payload(bad.into(), 7), Err(Malformed::CHECKSUM));
    }
}

#[test]
fn answers_hold_what_was_asked_for() {
    let list = |ids: &[ChunkId], after| {
        let answer = encode_list(ids).concat().into();
        decode_list(&answer, GroupId(3), after)
    };
    assert_eq!(list(&[], None), Ok(vec![]));
    assert_eq!(list(&[id(2), id(3)], Some(id(1))), Ok(vec![id(2), id(3)]));
    for (ids, after) in [
        (vec![id(2), id(3)], Some(id(2))),
        (vec![id(3), id(2)], None),
        (vec![id(2), id(2)], None),
        (vec![ChunkId::new(GroupId(4), 1, 1)], None),
        ((0..=LIST_MAX as u64).map(id).collect(), None),
    ] {
        assert_eq!(list(&ids, after), Err(Malformed::BOUNDS));
    }
    let description = Description {
        label: label("o"),
        bytes: 9,
    };
    let answer = encode_description(&description).concat().into();
    assert_eq!(decode_description(&answer), Ok(description.clone()));
    let empty = Description {
        bytes: 0,
        ..description
    };
    let answer = encode_description(&empty).concat().into();
    assert_eq!(decode_description(&answer), Err(Malformed::BOUNDS));
}

#[test]
fn refusals_survive_the_wire_and_are_short() {
    let text = "ä".repeat(TEXT_BYTES_MAX);
    for error in [
        StorageError::Full,
        StorageError::Missing,
        StorageError::Damaged("rot".into()),
        StorageError::Stale,
        StorageError::Unavailable("closed".into()),
        StorageError::Unreached("no".into()),
        StorageError::Overdue,
    ] {
        assert_eq!(decode_refusal(&encode_refusal(error.clone())), error);
    }
    let refusal = encode_refusal(StorageError::Damaged(text.clone()));
    assert!(refusal.len() < TEXT_BYTES_MAX + 8);
    let StorageError::Damaged(kept) = decode_refusal(&refusal) else {
        panic!("{refusal:?}");
    };
    assert!(text.starts_with(&kept));
    for foreign in [&b""[..], b"\x09", b"\x00\x00"] {
        let read = decode_refusal(foreign);
        assert!(matches!(read, StorageError::Unavailable(_)), "{read:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_call_or_an_error(
        mut bytes: Vec<u8>,
        operation in 0..8u8,
        is_ours: bool,
    ) {
        if is_ours && bytes.len() > 1 {
            (bytes[0], bytes[1]) = (VERSION, operation);
        }
        let bytes = Bytes::from(bytes);
        if let Ok((device, call)) = decode(bytes.clone()) {
            let again = Bytes::from(encode(device, &call).concat());
            prop_assert_eq!(decode(again), Ok((device, call)));
        }
        let _ = decode_payload(bytes.clone(), 9);
        let _ = decode_list(&bytes, GroupId(0), None);
        if let Ok(description) = decode_description(&bytes) {
            prop_assert!(description.bytes > 0);
        }
        let _ = decode_refusal(&bytes);
    }
}
