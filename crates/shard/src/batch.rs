//! The effects of a procedure, as Raft replicates them; bytes in docs/formats/log.md.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Error;

/// The longest key of a row. LMDB takes keys of up to some 2,000 B with pages of 4 KiB.
pub const KEY_BYTES_MAX: usize = 1_900;

/// One change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Put(Bytes, Bytes),
    Delete(Bytes),
    /// Counters commute: two batches may add to one without a latch on it.
    Add(Bytes, i64),
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub(crate) effects: Vec<Effect>,
    frees_space: bool,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys have 1 to [`KEY_BYTES_MAX`] bytes, here and below.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(Effect::Put(key.into(), value.into()));
    }

    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.push(Effect::Delete(key.into()));
    }

    /// Adds to a counter. Keys of counters are used for nothing else.
    pub fn add(&mut self, key: impl Into<Bytes>, by: i64) {
        self.push(Effect::Add(key.into(), by));
    }

    /// Says that the batch gives space back in the end, though it may put a few small rows: it is
    /// committed even where the device is full. A batch without puts needs not say so.
    pub fn frees_space(&mut self) {
        self.frees_space = true;
    }

    /// A batch without effects commits nothing and waits for nothing.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    fn push(&mut self, effect: Effect) {
        let key_bytes = effect.key().len();
        assert!(
            (1..=KEY_BYTES_MAX).contains(&key_bytes),
            "a key of {key_bytes} B"
        );
        self.effects.push(effect);
    }

    pub(crate) fn grows(&self) -> bool {
        let puts = |effect: &Effect| matches!(effect, Effect::Put(..));
        !self.frees_space && self.effects.iter().any(puts)
    }

    /// All effects in one piece of memory, which is what the log, the cache of entries and the
    /// memtable share from then on: so a value never pins the buffer it came in.
    pub(crate) fn encode(&self) -> Bytes {
        self.encode_with(0).freeze()
    }

    /// As [`Batch::encode`], with room for `more` bytes behind.
    pub(crate) fn encode_with(&self, more: usize) -> BytesMut {
        let bytes: usize = self.effects.iter().map(Effect::encoded_bytes).sum();
        let mut out = BytesMut::with_capacity(bytes + more);
        for effect in &self.effects {
            effect.encode(&mut out);
        }
        out
    }

    /// Reads what [`Batch::encode`] wrote; the effects are slices of `bytes`.
    pub(crate) fn decode(mut bytes: Bytes, out: &mut Vec<Effect>) -> Result<(), Error> {
        while !bytes.is_empty() {
            let effect = Effect::decode(&mut bytes);
            out.push(effect.ok_or_else(|| Error::Damaged("an effect in the log".into()))?);
        }
        Ok(())
    }
}

const PUT: u8 = 0;
const DELETE: u8 = 1;
const ADD: u8 = 2;

impl Effect {
    fn key(&self) -> &Bytes {
        match self {
            Self::Put(key, _) | Self::Delete(key) | Self::Add(key, _) => key,
        }
    }

    fn encoded_bytes(&self) -> usize {
        let rest = match self {
            Self::Put(_, value) => 4 + value.len(),
            Self::Delete(_) => 0,
            Self::Add(..) => 8,
        };
        1 + 4 + self.key().len() + rest
    }

    fn encode(&self, out: &mut BytesMut) {
        let key = self.key();
        out.put_u8(match self {
            Self::Put(..) => PUT,
            Self::Delete(_) => DELETE,
            Self::Add(..) => ADD,
        });
        out.put_u32_le(length(key));
        match self {
            Self::Put(_, value) => out.put_u32_le(length(value)),
            Self::Delete(_) => {}
            Self::Add(_, by) => out.put_i64_le(*by),
        }
        out.put_slice(key);
        if let Self::Put(_, value) = self {
            out.put_slice(value);
        }
    }

    fn decode(bytes: &mut Bytes) -> Option<Self> {
        let tag = bytes.try_get_u8().ok()?;
        let key_bytes = bytes.try_get_u32_le().ok()? as usize;
        let effect = match tag {
            PUT => {
                let value_bytes = bytes.try_get_u32_le().ok()? as usize;
                Self::Put(split(bytes, key_bytes)?, split(bytes, value_bytes)?)
            }
            DELETE => Self::Delete(split(bytes, key_bytes)?),
            ADD => {
                let by = bytes.try_get_i64_le().ok()?;
                Self::Add(split(bytes, key_bytes)?, by)
            }
            _ => return None,
        };
        (1..=KEY_BYTES_MAX).contains(&key_bytes).then_some(effect)
    }
}

fn length(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).expect("a batch is far smaller than 4 GiB")
}

pub(crate) fn split(bytes: &mut Bytes, at: usize) -> Option<Bytes> {
    (at <= bytes.len()).then(|| bytes.split_to(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_read_as_they_were_written() {
        let mut batch = Batch::new();
        batch.put("key", "value");
        batch.put("k", "");
        batch.delete("gone");
        batch.add("n", -7);
        let bytes = batch.encode();
        let mut effects = Vec::new();
        Batch::decode(bytes.clone(), &mut effects).unwrap();
        assert_eq!(effects, batch.effects);

        for end in 0..bytes.len() {
            let mut some = Vec::new();
            // Cut between two effects it is a shorter batch, elsewhere it is none.
            if Batch::decode(bytes.slice(..end), &mut some).is_ok() {
                assert_eq!(some, batch.effects[..some.len()]);
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            &b"\x09\0\0\0\0"[..],
            b"\x01\xff\xff\xff\xff",
            b"\x01\0\0\0\0",
        ] {
            assert!(
                Batch::decode(bad.into(), &mut Vec::new()).is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn deletes_and_counters_do_not_grow() {
        let mut batch = Batch::new();
        batch.delete("a");
        batch.add("n", 1);
        assert!(!batch.grows());
        batch.put("garbage", "x");
        assert!(batch.grows());
        batch.frees_space();
        assert!(!batch.grows());
    }
}
