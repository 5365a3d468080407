//! Real clients, used as their manuals say.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::conformance::Suite;
use crate::files;
use crate::process;
use crate::server::{Launch, Server, free_address};

/// How much goes through the clients.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub files: usize,
    pub bytes: u64,
    /// Kill the server in the middle of an upload and start it again.
    pub kill: bool,
}

/// A server, a tree of files, and room for copies of it.
pub struct Trial {
    work: tempfile::TempDir,
    launch: Launch,
    server: Server,
    effort: Effort,
}

impl Trial {
    pub fn prepare(binary: &Path, effort: Effort) -> Result<Self> {
        let work = tempfile::Builder::new()
            .prefix("clients-")
            .tempdir_in(crate::scratch()?)?;
        let mut launch = Launch::new(binary, &work.path().join("data"), &work.path().join("log"));
        launch.address = Some(free_address()?);
        let server = launch.start()?;
        let seed = crate::seed();
        eprintln!("E2E_SEED={seed}");
        files::make_tree(&work.path().join("tree"), effort.files, effort.bytes, seed)?;
        Ok(Self {
            work,
            launch,
            server,
            effort,
        })
    }

    fn tree(&self) -> PathBuf {
        self.work.path().join("tree")
    }

    /// python-swiftclient: upload, list, download, compare, delete; and a large object in segments.
    pub fn swift(mut self) -> Result<()> {
        let suite = Suite::prepare(&crate::binary::target().join("conformance/swift"))?;
        let (user, password) = self.launch.administrator()?;
        let auth = auth_url(self.server.address);
        let swift = |folder: &Path, arguments: &[&str]| {
            let mut command = Command::new(suite.swift_client());
            command.args(["--retries", "10", "-A", &auth, "-U", &user, "-K", &password]);
            command
                .args(arguments)
                .current_dir(folder)
                .stdout(Stdio::null());
            command
        };
        let tree = self.tree();
        self.through_a_kill(swift(&tree, &["upload", "tree", "."]))?;

        let listed = swift(&tree, &["list", "tree"])
            .stdout(Stdio::piped())
            .output()?;
        let mut listed: Vec<_> = String::from_utf8(listed.stdout)?
            .lines()
            .map(str::to_owned)
            .collect();
        listed.sort();
        let made: Vec<_> = files::sizes(&tree)?.into_keys().collect();
        ensure!(
            listed == made,
            "{} names are listed, {} were uploaded",
            listed.len(),
            made.len()
        );

        let again = self.work.path().join("again");
        fs::create_dir_all(&again)?;
        process::run(&mut swift(&again, &["download", "tree"]))?;
        files::compare(&tree, &again)?;

        let large = self.work.path().join("large");
        files::make_tree(&large, 1, 0, 1)?;
        fs::write(large.join("one"), vec![7; 5_000_000])?;
        process::run(&mut swift(
            &large,
            &["upload", "--use-dlo", "-S", "1000000", "large", "one"],
        ))?;
        process::run(&mut swift(&again, &["download", "large", "one"]))?;
        ensure!(
            fs::read(again.join("one"))? == fs::read(large.join("one"))?,
            "segments are not the whole"
        );

        for container in ["tree", "large", "large_segments"] {
            process::run(&mut swift(&tree, &["delete", container]))?;
        }
        self.finish()
    }

    /// rclone: upload, list, compare on the server, download, delete.
    pub fn rclone(mut self) -> Result<()> {
        let (user, password) = self.launch.administrator()?;
        let auth = auth_url(self.server.address);
        let configuration = [
            ("RCLONE_CONFIG_M_TYPE", "swift"),
            ("RCLONE_CONFIG_M_AUTH", auth.as_str()),
            ("RCLONE_CONFIG_M_USER", user.as_str()),
            ("RCLONE_CONFIG_M_KEY", password.as_str()),
            // Ours alone: not what the user of this machine has set up.
            ("RCLONE_CONFIG", "/dev/null"),
        ];
        let rclone = |arguments: &[&str], paths: &[&Path]| {
            let mut command = Command::new("rclone");
            command.envs(configuration).args([
                "--retries",
                "20",
                "--low-level-retries",
                "50",
                "--quiet",
            ]);
            command.args(arguments).args(paths).stdout(Stdio::null());
            command
        };
        let (tree, remote, again) = (
            self.tree(),
            Path::new("m:tree"),
            self.work.path().join("again"),
        );
        self.through_a_kill(rclone(&["copy"], &[&tree, remote]))?;
        process::run(&mut rclone(&["check"], &[&tree, remote]))?;
        process::run(&mut rclone(&["check", "--download"], &[&tree, remote]))?;
        process::run(&mut rclone(&["copy"], &[remote, &again]))?;
        files::compare(&tree, &again)?;
        process::run(&mut rclone(&["purge"], &[remote]))?;
        self.finish()
    }

    /// Runs an upload; the server is killed in the middle of it if that is wanted.
    fn through_a_kill(&mut self, mut upload: Command) -> Result<()> {
        if !self.effort.kill {
            return process::run(&mut upload);
        }
        const SOME_TIME: Duration = Duration::from_secs(3);
        let mut running = upload.spawn()?;
        thread::sleep(SOME_TIME);
        ensure!(
            running.try_wait()?.is_none(),
            "the upload was over too early to be disturbed"
        );
        self.server.kill()?;
        self.server = self.launch.start()?;
        // What this upload could not do, a second one does: clients give up on some errors.
        let first = running.wait()?;
        eprintln!("the disturbed upload ended with {first}");
        process::run(&mut upload)
    }

    fn finish(self) -> Result<()> {
        ensure!(
            self.server.stop()?.success(),
            "the server did not stop well"
        );
        let complaint = self.launch.check()?;
        ensure!(
            complaint.is_none(),
            "martlet check: {}",
            complaint.unwrap_or_default()
        );
        Ok(())
    }
}

/// Whether rclone is installed.
pub fn has_rclone() -> bool {
    Command::new("rclone")
        .arg("version")
        .output()
        .is_ok_and(|output| output.status.success())
}

fn auth_url(address: SocketAddr) -> String {
    format!("http://{address}/auth/v1.0")
}
