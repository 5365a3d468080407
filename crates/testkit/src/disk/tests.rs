use super::*;

const SEEDS: std::ops::Range<u64> = 0..2000;

fn new() -> (SimDisk, PathBuf) {
    let disk = SimDisk::new(1 << 20);
    let dir = PathBuf::from("/d");
    disk.create_dir(&dir).unwrap();
    (disk, dir)
}

fn write(file: &dyn File, bytes: &[u8], offset: u64) {
    file.write_at(&[IoSlice::new(bytes)], offset).unwrap();
}

fn read(disk: &SimDisk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, Open::Read).ok()?;
    let mut bytes = vec![0; 8192];
    let len = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(len);
    Some(bytes)
}

/// What power cuts make of a file on which `act` was called, over many seeds, each once.
fn outcomes(act: impl Fn(&SimDisk, &Path)) -> Vec<Option<Vec<u8>>> {
    let mut all: Vec<_> = SEEDS
        .map(|seed| {
            let (disk, dir) = new();
            act(&disk, &dir);
            disk.power_cut(seed);
            read(&disk, &dir.join("f"))
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn synced_bytes_under_a_synced_name_survive() {
    let left = outcomes(|disk, dir| {
        let file = disk.open(&dir.join("f"), Open::Write).unwrap();
        write(&*file, b"abc", 0);
        file.sync().unwrap();
        disk.sync_dir(dir).unwrap();
    });
    assert_eq!(left, [Some(b"abc".to_vec())]);
}

#[test]
fn a_name_that_was_not_synced_may_be_gone() {
    let left = outcomes(|disk, dir| {
        let file = disk.open(&dir.join("f"), Open::Write).unwrap();
        write(&*file, b"abc", 0);
        file.sync().unwrap();
    });
    assert_eq!(left, [None, Some(b"abc".to_vec())]);
}

#[test]
fn a_rename_that_was_not_synced_leaves_the_old_or_the_new() {
    let left = outcomes(|disk, dir| {
        for (name, bytes) in [("f", b"old"), ("new", b"new")] {
            let file = disk.open(&dir.join(name), Open::Write).unwrap();
            write(&*file, bytes, 0);
            file.sync().unwrap();
        }
        disk.sync_dir(dir).unwrap();
        disk.rename(&dir.join("new"), &dir.join("f")).unwrap();
    });
    assert_eq!(left, [Some(b"new".to_vec()), Some(b"old".to_vec())]);
}

#[test]
fn unsynced_writes_are_lost_kept_reordered_and_torn() {
    let left = outcomes(|disk, dir| {
        let file = disk.open(&dir.join("f"), Open::Write).unwrap();
        write(&*file, &[b'0'; 1024], 0);
        file.sync().unwrap();
        disk.sync_dir(dir).unwrap();
        write(&*file, &[b'1'; 1024], 0);
        write(&*file, &[b'2'; 512], 512);
    });
    let left: Vec<_> = left.into_iter().flatten().collect();
    for (first, second) in [(b'0', b'0'), (b'1', b'2'), (b'0', b'2'), (b'1', b'0')] {
        let wanted = [[first; 512], [second; 512]].concat();
        assert!(
            left.contains(&wanted),
            "{}{}",
            first as char,
            second as char
        );
    }
}

#[test]
fn durable_writes_survive_and_keep_their_place_among_others() {
    let block = vec![b'x'; 3 * 4096];
    let start = block.as_ptr().align_offset(4096);
    let left = outcomes(|disk, dir| {
        let cached = disk.open(&dir.join("f"), Open::Write).unwrap();
        disk.sync_dir(dir).unwrap();
        write(&*cached, &[b'y'; 4096], 0);
        let durable = disk.open(&dir.join("f"), Open::DirectDurable).unwrap();
        write(&*durable, &block[start..start + 4096], 0);
    });
    assert_eq!(left, [Some(vec![b'x'; 4096])]);
}

#[test]
fn a_failed_sync_loses_its_writes_even_if_the_next_succeeds() {
    let left = outcomes(|disk, dir| {
        let file = disk.open(&dir.join("f"), Open::Write).unwrap();
        disk.sync_dir(dir).unwrap();
        write(&*file, b"abc", 0);
        disk.fail_nth(0, ErrorKind::Other);
        file.sync().unwrap_err();
        file.sync().unwrap();
    });
    assert_eq!(left, [Some(vec![])]);
}

#[test]
fn the_power_stays_off_until_it_is_back() {
    let (disk, dir) = new();
    disk.power_off_at(1);
    let file = disk.open(&dir.join("f"), Open::Write).unwrap();
    assert!(file.write_at(&[IoSlice::new(b"x")], 0).is_err());
    assert!(file.sync().is_err());
    disk.power_cut(1);
    assert!(file.sync().is_err(), "a handle of the boot before");
    disk.open(&dir.join("f"), Open::Write).unwrap();
}

#[test]
fn direct_writes_must_be_aligned() {
    let (disk, dir) = new();
    let file = disk.open(&dir.join("f"), Open::Direct).unwrap();
    let refused = file.write_at(&[IoSlice::new(b"x")], 0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_full_disk_takes_nothing_more_until_something_goes() {
    let (disk, dir) = new();
    let file = disk.open(&dir.join("f"), Open::Write).unwrap();
    file.allocate(1 << 20).unwrap();
    write(&*file, b"inside what is allocated", 5000);
    let other = disk.open(&dir.join("g"), Open::Write).unwrap();
    let full = other.write_at(&[IoSlice::new(b"x")], 0).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert!(other.is_empty().unwrap());
    disk.remove(&dir.join("f")).unwrap();
    other.write_at(&[IoSlice::new(b"x")], 0).unwrap_err();
    drop(file);
    disk.sync_dir(&dir).unwrap();
    write(&*other, b"x", 0);
}

#[test]
fn a_directory_can_vanish_below_open_files() {
    let (disk, dir) = new();
    let file = disk.open(&dir.join("f"), Open::Write).unwrap();
    disk.vanish(&dir);
    write(&*file, b"nobody will find this", 0);
    assert!(disk.open(&dir.join("f"), Open::Write).is_err());
    assert!(disk.sync_dir(&dir).is_err());
}

#[test]
fn a_call_that_hangs_goes_on_when_the_disk_is_healed() {
    let (disk, dir) = new();
    let path = dir.join("f");
    let file = disk.open(&path, Open::Write).unwrap();
    disk.hang_when(|call, _| call == Call::Write);
    std::thread::scope(|scope| {
        let hangs = scope.spawn(|| write(&*file, b"abc", 0));
        while disk.calls_hung() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(read(&disk, &path), Some(Vec::new()), "other calls go on");
        assert!(!hangs.is_finished());
        disk.heal();
    });
    assert_eq!(read(&disk, &path), Some(b"abc".to_vec()));
}
