//! A disk that fails under a memory map: the server says so before it ends.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const MARTLET: &str = env!("CARGO_BIN_EXE_martlet");

/// A server that is ready, with its first lines read.
fn start(data: &Path) -> Child {
    let mut child = Command::new(MARTLET)
        .args(["server", "--shards", "2", "--reserve-bytes", "32MiB"])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "off", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut greeting = String::new();
    while !greeting.contains("Ctrl-C") {
        let read = lines.read_line(&mut greeting).unwrap();
        assert!(read > 0, "the server ended early: {greeting}");
    }
    child
}

/// What it said at last, once SIGBUS has ended it.
fn last_words(mut child: Child) -> String {
    let mut said = String::new();
    // Its end closes it.
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    let status = child.wait().unwrap();
    let signal = status.signal().map(Signal::from_named_raw);
    assert_eq!(signal, Some(Some(Signal::BUS)), "{status}: {said}");
    said
}

#[test]
fn a_map_that_cannot_be_read_ends_the_server_with_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let child = start(dir.path());
    // A page that is not there is as one that the disk cannot give.
    let tree = dir.path().join("tree/data.mdb");
    File::options()
        .write(true)
        .open(tree)
        .unwrap()
        .set_len(0)
        .unwrap();
    // Asks for what the tree has; there is no answer.
    let mut status = Command::new(MARTLET);
    status.arg("status").arg("--data").arg(dir.path());
    let _ = status.output().unwrap();
    let said = last_words(child);
    assert!(said.contains("martlet: SIGBUS at address 0x"), "{said}");
    assert!(
        said.contains("a disk under a data directory could not be read"),
        "{said}"
    );
}

#[test]
fn a_sigbus_that_somebody_sends_has_no_address() {
    let dir = tempfile::tempdir().unwrap();
    let child = start(dir.path());
    kill_process(Pid::from_child(&child), Signal::BUS).unwrap();
    let said = last_words(child);
    assert!(
        said.contains("martlet: SIGBUS: a disk under a data directory"),
        "{said}"
    );
}
