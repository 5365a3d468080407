//! The real binary, as an operator and a client meet it.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../src/http.rs"]
#[allow(dead_code, reason = "the commands use more of it than these tests")]
mod http;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use http::{Answer, Peer};

const MARTLET: &str = env!("CARGO_BIN_EXE_martlet");

/// A server on free ports, killed when it is dropped.
struct Server {
    child: Child,
    data: PathBuf,
    /// `HOST:PORT` of the Swift API and of the admin API.
    swift: String,
    admin: String,
    /// What it said on standard output until it was ready.
    greeting: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        Self::greeted(data, Self::spawn(data, "127.0.0.1:0"))
    }

    fn spawn(data: &Path, listen: &str) -> Child {
        Command::new(MARTLET)
            .args(["server", "--shards", "2", "--reserve-bytes", "32MiB"])
            .args(["--listen", listen, "--admin-listen", "127.0.0.1:0"])
            .args(["--node-listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("JOURNAL_STREAM")
            .spawn()
            .unwrap()
    }

    /// Waits until it serves.
    fn greeted(data: &Path, mut child: Child) -> Self {
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
    fn stop(mut self) -> String {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut log).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}\n{log}");
        log
    }

    fn command(&self, words: &[&str]) -> Output {
        let mut command = Command::new(MARTLET);
        let command = command.args(words).arg("--data").arg(&self.data);
        command.env_remove("MARTLET_PASSWORD").output().unwrap()
    }

    fn password(&self) -> String {
        let text = std::fs::read_to_string(self.data.join("admin-credentials")).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MARTLET_PASSWORD="));
        line.unwrap().to_owned()
    }

    /// A token and the path of the storage account.
    fn login(&self, user: &str, password: &str) -> Result<(String, String), u16> {
        let headers = [("X-Auth-User", user), ("X-Auth-Key", password)];
        let answer = self.swift("GET", "/auth/v1.0", &headers, b"");
        if answer.status != 200 {
            return Err(answer.status);
        }
        let token = answer.header("x-auth-token").unwrap().to_owned();
        let url = answer.header("x-storage-url").unwrap();
        Ok((token, http::Url::parse(url).unwrap().path))
    }

    fn swift(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        Peer::Tcp(&self.swift)
            .request(method, path, headers, body)
            .unwrap()
    }

    fn admin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let password = server.password();
    assert!(server.greeting.contains(&password));
    let (token, account) = server.login("main:admin", &password).unwrap();
    let auth = [("X-Auth-Token", token.as_str())];
    let container = format!("{account}/c");
    assert_eq!(server.swift("PUT", &container, &auth, b"").status, 201);
    let large = vec![7; 1 << 20];
    for (name, body) in [("small", &b"hello"[..]), ("large", &large)] {
        let path = format!("{container}/{name}");
        assert_eq!(server.swift("PUT", &path, &auth, body).status, 201);
    }
    let log = server.stop();
    assert!(!log.contains(&password), "{log}");
    for level in ["ERROR", "WARN"] {
        assert!(
            !log.contains(level),
            "a stop is nothing to worry about: {log}"
        );
    }

    let server = Server::start(dir.path());
    assert!(!server.greeting.contains(&password));
    let (token, _) = server.login("main:admin", &password).unwrap();
    let auth = [("X-Auth-Token", token.as_str())];
    for (name, body) in [("small", &b"hello"[..]), ("large", &large)] {
        let answer = server.swift("GET", &format!("{container}/{name}"), &auth, b"");
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
        assert!(answer.body == body);
    }
    let listing = server.swift("GET", &container, &auth, b"");
    assert_eq!(text(&listing.body), "large\nsmall\n");
    let busy = check(dir.path());
    assert_eq!(busy.status.code(), Some(2), "{}", text(&busy.stderr));
    server.stop();
    let clean = check(dir.path());
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean.stdout));
    assert!(text(&clean.stdout).ends_with("No problems.\n"));
}

fn check(data: &Path) -> Output {
    Command::new(MARTLET)
        .arg("check")
        .arg(data)
        .output()
        .unwrap()
}

#[test]
fn a_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (token, account) = server.login("main:admin", &server.password()).unwrap();
    let auth = [("X-Auth-Token", token.as_str())];
    server.swift("PUT", &format!("{account}/c"), &auth, b"");
    let body: Vec<u8> = b"find me ".repeat(20_000);
    let path = format!("{account}/c/o");
    assert_eq!(server.swift("PUT", &path, &auth, &body).status, 201);
    server.stop();

    let segments = std::fs::read_dir(dir.path().join("segments")).unwrap();
    let flipped = segments.filter(|segment| flip(&segment.as_ref().unwrap().path()));
    assert_eq!(flipped.count(), 1);
    let found = check(dir.path());
    let said = text(&found.stdout);
    assert_eq!(found.status.code(), Some(1), "{said}");
    assert!(said.contains("AUTH_main/c/o"), "{said}");
}

/// Flips a bit of what the test stored, if the file has it.
fn flip(path: &Path) -> bool {
    let mut bytes = std::fs::read(path).unwrap();
    let Some(at) = bytes.windows(8).position(|bytes| bytes == b"find me ") else {
        return false;
    };
    bytes[at + 5000] ^= 1;
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(&bytes).unwrap();
    true
}

#[test]
fn users_come_and_go_by_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert_eq!(mode(&dir.path().join("admin-credentials")), 0o600);
    assert_eq!(mode(&dir.path().join("admin.sock")), 0o600);

    let added = server.command(&["user", "add", "photos:anna", "--group", "staff"]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    let said = text(&added.stdout);
    let password = said
        .split("password  ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let (token, account) = server.login("photos:anna", password).unwrap();
    assert_eq!(account, "/v1/AUTH_photos");

    let again = server.command(&["user", "add", "photos:anna"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(text(&again.stderr), "martlet: photos:anna exists already\n");

    let list = text(&server.command(&["user", "list"]).stdout);
    assert!(list.contains("photos:anna  owner     staff\n"), "{list}");
    assert!(!list.contains(password));

    server.command(&["user", "passwd", "photos:anna"]);
    assert_eq!(server.login("photos:anna", password), Err(401));
    let auth = [("X-Auth-Token", token.as_str())];
    assert_eq!(server.swift("HEAD", &account, &auth, b"").status, 401);

    assert!(
        server
            .command(&["user", "remove", "photos:anna"])
            .status
            .success()
    );
    let gone = server.command(&["user", "remove", "photos:anna"]);
    assert_eq!(
        text(&gone.stderr),
        "martlet: there is no user photos:anna\n"
    );
}

#[test]
fn a_password_is_read_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut child = Command::new(MARTLET)
        .args(["user", "add", "a:b", "--password-stdin", "--data"])
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"open sesame\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "Added a:b (owner).\n");
    server.login("a:b", "open sesame").unwrap();
}

#[test]
fn the_admin_address_wants_a_reseller() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.command(&["user", "add", "a:owner"]);
    assert_eq!(server.admin("GET", "/healthz", &[], b"").status, 200);
    let wrong = basic("main:admin:wrong");
    let wrong = [("Authorization", wrong.as_str())];
    assert_eq!(server.admin("GET", "/metrics", &wrong, b"").status, 401);
    for path in [
        "/metrics",
        "/admin/status",
        "/admin/requests",
        "/admin/users",
    ] {
        let answer = server.admin("GET", path, &[], b"");
        assert_eq!(answer.status, 401, "{path}");
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Basic")
        );
        let right = basic(&format!("main:admin:{}", server.password()));
        let right = [("Authorization", right.as_str())];
        assert_eq!(server.admin("GET", path, &right, b"").status, 200, "{path}");
    }
}

fn basic(credentials: &str) -> String {
    use base64::Engine as _;
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(credentials)
    )
}

#[test]
fn errors_are_json_and_name_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let socket = dir.path().join("admin.sock");
    let ask = |method, path, body| {
        Peer::Socket(&socket)
            .request(method, path, &[], body)
            .unwrap()
    };
    for (method, path, body, status) in [
        ("GET", "/nowhere", "", 404),
        ("DELETE", "/admin/users", "", 405),
        ("PUT", "/admin/users/a/b", "{", 400),
        ("PUT", "/admin/users/a/b", r#"{"role":"king"}"#, 400),
        (
            "PUT",
            "/admin/users/a/b",
            r#"{"role":"owner","colour":1}"#,
            400,
        ),
        (
            "PUT",
            "/admin/users/a/b",
            r#"{"role":"owner","password":""}"#,
            400,
        ),
        ("PUT", "/admin/users/a%2Fb/c", r#"{"role":"owner"}"#, 400),
        ("PUT", "/admin/users/a/b/password", "{}", 404),
        ("DELETE", "/admin/users/a/b", "", 404),
    ] {
        let answer = ask(method, path, body.as_bytes());
        assert_eq!(answer.status, status, "{method} {path} {body}");
        let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(!error["error"].as_str().unwrap().is_empty());
    }
    let answer = ask("DELETE", "/admin/users", b"");
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    let long = vec![b' '; 100_000];
    assert_eq!(ask("PUT", "/admin/users/a/b", &long).status, 413);
    drop(server);
}

/// Every number that a server reports stands in the document, and the other way round.
#[test]
fn the_document_lists_every_metric() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.login("main:admin", &server.password()).unwrap();
    let socket = dir.path().join("admin.sock");
    // Some are reported by the control leader alone.
    let page = (0..1000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let page = Peer::Socket(&socket).request("GET", "/metrics", &[], b"");
        page.ok()
            .filter(|page| text(&page.body).contains("_leads 1"))
    });
    let (page, kind) = (page.unwrap(), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(page.header("content-type"), Some(kind));
    let page = text(&page.body);
    let document = include_str!("../../../docs/ops/metrics.md");
    let found: std::collections::BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let listed: std::collections::BTreeSet<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(found, listed);
}

#[test]
fn a_start_that_cannot_be_says_why_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let taken = server.swift.clone();
    let other = tempfile::tempdir().unwrap();
    let fresh = other.path().join("d");
    let start = |arguments: &[&str]| {
        let output = Command::new(MARTLET)
            .args(["server", "--admin-listen", "off", "--log", "off"])
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let data = dir.path().display().to_string();
    let fresh_text = fresh.display().to_string();
    // Both wait a few seconds first, for a server that is about to end.
    let (in_use, no_address) = std::thread::scope(|scope| {
        let in_use = scope.spawn(|| start(&["--data", &data, "--listen", "127.0.0.1:0"]));
        let no_address = start(&["--data", &fresh_text, "--listen", &taken]);
        (in_use.join().unwrap(), no_address)
    });
    let (code, said) = in_use;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    let (code, said) = no_address;
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&taken), "{said}");
    assert!(
        !fresh.exists(),
        "nothing is made before the address is taken"
    );
    let (code, said) = start(&["--data", &fresh_text, "--log", "loud=very"]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = start(&["--config", "/nonexistent.toml"]);
    assert_eq!(code, Some(2), "{said}");
}

/// Of its address first, then of its directory.
#[test]
fn a_start_waits_for_the_server_before_it_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = Server::start(dir.path());
    for listen in [before.swift.clone(), "127.0.0.1:0".to_owned()] {
        let mut next = Server::spawn(dir.path(), &listen);
        let mut log = BufReader::new(next.stderr.take().unwrap()).lines();
        let waits = log
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("waiting for another process to end"));
        assert!(waits.is_some(), "it ended");
        before.child.kill().unwrap();
        let next = Server::greeted(dir.path(), next);
        next.login("main:admin", &next.password()).unwrap();
        before = next;
    }
}

#[test]
fn an_administrator_may_be_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let url = format!("http://{}", server.admin);
    let ask = |user: &str, password: &str, words: &[&str]| {
        let output = Command::new(MARTLET)
            .args(words)
            .args(["--server", &url])
            .current_dir(elsewhere.path())
            .env("MARTLET_USER", user)
            .env("MARTLET_PASSWORD", password)
            .output()
            .unwrap();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let password = server.password();
    let admin = |words: &[&str]| {
        let (code, said, error) = ask("main:admin", &password, words);
        assert_eq!((code, error.as_str()), (Some(0), ""), "{words:?}");
        said
    };
    let said = admin(&["user", "add", "photos:anna", "--group", "staff"]);
    let (_, anna) = said.split_once("password  ").unwrap();
    let anna = anna.lines().next().unwrap();
    server.login("photos:anna", anna).unwrap();
    let list = admin(&["user", "list"]);
    assert!(list.contains("photos:anna  owner     staff\n"), "{list}");
    let screen = admin(&["status"]);
    assert!(screen.contains("damage    none known\n"), "{screen}");
    let status = admin(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["shards"], 2);

    let refused = |user: &str, password: &str, reason: &str| {
        for words in [&["status"][..], &["user", "remove", "photos:anna"]] {
            let (code, said, error) = ask(user, password, words);
            assert_eq!((code, said.as_str()), (Some(2), ""), "{words:?}");
            assert_eq!(error, format!("martlet: {reason}\n"), "{words:?}");
        }
    };
    refused(
        "main:admin",
        "wrong",
        "this needs credentials: account:user and password",
    );
    refused("photos:anna", anna, "this needs a reseller's credentials");

    admin(&["user", "passwd", "photos:anna"]);
    assert_eq!(server.login("photos:anna", anna), Err(401));
    admin(&["user", "remove", "photos:anna"]);
    assert!(!admin(&["user", "list"]).contains("photos:anna"));
}

#[test]
fn commands_say_when_no_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(MARTLET)
        .args(["status", "--data"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("martlet: no server is running on "),
        "{said}"
    );
}

#[test]
fn the_load_generator_counts_what_the_server_did() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let auth = format!("http://{}/auth/v1.0", server.swift);
    let bench = |words: &[&str]| {
        let output = server.command(&[words, &["--auth", &auth, "--json", "-c", "4"]].concat());
        assert!(
            output.status.success(),
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let put = bench(&[
        "bench", "put", "--count", "30", "--size", "20000", "--dirs", "3",
    ]);
    assert_eq!(
        (&put["answered"], &put["statuses"]["201"]),
        (&30.into(), &30.into())
    );
    let get = bench(&[
        "bench",
        "get",
        "--count",
        "60",
        "--size",
        "20000",
        "--dirs",
        "3",
        "--objects",
        "30",
    ]);
    assert_eq!(
        (&get["bodies_checked"], &get["bodies_wrong"]),
        (&60.into(), &0.into())
    );
    let mix = bench(&[
        "bench",
        "mix",
        "--count",
        "200",
        "--objects",
        "20",
        "--prefix",
        "mix/",
    ]);
    assert_eq!(
        (&mix["answered"], &mix["unexpected"]),
        (&200.into(), &0.into())
    );
    let list = bench(&[
        "bench",
        "list",
        "--count",
        "5",
        "--list-prefix",
        "d0001/",
        "--delimiter",
        "/",
    ]);
    assert_eq!(list["statuses"]["200"], 5);
    let delete = bench(&["bench", "delete", "--count", "30", "--dirs", "3"]);
    assert_eq!(delete["statuses"]["204"], 30);
}
