//! `martlet token` and `martlet node`: who is in the cluster.

use std::process::ExitCode;

use admin::api::{PutNode, Status, Token, TokenEntry, TokenList};
use anyhow::Context as _;
use serde::Serialize;

use crate::cli::{NodeCommand, ServerChoice, TokenCommand};
use crate::client::{Call, Client};
use crate::http::Answer;
use crate::status::node_line;
use crate::text::duration;

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
            let draining = Some(true);
            change(
                &server,
                node,
                &PutNode {
                    draining,
                    zone: None,
                },
            )?;
            println!("Node {node} gives away what it holds; `martlet status` says when it has.");
        }
        NodeCommand::Undrain { node, server } => {
            let draining = Some(false);
            change(
                &server,
                node,
                &PutNode {
                    draining,
                    zone: None,
                },
            )?;
            println!("Node {node} is used again.");
        }
        NodeCommand::Zone { node, zone, server } => {
            let put = PutNode {
                draining: None,
                zone: Some(zone.clone()),
            };
            change(&server, node, &put)?;
            println!("Node {node} is in zone {zone:?}.");
        }
        NodeCommand::Remove {
            node,
            accept_loss,
            server,
        } => {
            let rest = if accept_loss { "/lossy" } else { "" };
            call(
                &server,
                "DELETE",
                &format!("/admin/nodes/{node}{rest}"),
                &(),
            )?;
            println!("Removed node {node}.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(server: &ServerChoice, json: bool) -> anyhow::Result<()> {
    let status: Status = Client::new(server)?.get("/admin/status")?;
    let cluster = status
        .cluster
        .context("this server is alone, or its cluster cannot be reached")?;
    if json {
        println!("{}", serde_json::to_string(&cluster.nodes)?);
        return Ok(());
    }
    for node in &cluster.nodes {
        println!("{}", node_line(node));
    }
    Ok(())
}

fn change(server: &ServerChoice, node: u32, put: &PutNode) -> anyhow::Result<()> {
    call(server, "PUT", &format!("/admin/nodes/{node}"), put).map(drop)
}

fn call(
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
