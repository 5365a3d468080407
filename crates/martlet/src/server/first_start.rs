//! The first administrator.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base::env::Env;
use namespace::{Namespace, Role};

use crate::credentials::{self, Password};

const ACCOUNT: &str = "main";
const NAME: &str = "admin";

/// The administrator that was made just now.
pub(super) struct Made {
    pub(super) user: String,
    pub(super) password: Password,
    pub(super) file: PathBuf,
}

/// Makes an administrator if there is no user at all.
///
/// The file is written before the user, so that there is never a user whose password nobody knows.
/// A crash in between leaves a file that the next start writes anew.
pub(super) async fn administrator(
    env: &Env,
    namespace: &Namespace,
    data: &Path,
) -> anyhow::Result<Option<Made>> {
    let users = namespace.users();
    if !users.is_empty().await.context("looking for users")? {
        return Ok(None);
    }
    let user = format!("{ACCOUNT}:{NAME}");
    let password = Password::generate(&*env.entropy);
    let file = credentials::file(data);
    credentials::keep(&*env.disk, data, &user, &password)
        .with_context(|| format!("writing {}", file.display()))?;
    users
        .put(ACCOUNT, NAME, Role::Reseller, Vec::new(), password.reveal())
        .await
        .context("making the administrator")?;
    tracing::info!(user, file = %file.display(), "administrator made");
    Ok(Some(Made {
        user,
        password,
        file,
    }))
}
