//! Memory that reads fill, used again and again: so it is zeroed and paged in only once.

use std::sync::Arc;

use parking_lot::Mutex;

use super::FRAME_BYTES;
use super::record::HEADER_BYTES;

/// What a read can take: the frames of the longest read, and one more if it begins inside a frame.
pub(crate) const FRAMES_MAX: usize = super::READ_BYTES_MAX / FRAME_BYTES + 1;

/// Unused buffers are kept up to this much, for all sizes together.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Buffers {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// By how many frames they hold.
    by_frames: [Vec<Vec<u8>>; FRAMES_MAX + 1],
    bytes: usize,
}

/// Room for a header and some frames; goes back when it is dropped.
pub(crate) struct Buffer {
    pub(crate) memory: Vec<u8>,
    frames: usize,
    home: Buffers,
}

impl Buffers {
    /// A buffer for a header and `payload_bytes` of payload, with anything in it.
    pub(crate) fn take(&self, payload_bytes: usize) -> Buffer {
        // A small answer to a slow client should not hold a whole frame.
        let frames = match payload_bytes <= FRAME_BYTES / 2 {
            true => 0,
            false => payload_bytes.div_ceil(FRAME_BYTES),
        };
        let memory = match frames {
            0 => vec![0; HEADER_BYTES + payload_bytes],
            _ => self
                .take_kept(frames)
                .unwrap_or_else(|| vec![0; HEADER_BYTES + frames * FRAME_BYTES]),
        };
        let home = self.clone();
        Buffer {
            memory,
            frames,
            home,
        }
    }

    fn take_kept(&self, frames: usize) -> Option<Vec<u8>> {
        let mut kept = self.kept.lock();
        let memory = kept.by_frames[frames].pop()?;
        kept.bytes -= memory.len();
        Some(memory)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.home.kept.lock();
        if self.frames > 0 && kept.bytes + self.memory.len() <= KEPT_BYTES_MAX {
            kept.bytes += self.memory.len();
            kept.by_frames[self.frames].push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again() {
        let buffers = Buffers::default();
        let first = buffers.take(FRAME_BYTES);
        let memory = first.memory.as_ptr();
        drop(first);
        assert_eq!(buffers.take(FRAME_BYTES - 5).memory.as_ptr(), memory);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let buffers = Buffers::default();
        let many: Vec<_> = (0..100)
            .map(|_| buffers.take(FRAMES_MAX * FRAME_BYTES))
            .collect();
        drop(many);
        let kept = buffers.kept.lock().bytes;
        assert!(kept <= KEPT_BYTES_MAX && kept > KEPT_BYTES_MAX / 2);
    }
}
