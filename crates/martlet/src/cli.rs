//! The command line: what there is, and the help that teaches it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};

use crate::backup::Place;
use crate::config::{KEYS, value::Kind};

#[derive(Debug, Parser)]
#[command(
    name = "martlet",
    version,
    about = "Object storage in one binary, for clients of the OpenStack Swift API",
    after_help = "Start with:  martlet server\nIt makes ./martlet-data, prints the administrator's \
                  password once, and shows what to type next.",
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Top,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Top {
    /// Run the server
    Server(ServerArgs),
    /// Add, list, change and remove users of a running server
    User(UserArgs),
    /// Show what a running server holds and how it is doing
    Status(StatusArgs),
    /// Let further servers into the cluster of a running server
    Token(TokenArgs),
    /// List, drain, move and remove the nodes of a cluster
    Node(NodeArgs),
    /// List, drain and remove the devices of a cluster's nodes
    Device(DeviceArgs),
    /// List and add the ways in which containers can keep their data
    Policy(PolicyArgs),
    /// Save the metadata of a running server or cluster
    Backup(BackupArgs),
    /// Make a server out of a backup, and the disks that are left
    Restore(RestoreArgs),
    /// Make objects again from the records on the disks, when all metadata is lost and there is no backup
    Rebuild(RebuildArgs),
    /// Verify data directories while no server runs on them
    Check(CheckArgs),
    /// Load a server and measure its answers
    Bench(Box<crate::bench::BenchArgs>),
}

/// The flags of `martlet server`: `--config`, and one for every setting.
#[derive(Debug, Default)]
pub(crate) struct ServerArgs {
    pub(crate) config: Option<PathBuf>,
    /// By key, as they were given.
    pub(crate) flags: BTreeMap<&'static str, Vec<String>>,
}

impl Args for ServerArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("MARTLET_CONFIG")
            .hide_env_values(true)
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file with settings");
        let flags = KEYS.iter().map(|key| {
            let action = match key.kind {
                Kind::Paths => ArgAction::Append,
                _ => ArgAction::Set,
            };
            Arg::new(key.name)
                .long(key.flag())
                .value_name(key.kind.placeholder())
                .action(action)
                .help(key.help())
                .long_help(key.long_help())
        });
        command
            .arg(config)
            .args(flags)
            .after_help(
                "Every setting is also a key of the file (with _ for -) and a variable of the \
                 environment: --admin-listen is admin_listen and MARTLET_ADMIN_LISTEN. Flags win over \
                 the environment, the environment over the file.\n\n\
                 Stop the server with SIGTERM or Ctrl-C: it finishes what is in flight first.\n\
                 More: docs/ops/configuration.md, docs/ops/running.md",
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServerArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name| matches.get_many::<String>(name).unwrap_or_default();
        let flags = KEYS
            .iter()
            .map(|key| (key.name, given(key.name).cloned().collect::<Vec<_>>()))
            .filter(|(_, values)| !values.is_empty());
        Ok(Self {
            config: matches.get_one("config").cloned(),
            flags: flags.collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Which server a command talks to.
#[derive(Debug, Args)]
pub(crate) struct ServerChoice {
    /// A data directory of the server: the command uses the admin socket in it, which only the
    /// directory's owner can open
    /// [default: the first of MARTLET_DATA, or else ./martlet-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The admin address instead, as in http://127.0.0.1:8081. Wants an administrator's credentials:
    /// the name from MARTLET_USER (default main:admin), the password from MARTLET_PASSWORD, or typed
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user; prints a generated password unless one is given
    #[command(
        after_help = "Roles: an owner may do everything in its own account, a member what ACLs grant, a \
                      reseller everything in every account.\n\nExample:  martlet user add photos:anna \
                      --role owner"
    )]
    Add {
        /// As ACCOUNT:USER; the account need not exist
        #[arg(value_name = "ACCOUNT:USER")]
        user: UserName,
        #[arg(long, value_enum, default_value_t = RoleArg::Owner)]
        role: RoleArg,
        /// A group that ACLs can name; give it again for each further one
        #[arg(long = "group", value_name = "G")]
        groups: Vec<String>,
        /// Read the password from standard input (one line) instead of generating one
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// List users
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Remove a user; its tokens die at once, its account's data stays
    Remove {
        #[arg(value_name = "ACCOUNT:USER")]
        user: UserName,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Change a user's password; its tokens die at once
    Passwd {
        #[arg(value_name = "ACCOUNT:USER")]
        user: UserName,
        /// Read the password from standard input (one line) instead of generating one
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        server: ServerChoice,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RoleArg {
    Owner,
    Member,
    Reseller,
}

impl From<RoleArg> for namespace::Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Owner => Self::Owner,
            RoleArg::Member => Self::Member,
            RoleArg::Reseller => Self::Reseller,
        }
    }
}

/// `ACCOUNT:USER`, both parts there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserName {
    pub(crate) account: String,
    pub(crate) name: String,
}

impl std::str::FromStr for UserName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((_, name)) if name.contains(':') => {
                Err("a user is named ACCOUNT:USER, with one colon")
            }
            Some((account, name)) if !account.is_empty() && !name.is_empty() => Ok(Self {
                account: account.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err("a user is named ACCOUNT:USER, as in photos:anna"),
        }
    }
}

impl std::fmt::Display for UserName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.account, self.name)
    }
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a token that lets one server join, once, within an hour
    #[command(
        after_help = "On the new machine:  martlet server --data DIR --node-listen ADDRESS:7000 --join \
                      HOST:PORT --token TOKEN\nwhere HOST:PORT is the node port of any node."
    )]
    Create {
        #[command(flatten)]
        server: ServerChoice,
    },
    /// List tokens that were made: their ids, and what became of them
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Take a token back; who has joined with it stays
    Remove {
        /// From `martlet token list`
        #[arg(value_parser = token_id)]
        id: String,
        #[command(flatten)]
        server: ServerChoice,
    },
}

fn token_id(text: &str) -> Result<String, &'static str> {
    match admin::api::token_id(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("an id has 16 hexadecimal digits: see martlet token list"),
    }
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes, and how they are
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Let a node give away all that it holds; `martlet status` says when it has
    Drain {
        #[arg(value_name = "NODE")]
        node: u32,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Use a node again that was being drained
    Undrain {
        #[arg(value_name = "NODE")]
        node: u32,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Say what fails together with a node, such as its rack
    Zone {
        #[arg(value_name = "NODE")]
        node: u32,
        #[arg(value_name = "ZONE")]
        zone: String,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Remove a node that holds nothing any more, for ever
    Remove {
        #[arg(value_name = "NODE")]
        node: u32,
        /// Also if it holds the only copies of something, which are lost then
        #[arg(long)]
        accept_loss: bool,
        #[command(flatten)]
        server: ServerChoice,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    #[command(subcommand)]
    pub(crate) command: DeviceCommand,
}

/// The beginning of a device's id is enough.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A node gets a further device when it is started with one --data more. To replace a device, add \
                  one, drain the old one, remove it, and start the node without it. One that has died is drained \
                  by itself after ten minutes."
)]
pub(crate) enum DeviceCommand {
    /// List the devices of all nodes, and how they are
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Let a device give away all that it holds; `martlet device list` says when it has
    Drain {
        #[arg(value_name = "DEVICE")]
        device: String,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Use a device again that was being drained
    Undrain {
        #[arg(value_name = "DEVICE")]
        device: String,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Remove a device that holds nothing any more, for ever
    Remove {
        #[arg(value_name = "DEVICE")]
        device: String,
        /// Also if it holds the only copies of something, which are lost then
        #[arg(long)]
        accept_loss: bool,
        #[command(flatten)]
        server: ServerChoice,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
#[command(
    after_help = "A container gets its policy when it is created (X-Storage-Policy), and keeps it. A policy is never \
                  removed. With ec:K+M each chunk of 4 MiB lies in K+M fragments on as many devices, of which any K \
                  are enough; what is small is kept in three copies."
)]
pub(crate) enum PolicyCommand {
    /// List the policies; the default one has a star
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Add a policy
    Add {
        #[arg(value_name = "NAME")]
        name: String,
        /// `ec:K+M`, such as ec:4+2, or replicated:3
        #[arg(value_name = "KIND")]
        kind: String,
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Make a policy the one of new containers for which nothing else is said
    Default {
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        server: ServerChoice,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerChoice,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Reads every record, follows every reference and adds up every counter. \
                        Changes nothing. Exit code 0: all is well; 1: something is wrong, and listed; \
                        2: the check could not be made."
)]
pub(crate) struct CheckArgs {
    /// All data directories of the server
    #[arg(value_name = "DIR", required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Saves everything but bodies of more than 16 KiB, as it is now: accounts, containers, objects, users. \
                  Bodies stay on the disks; martlet restore brings both together. What is saved is secret."
)]
pub(crate) struct BackupArgs {
    /// A directory that is empty or to be made; or a container, as http://HOST:PORT/v1/ACCOUNT/CONTAINER, or a
    /// folder in it
    #[arg(value_name = "TARGET")]
    pub(crate) target: Place,
    /// Who writes into the container; the password is that of MARTLET_PASSWORD, or typed
    #[arg(
        long,
        value_name = "ACCOUNT:USER",
        env = "MARTLET_USER",
        default_value = "main:admin"
    )]
    pub(crate) user: String,
    /// A data directory of the server, whose admin socket is used; of a cluster any node will do
    /// [default: the first of MARTLET_DATA, or else ./martlet-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The directories are new ones, or such as have their chunks and lost log/ and tree/: of a cluster all \
                  that are left, which become one server. Objects of which chunks are missing are named. Exit code 0: \
                  all is there; 1: restored, and something is missing; 2: not restored."
)]
pub(crate) struct RestoreArgs {
    /// The backup, named as for martlet backup
    #[arg(value_name = "BACKUP")]
    pub(crate) source: Place,
    /// Who reads from the container; the password is that of MARTLET_PASSWORD, or typed
    #[arg(
        long,
        value_name = "ACCOUNT:USER",
        env = "MARTLET_USER",
        default_value = "main:admin"
    )]
    pub(crate) user: String,
    /// A data directory; give all of them, each with its own --data
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) data: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Reads every record of directories that have lost log/ and tree/; of a cluster give all that are left, \
                  which become one server. Bodies of 16 KiB and less, users, ACLs and metadata are not in records and \
                  do not come back. Bodies that are not whole are named. Exit code 0: all is whole; 1: rebuilt, and \
                  something is not; 2: not rebuilt."
)]
pub(crate) struct RebuildArgs {
    /// A data directory; give all of them, each with its own --data
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) data: Vec<PathBuf>,
}

#[cfg(test)]
mod tests;
