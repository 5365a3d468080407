//! `martlet user`: adds, lists, changes and removes users of a running server.

use std::process::ExitCode;

use admin::api::{Generated, PutPassword, PutUser, UserList};
use anyhow::Context as _;

use crate::cli::{UserCommand, UserName};
use crate::client::{Call, Client, user_path};
use crate::credentials;
use crate::http::Answer;

pub(crate) fn run(command: UserCommand) -> anyhow::Result<ExitCode> {
    match command {
        UserCommand::Add {
            user,
            role,
            groups,
            password_stdin,
            server,
        } => {
            let put = PutUser {
                role: role.into(),
                groups,
                password: given(password_stdin)?,
            };
            let path = user_path(&user, "");
            let call = Call {
                method: "PUT",
                path: &path,
                only_add: true,
            };
            let answer = Client::new(&server)?.call(&call, &put)?;
            println!("Added {user} ({}).", format!("{role:?}").to_lowercase());
            show(&user, &answer)?;
        }
        UserCommand::Passwd {
            user,
            password_stdin,
            server,
        } => {
            let put = PutPassword {
                password: given(password_stdin)?,
            };
            let path = user_path(&user, "/password");
            let call = Call {
                method: "PUT",
                path: &path,
                only_add: false,
            };
            let answer = Client::new(&server)?.call(&call, &put)?;
            println!("Changed the password of {user}; its tokens are no longer good.");
            show(&user, &answer)?;
        }
        UserCommand::Remove { user, server } => {
            let path = user_path(&user, "");
            let call = Call {
                method: "DELETE",
                path: &path,
                only_add: false,
            };
            Client::new(&server)?.call(&call, &())?;
            println!(
                "Removed {user}; the data of account {} stays.",
                user.account
            );
        }
        UserCommand::List { json, server } => {
            let users: UserList = Client::new(&server)?.get("/admin/users")?;
            if json {
                println!("{}", serde_json::to_string(&users)?);
            } else {
                print!("{}", table(&users));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn given(password_stdin: bool) -> anyhow::Result<Option<String>> {
    if !password_stdin {
        return Ok(None);
    }
    let password = credentials::from_stdin()?;
    Ok(Some(password.reveal().to_owned()))
}

/// Shows a generated password: this is the only time that anybody can.
fn show(user: &UserName, answer: &Answer) -> anyhow::Result<()> {
    let generated: Generated =
        serde_json::from_slice(&answer.body).context("reading the answer")?;
    if let Some(password) = generated.password {
        println!("\n  user      {user}\n  password  {password}\n\nIt is shown this once.");
    }
    Ok(())
}

fn table(users: &UserList) -> String {
    let rows = users.users.iter().map(|user| {
        let name = format!("{}:{}", user.account, user.name);
        (name, user.role.clone(), user.groups.join(", "))
    });
    let head = ("USER".to_owned(), "ROLE".to_owned(), "GROUPS".to_owned());
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = rows
        .iter()
        .map(|(name, _, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let lines = rows.iter().map(|(name, role, groups)| {
        let line = format!("{name:width$}  {role:8}  {groups}");
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use admin::api::UserEntry;

    use super::*;

    #[test]
    fn users_stand_in_columns() {
        let entry = |account: &str, name: &str, role: &str, groups: &[&str]| UserEntry {
            account: account.to_owned(),
            name: name.to_owned(),
            role: role.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        };
        let users = vec![
            entry("main", "admin", "reseller", &[]),
            entry("photos", "anna-long-name", "owner", &["staff", "beta"]),
        ];
        assert_eq!(
            table(&UserList { users }),
            "USER                   ROLE      GROUPS\n\
             main:admin             reseller\n\
             photos:anna-long-name  owner     staff, beta\n"
        );
    }
}
