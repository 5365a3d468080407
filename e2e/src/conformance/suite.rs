//! Fetching the suite once and running its files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Case, Outcome, junit};
use crate::process;

/// A user that the suite logs in as.
#[derive(Debug)]
pub struct User {
    pub account: &'static str,
    pub name: &'static str,
    pub password: &'static str,
    pub role: &'static str,
    pub groups: &'static [&'static str],
}

const fn user(
    account: &'static str,
    name: &'static str,
    password: &'static str,
    role: &'static str,
) -> User {
    User {
        account,
        name,
        password,
        role,
        groups: &[],
    }
}

/// Everybody whom the suite logs in as; the server must know them before it starts.
pub const USERS: [User; 6] = [
    user("test", "tester", "testing", "owner"),
    user("test", "tester2", "testing2", "owner"),
    user("test", "tester3", "testing3", "member"),
    user("test2", "tester2", "testing2", "owner"),
    User {
        groups: &["service"],
        ..user("test5", "tester5", "testing5", "member")
    },
    user("admin", "admin", "admin", "reseller"),
];

const REQUIREMENTS: &str = include_str!("../../conformance/requirements.txt");

/// Real Swift needs four minutes for the longest file, mostly in sleeps of the suite's own.
const FILE_TIME_MAX: Duration = Duration::from_secs(25 * 60);
const TEST_SECONDS_MAX: &str = "120";

/// The suite, ready to run.
pub struct Suite {
    python: PathBuf,
    source: PathBuf,
}

impl Suite {
    /// Takes the suite from `cache`, after fetching it from PyPI where it is not there or is another
    /// version.
    pub fn prepare(cache: &Path) -> Result<Self> {
        let pinned = REQUIREMENTS
            .lines()
            .find(|line| line.starts_with("swift=="))
            .context("no version of swift in requirements.txt")?;
        let suite = Self {
            python: cache.join("venv/bin/python"),
            source: cache.join(pinned.replace("==", "-")),
        };
        let stamp = cache.join("complete");
        if fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == REQUIREMENTS) {
            return Ok(suite);
        }
        fs::create_dir_all(cache)?;
        let venv = cache.join("venv");
        let python = &suite.python;
        process::run(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(venv),
        )?;
        let requirements = cache.join("requirements.txt");
        fs::write(&requirements, REQUIREMENTS)?;
        let pip = |arguments: &[&str]| {
            process::run(
                Command::new(python)
                    .args(["-m", "pip", "-q"])
                    .args(arguments)
                    .current_dir(cache),
            )
        };
        pip(&["install", "-r", "requirements.txt"])?;
        pip(&["download", "--no-deps", "--no-binary=swift", pinned])?;
        let archive = format!("{}.tar.gz", suite.source.display());
        process::run(
            Command::new("tar")
                .args(["-xzf", &archive])
                .current_dir(cache),
        )?;
        fs::write(stamp, REQUIREMENTS)?;
        Ok(suite)
    }

    /// The `swift` command of python-swiftclient, which the suite uses, too.
    pub fn swift_client(&self) -> PathBuf {
        self.python.with_file_name("swift")
    }

    /// Runs one file of the suite against the server that gives tokens at `auth_url`. `work` keeps the
    /// configuration, the report and pytest's output.
    pub fn run(&self, file: &str, auth_url: &str, work: &Path) -> Result<Vec<Case>> {
        fs::create_dir_all(work)?;
        let work = work.canonicalize()?;
        let (configuration, report) = (work.join("test.conf"), work.join(format!("{file}.xml")));
        fs::write(&configuration, configure(auth_url))?;
        let _ = fs::remove_file(&report);

        let log = File::create(work.join(format!("{file}.log")))?;
        let mut command = Command::new(&self.python);
        command.args([
            "-m",
            "pytest",
            "-q",
            "-o",
            "addopts=",
            "-p",
            "no:cacheprovider",
        ]);
        command
            .args(["--timeout", TEST_SECONDS_MAX, "--junitxml"])
            .arg(&report);
        command
            .arg(format!("test/functional/{file}.py"))
            .current_dir(&self.source);
        command.stdout(log.try_clone()?).stderr(log);
        without_credentials(&mut command);
        command
            .env("SWIFT_TEST_CONFIG_FILE", configuration)
            .env("SWIFT_TEST_IN_PROCESS", "0");

        let Some(status) = process::wait(&mut command.spawn()?, FILE_TIME_MAX)? else {
            bail!(
                "{file} did not end in {FILE_TIME_MAX:?}: see {}",
                work.display()
            );
        };
        let report = fs::read_to_string(report)
            .with_context(|| format!("{file} ended with {status}: see {}", work.display()))?;
        let cases = junit::parse(&report)?;
        let failed = cases.iter().any(|case| case.outcome == Outcome::Failed);
        if cases.is_empty() || status.success() == failed {
            bail!("{file} ended with {status}: see {}", work.display());
        }
        Ok(cases)
    }
}

/// The suite would rather believe these than its configuration.
fn without_credentials(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"OS_") || bytes.starts_with(b"ST_") || bytes.starts_with(b"SWIFT_") {
            command.env_remove(name);
        }
    }
}

fn configure(auth_url: &str) -> String {
    let mut text = format!("[func_test]\nauth_version = 1\nauth_uri = {auth_url}\n");
    // The suite numbers its users by role; 4 is for Keystone alone.
    for (number, user) in ["", "2", "3", "5", "6"].into_iter().zip([0, 3, 2, 4, 5]) {
        let User {
            account,
            name,
            password,
            ..
        } = USERS[user];
        text += &format!(
            "account{number} = {account}\nusername{number} = {name}\npassword{number} = {password}\n"
        );
    }
    text + "service_prefix = SERVICE\nstorage_domain = example.com\ncollate = C\ninsecure = no\n\
            [unit_test]\nfake_syslog = False\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_names_every_role_that_the_suite_asks_for() {
        let text = configure("http://h/auth/v1.0");
        for line in [
            "auth_uri = http://h/auth/v1.0",
            "account = test",
            "username2 = tester2",
            "password3 = testing3",
            "account5 = test5",
            "username6 = admin",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in {text}");
        }
    }
}
