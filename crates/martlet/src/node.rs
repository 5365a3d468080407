//! `martlet token`, `martlet node` and `martlet device`: who and what is in the cluster.

use std::process::ExitCode;

use admin::api::{PutPart, Status, Token, TokenEntry, TokenList};
use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::cli::{DeviceCommand, NodeCommand, ServerChoice, TokenCommand};
use crate::client::{Call, Client};
use crate::http::Answer;
use crate::status::node_line;
use crate::text::{bytes, counted, duration};

pub(crate) fn token(command: TokenCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::Create { server } => {
            let answer = call(&server, "POST", "/admin/tokens", &())?;
            let token: Token =
                serde_json::from_slice(&answer.body).context("reading the answer")?;
            println!("{}", token.token);
        }
        TokenCommand::List { json, server } => {
            let list: TokenList = Client::new(&server)?.get("/admin/tokens")?;
            match json {
                true => println!("{}", serde_json::to_string(&list.tokens)?),
                false => list
                    .tokens
                    .iter()
                    .for_each(|token| println!("{}", token_line(token))),
            }
        }
        TokenCommand::Remove { id, server } => {
            call(&server, "DELETE", &format!("/admin/tokens/{id}"), &())?;
            println!("Removed the token {id}.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn token_line(token: &TokenEntry) -> String {
    let TokenEntry {
        left_s,
        id,
        used_by,
    } = token;
    match (used_by, left_s) {
        (Some(node), _) => format!("{id}  let in node {node}"),
        (None, 0) => format!("{id}  expired"),
        (None, left) => format!("{id}  good for {}", duration(*left)),
    }
}

pub(crate) fn run(command: NodeCommand) -> anyhow::Result<ExitCode> {
    match command {
        NodeCommand::List { json, server } => list(&server, json)?,
        NodeCommand::Drain { node, server } => {
            drain(&server, &node_path(node), true)?;
            println!("Node {node} gives away what it holds; `martlet status` says when it has.");
        }
        NodeCommand::Undrain { node, server } => {
            drain(&server, &node_path(node), false)?;
            println!("Node {node} is used again.");
        }
        NodeCommand::Zone { node, zone, server } => {
            let put = PutPart {
                draining: None,
                zone: Some(zone.clone()),
            };
            call(&server, "PUT", &node_path(node), &put)?;
            println!("Node {node} is in zone {zone:?}.");
        }
        NodeCommand::Remove {
            node,
            accept_loss,
            server,
        } => {
            remove(&server, &node_path(node), accept_loss)?;
            println!("Removed node {node}.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn device(command: DeviceCommand) -> anyhow::Result<ExitCode> {
    match command {
        DeviceCommand::List { json, server } => list_devices(&server, json)?,
        DeviceCommand::Drain { device, server } => {
            let id = find_device(&server, &device)?;
            drain(&server, &device_path(&id), true)?;
            println!(
                "Device {id} gives away what it holds; `martlet device list` says when it has."
            );
        }
        DeviceCommand::Undrain { device, server } => {
            let id = find_device(&server, &device)?;
            drain(&server, &device_path(&id), false)?;
            println!("Device {id} is used again.");
        }
        DeviceCommand::Remove {
            device,
            accept_loss,
            server,
        } => {
            let id = find_device(&server, &device)?;
            remove(&server, &device_path(&id), accept_loss)?;
            println!("Removed device {id}. Its directory may be taken from its node now.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn node_path(node: u32) -> String {
    format!("/admin/nodes/{node}")
}

fn device_path(id: &str) -> String {
    format!("/admin/devices/{id}")
}

fn drain(server: &ServerChoice, path: &str, draining: bool) -> anyhow::Result<()> {
    let put = PutPart {
        draining: Some(draining),
        zone: None,
    };
    call(server, "PUT", path, &put).map(drop)
}

fn remove(server: &ServerChoice, path: &str, accept_loss: bool) -> anyhow::Result<()> {
    let rest = if accept_loss { "/lossy" } else { "" };
    call(server, "DELETE", &format!("{path}{rest}"), &()).map(drop)
}

fn cluster(server: &ServerChoice) -> anyhow::Result<cluster::Status> {
    let status: Status = Client::new(server)?.get("/admin/status")?;
    status
        .cluster
        .context("this server is alone, or its cluster cannot be reached")
}

/// The id of the one device that begins so.
fn find_device(server: &ServerChoice, beginning: &str) -> anyhow::Result<String> {
    let nodes = cluster(server)?.nodes;
    let devices = nodes.into_iter().flat_map(|node| node.devices);
    pick(devices.map(|device| device.device), beginning)
}

fn pick(ids: impl Iterator<Item = String>, beginning: &str) -> anyhow::Result<String> {
    let begins = |id: &String| {
        let digits = id.trim_start_matches('d');
        id.starts_with(beginning) || digits.starts_with(beginning)
    };
    let mut found: Vec<_> = ids.filter(begins).collect();
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (Some(_), others) => bail!("{} devices begin with {beginning:?}", others + 1),
        (None, _) => bail!("no device begins with {beginning:?}: see `martlet device list`"),
    }
}

fn list_devices(server: &ServerChoice, json: bool) -> anyhow::Result<()> {
    let cluster = cluster(server)?;
    let (mut entries, mut lines) = (Vec::new(), Vec::new());
    for node in &cluster.nodes {
        for device in &node.devices {
            lines.push(device_line(node, device));
            let node = node.node;
            entries.push(DeviceEntry { node, device });
        }
    }
    match json {
        true => println!("{}", serde_json::to_string(&entries)?),
        false => lines.iter().for_each(|line| println!("{line}")),
    }
    Ok(())
}

/// An entry of `martlet device list --json`.
#[derive(Serialize)]
struct DeviceEntry<'a> {
    node: u32,
    #[serde(flatten)]
    device: &'a cluster::DeviceStatus,
}

/// A device of a cluster, on one line.
fn device_line(node: &cluster::NodeStatus, device: &cluster::DeviceStatus) -> String {
    let state = match (node.state.as_str(), device.state.as_str()) {
        ("up", "up") => "up".to_owned(),
        ("up", state) => state.to_uppercase(),
        (state, _) => format!("node {}", state.to_uppercase()),
    };
    let draining = match (
        node.draining || device.draining,
        device.groups + device.shards,
    ) {
        (false, _) => "",
        (true, 0) => ", drained",
        (true, _) => ", draining",
    };
    format!(
        "{}  node {:<4} {state}{draining}, {} free of {}, {} and {}",
        device.device,
        node.node,
        bytes(device.bytes_free),
        bytes(device.bytes),
        counted(device.groups as u64, "group"),
        counted(device.shards as u64, "shard"),
    )
}

fn list(server: &ServerChoice, json: bool) -> anyhow::Result<()> {
    let cluster = cluster(server)?;
    if json {
        println!("{}", serde_json::to_string(&cluster.nodes)?);
        return Ok(());
    }
    for node in &cluster.nodes {
        println!("{}", node_line(node));
    }
    Ok(())
}

pub(crate) fn call(
    server: &ServerChoice,
    method: &'static str,
    path: &str,
    body: &impl Serialize,
) -> anyhow::Result<Answer> {
    let call = Call {
        method,
        path,
        only_add: false,
    };
    Client::new(server)?.call(&call, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_the_beginning_of_its_id() {
        let ids = || ["d0a1f", "d0a2f", "ddd00"].map(str::to_owned).into_iter();
        assert_eq!(pick(ids(), "0a1").unwrap(), "d0a1f");
        assert_eq!(pick(ids(), "d0a2").unwrap(), "d0a2f");
        assert_eq!(pick(ids(), "ddd").unwrap(), "ddd00");
        let refused = |beginning| pick(ids(), beginning).unwrap_err().to_string();
        assert_eq!(refused("0a"), "2 devices begin with \"0a\"");
        assert!(refused("1").starts_with("no device begins"));
    }

    #[test]
    fn a_device_is_one_line() {
        let device = cluster::DeviceStatus {
            device: "d1".to_owned(),
            state: "up".to_owned(),
            draining: true,
            bytes: 4 << 40,
            bytes_free: 1 << 40,
            groups: 1,
            shards: 0,
        };
        let mut node = cluster::NodeStatus {
            node: 2,
            addresses: vec![],
            zone: String::new(),
            state: "up".to_owned(),
            draining: false,
            devices: vec![],
        };
        let rest = "1.0 TiB free of 4.0 TiB, 1 group and 0 shards";
        assert_eq!(
            device_line(&node, &device),
            format!("d1  node 2    up, draining, {rest}")
        );
        node.state = "down".to_owned();
        assert_eq!(
            device_line(&node, &device),
            format!("d1  node 2    node DOWN, draining, {rest}")
        );
    }

    #[test]
    fn a_token_is_used_or_expired_or_good_for_a_while() {
        let line = |left_s, used_by| {
            let id = "00000000000000ff".to_owned();
            token_line(&TokenEntry {
                left_s,
                id,
                used_by,
            })
        };
        assert_eq!(line(3_540, None), "00000000000000ff  good for 59 min");
        assert_eq!(line(0, None), "00000000000000ff  expired");
        assert_eq!(line(3_540, Some(2)), "00000000000000ff  let in node 2");
    }
}
