//! The JSON of the control API, for both its ends.

use base::DeviceId;
use namespace::Role;
use serde::{Deserialize, Serialize};

/// Why a request was refused; the body of every answer of 4xx and 5xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub error: String,
}

/// `PUT /admin/users/ACCOUNT/USER`: adds a user or replaces one; with `If-None-Match: *` only adds.
/// Has no `Debug`, so that the password cannot be printed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutUser {
    pub role: Role,
    #[serde(default)]
    pub groups: Vec<String>,
    /// Generated if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// `PUT /admin/users/ACCOUNT/USER/password`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutPassword {
    /// Generated if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// What both of them answer.
#[derive(Serialize, Deserialize)]
pub struct Generated {
    /// The password, if it was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// `GET /admin/users`, ordered by account and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    pub users: Vec<UserEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UserEntry {
    pub account: String,
    pub name: String,
    pub role: RoleName,
    pub groups: Vec<String>,
}

/// A role by its name, so that a list from a newer server can still be shown.
pub type RoleName = String;

/// `GET /admin/requests`.
#[derive(Clone, Debug, Serialize)]
pub struct RequestList {
    pub requests: Vec<gateway::InFlight>,
}

/// `GET /admin/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub uptime_s: u64,
    /// Nothing while not all shards answer, as is `garbage`.
    #[serde(default)]
    pub stored: Option<Stored>,
    pub devices: Vec<Device>,
    pub shards: u64,
    #[serde(default)]
    pub garbage: Option<Garbage>,
    pub requests_in_flight: u64,
    /// Chunks on this server's disks of which no good copy is left anywhere.
    #[serde(default)]
    pub lost: Vec<LostChunk>,
    /// Nothing while the server has no node port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<cluster::Status>,
}

/// What `POST /admin/tokens` answers: it lets one node in, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub token: String,
}

/// What `GET /admin/tokens` answers: those that are not forgotten yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenList {
    pub tokens: Vec<TokenEntry>,
}

/// A join token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenEntry {
    /// How long it is still good, in seconds. 0: it has expired.
    pub left_s: u64,
    /// 16 hexadecimal digits.
    pub id: String,
    /// The node that it let in.
    pub used_by: Option<u32>,
}

/// Reads a token's id: 16 hexadecimal digits.
pub fn token_id(text: &str) -> Option<u64> {
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Reads a device's id: 32 hexadecimal digits after a `d`, or without it.
pub fn device_id(text: &str) -> Option<DeviceId> {
    let text = text
        .strip_prefix('d')
        .filter(|rest| rest.len() == 32)
        .unwrap_or(text);
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = is_hex
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten();
    id.map(DeviceId)
}

/// What `POST /admin/backup` answers, on the socket alone: what there is to be saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupScope {
    /// The cluster's id: 32 hexadecimal digits.
    pub cluster: String,
    pub shards: u16,
}

/// What `POST /admin/backup/SHARD` answers: a view of the shard that is open for a minute, and as long as it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupView {
    /// Where it is open: as [`device_id`] reads it.
    pub device: String,
    pub number: u64,
    /// The last entry of the shard's log that is in it.
    pub position: u64,
}

/// `POST /admin/backup/SHARD/rows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadBackup {
    pub view: BackupView,
    /// `next` of the answer before, as it came; empty at first.
    pub after: String,
}

/// What that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRows {
    /// As in a part of a backup, in base64.
    pub rows: String,
    /// Nothing with the last rows.
    pub next: Option<String>,
}

/// `PUT /admin/nodes/NUMBER` and `PUT /admin/devices/ID`: what is to be otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutPart {
    /// Whether it is to give away all that it holds.
    pub draining: Option<bool>,
    /// Of a node alone.
    pub zone: Option<String>,
}

/// `PUT /admin/policies/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutPolicy {
    /// `ec:K+M` or `replicated:3`: what a new one is to be. None: it is there.
    #[serde(default)]
    pub kind: Option<String>,
    /// Whether containers get it for which nothing else is said.
    #[serde(default)]
    pub default: bool,
}

/// What `GET /admin/policies` answers, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyList {
    pub policies: Vec<PolicyEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyEntry {
    pub name: String,
    pub kind: String,
    pub default: bool,
}

/// What the clients stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub accounts: u64,
    pub containers: u64,
    pub objects: u64,
    pub bytes: u64,
}

/// A chunk of which no good copy is left.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LostChunk {
    /// Whose it is: `ACCOUNT/CONTAINER/OBJECT`; empty if not even that can be read.
    pub object: String,
    pub chunk: String,
    pub device: String,
}

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub id: String,
    pub directory: String,
    /// `healthy`, `read-only` or `failed`.
    pub state: String,
    /// Why it is not healthy; empty while it is.
    pub reason: String,
    pub total_bytes: u64,
    pub free_bytes: u64,
    /// Bodies are refused when less than this would be free.
    pub reserve_bytes: u64,
    pub chunks: u64,
    pub live_bytes: u64,
    /// What deleted chunks still occupy.
    pub dead_bytes: u64,
    /// Chunks known to be damaged or unreadable, found by reads and the scrubber.
    pub bad_records: u64,
    pub scrubbed_bytes: u64,
}

/// What was deleted or abandoned and still has to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// Manifests of deleted and overwritten objects that wait for the collector.
    pub queued: u64,
    pub queued_bytes: u64,
    /// Chunks of abandoned uploads that wait to be deleted.
    pub discards: u64,
}
