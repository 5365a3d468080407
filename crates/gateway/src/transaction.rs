//! Transaction ids: `tx` + 21 hex digits + `-` + the second in 10 hex digits [+ `-` + extra].

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use base::Timestamp;
use base::env::Entropy;
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// Names one request, in its answer and in every log line about it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionId(HeaderValue);

/// What a client may add to the id, in characters, before they are percent-encoded.
const EXTRA_CHARS_MAX: usize = 32;

/// What stands as it is in the extra part; so that the id is one word in every log.
const EXTRA_ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

impl TransactionId {
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("an id is made of ASCII characters")
    }

    pub fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes ids that differ within the process for ever, and between processes but for a chance of
/// 2^-84. They are names, not secrets.
pub(crate) struct Transactions {
    seed: u64,
    made: AtomicU64,
}

impl Transactions {
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        Self {
            seed: entropy.u64(),
            made: AtomicU64::new(entropy.u64()),
        }
    }

    pub(crate) fn next(&self, now: Timestamp, extra: Option<&HeaderValue>) -> TransactionId {
        let high = mix(self.made.fetch_add(1, Relaxed));
        let low = mix(high ^ self.seed);
        let mut id = [0; 34];
        id[..2].copy_from_slice(b"tx");
        hex(&mut id[2..18], high);
        hex(&mut id[18..23], low);
        id[23] = b'-';
        hex(&mut id[24..], now.secs());
        let value = match extra {
            None => HeaderValue::from_bytes(&id),
            Some(extra) => HeaderValue::from_bytes(&extended(&id, extra.as_bytes())),
        };
        TransactionId(value.expect("an id is made of ASCII characters"))
    }
}

fn extended(id: &[u8], extra: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(extra);
    let end = text.char_indices().nth(EXTRA_CHARS_MAX).map(|(at, _)| at);
    let cut = &text[..end.unwrap_or(text.len())];
    let mut id = id.to_vec();
    id.push(b'-');
    id.extend(percent_encode(cut.as_bytes(), EXTRA_ENCODED).flat_map(str::bytes));
    id
}

/// Fills `digits` with the lowest digits of `value`.
fn hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

/// A bijection that spreads each bit over all (the finisher of SplitMix64).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;
    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    #[test]
    fn an_id_has_swifts_shape() {
        let transactions = Transactions::new(&Fixed);
        let id = transactions.next(Timestamp::from_secs(0x6a6b_6c6d), None);
        let text = id.as_str();
        assert_eq!(text.len(), 34);
        assert!(text.starts_with("tx") && text.ends_with("-006a6b6c6d"));
        assert!(text[2..23].bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(id, transactions.next(Timestamp::from_secs(1), None));
    }

    #[test]
    fn extra_is_cut_then_encoded() {
        let transactions = Transactions::new(&Fixed);
        let extra = HeaderValue::from_bytes(&[b' '; 40]).unwrap();
        let id = transactions.next(Timestamp::from_secs(1), Some(&extra));
        assert_eq!(id.as_str()[34..], format!("-{}", "%20".repeat(32)));
        let odd = HeaderValue::from_bytes(b"caf\xe9/ok").unwrap();
        let id = transactions.next(Timestamp::from_secs(1), Some(&odd));
        assert_eq!(&id.as_str()[34..], "-caf%EF%BF%BD/ok");
    }
}
