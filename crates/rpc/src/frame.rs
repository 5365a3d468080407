//! The frames that a connection consists of: docs/formats/rpc.md, byte by byte.

use bytes::Bytes;

use crate::error::{Fault, Versions};

pub(crate) const HEADER_BYTES: usize = 20;

/// What this program speaks.
pub(crate) const VERSIONS: Versions = 1..=1;

const MAGIC: [u8; 8] = *b"MRTLRPC\n";
const HELLO_BYTES: usize = 24;

/// Room for what later versions may have to say.
pub(crate) const HELLO_BYTES_MAX: usize = 256;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first frame of each side.
    Hello = 1,
    Call = 2,
    /// The caller no longer waits. The call is answered all the same, so that both sides agree on
    /// how many are in flight.
    Cancel = 3,
    Answer = 4,
    Refused = 5,
    /// The handler was not reached, see [`NotTaken`].
    NotTaken = 6,
    /// The handler did not finish; the tag is 1 if because of the deadline.
    Unfinished = 7,
    /// Says only that the sender is there.
    Alive = 8,
}

/// Why a call did not reach the handler: the tag of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Stranger = 1,
    Stopping = 2,
    /// The deadline passed before there was room for the body.
    Late = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body_bytes: u32,
    pub(crate) kind: Kind,
    /// Of a call the service; of a `NotTaken` or `Unfinished` the reason.
    pub(crate) tag: u16,
    pub(crate) id: u64,
    /// Of a call: how long the caller will still wait.
    pub(crate) remaining_ms: u32,
}

/// The other side does not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFrame {
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    #[error("a frame of {bytes} bytes, at most {max}")]
    TooLarge { bytes: u32, max: usize },
    #[error("an unexpected {0:?} frame")]
    Unexpected(Kind),
    #[error("no node port of a Martlet")]
    Hello,
    #[error("an answer to call {0}, which is none")]
    NoCall(u64),
    #[error("call {0} twice")]
    CallTwice(u64),
    #[error("more calls in flight than agreed")]
    TooMany,
    #[error("unknown reason {0}")]
    Reason(u16),
}

impl From<BadFrame> for Fault {
    fn from(bad: BadFrame) -> Self {
        Self::broken(bad)
    }
}

impl Header {
    pub(crate) fn new(kind: Kind, id: u64, body_bytes: u32) -> Self {
        Self {
            body_bytes,
            kind,
            tag: 0,
            id,
            remaining_ms: 0,
        }
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[6..8].copy_from_slice(&self.tag.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.remaining_ms.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, BadFrame> {
        let kind = match bytes[4] {
            1 => Kind::Hello,
            2 => Kind::Call,
            3 => Kind::Cancel,
            4 => Kind::Answer,
            5 => Kind::Refused,
            6 => Kind::NotTaken,
            7 => Kind::Unfinished,
            8 => Kind::Alive,
            other => return Err(BadFrame::Kind(other)),
        };
        Ok(Self {
            body_bytes: u32::from_le_bytes(field(bytes, 0)),
            kind,
            tag: u16::from_le_bytes(field(bytes, 6)),
            id: u64::from_le_bytes(field(bytes, 8)),
            remaining_ms: u32::from_le_bytes(field(bytes, 16)),
        })
    }

    /// The length of the body, if it is at most `max`.
    pub(crate) fn body_within(&self, max: usize) -> Result<usize, BadFrame> {
        match usize::try_from(self.body_bytes) {
            Ok(bytes) if bytes <= max => Ok(bytes),
            _ => Err(BadFrame::TooLarge {
                bytes: self.body_bytes,
                max,
            }),
        }
    }
}

impl NotTaken {
    pub(crate) fn from_tag(tag: u16) -> Result<Self, BadFrame> {
        match tag {
            1 => Ok(Self::Stranger),
            2 => Ok(Self::Stopping),
            3 => Ok(Self::Late),
            other => Err(BadFrame::Reason(other)),
        }
    }
}

impl From<NotTaken> for Fault {
    fn from(reason: NotTaken) -> Self {
        match reason {
            NotTaken::Stranger => Self::Stranger,
            NotTaken::Stopping => Self::Stopping,
            NotTaken::Late => Self::Deadline,
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Small = 0,
    Bulk = 1,
    Join = 2,
}

/// What the server says to the client's hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome = 0,
    Stranger = 1,
    Busy = 2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) versions: Versions,
    pub(crate) purpose: Purpose,
    pub(crate) verdict: Verdict,
    /// The longest body that the sender takes.
    pub(crate) body_bytes_max: u32,
    /// How many calls the sender takes at once.
    pub(crate) in_flight_max: u32,
}

impl Hello {
    pub(crate) fn encode(&self) -> Bytes {
        let mut body = Vec::with_capacity(HELLO_BYTES);
        body.extend(MAGIC);
        body.extend(self.versions.start().to_le_bytes());
        body.extend(self.versions.end().to_le_bytes());
        body.extend([self.purpose as u8, self.verdict as u8, 0, 0]);
        body.extend(self.body_bytes_max.to_le_bytes());
        body.extend(self.in_flight_max.to_le_bytes());
        body.into()
    }

    /// What comes after the fields that we know is of later versions, and not looked at.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, BadFrame> {
        let body: &[u8; HELLO_BYTES] = body.first_chunk().ok_or(BadFrame::Hello)?;
        if body[..8] != MAGIC {
            return Err(BadFrame::Hello);
        }
        let (oldest, newest) = (field(body, 8), field(body, 10));
        Ok(Self {
            versions: u16::from_le_bytes(oldest)..=u16::from_le_bytes(newest),
            purpose: match body[12] {
                0 => Purpose::Small,
                1 => Purpose::Bulk,
                2 => Purpose::Join,
                _ => return Err(BadFrame::Hello),
            },
            verdict: match body[13] {
                0 => Verdict::Welcome,
                1 => Verdict::Stranger,
                2 => Verdict::Busy,
                _ => return Err(BadFrame::Hello),
            },
            body_bytes_max: u32::from_le_bytes(field(body, 16)),
            in_flight_max: u32::from_le_bytes(field(body, 20)),
        })
    }

    /// That there is a version which both speak.
    pub(crate) fn agree(&self) -> Result<(), Fault> {
        let (theirs, ours) = (self.versions.clone(), VERSIONS);
        if theirs.start() <= ours.end() && ours.start() <= theirs.end() {
            return Ok(());
        }
        Err(Fault::Version { theirs, ours })
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Header = Header {
        body_bytes: 300,
        kind: Kind::Call,
        tag: 0x0102,
        id: 0x1112_1314_1516_1718,
        remaining_ms: 5_000,
    };

    fn hello() -> Hello {
        Hello {
            versions: 1..=3,
            purpose: Purpose::Bulk,
            verdict: Verdict::Busy,
            body_bytes_max: 8 << 20,
            in_flight_max: 16,
        }
    }

    #[test]
    fn golden() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&HEADER.encode()),
            "2c0100000200020118171615141312118813_0000".replace('_', "")
        );
        assert_eq!(
            hex(&hello().encode()),
            "4d52544c5250430a0100030001020000000080001000_0000".replace('_', "")
        );
    }

    #[test]
    fn frames_survive_the_wire() {
        assert_eq!(Header::decode(&HEADER.encode()), Ok(HEADER));
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
        let longer = [&hello().encode()[..], b"of version 9"].concat();
        assert_eq!(Hello::decode(&longer), Ok(hello()));
    }

    #[test]
    fn versions_must_overlap() {
        let with = |versions| {
            Hello {
                versions,
                ..hello()
            }
            .agree()
        };
        assert_eq!(with(1..=1), Ok(()));
        assert_eq!(with(0..=9), Ok(()));
        let refused = with(2..=3).unwrap_err().to_string();
        assert!(
            refused.contains("2..=3") && refused.contains("1..=1"),
            "{refused}"
        );
        assert!(with(0..=0).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes: [u8; HEADER_BYTES], body: Vec<u8>) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
            if let Ok(hello) = Hello::decode(&body) {
                prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
            }
        }
    }
}
