//! What every implementation of a seam must do.

#![expect(clippy::unwrap_used, reason = "this is a test, called from tests")]

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use base::env::{BLOCK_BYTES, Disk, File, Open};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Every [`Disk`] passes this. `dir` is a path that does not exist and may be made.
pub fn disk(disk: &dyn Disk, dir: &Path) {
    names(disk, &dir.join("names"));
    bytes(disk, &dir.join("bytes"));
    space(disk, &dir.join("space"));
    locks(disk, &dir.join("locks"));
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("must fail"),
        Err(error) => error.kind(),
    }
}

fn names(disk: &dyn Disk, dir: &Path) {
    assert_eq!(kind(disk.list(dir)), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir(dir)), ErrorKind::NotFound);
    assert_eq!(
        kind(disk.open(&dir.join("a"), Open::Write)),
        ErrorKind::NotFound
    );
    disk.create_dir(&dir.join("nested")).unwrap();
    disk.create_dir(&dir.join("nested")).unwrap();
    assert_eq!(disk.list(dir).unwrap(), ["nested"]);

    assert_eq!(
        kind(disk.open(&dir.join("a"), Open::Read)),
        ErrorKind::NotFound
    );
    for (name, how) in [
        ("a", Open::Write),
        ("b", Open::Direct),
        ("c", Open::DirectDurable),
    ] {
        disk.open(&dir.join(name), how).unwrap();
        disk.open(&dir.join(name), Open::Read).unwrap();
    }
    let b = disk.open(&dir.join("b"), Open::Read).unwrap();
    put(
        &*disk.open(&dir.join("a"), Open::Write).unwrap(),
        b"from a",
        0,
    );
    disk.rename(&dir.join("a"), &dir.join("b")).unwrap();
    disk.remove(&dir.join("c")).unwrap();
    assert_eq!(kind(disk.remove(&dir.join("c"))), ErrorKind::NotFound);
    assert_eq!(
        kind(disk.rename(&dir.join("a"), &dir.join("d"))),
        ErrorKind::NotFound
    );
    disk.sync_dir(dir).unwrap();

    let mut left = disk.list(dir).unwrap();
    left.sort();
    assert_eq!(left, ["b", "nested"]);
    let renamed = disk.open(&dir.join("b"), Open::Read).unwrap();
    assert_eq!(get(&*renamed, 10, 0), b"from a");
    assert!(b.is_empty().unwrap(), "an open handle keeps its file");
}

fn bytes(disk: &dyn Disk, dir: &Path) {
    disk.create_dir(dir).unwrap();
    let file = disk.open(&dir.join("f"), Open::Write).unwrap();
    file.write_at(&[], 7).unwrap();
    assert!(file.is_empty().unwrap(), "nothing was written");
    file.write_at(
        &[IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")],
        3,
    )
    .unwrap();
    file.sync().unwrap();
    assert_eq!(get(&*file, 100, 0), b"\0\0\0hello");
    assert_eq!(get(&*file, 2, 4), b"el");
    assert_eq!(get(&*file, 2, 8), b"");
    assert_eq!(get(&*file, 2, 1 << 40), b"");

    // Longer than one block and than one system call takes pieces.
    let pieces = [b"0123456789".as_slice(); 1500];
    let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    file.write_at(&slices, BLOCK - 5).unwrap();
    let all = get(&*file, 20_000, BLOCK - 5);
    assert!(all == pieces.concat(), "pieces follow each other");

    let read_only = disk.open(&dir.join("f"), Open::Read).unwrap();
    assert!(read_only.write_at(&[IoSlice::new(b"x")], 0).is_err());
    assert_eq!(get(&*read_only, 5, 3), b"hello", "handles see one file");
    match read_only.read_cached_at(&mut [0; 5], 3) {
        Ok(read) => assert_eq!(read, 5),
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }

    file.truncate(5).unwrap();
    file.truncate(10).unwrap();
    assert_eq!(get(&*file, 100, 0), b"\0\0\0he\0\0\0\0\0");

    let direct = disk.open(&dir.join("g"), Open::DirectDurable).unwrap();
    let block = aligned(b'd');
    direct
        .write_at(&[IoSlice::new(&block.0), IoSlice::new(&block.0)], BLOCK)
        .unwrap();
    assert_eq!(direct.len().unwrap(), 3 * BLOCK);
    let cached = disk.open(&dir.join("g"), Open::Read).unwrap();
    assert_eq!(get(&*cached, 3, 2 * BLOCK - 1), b"ddd");
    let mut back = aligned(0);
    let past = disk.open(&dir.join("g"), Open::ReadDirect).unwrap();
    assert_eq!(past.read_at(&mut back.0, 2 * BLOCK).unwrap(), BLOCK_BYTES);
    assert_eq!(back.0, block.0);
    assert!(past.write_at(&[IoSlice::new(&block.0)], 0).is_err());
    assert_eq!(direct.read_at(&mut back.0, BLOCK).unwrap(), BLOCK_BYTES);
    assert_eq!(back.0, block.0);
}

fn space(disk: &dyn Disk, dir: &Path) {
    assert!(disk.space(dir).is_err());
    disk.create_dir(dir).unwrap();
    let space = disk.space(dir).unwrap();
    assert!(space.free_bytes <= space.total_bytes && space.free_bytes > 0);

    let file = disk.open(&dir.join("f"), Open::Write).unwrap();
    file.allocate(64 * BLOCK).unwrap();
    assert_eq!(file.len().unwrap(), 64 * BLOCK);
    assert!(file.allocated_bytes().unwrap() >= 64 * BLOCK);
    assert_eq!(get(&*file, 2, BLOCK), [0, 0]);

    put(&*file, b"kept", 0);
    put(&*file, b"punched", 10 * BLOCK);
    put(&*file, b"kept", 20 * BLOCK);
    file.allocate(64 * BLOCK).unwrap();
    file.sync().unwrap();
    let before = file.allocated_bytes().unwrap();
    file.punch(BLOCK, 19 * BLOCK).unwrap();
    assert_eq!(file.len().unwrap(), 64 * BLOCK);
    assert!(file.allocated_bytes().unwrap() <= before - 18 * BLOCK);
    assert_eq!(get(&*file, 4, 0), b"kept");
    assert_eq!(get(&*file, 4, 10 * BLOCK), [0; 4]);
    assert_eq!(get(&*file, 4, 20 * BLOCK), b"kept");

    file.truncate(2 * BLOCK).unwrap();
    file.sync().unwrap();
    assert!(file.allocated_bytes().unwrap() <= 4 * BLOCK);
}

fn locks(disk: &dyn Disk, dir: &Path) {
    disk.create_dir(dir).unwrap();
    let first = disk.open(&dir.join("lock"), Open::Write).unwrap();
    let second = disk.open(&dir.join("lock"), Open::Write).unwrap();
    assert!(first.try_lock().unwrap());
    assert!(first.try_lock().unwrap(), "one's own lock is no obstacle");
    assert!(!second.try_lock().unwrap());
    drop(first);
    assert!(second.try_lock().unwrap());
}

fn put(file: &dyn File, bytes: &[u8], offset: u64) {
    file.write_at(&[IoSlice::new(bytes)], offset).unwrap();
}

fn get(file: &dyn File, len: usize, offset: u64) -> Vec<u8> {
    let mut buffer = vec![7; len];
    let read = file.read_at(&mut buffer, offset).unwrap();
    buffer.truncate(read);
    buffer
}

#[repr(align(4096))]
struct Aligned([u8; BLOCK_BYTES]);

fn aligned(byte: u8) -> Box<Aligned> {
    Box::new(Aligned([byte; BLOCK_BYTES]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_disk_conforms() {
        let dir = tempfile::tempdir().unwrap();
        disk(&*base::env::Env::real().disk, &dir.path().join("d"));
    }

    #[test]
    fn the_simulated_disk_conforms() {
        disk(&crate::SimDisk::new(1 << 30), Path::new("/sim/d"));
    }
}
