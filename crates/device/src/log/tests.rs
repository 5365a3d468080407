use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use base::DeviceId;
use base::env::BLOCK_BYTES;
use testkit::{Call, Random, SimDisk};

use super::*;
use crate::State;

const FILE_BYTES: u64 = 64 << 10;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// A log on a simulated disk.
struct World {
    env: Env,
    disk: SimDisk,
    health: Health,
    config: LogConfig,
}

impl World {
    fn new() -> Self {
        let (env, disk, _) = testkit::env(7, 64 << 20);
        let world = Self {
            env,
            disk,
            health: Health::new(DeviceId(1)),
            config: LogConfig {
                file_bytes: Some(FILE_BYTES),
                reserve_bytes: 0,
            },
        };
        Log::create(&world.env, &dir(), &world.health, &world.config).unwrap();
        world
    }

    fn open(&self) -> Result<(Log, Vec<Record>), Error> {
        let mut records = Vec::new();
        let visit = &mut |record| {
            records.push(record);
            Ok(())
        };
        let health = Health::new(DeviceId(1));
        let log = Log::open(&self.env, &dir(), &health, &self.config, visit)?;
        Ok((log, records))
    }

    /// The marks of the entries of stream 1.
    fn marks(&self) -> Result<Vec<u64>, Error> {
        let (_, records) = self.open()?;
        Ok(records.iter().filter_map(mark).collect())
    }

    fn power_cut(&self, seed: u64) {
        self.disk.power_cut(seed);
    }
}

fn dir() -> PathBuf {
    PathBuf::from("/log")
}

fn mark(record: &Record) -> Option<u64> {
    match record.kind {
        Kind::Entry(mark) => {
            let expected = body(mark);
            assert_eq!(record.body.concat(), expected.concat(), "entry {mark}");
            Some(mark)
        }
        Kind::State => None,
    }
}

/// Of some length between nothing and three blocks, in two pieces.
fn body(mark: u64) -> Vec<Bytes> {
    let mut random = Random::new(mark);
    let len = usize::try_from(random.below(3 * BLOCK)).unwrap();
    let whole = Bytes::from(random.bytes(len));
    vec![whole.slice(..len / 3), whole.slice(len / 3..)]
}

fn entry(mark: u64) -> Record {
    Record {
        stream: 1,
        kind: Kind::Entry(mark),
        body: body(mark),
    }
}

fn append(log: &Log, records: Vec<Record>) -> Receiver<Result<(), Error>> {
    let (done, result) = sync_channel(1);
    log.append(records, move |answer| done.send(answer).unwrap());
    result
}

/// Appends the entries one after the other until one fails; returns how many were acknowledged.
fn append_until_failure(log: &Log, marks: std::ops::Range<u64>) -> u64 {
    let mut acknowledged = marks.start;
    for mark in marks {
        if append(log, vec![entry(mark)]).recv().unwrap().is_err() {
            break;
        }
        acknowledged = mark + 1;
    }
    acknowledged
}

#[test]
fn what_was_appended_is_read_back_in_order() {
    let world = World::new();
    let (log, records) = world.open().unwrap();
    assert_eq!(records, []);
    let waiting: Vec<_> = (0..40).map(|i| append(&log, vec![entry(i)])).collect();
    for result in waiting {
        result.recv().unwrap().unwrap();
    }
    drop(log);
    assert!(world.marks().unwrap().into_iter().eq(0..40));
    assert_eq!(append_until_failure(&world.open().unwrap().0, 40..50), 50);
    assert!(world.marks().unwrap().into_iter().eq(0..50));
}

#[test]
fn the_newest_state_outlives_its_file() {
    let world = World::new();
    let (log, _) = world.open().unwrap();
    let state = |stream, body: &'static str| Record {
        stream,
        kind: Kind::State,
        body: vec![body.into()],
    };
    for record in [state(3, "old"), state(4, "other"), state(3, "new")] {
        append(&log, vec![record]).recv().unwrap().unwrap();
    }
    for mark in 0..200 {
        append(&log, vec![entry(mark)]).recv().unwrap().unwrap();
        log.release([(1, mark)]);
    }
    drop(log);
    let (_, records) = world.open().unwrap();
    let newest = |stream| {
        let mut of_stream = records.iter().filter(|record| record.stream == stream);
        of_stream.next_back().unwrap().body.concat()
    };
    assert_eq!((newest(3), newest(4)), (b"new".into(), b"other".into()));
    assert!(mark(records.last().unwrap()) == Some(199));
    let files = world.env.disk.list(&dir()).unwrap().len();
    assert!(files <= 5, "{files} files for one that is needed");
}

#[test]
fn what_one_stream_needs_stays() {
    let world = World::new();
    let (log, _) = world.open().unwrap();
    let other = Record {
        stream: 2,
        kind: Kind::Entry(7),
        body: Vec::new(),
    };
    append(&log, vec![other.clone()]).recv().unwrap().unwrap();
    append_until_failure(&log, 0..60);
    log.release([(1, 59), (2, 6)]);
    drop(log);
    let (_, records) = world.open().unwrap();
    assert_eq!(
        records[0],
        Record {
            body: vec![Bytes::new()],
            ..other
        }
    );
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_acknowledged() {
    for n in 0..260 {
        let world = World::new();
        let (log, _) = world.open().unwrap();
        append_until_failure(&log, 0..3);
        world.disk.power_off_at(n);
        // With releases, so that files are recycled too.
        let mut acknowledged = 3;
        for mark in 3..80 {
            if append(&log, vec![entry(mark)]).recv().unwrap().is_err() {
                break;
            }
            acknowledged = mark + 1;
            log.release([(1, mark.saturating_sub(10))]);
        }
        drop(log);
        world.power_cut(n);
        let marks = world
            .marks()
            .unwrap_or_else(|e| panic!("power cut {n}: {e}"));
        check_tail(&marks, acknowledged, n);

        // The log goes on where it ended, also after a second cut.
        let next = marks.last().unwrap() + 1;
        let (log, _) = world.open().unwrap();
        world.disk.power_off_at(n % 17);
        let acknowledged = append_until_failure(&log, next..next + 20);
        drop(log);
        world.power_cut(n + 1);
        let marks = world
            .marks()
            .unwrap_or_else(|e| panic!("second cut {n}: {e}"));
        check_tail(&marks, acknowledged, n);
    }
}

/// Whether `marks` go on to the last acknowledged one, with at most one more.
fn check_tail(marks: &[u64], acknowledged: u64, n: u64) {
    let last = *marks.last().unwrap();
    assert!(
        marks.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "cut {n}: {marks:?}"
    );
    assert!(
        marks[0] <= acknowledged.saturating_sub(10),
        "cut {n}: {marks:?}"
    );
    assert!(
        last + 1 == acknowledged || last == acknowledged,
        "cut {n}: {acknowledged} acknowledged, {marks:?}"
    );
}

#[test]
fn flipped_bits_are_damage_or_the_very_end() {
    let world = World::new();
    let (log, _) = world.open().unwrap();
    let count = append_until_failure(&log, 0..30);
    drop(log);
    let end = world.marks().unwrap().len() as u64;
    assert_eq!(end, count);

    let mut random = Random::new(3);
    let (mut damaged, mut last, mut unharmed) = (0, 0, 0);
    for name in world.env.disk.list(&dir()).unwrap() {
        let path = dir().join(name);
        for block in 0..FILE_BYTES / BLOCK {
            // At the head of the block, where a batch header would be, and anywhere.
            for at in [random.below(48), random.below(BLOCK)] {
                let bit = 1u8 << random.below(8);
                world.disk.flip(&path, block * BLOCK + at, &[bit]);
                match world.marks() {
                    Ok(marks) if marks.len() as u64 == count => unharmed += 1,
                    Ok(marks) => {
                        assert!(marks.into_iter().eq(0..count - 1), "{path:?} {block} {at}");
                        last += 1;
                    }
                    Err(Error::Damaged(_)) => damaged += 1,
                    Err(other) => panic!("{path:?} {block} {at}: {other}"),
                }
                world.disk.flip(&path, block * BLOCK + at, &[bit]);
            }
        }
    }
    assert!(
        damaged > 20 && last > 0 && unharmed > 20,
        "{damaged} {last} {unharmed}"
    );
}

#[test]
fn a_missing_file_is_damage() {
    let world = World::new();
    let (log, _) = world.open().unwrap();
    append_until_failure(&log, 0..60);
    drop(log);
    world.env.disk.remove(&dir().join("0001.log")).unwrap();
    assert!(matches!(world.marks(), Err(Error::Damaged(_))));
}

#[test]
fn the_first_failure_is_final() {
    let world = World::new();
    let mut records = 0;
    let visit = &mut |_| {
        records += 1;
        Ok(())
    };
    let log = Log::open(&world.env, &dir(), &world.health, &world.config, visit).unwrap();
    append_until_failure(&log, 0..3);
    world
        .disk
        .fail_when(|call, _| (call == Call::Write).then_some(ErrorKind::Other));
    let waiting: Vec<_> = (3..30).map(|i| append(&log, vec![entry(i)])).collect();
    for result in waiting {
        let answer = result.recv().unwrap();
        assert!(matches!(answer, Err(Error::Failed(_))), "{answer:?}");
    }
    assert_eq!(world.health.state(), State::Failed);
    world.disk.heal();
    let answer = append(&log, vec![entry(3)]).recv().unwrap();
    assert!(matches!(answer, Err(Error::Failed(_))));
    assert!(log.admit(1, Purpose::Reclaim).is_err());
    drop(log);
    assert!(world.marks().unwrap().into_iter().eq(0..3));
}

#[test]
fn nobody_waits_for_a_log_that_panicked() {
    // While the writer writes, and while it waits for the next file.
    for (call, appends) in [(Call::Write, 30), (Call::Open, 100)] {
        let world = World::new();
        let log = Log::open(
            &world.env,
            &dir(),
            &world.health,
            &world.config,
            &mut |_| Ok(()),
        )
        .unwrap();
        append_until_failure(&log, 0..3);
        world.disk.fail_when(move |now, _| {
            assert!(now != call, "a bug");
            None
        });
        let waiting: Vec<_> = (3..appends).map(|i| append(&log, vec![entry(i)])).collect();
        let answers: Vec<_> = waiting
            .iter()
            .map(|result| result.recv().unwrap())
            .collect();
        let last = answers.last().unwrap();
        assert!(matches!(last, Err(Error::Failed(_))), "{last:?}");
        assert_eq!(world.health.state(), State::Failed);
        drop(log);
        world.disk.heal();
        assert!(world.marks().unwrap().starts_with(&[0, 1, 2]));
    }
}

#[test]
fn a_log_whose_write_does_not_end_is_told_from_a_slow_one() {
    let world = World::new();
    let log = Log::open(
        &world.env,
        &dir(),
        &world.health,
        &world.config,
        &mut |_| Ok(()),
    )
    .unwrap();
    world.disk.hang_when(|call, _| call == Call::Write);
    let answer = append(&log, vec![entry(0)]);
    // The next file is made ready meanwhile, and hangs as well, but counts for nothing.
    let is_writing = || world.health.hangs(Duration::MAX);
    while !is_writing() {
        thread::yield_now();
    }
    let now = world.env.clock.monotonic();
    let hangs_after = |time| world.health.hangs(now + time);
    assert!(!hangs_after(Duration::from_secs(9)));
    assert!(hangs_after(Duration::from_secs(10)));
    // It is no failure: the write may end yet.
    assert_eq!(world.health.state(), State::Healthy);
    world.disk.heal();
    answer.recv().unwrap().unwrap();
    assert!(!hangs_after(Duration::from_secs(1000)));
}

#[test]
fn a_call_back_that_panics_harms_no_other() {
    let world = World::new();
    let log = Log::open(
        &world.env,
        &dir(),
        &world.health,
        &world.config,
        &mut |_| Ok(()),
    )
    .unwrap();
    // The second and the third go in one batch: the first holds the writer up until they are there.
    world.disk.hang_when(|call, _| call == Call::Write);
    log.append(vec![entry(0)], |_| {});
    while world.disk.calls_hung() == 0 {
        thread::yield_now();
    }
    let small = |stream| Record {
        stream,
        kind: Kind::State,
        body: vec![],
    };
    log.append(vec![small(1)], |_| panic!("a bug"));
    let answer = append(&log, vec![small(2)]);
    world.disk.heal();
    answer.recv().unwrap().unwrap();
    assert_eq!(world.health.state(), State::Failed);
    let refused = append(&log, vec![small(3)]).recv().unwrap();
    assert!(matches!(refused, Err(Error::Failed(_))), "{refused:?}");
}

#[test]
fn a_writer_that_waits_for_a_file_hears_of_a_failure_elsewhere() {
    let world = World::new();
    world.disk.resize(FILE_BYTES * 5 / 2);
    let log = Log::open(
        &world.env,
        &dir(),
        &world.health,
        &world.config,
        &mut |_| Ok(()),
    )
    .unwrap();
    // More than all files hold: the last ones wait.
    let waiting: Vec<_> = (0..100).map(|i| append(&log, vec![entry(i)])).collect();
    waiting[0].recv().unwrap().unwrap();
    // The writer, and the thread that makes spares.
    while log.shared.files_changed.notify_all() < 2 {
        thread::yield_now();
    }
    thread::yield_now();
    world.health.fail("elsewhere", &ErrorKind::Other.into());
    let last = waiting[99].recv().unwrap();
    assert!(matches!(last, Err(Error::Failed(_))), "{last:?}");
}

#[test]
fn a_writer_that_finds_no_space_for_a_file_asks_for_a_release() {
    let world = World::new();
    world.disk.resize(FILE_BYTES * 5 / 2);
    let (log, _) = world.open().unwrap();
    let (ask, asked) = std::sync::mpsc::sync_channel(1);
    log.on_shortage(move || {
        // One that was not heard yet will do.
        let _ = ask.try_send(());
    });
    // More than all files hold: the last ones wait.
    let waiting: Vec<_> = (0..100).map(|i| append(&log, vec![entry(i)])).collect();
    for (mark, answer) in waiting.iter().enumerate() {
        loop {
            match answer.try_recv() {
                Ok(answer) => break answer.unwrap(),
                Err(_) if asked.try_recv().is_ok() => log.release([(1, mark as u64)]),
                Err(_) => thread::yield_now(),
            }
        }
    }
    assert_eq!(world.health.state(), State::Healthy);
}

#[test]
fn a_full_disk_refuses_growth_until_something_is_released() {
    let world = World::new();
    // One file is there, one more fits, a third does not.
    world.disk.resize(FILE_BYTES * 5 / 2);
    let (log, _) = world.open().unwrap();
    let mut mark = 0;
    loop {
        // Until the thread that makes spares has found out whether it can.
        let mut files = log.shared.files.lock();
        while files.job() != files::Job::Wait {
            log.shared.files_changed.wait(&mut files);
        }
        drop(files);
        if log.admit(1, Purpose::Grow).is_err() {
            break;
        }
        append(&log, vec![entry(mark)]).recv().unwrap().unwrap();
        mark += 1;
        assert!(mark < 100, "the disk never gets full");
    }
    assert!(matches!(log.admit(1, Purpose::Grow), Err(Error::Full)));
    log.release([(1, mark)]);
    assert!(log.admit(1, Purpose::Grow).is_ok());
    for mark in mark..mark + 50 {
        append(&log, vec![entry(mark)]).recv().unwrap().unwrap();
        log.release([(1, mark)]);
    }
    assert_eq!(world.health.state(), State::Healthy);
}

#[test]
fn every_call_of_opening_may_fail() {
    let world = World::new();
    append_until_failure(&world.open().unwrap().0, 0..20);
    for n in 0..200 {
        world.disk.fail_nth(n, ErrorKind::Other);
        let opened = world.open();
        world.disk.heal();
        drop(opened);
        assert!(world.marks().unwrap().into_iter().eq(0..20), "call {n}");
    }
}

#[test]
fn a_log_that_is_only_read_stays_as_it_is() {
    let world = World::new();
    append_until_failure(&world.open().unwrap().0, 0..20);
    let writes = world.disk.calls(Call::Write);
    let mut marks = Vec::new();
    let visit = &mut |record| {
        marks.extend(mark(&record));
        Ok(())
    };
    let id = Log::read(&*world.env.disk, &dir(), visit).unwrap();
    assert_eq!(world.disk.calls(Call::Write), writes);
    assert!(marks.into_iter().eq(0..20));
    assert_eq!(id, world.open().unwrap().0.id());

    let nothing = Log::read(&*world.env.disk, "/none".as_ref(), &mut |_| Ok(()));
    assert!(matches!(nothing, Err(Error::NotFound)));
}
