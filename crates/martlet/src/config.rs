//! Settings of the server: a file, then the environment, then flags, the later ones winning.
//!
//! **Invariant:** a key that nobody knows and a value out of bounds stop the server before it
//! touches anything: a setting that silently does nothing is worse than none.

mod document;
mod keys;
mod suggest;
pub(crate) mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use keys::{KEYS, Key};
use keys::{OTHER_VARIABLES, VARIABLE_PREFIX, key};
use suggest::nearest;
use value::Value;

/// What the server was told, complete and within bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) data: Vec<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) node_listen: Option<SocketAddr>,
    pub(crate) node_address: String,
    pub(crate) zone: String,
    pub(crate) join: String,
    pub(crate) token: String,
    pub(crate) log: String,
    pub(crate) log_format: String,
    pub(crate) shards: u16,
    pub(crate) buffer_bytes: usize,
    pub(crate) connections_max: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) body_bytes_per_second_min: u64,
    pub(crate) shutdown_grace: Duration,
    pub(crate) access_log: String,
    pub(crate) public_url: String,
    pub(crate) token_lifetime: Duration,
    pub(crate) inline_bytes_max: usize,
    pub(crate) garbage_delay: Duration,
    pub(crate) expiry_delay: Duration,
    pub(crate) reserve_bytes: Option<u64>,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) write_threads: usize,
    pub(crate) memtable_bytes: Option<u64>,
    pub(crate) flush_interval: Duration,
    pub(crate) log_file_bytes: Option<u64>,
    pub(crate) index_flush_interval: Duration,
    pub(crate) scrub_bytes_per_second: u64,
    pub(crate) scrub_interval: Duration,
    pub(crate) out_after: Duration,
    pub(crate) compact_bytes_per_second: u64,
    pub(crate) repair_bytes_per_second: u64,
    pub(crate) leftover_age: Duration,
}

/// Where settings come from, as text.
#[derive(Default)]
pub(crate) struct Sources {
    /// The configuration file's name and contents.
    pub(crate) file: Option<(PathBuf, String)>,
    /// The whole environment; only variables with our prefix are looked at.
    pub(crate) environment: Vec<(String, String)>,
    /// Flags by key; one value each, except for `data`.
    pub(crate) flags: BTreeMap<&'static str, Vec<String>>,
}

/// A setting that is wrong, and where it was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: {message}", file.display())]
    File { file: PathBuf, message: String },
    #[error("{variable}: {message}")]
    Environment { variable: String, message: String },
    #[error("--{flag}: {message}")]
    Flag { flag: String, message: String },
}

impl Config {
    /// Settles every key.
    pub(crate) fn resolve(sources: &Sources) -> Result<Self, Error> {
        let mut values = defaults();
        if let Some((file, text)) = &sources.file {
            values.extend(from_file(file, text)?);
        }
        values.extend(from_environment(&sources.environment)?);
        values.extend(from_flags(&sources.flags)?);
        Ok(Self::of(values))
    }

    fn of(values: Values) -> Self {
        let mut values = Taken(values);
        Self {
            data: values.paths("data"),
            listen: values
                .address("listen")
                .expect("the table does not let it be off"),
            admin_listen: values.address("admin_listen"),
            node_listen: values.address("node_listen"),
            node_address: values.text("node_address"),
            zone: values.text("zone"),
            join: values.text("join"),
            token: values.text("token"),
            log: values.text("log"),
            log_format: values.text("log_format"),
            shards: u16::try_from(values.number("shards")).expect("bounded by the table"),
            buffer_bytes: values.size("buffer_bytes"),
            connections_max: values.size("connections_max"),
            head_timeout: values.time("head_timeout"),
            idle_timeout: values.time("idle_timeout"),
            body_timeout: values.time("body_timeout"),
            body_bytes_per_second_min: values.number("body_bytes_per_second_min"),
            shutdown_grace: values.time("shutdown_grace"),
            access_log: values.text("access_log"),
            public_url: values.text("public_url"),
            token_lifetime: values.time("token_lifetime"),
            inline_bytes_max: values.size("inline_bytes_max"),
            garbage_delay: values.time("garbage_delay"),
            expiry_delay: values.time("expiry_delay"),
            reserve_bytes: values.number_or_auto("reserve_bytes"),
            segment_bytes: values.number_or_auto("segment_bytes"),
            write_threads: values.size("write_threads"),
            memtable_bytes: values.number_or_auto("memtable_bytes"),
            flush_interval: values.time("flush_interval"),
            log_file_bytes: values.number_or_auto("log_file_bytes"),
            index_flush_interval: values.time("index_flush_interval"),
            scrub_bytes_per_second: values.number("scrub_bytes_per_second"),
            scrub_interval: values.time("scrub_interval"),
            out_after: values.time("out_after"),
            compact_bytes_per_second: values.number("compact_bytes_per_second"),
            repair_bytes_per_second: values.number("repair_bytes_per_second"),
            leftover_age: values.time("leftover_age"),
        }
    }
}

type Values = BTreeMap<&'static str, Value>;

/// Settled values by key. The table gives every key a default and its kind, so asking for a key
/// that it has, as the kind that it says, cannot fail; a test asks for all.
struct Taken(Values);

impl Taken {
    fn take(&mut self, name: &str) -> Value {
        self.0.remove(name).expect("every key has a default")
    }

    fn paths(&mut self, name: &str) -> Vec<PathBuf> {
        match self.take(name) {
            Value::Paths(paths) => paths,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn address(&mut self, name: &str) -> Option<SocketAddr> {
        match self.take(name) {
            Value::Address(address) => address,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn text(&mut self, name: &str) -> String {
        match self.take(name) {
            Value::Text(text) => text,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn number_or_auto(&mut self, name: &str) -> Option<u64> {
        match self.take(name) {
            Value::Bytes(number) | Value::Count(number) => Some(number),
            Value::Auto => None,
            other => unreachable!("{name} is {other:?}"),
        }
    }

    fn number(&mut self, name: &str) -> u64 {
        self.number_or_auto(name)
            .expect("the table does not let it be auto")
    }

    fn size(&mut self, name: &str) -> usize {
        usize::try_from(self.number(name)).expect("bounded by the table")
    }

    fn time(&mut self, name: &str) -> Duration {
        match self.take(name) {
            Value::Time(time) => time,
            other => unreachable!("{name} is {other:?}"),
        }
    }
}

fn defaults() -> Values {
    let value = |key: &Key| {
        key.kind
            .parse(key.default)
            .expect("a test reads all defaults")
    };
    KEYS.iter().map(|key| (key.name, value(key))).collect()
}

fn from_file(file: &Path, text: &str) -> Result<Values, Error> {
    let fault = |message: String| Error::File {
        file: file.to_owned(),
        message,
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        fault(format!("is not TOML: {}", error.to_string().trim_end()))
    })?;
    let mut values = Values::new();
    for (name, value) in &table {
        let Some(key) = key(name) else {
            let suggestion = nearest(name, KEYS.iter().map(|key| key.name));
            return Err(fault(unknown(&format!("key {name:?}"), suggestion)));
        };
        let value = key.kind.parse_toml(value);
        values.insert(
            key.name,
            value.map_err(|message| fault(format!("{name}: {message}")))?,
        );
    }
    Ok(values)
}

fn from_environment(environment: &[(String, String)]) -> Result<Values, Error> {
    let mut values = Values::new();
    for (variable, text) in environment {
        if !variable.starts_with(VARIABLE_PREFIX) || is_foreign(variable) {
            continue;
        }
        let fault = |message| Error::Environment {
            variable: variable.clone(),
            message,
        };
        let Some(key) = KEYS.iter().find(|key| key.variable() == *variable) else {
            let variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
            let suggestion = nearest(variable, variables.iter().map(String::as_str));
            return Err(fault(unknown("setting", suggestion)));
        };
        values.insert(key.name, key.kind.parse(text).map_err(fault)?);
    }
    Ok(values)
}

/// Kubernetes sets `MARTLET_PORT`, `MARTLET_SERVICE_HOST` and the like for a service of our name.
fn is_foreign(variable: &str) -> bool {
    OTHER_VARIABLES.contains(&variable)
        || variable == "MARTLET_PORT"
        || variable.starts_with("MARTLET_PORT_")
        || variable.starts_with("MARTLET_SERVICE_")
}

fn from_flags(flags: &BTreeMap<&'static str, Vec<String>>) -> Result<Values, Error> {
    let mut values = Values::new();
    for (name, texts) in flags {
        let key = key(name).expect("flags are made from the table");
        let value = match key.kind {
            // One flag is one path, whatever it contains.
            value::Kind::Paths => value::paths(texts.iter().map(String::as_str)),
            kind => kind.parse(texts.last().expect("a flag that was given has a value")),
        };
        let value = value.map_err(|message| Error::Flag {
            flag: key.flag(),
            message,
        })?;
        values.insert(key.name, value);
    }
    Ok(values)
}

fn unknown(what: &str, suggestion: Option<&str>) -> String {
    match suggestion {
        Some(suggestion) => format!("there is no such {what}; did you mean {suggestion}?"),
        None => format!("there is no such {what}; `martlet server --help` lists all settings"),
    }
}

#[cfg(test)]
mod tests;
