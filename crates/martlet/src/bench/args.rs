//! The flags of `martlet bench`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::target::listing_query;
use crate::config::value::{parse_bytes, parse_time};

#[derive(Debug, Args)]
#[command(after_help = "\
Objects are named by a number: with --prefix photos/ --dirs 10 the 25th is photos/d0005/00000025.
What they hold follows from their name, their size and --seed: so a later run, or one against
another server, can check every byte. Give the same three to get what you gave to put.

Examples:
  martlet bench put --count 100000 --size 4KiB
  martlet bench get --count 100000 --objects 100000 --size 4KiB
  martlet bench get --duration 10s --objects 1000 --size 4KiB --url http://127.0.0.1:9000/{}
  martlet bench put --count 200 --size 64MiB --connections 200 --pace 1MiB
  martlet bench list --count 1000 --list-prefix d0001/ --delimiter /

Exit code 0: every request was answered as it should be, every checked body was right; 1: not so;
2: the run could not be made.")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(super) operation: Operation,
}

#[derive(Debug, Subcommand)]
pub(super) enum Operation {
    /// Write objects, each once; makes the container
    Put {
        #[command(flatten)]
        objects: ObjectArgs,
        /// Send each body at this many bytes a second, as slow clients do
        #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
        pace: Option<u64>,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Read objects and check their bodies
    Get {
        #[command(flatten)]
        objects: ObjectArgs,
        /// Read the first N objects, in random order, as often as --count or --duration says
        /// [default: each once, in order]
        #[arg(long = "objects", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        among: Option<u64>,
        /// Plain GETs of these addresses instead of Swift's; {} stands for the object's name
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Do not compare the bodies
        #[arg(long)]
        no_check: bool,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Delete objects, each once
    Delete {
        #[command(flatten)]
        objects: ObjectArgs,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Write, read and delete at random; each connection has objects of its own and knows what must
    /// be there
    Mix {
        #[command(flatten)]
        objects: ObjectArgs,
        /// How many objects are in play
        #[arg(long = "objects", value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..))]
        among: u64,
        /// Of a hundred requests, how many write and how many delete; the others read
        #[arg(long, value_name = "PUTS,DELETES", default_value = "30,10")]
        mix: Mix,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// List a container
    List(ListArgs),
    /// Write the objects as files, for another server to serve; uses no network
    Files {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        #[command(flatten)]
        objects: ObjectArgs,
        #[arg(long, value_name = "N")]
        count: u64,
    },
}

#[derive(Clone, Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) names: NameArgs,
    #[arg(long, value_name = "TEXT")]
    list_prefix: Option<String>,
    #[arg(long, value_name = "TEXT")]
    delimiter: Option<String>,
    #[arg(long, value_name = "TEXT")]
    marker: Option<String>,
    /// Names asked for in one answer
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u32,
    #[command(flatten)]
    pub(super) load: LoadArgs,
}

impl ListArgs {
    /// What stands behind the container's path and a question mark.
    pub(super) fn query(&self) -> String {
        let mut parameters = BTreeMap::from([("limit", self.limit.to_string())]);
        parameters.extend(self.list_prefix.clone().map(|text| ("prefix", text)));
        parameters.extend(self.delimiter.clone().map(|text| ("delimiter", text)));
        parameters.extend(self.marker.clone().map(|text| ("marker", text)));
        listing_query(&parameters)
    }
}

/// Which objects.
#[derive(Clone, Debug, Args)]
pub(super) struct ObjectArgs {
    #[command(flatten)]
    pub(super) names: NameArgs,
    /// The size of each object
    #[arg(long, value_name = "BYTES", default_value = "4KiB", value_parser = parse_bytes)]
    pub(super) size: u64,
    /// Other numbers give other bodies
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
}

#[derive(Clone, Debug, Args)]
pub(super) struct NameArgs {
    #[arg(long, value_name = "NAME", default_value = "bench")]
    pub(super) container: String,
    /// What all names begin with
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) prefix: String,
    /// Spread the objects over this many directories (d0000/ and so on)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) dirs: Option<u64>,
    /// The number of the first object
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) first: u64,
}

impl NameArgs {
    pub(super) fn name(&self, number: u64) -> String {
        let prefix = &self.prefix;
        match self.dirs {
            Some(dirs) => format!("{prefix}d{:04}/{number:08}", number % dirs),
            None => format!("{prefix}{number:08}"),
        }
    }
}

/// Against whom, how many, how long.
#[derive(Clone, Debug, Args)]
pub(super) struct LoadArgs {
    /// Where to get a token (Swift's auth v1.0)
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080/auth/v1.0"
    )]
    pub(super) auth: String,
    /// Who; the password is read from MARTLET_PASSWORD, or else from --data
    #[arg(
        long,
        value_name = "ACCOUNT:USER",
        default_value = "main:admin",
        env = "MARTLET_USER"
    )]
    pub(super) user: String,
    /// The data directory whose admin-credentials file holds the password
    #[arg(long, value_name = "DIR", default_value = "./martlet-data")]
    pub(super) data: PathBuf,
    /// How many connections, each with one request at a time
    #[arg(long, short = 'c', value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(super) connections: u64,
    /// Stop after this many requests
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        required_unless_present = "duration"
    )]
    pub(super) count: Option<u64>,
    /// Start no request after this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) duration: Option<Duration>,
    /// Give a request up after this time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pub(super) timeout: Duration,
    /// Threads that make the load; one is enough for most servers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(super) threads: u64,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Of a hundred requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mix {
    pub(super) puts: u64,
    pub(super) deletes: u64,
}

impl std::str::FromStr for Mix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FAULT: &str = "two numbers of at most 100 together, as in 30,10";
        let (puts, deletes) = text.split_once(',').ok_or(FAULT)?;
        let number = |text: &str| text.parse::<u8>().map(u64::from).map_err(|_| FAULT);
        let mix = Self {
            puts: number(puts)?,
            deletes: number(deletes)?,
        };
        if mix.puts + mix.deletes > 100 {
            Err(FAULT)
        } else {
            Ok(mix)
        }
    }
}

/// What a single request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Put,
    Get,
    Delete,
    List,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_up_and_spread_over_directories() {
        let mut names = NameArgs {
            container: "c".to_owned(),
            prefix: "photos/".to_owned(),
            dirs: Some(10),
            first: 0,
        };
        assert_eq!(names.name(25), "photos/d0005/00000025");
        names.dirs = None;
        assert_eq!(names.name(123_456_789), "photos/123456789");
    }

    #[test]
    fn a_mix_has_at_most_a_hundred_parts() {
        assert_eq!(
            "30,10".parse(),
            Ok(Mix {
                puts: 30,
                deletes: 10
            })
        );
        assert_eq!(
            "100,0".parse(),
            Ok(Mix {
                puts: 100,
                deletes: 0
            })
        );
        for text in ["", "30", "30,10,1", "90,11", "-1,2", "a,b", "300,0"] {
            text.parse::<Mix>().unwrap_err();
        }
    }
}
