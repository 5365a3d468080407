//! `martlet policy`.

use std::process::ExitCode;

use admin::api::{PolicyEntry, PolicyList, PutPolicy};

use crate::cli::{PolicyCommand, ServerChoice};
use crate::client::Client;
use crate::node::call;

pub(crate) fn run(command: PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::List { json, server } => list(&server, json)?,
        PolicyCommand::Add { name, kind, server } => {
            let put = PutPolicy {
                kind: Some(kind.clone()),
                default: false,
            };
            call(&server, "PUT", &path(&name), &put)?;
            println!("Containers can have the policy {name}: {kind}.");
        }
        PolicyCommand::Default { name, server } => {
            let put = PutPolicy {
                kind: None,
                default: true,
            };
            call(&server, "PUT", &path(&name), &put)?;
            println!("New containers get the policy {name} if nothing else is said.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> String {
    format!("/admin/policies/{}", gateway::percent::encode_path(name))
}

fn list(server: &ServerChoice, json: bool) -> anyhow::Result<()> {
    let list: PolicyList = Client::new(server)?.get("/admin/policies")?;
    match json {
        true => println!("{}", serde_json::to_string(&list.policies)?),
        false => list
            .policies
            .iter()
            .for_each(|one| println!("{}", line(one))),
    }
    Ok(())
}

fn line(policy: &PolicyEntry) -> String {
    let mark = if policy.default { '*' } else { ' ' };
    format!("{mark} {:<16} {}", policy.name, policy.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_has_a_star() {
        let mut policy = PolicyEntry {
            name: "cold".into(),
            kind: "ec:4+2".into(),
            default: true,
        };
        assert_eq!(line(&policy), "* cold             ec:4+2");
        policy.default = false;
        assert_eq!(line(&policy), "  cold             ec:4+2");
    }
}
