//! The kinds of values that a setting can have: how they are read, bounded and written.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a setting accepts, with its bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// One or more directories; in the environment separated by `:`.
    Paths,
    /// `ADDRESS:PORT`.
    Address,
    /// `ADDRESS:PORT`, or `off`.
    AddressOrOff,
    Text,
    Choice(&'static [&'static str]),
    Bytes {
        min: u64,
        max: u64,
    },
    /// As `Bytes`, or `auto`.
    BytesOrAuto {
        min: u64,
        max: u64,
    },
    Time {
        min: Duration,
        max: Duration,
    },
    Count {
        min: u64,
        max: u64,
    },
}

/// A setting's value after it was read and found within its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Paths(Vec<PathBuf>),
    Address(Option<SocketAddr>),
    Text(String),
    Bytes(u64),
    Auto,
    Time(Duration),
    Count(u64),
}

impl Kind {
    /// Reads one value, as it stands in the environment or behind a flag.
    pub(crate) fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Paths => paths(text.split(':')),
            Kind::Address => parse_address(text).map(|address| Value::Address(Some(address))),
            Kind::AddressOrOff if text == "off" => Ok(Value::Address(None)),
            Kind::AddressOrOff => parse_address(text).map(|address| Value::Address(Some(address))),
            Kind::Text => Ok(Value::Text(text.to_owned())),
            Kind::Choice(choices) if choices.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(choices) => Err(format!("{text:?} is none of {}", choices.join(", "))),
            Kind::BytesOrAuto { .. } if text == "auto" => Ok(Value::Auto),
            Kind::Bytes { .. } | Kind::BytesOrAuto { .. } => {
                self.bounded(Value::Bytes(parse_bytes(text)?))
            }
            Kind::Time { .. } => self.bounded(Value::Time(parse_time(text)?)),
            Kind::Count { .. } => {
                let count = text.parse().map_err(|_| format!("{text:?} is no number"))?;
                self.bounded(Value::Count(count))
            }
        }
    }

    /// Reads a value of a configuration file.
    pub(crate) fn parse_toml(self, value: &toml::Value) -> Result<Value, String> {
        match (self, value) {
            (Kind::Paths, toml::Value::Array(list)) => {
                let texts: Option<Vec<_>> = list.iter().map(toml::Value::as_str).collect();
                let texts = texts.ok_or("every entry must be a text in quotes")?;
                paths(texts.into_iter())
            }
            (Kind::Paths, toml::Value::String(path)) => paths([path.as_str()].into_iter()),
            (_, toml::Value::String(text)) => self.parse(text),
            (
                Kind::Bytes { .. } | Kind::BytesOrAuto { .. } | Kind::Count { .. },
                toml::Value::Integer(number),
            ) => self.parse(&number.to_string()),
            (Kind::Time { .. }, toml::Value::Integer(number)) => {
                Err(format!("{number} needs a unit, as in \"{number}s\""))
            }
            (_, other) => Err(format!("is a {}, but must be {self}", other.type_str())),
        }
    }

    /// What stands for the value in a usage line.
    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Kind::Paths => "DIR",
            Kind::Address | Kind::AddressOrOff => "ADDR:PORT",
            Kind::Text => "TEXT",
            Kind::Choice(_) => "CHOICE",
            Kind::Bytes { .. } | Kind::BytesOrAuto { .. } => "BYTES",
            Kind::Time { .. } => "TIME",
            Kind::Count { .. } => "N",
        }
    }

    fn bounded(self, value: Value) -> Result<Value, String> {
        let inside = match (self, &value) {
            (Kind::Bytes { min, max } | Kind::BytesOrAuto { min, max }, Value::Bytes(n))
            | (Kind::Count { min, max }, Value::Count(n)) => (min..=max).contains(n),
            (Kind::Time { min, max }, Value::Time(time)) => (min..=max).contains(time),
            _ => true,
        };
        if inside {
            Ok(value)
        } else {
            Err(format!("{value} is out of bounds: {self}"))
        }
    }
}

/// Each text is one path, whatever it contains.
pub(crate) fn paths<'a>(paths: impl Iterator<Item = &'a str>) -> Result<Value, String> {
    let paths: Vec<PathBuf> = paths.map(PathBuf::from).collect();
    if paths.is_empty() || paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err("a directory's name is empty".to_owned());
    }
    Ok(Value::Paths(paths))
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no ADDRESS:PORT, such as 127.0.0.1:8080 or [::]:8080"))
}

const BYTE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `4096`, `64KiB`, `1GB`; units are binary with an `i` and decimal without.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let fault = || format!("{text:?} is no size, such as 4096, 64KiB or 1GB");
    let (number, unit) = split_unit(text);
    let scale = match unit {
        "" | "B" => 1,
        _ => {
            BYTE_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(fault)?
                .1
        }
    };
    let number: u64 = number.parse().map_err(|_| fault())?;
    number
        .checked_mul(scale)
        .ok_or_else(|| format!("{text:?} is more than any disk holds"))
}

/// Reads `250ms`, `10s`, `5m`, `1h`, `7d`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let fault = || format!("{text:?} is no time, such as 250ms, 10s, 5m, 1h or 7d");
    let (number, unit) = split_unit(text);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(fault()),
    };
    let number: u64 = number.parse().map_err(|_| fault())?;
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(fault)
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Kind::Paths => f.write_str("one or more directories"),
            Kind::Address => f.write_str("ADDRESS:PORT"),
            Kind::AddressOrOff => f.write_str("ADDRESS:PORT or off"),
            Kind::Text => f.write_str("text"),
            Kind::Choice(choices) => f.write_str(&choices.join(", ")),
            Kind::Bytes { min, max } => {
                write!(f, "{} to {}", Value::Bytes(min), Value::Bytes(max))
            }
            Kind::BytesOrAuto { min, max } => {
                write!(f, "{} to {}, or auto", Value::Bytes(min), Value::Bytes(max))
            }
            Kind::Time { min, max } => write!(f, "{} to {}", Value::Time(min), Value::Time(max)),
            Kind::Count { min, max } => write!(f, "{min} to {max}"),
        }
    }
}

/// Writes a value in the largest unit that says it exactly.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Paths(paths) => {
                let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
                f.write_str(&paths.join(":"))
            }
            Value::Address(Some(address)) => write!(f, "{address}"),
            Value::Address(None) => f.write_str("off"),
            Value::Text(text) => f.write_str(text),
            Value::Auto => f.write_str("auto"),
            Value::Count(count) => write!(f, "{count}"),
            Value::Bytes(bytes) => {
                let units = BYTE_UNITS[..4].iter().rev();
                match units.into_iter().find(|(_, scale)| bytes % scale == 0) {
                    Some((unit, scale)) if *bytes > 0 => write!(f, "{}{unit}", bytes / scale),
                    _ => write!(f, "{bytes}"),
                }
            }
            Value::Time(time) => {
                let millis = time.as_millis();
                let units = [
                    ("d", 86_400_000),
                    ("h", 3_600_000),
                    ("m", 60_000),
                    ("s", 1_000),
                ];
                match units.iter().find(|(_, scale)| millis % scale == 0) {
                    Some((unit, scale)) if millis > 0 => write!(f, "{}{unit}", millis / scale),
                    _ => write!(f, "{millis}ms"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: Kind, text: &str, expected: Result<&str, &str>) {
        let found = kind.parse(text).map(|value| value.to_string());
        let found = found.as_ref().map(String::as_str);
        assert_eq!(found.map_err(String::as_str), expected, "{kind:?} {text:?}");
    }

    const BYTES: Kind = Kind::Bytes {
        min: 4096,
        max: 1 << 40,
    };
    const TIME: Kind = Kind::Time {
        min: Duration::from_millis(10),
        max: Duration::from_hours(1),
    };

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        check(BYTES, "65536", Ok("64KiB"));
        check(BYTES, "64 KiB", Ok("64KiB"));
        check(BYTES, "1GB", Ok("1000000000"));
        check(BYTES, "1GiB", Ok("1GiB"));
    }

    #[test]
    fn sizes_outside_their_bounds_are_refused() {
        check(BYTES, "1", Err("1 is out of bounds: 4KiB to 1TiB"));
        check(BYTES, "2TiB", Err("2TiB is out of bounds: 4KiB to 1TiB"));
        check(
            BYTES,
            "99999999999TiB",
            Err("\"99999999999TiB\" is more than any disk holds"),
        );
        for text in ["", "KiB", "-1", "1.5GiB", "1 gib", "1KiB 2"] {
            let error = format!("{text:?} is no size, such as 4096, 64KiB or 1GB");
            check(BYTES, text, Err(&error));
        }
    }

    #[test]
    fn times_need_a_unit() {
        check(TIME, "250ms", Ok("250ms"));
        check(TIME, "60s", Ok("1m"));
        check(TIME, "2h", Err("2h is out of bounds: 10ms to 1h"));
        check(
            TIME,
            "10",
            Err("\"10\" is no time, such as 250ms, 10s, 5m, 1h or 7d"),
        );
    }

    #[test]
    fn only_some_addresses_can_be_off() {
        check(Kind::AddressOrOff, "off", Ok("off"));
        check(Kind::AddressOrOff, "[::1]:0", Ok("[::1]:0"));
        check(
            Kind::Address,
            "off",
            Err("\"off\" is no ADDRESS:PORT, such as 127.0.0.1:8080 or [::]:8080"),
        );
    }

    #[test]
    fn paths_are_separated_by_colons_in_text_and_listed_in_files() {
        check(Kind::Paths, "/a:b c", Ok("/a:b c"));
        check(Kind::Paths, "/a::b", Err("a directory's name is empty"));
        let list: toml::Table = "x = ['/a:b', 'c']".parse().unwrap();
        let paths = Kind::Paths.parse_toml(&list["x"]).unwrap();
        assert_eq!(paths, Value::Paths(vec!["/a:b".into(), "c".into()]));
    }

    #[test]
    fn a_file_gives_numbers_as_numbers_or_text() {
        let file: toml::Table = "n = 8192\nt = '8KiB'\nb = true".parse().unwrap();
        assert_eq!(BYTES.parse_toml(&file["n"]), Ok(Value::Bytes(8192)));
        assert_eq!(BYTES.parse_toml(&file["t"]), Ok(Value::Bytes(8192)));
        assert_eq!(
            TIME.parse_toml(&file["n"]),
            Err("8192 needs a unit, as in \"8192s\"".to_owned())
        );
        assert_eq!(
            TIME.parse_toml(&file["b"]),
            Err("is a boolean, but must be 10ms to 1h".to_owned())
        );
    }
}
