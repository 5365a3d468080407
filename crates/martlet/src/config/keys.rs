//! Every setting of the server, once. The configuration file, the environment, the flags, `--help`
//! and `docs/ops/configuration.md` are all made from this table.

use std::time::Duration;

use super::value::Kind;

/// A setting. `name` is its key in a file; the environment has `MARTLET_NAME`, the command line
/// `--name` with dashes.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    /// What it is, in one line, for `--help`.
    pub(crate) summary: &'static str,
    /// What else an operator should know before changing it; for the documentation.
    pub(crate) detail: &'static str,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const SECONDS: Kind = Kind::Time {
    min: Duration::from_secs(1),
    max: Duration::from_hours(1),
};

const RATE: Kind = Kind::Bytes {
    min: 64 * KIB,
    max: GIB,
};

pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "data",
        kind: Kind::Paths,
        default: "./martlet-data",
        summary: "Where data is kept; give it again for each further disk",
        detail: "Each directory should be on a disk of its own. The first also holds the admin socket \
                 and the first administrator's credentials. A directory that is missing or empty is \
                 made ready at the first start.",
    },
    Key {
        name: "listen",
        kind: Kind::Address,
        default: "127.0.0.1:8080",
        summary: "Where clients connect (Swift API)",
        detail: "Martlet speaks plain HTTP. On anything but a loopback address, put a TLS terminator \
                 in front: passwords and tokens are readable on the wire otherwise. Port 0 takes any \
                 free port and prints it.",
    },
    Key {
        name: "admin_listen",
        kind: Kind::AddressOrOff,
        default: "127.0.0.1:8081",
        summary: "Where the admin API and metrics are served, or off",
        detail: "Wants an administrator's credentials, except for `/healthz`. The admin socket in the \
                 first data directory works in any case.",
    },
    Key {
        name: "node_listen",
        kind: Kind::AddressOrOff,
        default: "off",
        summary: "Where other nodes of the cluster connect, or off: then this is the only one",
        detail: "Other nodes show certificates of the cluster's own authority there; nobody else is answered, but for \
                 a new node with a join token. Give an address that the other nodes can reach, and start \
                 the server again: what it holds stays, and `martlet token create` lets others in.",
    },
    Key {
        name: "node_address",
        kind: Kind::Text,
        default: "",
        summary: "The node port's HOST:PORT as the other nodes reach it",
        detail: "Empty: what `node_listen` says. Set it behind address translation, or to use a name.",
    },
    Key {
        name: "zone",
        kind: Kind::Text,
        default: "",
        summary: "What fails together with this node, such as its rack",
        detail: "Copies lie in different zones as far as there are any. Read when the node joins; `martlet node zone` \
                 changes it later.",
    },
    Key {
        name: "out_after",
        kind: Kind::Time {
            min: Duration::from_secs(1),
            max: Duration::from_hours(24 * 30),
        },
        default: "10m",
        summary: "How long a node or a disk is waited for before what it held is made again elsewhere",
        detail: "The setting of the node that leads the control group counts: give all nodes the same. Longer than a \
                 restart takes; copying everything for a node that comes back a minute later is work for nothing.",
    },
    Key {
        name: "join",
        kind: Kind::Text,
        default: "",
        summary: "The node port, HOST:PORT, of any node of the cluster that this server is to join",
        detail: "Wants `token` and `node_listen`, and empty data directories. Of no effect once it has joined, so it may \
                 stay in the configuration.",
    },
    Key {
        name: "token",
        kind: Kind::Text,
        default: "",
        summary: "A join token, from `martlet token create` on a node of the cluster",
        detail: "It lets one node in, once, within an hour, and says whose cluster it is.",
    },
    Key {
        name: "log",
        kind: Kind::Text,
        default: "info",
        summary: "What is logged: error, warn, info, debug, or a filter such as info,swift=debug",
        detail: "A filter is a list of levels, each for all or for one part (`part=level`). Which \
                 requests are logged is said by `access_log`.",
    },
    Key {
        name: "log_format",
        kind: Kind::Choice(&["auto", "human", "json"]),
        default: "auto",
        summary: "How it is logged; auto is human on a terminal and json otherwise",
        detail: "Logs go to standard error.",
    },
    Key {
        name: "shards",
        kind: Kind::Count { min: 1, max: 1024 },
        default: "16",
        summary: "How many shards the metadata is cut into; only read when data directories are made",
        detail: "It cannot be changed later. The default is enough for one machine.",
    },
    Key {
        name: "buffer_bytes",
        kind: Kind::Bytes {
            min: 16 * MIB,
            max: 1024 * GIB,
        },
        default: "256MiB",
        summary: "Memory for bodies in flight, both ways",
        detail: "All requests share it: three quarters are for uploads, one for downloads. When it is \
                 used up, uploads wait for the disks and their chunks become shorter; nothing fails.",
    },
    Key {
        name: "connections_max",
        kind: Kind::Count {
            min: 1,
            max: 1_000_000,
        },
        default: "4096",
        summary: "How many client connections are open at most",
        detail: "More are answered 503 and closed. Each needs a file descriptor: the server raises its \
                 own limit as far as the system lets it, and says at the start if that is not enough.",
    },
    Key {
        name: "head_timeout",
        kind: SECONDS,
        default: "10s",
        summary: "How long a request's head may take, from its first byte to its last",
        detail: "It is answered 408 after it, and the connection is closed; so is a new connection on \
                 which no byte has come for so long.",
    },
    Key {
        name: "idle_timeout",
        kind: SECONDS,
        default: "60s",
        summary: "How long a connection may be open between requests",
        detail: "It is closed after it.",
    },
    Key {
        name: "body_timeout",
        kind: SECONDS,
        default: "60s",
        summary: "How long a client may keep us waiting for its body, or for taking ours",
        detail: "Time that the server itself needs is not counted. A client that moves less than \
                 `body_bytes_per_second_min` for so long is answered 408 where an answer is still \
                 possible, and disconnected; what it uploaded is discarded.",
    },
    Key {
        name: "body_bytes_per_second_min",
        kind: Kind::Bytes { min: 0, max: GIB },
        default: "256",
        summary: "The least speed of a client, either way, measured over body_timeout",
        detail: "0 lets a client be as slow as it wants, as long as it moves at all.",
    },
    Key {
        name: "shutdown_grace",
        kind: Kind::Time {
            min: Duration::ZERO,
            max: Duration::from_hours(1),
        },
        default: "30s",
        summary: "How long requests may still take after SIGTERM or Ctrl-C",
        detail: "Then they are cut off. A second signal cuts them off at once. Acknowledged writes are \
                 safe in any case.",
    },
    Key {
        name: "access_log",
        kind: Kind::Choice(&["off", "failures", "all"]),
        default: "failures",
        summary: "Which requests get a line in the log",
        detail: "`failures` are those that the server or the connection failed: 408, 499 and 5xx.",
    },
    Key {
        name: "public_url",
        kind: Kind::Text,
        default: "",
        summary: "Where clients reach the Swift API, such as https://storage.example.com",
        detail: "It is what a token comes with as `X-Storage-Url`. Empty: the host that the request for \
                 the token named, by plain HTTP. Set it behind a TLS terminator.",
    },
    Key {
        name: "token_lifetime",
        kind: Kind::Time {
            min: Duration::from_mins(1),
            max: Duration::from_hours(24 * 365),
        },
        default: "1d",
        summary: "How long an auth token is good for",
        detail: "A changed password or a removed user ends tokens at once, whatever this says.",
    },
    Key {
        name: "inline_bytes_max",
        kind: Kind::Bytes {
            min: 0,
            max: 64 * KIB,
        },
        default: "16KiB",
        summary: "Bodies up to this size are kept with the metadata",
        detail: "They cost one sync instead of two, but are copied when the B-tree is written.",
    },
    Key {
        name: "garbage_delay",
        kind: Kind::Time {
            min: Duration::from_millis(1),
            max: Duration::from_hours(24 * 365),
        },
        default: "5s",
        summary: "How long a deleted body stays before it is removed",
        detail: "Longer than any request takes from looking an object up to beginning to read it. Bodies \
                 that are being read stay as long as that takes.",
    },
    Key {
        name: "expiry_delay",
        kind: Kind::Time {
            min: Duration::ZERO,
            max: Duration::from_hours(24 * 365),
        },
        default: "60s",
        summary: "How long an expired object can still be read by who asks for expired ones",
        detail: "It is hidden from everybody else at once, and counted until it is removed.",
    },
    Key {
        name: "reserve_bytes",
        kind: Kind::BytesOrAuto {
            min: 0,
            max: 1024 * GIB,
        },
        default: "auto",
        summary: "Free space on each disk below which bodies are refused (507)",
        detail: "It is for the log, the metadata and deletes, so that a full server can be emptied. At \
                 most half of the disk; `auto` is 4 %, between 32 MiB and 8 GiB.",
    },
    Key {
        name: "segment_bytes",
        kind: Kind::BytesOrAuto {
            min: 16 * MIB,
            max: GIB,
        },
        default: "auto",
        summary: "The size of a new segment file",
        detail: "`auto` is a sixteenth of the disk, between 16 MiB and 256 MiB.",
    },
    Key {
        name: "write_threads",
        kind: Kind::Count { min: 1, max: 64 },
        default: "4",
        summary: "Threads that write chunks, per disk",
        detail: "More than the disk can do at once gain nothing.",
    },
    Key {
        name: "memtable_bytes",
        kind: Kind::BytesOrAuto {
            min: MIB,
            max: 16 * GIB,
        },
        default: "auto",
        summary: "Memory for metadata that is not in the B-tree yet, per disk",
        detail: "When it is full it is written back, and as much again may be in use until that is done. \
                 `auto` is a sixty-fourth of the disk, between 4 MiB and 64 MiB.",
    },
    Key {
        name: "flush_interval",
        kind: Kind::Time {
            min: Duration::from_millis(10),
            max: Duration::from_mins(1),
        },
        default: "5s",
        summary: "How often metadata is written into the B-tree",
        detail: "A start after a crash replays from the log what was written since.",
    },
    Key {
        name: "log_file_bytes",
        kind: Kind::BytesOrAuto {
            min: 64 * KIB,
            max: GIB,
        },
        default: "auto",
        summary: "The size of a file of the log of metadata",
        detail: "`auto` is a thirty-second of the disk, between 4 MiB and 64 MiB.",
    },
    Key {
        name: "index_flush_interval",
        kind: Kind::Time {
            min: Duration::from_millis(10),
            max: Duration::from_mins(1),
        },
        default: "5s",
        summary: "How often the index of chunks is written back",
        detail: "A start after a crash reads what was written since.",
    },
    Key {
        name: "scrub_bytes_per_second",
        kind: RATE,
        default: "16MiB",
        summary: "How fast each disk is read in the background to find damage",
        detail: "At 16 MiB/s a terabyte takes 18 hours.",
    },
    Key {
        name: "scrub_interval",
        kind: Kind::Time {
            min: Duration::ZERO,
            max: Duration::from_hours(24 * 365),
        },
        default: "6h",
        summary: "The pause between the end of a scrub and the start of the next",
        detail: "",
    },
    Key {
        name: "compact_bytes_per_second",
        kind: RATE,
        default: "32MiB",
        summary: "How fast each disk is rewritten to win back the space of what was deleted",
        detail: "",
    },
    Key {
        name: "repair_bytes_per_second",
        kind: RATE,
        default: "256MiB",
        summary: "How fast the node copies what lacks copies, for all its disks together",
        detail: "While requests of clients come, it takes at most half of the time besides.",
    },
    Key {
        name: "leftover_age",
        kind: Kind::Time {
            min: Duration::from_mins(1),
            max: Duration::from_hours(24 * 365),
        },
        default: "1d",
        summary: "How old a chunk must be, to which nothing refers, before it is removed",
        detail: "Uploads write chunks long before they commit: keep it far above the longest upload.",
    },
];

/// The setting of that name.
pub(crate) fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

impl Key {
    /// As a flag, without the dashes in front: `admin-listen`.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// As an environment variable: `MARTLET_ADMIN_LISTEN`.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_uppercase())
    }
}

pub(crate) const VARIABLE_PREFIX: &str = "MARTLET_";

/// Variables with our prefix that are no settings: the file itself, and what other commands read.
pub(crate) const OTHER_VARIABLES: &[&str] = &["MARTLET_CONFIG", "MARTLET_USER", "MARTLET_PASSWORD"];
