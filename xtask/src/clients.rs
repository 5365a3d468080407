//! `cargo xtask clients`: real clients with a large tree and a kill -9 in the middle of the upload.

use anyhow::{Result, ensure};
use clap::Args;
use e2e::binary::{Build, martlet};
use e2e::clients::{Effort, Trial, has_rclone};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Files in the tree
    #[arg(long, default_value_t = 4000)]
    files: usize,
    /// Megabytes in all files together
    #[arg(long, default_value_t = 3000)]
    megabytes: u64,
    /// Leave the server alone
    #[arg(long)]
    no_kill: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(has_rclone(), "rclone is not installed");
    let binary = martlet(Build::Plain)?;
    let effort = Effort {
        files: arguments.files,
        bytes: arguments.megabytes << 20,
        kill: !arguments.no_kill,
    };
    Trial::prepare(&binary, effort)?.swift()?;
    println!("python-swiftclient: the tree came back whole");
    Trial::prepare(&binary, effort)?.rclone()?;
    println!("rclone: the tree came back whole");
    Ok(())
}
