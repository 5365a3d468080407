//! A server of a test.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::http::{Answer, Peer, Url};

pub(super) const MARTLET: &str = env!("CARGO_BIN_EXE_martlet");

/// A server on free ports, killed when it is dropped.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) data: PathBuf,
    /// `HOST:PORT` of the Swift API and of the admin API.
    pub(super) swift: String,
    pub(super) admin: String,
    /// What it said on standard output until it was ready.
    pub(super) greeting: String,
}

impl Server {
    pub(super) fn start(data: &Path) -> Self {
        Self::greeted(data, Self::spawn(data, "127.0.0.1:0"))
    }

    pub(super) fn spawn(data: &Path, listen: &str) -> Child {
        Self::command_to_start(data, listen).spawn().unwrap()
    }

    pub(super) fn command_to_start(data: &Path, listen: &str) -> Command {
        let mut command = Command::new(MARTLET);
        command
            .args(["server", "--shards", "2", "--reserve-bytes", "32MiB"])
            .args(["--listen", listen, "--admin-listen", "127.0.0.1:0"])
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("JOURNAL_STREAM");
        command
    }

    /// Waits until it serves.
    pub(super) fn greeted(data: &Path, mut child: Child) -> Self {
        let mut greeting = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        while !greeting.contains("Ctrl-C") {
            if lines.read_line(&mut greeting).unwrap() == 0 {
                let mut log = String::new();
                if let Some(mut stderr) = child.stderr.take() {
                    stderr.read_to_string(&mut log).unwrap();
                }
                panic!("the server ended early:\n{greeting}{log}");
            }
        }
        let after = |mark: &str| {
            let rest = greeting.split_once(mark).expect("the greeting has it").1;
            rest.split(['/', '\n']).next().unwrap().to_owned()
        };
        Self {
            data: data.to_owned(),
            swift: after("Swift API   http://"),
            admin: after("admin       http://"),
            greeting,
            child,
        }
    }

    /// Asks it to stop as an operator does; what it logged.
    pub(super) fn stop(mut self) -> String {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}\n{log}");
        log
    }

    pub(super) fn command(&self, words: &[&str]) -> Output {
        let mut command = Command::new(MARTLET);
        let command = command.args(words).arg("--data").arg(&self.data);
        command.env_remove("MARTLET_PASSWORD").output().unwrap()
    }

    pub(super) fn password(&self) -> String {
        let text = std::fs::read_to_string(self.data.join("admin-credentials")).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MARTLET_PASSWORD="));
        line.unwrap().to_owned()
    }

    /// A token and the path of the storage account.
    pub(super) fn login(&self, user: &str, password: &str) -> Result<(String, String), u16> {
        let headers = [("X-Auth-User", user), ("X-Auth-Key", password)];
        let answer = self.swift("GET", "/auth/v1.0", &headers, b"");
        if answer.status != 200 {
            return Err(answer.status);
        }
        let token = answer.header("x-auth-token").unwrap().to_owned();
        let url = answer.header("x-storage-url").unwrap();
        Ok((token, Url::parse(url).unwrap().path))
    }

    pub(super) fn swift(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        Peer::Tcp(&self.swift)
            .request(method, path, headers, body)
            .unwrap()
    }

    pub(super) fn admin(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        Peer::Tcp(&self.admin)
            .request(method, path, headers, body)
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
