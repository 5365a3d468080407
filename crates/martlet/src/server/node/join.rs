//! A first start that joins a cluster.
//!
//! Before the first byte is sent it is written down who wants to join and with which devices, so a start
//! that is cut short anywhere is done again as the same node.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base::DeviceId;
use base::env::{Env, Open};
use cluster::{Home, Member, Newcomer};
use device::{Device, Identity};
use rpc::JoinToken;
use shard::Shards;
use tokio::time::Instant;

use super::super::devices::{MARK, unmark};
use crate::config::Config;

/// A cluster that has just lost its control leader lets nobody in for some seconds.
const JOIN_TIME_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// Joins the cluster that the settings name, unless this server is a node already.
pub(in crate::server) async fn join_if_told(env: &Env, config: &Config) -> anyhow::Result<()> {
    if config.join.is_empty() {
        return Ok(());
    }
    let home = Home::new(env.clone(), &config.data);
    if home.credentials()?.is_some() && home.is_joining()?.is_none() {
        return Ok(());
    }
    ensure!(
        !config.token.is_empty(),
        "join wants a token, from `martlet token create`"
    );
    let token: JoinToken = config.token.parse().context("token")?;
    let Some(listen) = config.node_listen else {
        bail!("join wants node_listen: the other nodes must reach this one");
    };
    ensure!(
        !config.node_address.is_empty() || (!listen.ip().is_unspecified() && listen.port() != 0),
        "node_listen {listen} is no address that others can reach: set node_address"
    );
    check_empty(env, config, &home)?;
    let mut newcomer = Newcomer {
        addresses: vec![match config.node_address.is_empty() {
            true => listen.to_string(),
            false => config.node_address.clone(),
        }],
        zone: config.zone.clone(),
        bytes: Vec::new(),
    };
    for dir in &config.data {
        let made = env.disk.create_dir(dir);
        made.with_context(|| format!("making {}", dir.display()))?;
        let space = env.disk.space(dir);
        newcomer.bytes.push(
            space
                .with_context(|| dir.display().to_string())?
                .total_bytes,
        );
    }
    let member = ask(&home, config, &token, &newcomer).await?;
    let joining = home.joining(config.data.len())?;
    for (dir, id) in config.data.iter().zip(joining.devices) {
        make_device(env, config, dir, id, &member)?;
    }
    home.has_joined()?;
    tracing::info!(node = %member.credentials.node(), "joined the cluster");
    Ok(())
}

/// A directory that holds something of its own is not given to a cluster.
fn check_empty(env: &Env, config: &Config, home: &Home) -> anyhow::Result<()> {
    let joining = home.is_joining()?.map(|joining| joining.devices);
    let joining = joining.unwrap_or_default();
    for dir in &config.data {
        let identity = Device::inspect(env, dir)?;
        ensure!(
            identity.is_none_or(|identity| joining.contains(&identity.device)),
            "{} holds data already: only a new server can join a cluster",
            dir.display()
        );
    }
    Ok(())
}

/// Asks until somebody answers, for a while.
async fn ask(
    home: &Home,
    config: &Config,
    token: &JoinToken,
    newcomer: &Newcomer,
) -> anyhow::Result<Member> {
    let deadline = Instant::now() + JOIN_TIME_MAX;
    loop {
        let address = look_up(&config.join).await?;
        let asked = cluster::join(home, address, token, newcomer.clone(), deadline).await;
        let again = match &asked {
            Ok(_) => false,
            Err(error) => error.is_passing(),
        };
        if !again || Instant::now() + PAUSE > deadline {
            return asked.with_context(|| format!("joining through {}", config.join));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look_up(text: &str) -> anyhow::Result<SocketAddr> {
    let mut found = tokio::net::lookup_host(text)
        .await
        .with_context(|| format!("join {text:?} is no HOST:PORT"))?;
    found
        .next()
        .with_context(|| format!("join: {text} has no address"))
}

/// Makes a device ready for its share of the cluster; one that is ready stays.
fn make_device(
    env: &Env,
    config: &Config,
    dir: &Path,
    id: DeviceId,
    member: &Member,
) -> anyhow::Result<()> {
    let disk = &*env.disk;
    let marked = disk.open(&dir.join(MARK), Open::Write).and_then(|mark| {
        mark.sync()?;
        disk.sync_dir(dir)
    });
    marked.with_context(|| format!("writing into {}", dir.display()))?;
    if Device::inspect(env, dir)?.is_none() {
        let identity = Identity {
            cluster: member.credentials.cluster(),
            device: id,
            shards: member.shards,
            created: env.clock.now(),
        };
        Device::format(env, dir, &identity)?;
    }
    let device = Device::open(env.clone(), dir, config.device())?;
    Shards::prepare(&device, &config.shard())?;
    drop(device);
    unmark(disk, dir).with_context(|| format!("writing into {}", dir.display()))
}
