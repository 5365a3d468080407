use heed::CommitOrAbort;
use heed::types::Bytes;

use super::*;
use crate::lmdb::{Access, Lmdb, open};

const MAP_BYTES: usize = 64 << 20;

type Rows = heed::Database<'static, Bytes, Bytes>;

/// An environment with branches, leaves, long values, free pages and an empty database.
fn fill(dir: &Path) -> u64 {
    let env: Lmdb = open(dir, Access::ReadWrite, MAP_BYTES, 3).unwrap();
    let txn = env.write_txn().unwrap();
    let made = env.create_databases_and_commit(txn, |open, txn| {
        let rows = open.create_database(txn, Some("rows"))?;
        let empty = open.create_database(txn, Some("empty"))?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((rows, empty)))
    });
    let (rows, _empty): (Rows, Rows) = made.unwrap().unwrap_commit();
    let mut txn = env.write_txn().unwrap();
    for i in 0..4000u32 {
        let value = vec![1; if i % 500 == 3 { 9000 } else { 60 }];
        rows.put(&mut txn, &i.to_be_bytes(), &value).unwrap();
    }
    txn.commit().unwrap();
    for i in (0..4000u32).step_by(3) {
        let mut txn = env.write_txn().unwrap();
        rows.delete(&mut txn, &i.to_be_bytes()).unwrap();
        if i % 300 == 0 {
            txn.commit().unwrap();
        }
    }
    std::fs::metadata(dir.join("data.mdb")).unwrap().len()
}

#[test]
fn what_lmdb_wrote_is_right() {
    let dir = tempfile::tempdir().unwrap();
    verify(dir.path()).unwrap();
    fill(dir.path());
    verify(dir.path()).unwrap();
}

/// Reads everything as LMDB does. An error is as good as a row.
fn read(dir: &Path) -> Result<(), heed::Error> {
    let env: Lmdb = open(dir, Access::ReadOnly, MAP_BYTES, 3)?;
    let opened = env.open_databases_and_commit(env.read_txn()?, |open, txn| {
        let rows = open.open_database(txn, Some("rows"))?;
        let empty = open.open_database(txn, Some("empty"))?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((rows, empty)))
    });
    let (rows, empty): (Option<Rows>, Option<Rows>) = opened?.unwrap_commit();
    let txn = env.read_txn()?;
    for rows in [rows, empty].into_iter().flatten() {
        for row in rows.iter(&txn)? {
            let (key, _) = row?;
            rows.get(&txn, key)?;
        }
    }
    Ok(())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "LMDB's files are the real ones")]
fn what_is_called_right_does_not_end_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let len = fill(dir.path());
    let path = dir.path().join("data.mdb");
    let good = std::fs::read(&path).unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut found = 0;
    for _ in 0..400 {
        let mut bad = good.clone();
        // Heads of pages are where the structure is.
        let page = random.u64(..len / 4096) * 4096;
        let at = match random.bool() {
            true => page + random.u64(..200),
            false => random.u64(..len),
        };
        bad[usize::try_from(at).unwrap()] ^= 1 << random.u32(..8);
        std::fs::write(&path, &bad).unwrap();
        match verify(dir.path()) {
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "at {at}: {error}");
                found += 1;
            }
            Ok(()) => drop(read(dir.path())),
        }
    }
    assert!(found > 20, "only {found} of 400 were found");
}

#[test]
fn a_file_that_was_cut_off_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let len = fill(dir.path());
    let file = File::options()
        .write(true)
        .open(dir.path().join("data.mdb"));
    let file = file.unwrap();
    for part in [len / 2, 4096, 100, 0] {
        file.set_len(part).unwrap();
        verify(dir.path()).unwrap_err();
    }
}
