//! Golden files: the bytes of every format version that ever landed, readable by people.
//!
//! A file has one line for each 16 bytes that are not all zeros: offset, then hexadecimal.
//! `BLESS=1` rewrites the files; review what changed: old data must stay readable.

use std::path::PathBuf;

/// Compares `bytes` with the golden file, which must hold the same.
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let path = path(name);
    let text = dump(bytes);
    if std::env::var_os("BLESS").is_some() {
        #[expect(clippy::disallowed_methods, reason = "a file of the repository")]
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "{name}: the format has changed");
    assert!(load(&golden) == bytes, "{name}: a golden file says all");
}

/// What a golden file says, of a version that is not written any more.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    load(&std::fs::read_to_string(path(name)).unwrap())
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn dump(bytes: &[u8]) -> String {
    let mut text = format!("{} bytes\n", bytes.len());
    for (i, row) in bytes.chunks(16).enumerate() {
        if row.iter().any(|byte| *byte != 0) {
            let hex: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("{:06x} {}\n", i * 16, hex.join(" "));
        }
    }
    text
}

fn load(text: &str) -> Vec<u8> {
    let (len, rows) = text.split_once(" bytes\n").unwrap();
    let mut bytes = vec![0; len.parse().unwrap()];
    for row in rows.lines() {
        let (at, hex) = row.split_once(' ').unwrap();
        let at = usize::from_str_radix(at, 16).unwrap();
        for (i, byte) in hex.split(' ').enumerate() {
            bytes[at + i] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    bytes
}
