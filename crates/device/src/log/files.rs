//! Which files the log has, and what for: the books of the writer and of the thread that makes
//! spares. Decides, and does no I/O.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::env::File;

use super::{Purpose, Room};
use crate::Error;

/// A file on disk, whatever it is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The file's name.
    pub(super) number: u32,
    pub(super) bytes: u64,
}

/// A file that holds records.
pub(super) struct LiveFile {
    pub(super) slot: Slot,
    pub(super) sequence: u64,
    /// The highest mark of each stream that has entries here.
    pub(super) marks: BTreeMap<u16, u64>,
}

/// A file that is ready to be written.
pub(super) struct Spare {
    pub(super) slot: Slot,
    pub(super) sequence: u64,
    pub(super) file: Arc<dyn File>,
}

/// What the thread that makes spares shall do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Write the header of a new use into a file that was used before.
    Recycle {
        slot: Slot,
        sequence: u64,
    },
    /// Make a file.
    Make {
        number: u32,
        sequence: u64,
    },
    /// Give a file back to the file system: more are free than will be used soon.
    Remove(Slot),
    /// Nothing, until something changes.
    Wait,
    Quit,
}

pub(super) struct Files {
    /// With consecutive sequences, the oldest first; the writer writes to the last.
    pub(super) live: VecDeque<LiveFile>,
    pub(super) spare: Option<Spare>,
    /// No longer needed, the oldest first. They must be used again, or removed, in this order:
    /// that leaves no gap in the sequences.
    pub(super) free: VecDeque<Slot>,
    /// Up to where the entries of each stream are no longer needed.
    released: BTreeMap<u16, u64>,
    next_number: u32,
    /// What is left of the file being written.
    left_bytes: u64,
    /// The last attempt to make a file failed for want of space.
    no_space: bool,
    closed: bool,
}

/// Free files that are kept: the log takes a file or two between flushes.
const FREE_MAX: usize = 2;

impl Files {
    pub(super) fn new(live: VecDeque<LiveFile>, free: VecDeque<Slot>, next_number: u32) -> Self {
        Self {
            live,
            spare: None,
            free,
            released: BTreeMap::new(),
            next_number,
            left_bytes: 0,
            no_space: false,
            closed: false,
        }
    }

    pub(super) fn job(&self) -> Job {
        if self.closed {
            return Job::Quit;
        }
        let last = self.live.back().expect("one file is being written");
        let sequence = last.sequence + 1;
        match (&self.spare, self.free.front()) {
            (None, Some(slot)) => Job::Recycle {
                slot: *slot,
                sequence,
            },
            (None, None) if !self.no_space => Job::Make {
                number: self.next_number,
                sequence,
            },
            (Some(_), Some(slot)) if self.free.len() > FREE_MAX => Job::Remove(*slot),
            _ => Job::Wait,
        }
    }

    /// The file of a [`Job::Recycle`] or [`Job::Make`] is ready.
    pub(super) fn made(&mut self, spare: Spare) {
        if self.free.front() == Some(&spare.slot) {
            self.free.pop_front();
        }
        self.next_number = self.next_number.max(spare.slot.number + 1);
        self.no_space = false;
        self.spare = Some(spare);
    }

    /// The file of a [`Job::Remove`] is gone.
    pub(super) fn removed(&mut self, slot: Slot) {
        if self.free.front() == Some(&slot) {
            self.free.pop_front();
        }
    }

    /// There is no space for a [`Job::Make`]; it is tried again after the next release.
    pub(super) fn out_of_space(&mut self) {
        self.no_space = true;
    }

    /// Whether only a release brings another file.
    pub(super) fn is_short(&self) -> bool {
        self.no_space && self.spare.is_none() && self.free.is_empty()
    }

    /// The writer goes over to the spare file, if there is one.
    pub(super) fn take_spare(&mut self) -> Option<Arc<dyn File>> {
        let spare = self.spare.take()?;
        self.live.push_back(LiveFile {
            slot: spare.slot,
            sequence: spare.sequence,
            marks: BTreeMap::new(),
        });
        Some(spare.file)
    }

    /// The file being written holds these marks now, and has `left_bytes` left.
    pub(super) fn wrote(&mut self, marks: impl IntoIterator<Item = (u16, u64)>, left_bytes: u64) {
        let file = self.live.back_mut().expect("one file is being written");
        for (stream, mark) in marks {
            let highest = file.marks.entry(stream).or_default();
            *highest = mark.max(*highest);
        }
        self.left_bytes = left_bytes;
    }

    pub(super) fn release(&mut self, marks: impl IntoIterator<Item = (u16, u64)>) {
        for (stream, mark) in marks {
            let highest = self.released.entry(stream).or_default();
            *highest = mark.max(*highest);
        }
        while self.live.len() > 1 {
            let needed = |(stream, mark): (&u16, &u64)| self.released.get(stream) < Some(mark);
            if self.live[0].marks.iter().any(needed) {
                break;
            }
            let oldest = self.live.pop_front().expect("there is more than one");
            self.free.push_back(oldest.slot);
        }
        // Whoever releases has just written elsewhere: there may be space now.
        self.no_space = false;
    }

    /// Nothing of this stream is needed any more, and its marks may begin anew.
    pub(super) fn retire(&mut self, stream: u16) {
        for file in &mut self.live {
            file.marks.remove(&stream);
        }
        self.released.remove(&stream);
        self.release([]);
    }

    pub(super) fn admit(&self, bytes: u64, purpose: Purpose) -> Result<Room, Error> {
        if !self.is_short() {
            return Ok(Room::Ample);
        }
        // What several streams may append before the next of them looks here.
        let file = self.live.back().expect("one file is being written").slot;
        let slack = (1 << 20).min(file.bytes / 4);
        match purpose {
            Purpose::Reclaim if bytes + slack <= self.left_bytes => Ok(Room::Last),
            _ => Err(Error::Full),
        }
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

impl Slot {
    pub(super) fn name(self) -> String {
        format!("{:04}.log", self.number)
    }

    pub(super) fn number_in(name: &str) -> Option<u32> {
        name.strip_suffix(".log")?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 1 << 20;

    fn slot(number: u32) -> Slot {
        Slot {
            number,
            bytes: BYTES,
        }
    }

    fn live(sequences: std::ops::Range<u32>, mark: u64) -> VecDeque<LiveFile> {
        let file = |sequence| LiveFile {
            slot: slot(sequence),
            sequence: sequence.into(),
            marks: BTreeMap::from([(1, mark * u64::from(sequence)), (2, 5)]),
        };
        sequences.map(file).collect()
    }

    #[test]
    fn a_file_is_free_when_every_stream_has_let_go_of_it() {
        let mut files = Files::new(live(0..3, 10), VecDeque::new(), 3);
        files.release([(1, 15)]);
        assert!(files.free.is_empty(), "stream 2 still needs all of them");
        files.release([(2, 5)]);
        assert_eq!(files.free, [slot(0), slot(1)]);
        assert_eq!(files.live.len(), 1);
        files.release([(1, 100)]);
        assert_eq!(files.live.len(), 1, "the last one is being written");
        let next = Job::Recycle {
            slot: slot(0),
            sequence: 3,
        };
        assert_eq!(files.job(), next);
    }

    #[test]
    fn a_stream_that_ended_holds_no_file_and_may_begin_anew() {
        let mut files = Files::new(live(1..4, 10), VecDeque::new(), 3);
        files.release([(2, 5)]);
        assert_eq!(files.live.len(), 3);
        files.retire(1);
        assert_eq!(files.live.len(), 1);
        files.wrote([(1, 3)], 0);
        files.release([(1, 2)]);
        assert_eq!(files.live[0].marks[&1], 3, "what is new is needed");
    }

    #[test]
    fn a_full_disk_stops_growth_before_it_stops_reclaiming() {
        let mut files = Files::new(live(0..1, 0), VecDeque::new(), 1);
        files.wrote([], 3 << 20);
        assert!(matches!(files.job(), Job::Make { number: 1, .. }));
        files.out_of_space();
        assert_eq!(files.job(), Job::Wait);
        assert_eq!(files.admit(2 << 20, Purpose::Reclaim).unwrap(), Room::Last);
        assert!(files.admit(3 << 20, Purpose::Reclaim).is_err());
        assert!(files.admit(1, Purpose::Grow).is_err());

        files.release([]);
        assert_eq!(files.admit(1, Purpose::Grow).unwrap(), Room::Ample);
    }

    #[test]
    fn surplus_files_are_removed_oldest_first() {
        let mut files = Files::new(live(3..4, 0), (0..3).map(slot).collect(), 4);
        files.spare = Some(Spare {
            slot: slot(9),
            sequence: 4,
            file: base::env::Env::real()
                .disk
                .open("/dev/null".as_ref(), base::env::Open::Read)
                .unwrap(),
        });
        assert_eq!(files.job(), Job::Remove(slot(0)));
        files.removed(slot(0));
        assert_eq!(files.job(), Job::Wait);
    }
}
