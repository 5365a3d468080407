//! Passwords: made, kept where only the owner reads them, and asked for.

use std::fmt;
use std::io::{self, BufRead as _, IoSlice, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base::env::{Disk, Entropy, Open};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// A password. It cannot be printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Password {
    pub(crate) fn generate(entropy: &dyn Entropy) -> Self {
        Self(admin::generate_password(entropy))
    }

    /// The password itself, to be sent, stored or shown on purpose.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn for_tests(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn of_line(line: &str) -> anyhow::Result<Self> {
        match line.trim_end_matches(['\r', '\n']) {
            "" => bail!("the password is empty"),
            text => Ok(Self(text.to_owned())),
        }
    }
}

const FILE: &str = "admin-credentials";
const USER: &str = "MARTLET_USER=";
const PASSWORD: &str = "MARTLET_PASSWORD=";

/// Where a server keeps the credentials that it made at its first start.
pub(crate) fn file(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// Writes the credentials so that they survive a crash, whole or not at all; only the owner can
/// read them. A shell can read the file with `.`.
pub(crate) fn keep(
    disk: &dyn Disk,
    data: &Path,
    user: &str,
    password: &Password,
) -> io::Result<()> {
    let text = format!(
        "# The administrator that was made at the first start. `martlet user passwd {user}` changes\n\
         # the password on the server, not here. Once you have noted it, you may remove this file.\n\
         {USER}{user}\n{PASSWORD}{}\n",
        password.reveal()
    );
    let new = data.join("admin-credentials.new");
    let file = disk.open(&new, Open::Write)?;
    file.truncate(0)?;
    file.write_at(&[IoSlice::new(text.as_bytes())], 0)?;
    file.sync()?;
    disk.rename(&new, &self::file(data))?;
    disk.sync_dir(data)
}

/// The password of `user`: from the environment, or else as the server in `data` kept it.
pub(crate) fn password(user: &str, data: &Path) -> anyhow::Result<Password> {
    if let Some(password) = from_environment()? {
        return Ok(password);
    }
    let file = file(data);
    let text = std::fs::read_to_string(&file).with_context(|| {
        let file = file.display();
        format!("no password for {user}: MARTLET_PASSWORD is not set, and {file} cannot be read")
    })?;
    let value = |name| text.lines().find_map(|line| line.strip_prefix(name));
    match (value(USER), value(PASSWORD)) {
        (Some(kept), Some(password)) if kept == user => Password::of_line(password),
        _ => bail!(
            "no password for {user}: MARTLET_PASSWORD is not set, and {} is of another user",
            file.display()
        ),
    }
}

pub(crate) fn from_environment() -> anyhow::Result<Option<Password>> {
    match std::env::var("MARTLET_PASSWORD") {
        Ok(password) => Password::of_line(&password)
            .map(Some)
            .context("MARTLET_PASSWORD"),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).context("MARTLET_PASSWORD"),
    }
}

/// One line of standard input.
pub(crate) fn from_stdin() -> anyhow::Result<Password> {
    /// Longer ones are a mistake, such as a whole file.
    const LINE_BYTES_MAX: u64 = 4096;
    let mut line = String::new();
    let input = io::stdin().lock().take(LINE_BYTES_MAX);
    io::BufReader::new(input)
        .read_line(&mut line)
        .context("reading the password from standard input")?;
    Password::of_line(&line)
}

/// Asks on the terminal, without showing what is typed.
pub(crate) fn ask(prompt: &str) -> anyhow::Result<Password> {
    let tty = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .context("there is no terminal to ask for the password on; set MARTLET_PASSWORD")?;
    let line = {
        let _quiet = Quiet::on(&tty)?;
        write!(&tty, "{prompt}")?;
        let mut line = String::new();
        io::BufReader::new(&tty).read_line(&mut line)?;
        line
    };
    writeln!(&tty)?;
    Password::of_line(&line)
}

/// A terminal that does not echo, until this is dropped.
struct Quiet<'a> {
    tty: &'a std::fs::File,
    before: rustix::termios::Termios,
}

impl<'a> Quiet<'a> {
    fn on(tty: &'a std::fs::File) -> io::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO;
        tcsetattr(tty, OptionalActions::Flush, &quiet)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // The terminal is gone if this fails; there is nobody to tell.
        let _ = tcsetattr(self.tty, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use base::env::Env;

    use super::*;

    #[test]
    fn a_password_cannot_be_printed() {
        let password = Password("secret".to_owned());
        assert_eq!(format!("{password:?}"), "Password(..)");
    }

    #[test]
    fn kept_credentials_are_the_owners_alone_and_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let old = Password("a much longer one than the next".to_owned());
        keep(&*env.disk, dir.path(), "main:admin", &old).unwrap();
        let new = Password("short".to_owned());
        keep(&*env.disk, dir.path(), "main:admin", &new).unwrap();

        let mode = std::fs::metadata(file(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(password("main:admin", dir.path()).unwrap(), new);
        let error = password("other:user", dir.path()).unwrap_err().to_string();
        assert!(error.contains("of another user"), "{error}");
        assert!(!error.contains("short"));
    }

    #[test]
    fn an_empty_password_is_refused() {
        for line in ["", "\n", "\r\n"] {
            Password::of_line(line).unwrap_err();
        }
        assert_eq!(Password::of_line(" a b \n").unwrap().reveal(), " a b ");
    }
}
