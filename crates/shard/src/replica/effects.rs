//! The effects of one procedure, and what came of it, as they travel in an entry.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Batch;
use crate::call::RequestId;

/// What is remembered of an outcome. That of most procedures has a tenth of it; a longer one is not known to who repeats the
/// call.
pub(super) const OUTCOME_BYTES_MAX: usize = 4 << 10;
/// Room for the outcomes of most, so that a batch is not moved.
const OUTCOME_BYTES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Every time that a procedure was given so far is at most this, in ticks.
    pub(crate) time: u64,
    pub(crate) request: RequestId,
    pub(crate) batch: Bytes,
    /// What the caller is answered, encoded; nothing if that is too long.
    pub(crate) outcome: Bytes,
}

impl Effects {
    /// In one piece of memory, as [`Batch::encode`] makes it.
    pub(super) fn new<T: Serialize, E: Serialize>(
        request: RequestId,
        batch: &Batch,
        decided: &Result<T, E>,
    ) -> Self {
        let out = batch.encode_with(OUTCOME_BYTES);
        let batch_bytes = out.len();
        let out: BytesMut = postcard::to_extend(decided, out)
            .expect("values on the wire hold nothing that postcard cannot write");
        let mut batch = out.freeze();
        let mut outcome = batch.split_off(batch_bytes);
        if outcome.len() > OUTCOME_BYTES_MAX {
            outcome.clear();
        }
        Self {
            time: 0,
            request,
            batch,
            outcome,
        }
    }
}

/// What [`Effects::new`] wrote of an outcome; `None` if it was too long, or is of something else.
pub(super) fn decode_outcome<T, E>(outcome: &[u8]) -> Option<Result<T, E>>
where
    T: DeserializeOwned,
    E: DeserializeOwned,
{
    match postcard::take_from_bytes(outcome) {
        Ok((decided, [])) => Some(decided),
        Ok(_) | Err(_) => None,
    }
}

impl raft::Data for Effects {
    fn bytes(&self) -> usize {
        self.batch.len() + self.outcome.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: RequestId = RequestId {
        origin: 1,
        number: 2,
    };

    #[track_caller]
    fn check(decided: &Result<Vec<u8>, String>, is_kept: bool) {
        let mut batch = Batch::new();
        batch.put("k", "v");
        let effects = Effects::new(REQUEST, &batch, decided);
        assert_eq!(effects.batch, batch.encode());
        let read = decode_outcome(&effects.outcome);
        assert_eq!(read.as_ref(), is_kept.then_some(decided));
    }

    #[test]
    fn an_outcome_reads_as_it_was_written_unless_it_is_long() {
        check(&Ok(Vec::new()), true);
        check(&Err("no".to_owned()), true);
        check(&Ok(vec![7; 1000]), true);
        check(&Ok(vec![7; OUTCOME_BYTES_MAX]), false);
        for bad in [&b""[..], b"\x02", b"\x00\x05", b"\x00\x00\x00"] {
            assert_eq!(decode_outcome::<Vec<u8>, String>(bad), None, "{bad:?}");
        }
    }
}
