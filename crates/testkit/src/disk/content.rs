//! The bytes of one simulated file, and what a power cut does to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::env::BLOCK_BYTES;

use crate::Random;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// What a disk writes whole.
const SECTOR: usize = 512;

/// A block that occupies space; `None` reads as zeros.
type Block = Option<Arc<[u8; BLOCK_BYTES]>>;

/// Sparse bytes: a block that is missing is a hole.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) len: u64,
    blocks: BTreeMap<u64, Block>,
}

/// One change of a file.
#[derive(Clone)]
pub(super) enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    Allocate { len: u64 },
    Truncate { len: u64 },
    Punch { offset: u64, len: u64 },
}

impl Content {
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let len = usize::try_from(self.len.saturating_sub(offset)).expect("64-bit");
        let len = len.min(buffer.len());
        let mut done = 0;
        while done < len {
            let (block, within, part) = step(offset + done as u64, len - done);
            let target = &mut buffer[done..done + part];
            match self.blocks.get(&block) {
                Some(Some(bytes)) => target.copy_from_slice(&bytes[within..within + part]),
                _ => target.fill(0),
            }
            done += part;
        }
        len
    }

    /// How many bytes of space the change would take.
    pub(super) fn cost(&self, change: &Change) -> u64 {
        let range = match change {
            Change::Write { offset, bytes } if bytes.is_empty() => *offset..*offset,
            Change::Write { offset, bytes } => {
                offset / BLOCK..(offset + bytes.len() as u64).div_ceil(BLOCK)
            }
            Change::Allocate { len } => 0..len.div_ceil(BLOCK),
            Change::Truncate { .. } | Change::Punch { .. } => return 0,
        };
        let taken = self.blocks.range(range.clone()).count() as u64;
        (range.end.saturating_sub(range.start) - taken) * BLOCK
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, bytes } => self.write(*offset, bytes),
            Change::Allocate { len } => {
                for block in 0..len.div_ceil(BLOCK) {
                    self.blocks.entry(block).or_insert(None);
                }
                self.len = self.len.max(*len);
            }
            Change::Truncate { len } => {
                if *len < self.len {
                    self.zero(*len, self.len);
                    self.blocks.split_off(&len.div_ceil(BLOCK));
                }
                self.len = *len;
            }
            Change::Punch { offset, len } => {
                let end = (offset + len).min(self.len.next_multiple_of(BLOCK));
                self.zero(*offset, end);
                for block in offset.div_ceil(BLOCK)..end / BLOCK {
                    self.blocks.remove(&block);
                }
            }
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (block, within, part) = step(offset + done as u64, bytes.len() - done);
            let target = self.blocks.entry(block).or_insert(None);
            let target = target.get_or_insert_with(|| Arc::new([0; BLOCK_BYTES]));
            Arc::make_mut(target)[within..within + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    /// Overwrites `from..to` with zeros where there are blocks.
    fn zero(&mut self, from: u64, to: u64) {
        for (block, bytes) in self.blocks.range_mut(from / BLOCK..to.div_ceil(BLOCK)) {
            let Some(bytes) = bytes else { continue };
            let cut = |at: u64| {
                let within = at.saturating_sub(block * BLOCK).min(BLOCK);
                usize::try_from(within).expect("at most a block")
            };
            Arc::make_mut(bytes)[cut(from)..cut(to)].fill(0);
        }
    }

    /// Applies a change as a power cut may leave it: wholly, not at all, or some sectors of it.
    pub(super) fn apply_torn(&mut self, change: &Change, random: &mut Random) {
        match change {
            _ if random.chance(1, 3) => self.apply(change),
            Change::Write { offset, bytes } if random.chance(1, 2) => {
                let first = SECTOR - usize::try_from(offset % SECTOR as u64).expect("small");
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min(if at == 0 { first } else { at + SECTOR });
                    if random.chance(1, 2) {
                        self.write(offset + at as u64, &bytes[at..end]);
                    }
                    at = end;
                }
            }
            _ => {}
        }
    }
}

/// The block of `offset`, the offset within it, and how much of `left` lies in it.
fn step(offset: u64, left: usize) -> (u64, usize, usize) {
    let within = usize::try_from(offset % BLOCK).expect("at most a block");
    (offset / BLOCK, within, left.min(BLOCK_BYTES - within))
}
