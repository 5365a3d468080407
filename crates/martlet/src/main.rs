//! The binary: command line, configuration, start, stop. Wiring and nothing else.

mod backup;
mod bench;
mod check;
mod cli;
mod client;
mod config;
mod credentials;
mod http;
mod logging;
mod node;
mod policy;
mod rebuild;
mod restore;
mod server;
mod sigbus;
mod status;
mod text;
mod user;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Top};

/// The C library's allocator takes more time for what lives from one thread to the next, and keeps more
/// memory than it needs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a command ends with if it could not do what was asked; clap takes the same for a wrong
/// command line.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    if let Err(error) = sigbus::explain() {
        eprintln!("martlet: SIGBUS will not be explained: {error}");
    }
    let result = match Cli::parse().command {
        Top::Server(args) => return server::run(args),
        Top::User(args) => user::run(args.command),
        Top::Status(args) => status::run(&args),
        Top::Token(args) => node::token(args.command),
        Top::Node(args) => node::run(args.command),
        Top::Device(args) => node::device(args.command),
        Top::Policy(args) => policy::run(args.command),
        Top::Bench(args) => bench::run(*args),
        Top::Backup(args) => backup::run(&args),
        Top::Restore(args) => restore::run(&args),
        Top::Rebuild(args) => rebuild::run(&args),
        Top::Check(args) => check::run(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("martlet: {error:#}");
        ExitCode::from(FAILED)
    })
}
