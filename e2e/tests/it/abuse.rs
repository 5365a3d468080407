//! What no client should send: refused clearly, and nothing of it stays.

#![expect(
    clippy::disallowed_methods,
    reason = "these tests stand outside of the server"
)]

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use e2e::binary::{Build, martlet};
use e2e::raw::{self, After};
use e2e::server::{Launch, Server};
use e2e::session::Session;

/// A server with short deadlines, an account and one container in it.
struct World {
    _work: tempfile::TempDir,
    launch: Launch,
    server: Server,
    session: Session,
}

/// What must be the same after an abuse as before it.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    account: Vec<(String, String)>,
    listing: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let scratch = e2e::scratch().expect("a folder for scratch");
        let work = tempfile::tempdir_in(scratch).expect("a folder of our own");
        let binary = martlet(Build::Plain).expect("it builds");
        let launch = Launch::new(&binary, &work.path().join("data"), &work.path().join("log"))
            .with("--head-timeout", "1s")
            .with("--body-timeout", "1s");
        let server = launch.start().expect("it starts");
        let (user, password) = launch.administrator().expect("it keeps credentials");
        let mut session = Session::login(server.address, &user, &password).expect("a token");
        let made = session.call("PUT", "c", "").expect("an answer");
        assert_eq!(made.status, 201);
        Self {
            _work: work,
            launch,
            server,
            session,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// A head for `target` in the container, which `{}` stands for; a token and the lines are added.
    fn head(&self, request: &str, lines: &str) -> Vec<u8> {
        self.kept(request, &format!("Connection: close\r\n{lines}"))
    }

    /// The same without asking for the connection's end.
    fn kept(&self, request: &str, lines: &str) -> Vec<u8> {
        let template = self.session.request("", "c", "");
        let (_, token) = &template.headers[0];
        let request = request.replace("{}", &template.target);
        format!("{request}\r\nHost: h\r\nX-Auth-Token: {token}\r\n{lines}\r\n").into_bytes()
    }

    fn traces(&mut self) -> Traces {
        let account = self.session.call("HEAD", "", "").expect("an answer");
        let listing = self
            .session
            .call("GET", "c", "format=json")
            .expect("an answer");
        assert_eq!(listing.status, 200, "{listing:?}");
        let counters = account.headers.into_iter().filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            name.ends_with("-count") || name.ends_with("-used")
        });
        Traces {
            account: counters.collect(),
            listing: listing.body,
        }
    }

    /// After everything: the server still answers, holds no connection that is gone, and its
    /// directory is in order.
    fn finish(mut self, before: &Traces, sockets_before: usize) {
        assert_eq!(&self.traces(), before);
        self.session = self.session.again(self.address());
        let deadline = Instant::now() + Duration::from_secs(20);
        while open_sockets(&self.server) > sockets_before {
            assert!(Instant::now() < deadline, "connections stay open");
            thread::sleep(Duration::from_millis(20));
        }
        let status = self.server.stop().expect("it stops");
        assert!(status.success(), "{status}");
        assert_eq!(self.launch.check().expect("the check runs"), None);
    }
}

/// Connections that the server has.
fn open_sockets(server: &Server) -> usize {
    let folder = format!("/proc/{}/fd", server.process_id());
    let entries = fs::read_dir(folder).expect("the server runs").flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// A request by its bytes, and the statuses that may answer it. After the first refusal nothing else
/// on the connection may be answered as if it were a request.
#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn malformed_requests_are_refused_and_leave_no_trace() {
    let mut world = World::new();
    let before = world.traces();
    let sockets_before = open_sockets(&world.server);
    let long = |bytes: usize| "x".repeat(bytes);
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("X-Object-Meta-{n}: v\r\n"))
            .collect::<String>()
    };
    let put = |name: &str, lines: &str, body: &str| {
        let mut bytes = world.head(&format!("PUT {{}}/{name} HTTP/1.1"), lines);
        bytes.extend_from_slice(body.as_bytes());
        bytes
    };
    let get = |target: &str| world.head(&format!("GET {target} HTTP/1.1"), "");
    let length = |bytes: &str| format!("Content-Length: {bytes}\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";

    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        (
            "no HTTP",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "no request line",
            b"\r\n\r\n\r\n: \r\n\r\n".to_vec(),
            &[400],
        ),
        ("no version", world.head("GET {}", ""), &[400]),
        ("version 2", world.head("GET {} HTTP/2.0", ""), &[505]),
        ("version 9", world.head("GET {} HTTP/9.9", ""), &[505]),
        (
            "blank in the name of a header",
            put("o", "X Y: z\r\nContent-Length: 0\r\n", ""),
            &[400],
        ),
        (
            "NUL in a header",
            put("o", "X-Object-Meta-A: a\0b\r\nContent-Length: 0\r\n", ""),
            &[400],
        ),
        (
            "folded header",
            put("o", "X-Object-Meta-A: a\r\n b\r\nContent-Length: 0\r\n", ""),
            &[400],
        ),
        (
            "unknown verb",
            world.head("BREW {}/o HTTP/1.1", "Content-Length: 0\r\n"),
            &[405],
        ),
        (
            "lower-case verb",
            world.head("put {}/o HTTP/1.1", "Content-Length: 0\r\n"),
            &[405],
        ),
        ("NUL in a name", put("a%00b", &length("0"), ""), &[412]),
        (
            "a name that is not UTF-8",
            put("%ff%fe", &length("0"), ""),
            &[412],
        ),
        (
            "an overlong encoding of a slash",
            put("%c0%af", &length("0"), ""),
            &[412],
        ),
        ("a surrogate", put("%ed%a0%80", &length("0"), ""), &[412]),
        ("a lone percent sign", put("%", &length("0"), ""), &[412]),
        ("one hexadecimal digit", put("%4", &length("0"), ""), &[412]),
        (
            "no hexadecimal digits",
            put("50%-off%zz", &length("0"), ""),
            &[412],
        ),
        (
            "a marker that is not percent-encoded",
            get("{}?marker=%zz"),
            &[412],
        ),
        (
            "a copy from what is not percent-encoded",
            put("o", &(length("0") + "X-Copy-From: c/%zz\r\n"), ""),
            &[412],
        ),
        (
            "segments of what is not percent-encoded",
            put("o", &(length("0") + "X-Object-Manifest: c/%zz\r\n"), ""),
            &[400],
        ),
        (
            "a prefix that is not UTF-8",
            get("{}?prefix=%ff"),
            &[400, 412],
        ),
        ("a limit beyond the limit", get("{}?limit=10001"), &[412]),
        (
            "a name of 1,025 bytes",
            put(&long(1025), &length("0"), ""),
            &[400],
        ),
        (
            "a target of 64 KiB",
            put(&long(65_536), &length("0"), ""),
            &[414, 431],
        ),
        (
            "a header of 64 KiB",
            put(
                "o",
                &format!("X-Object-Meta-A: {}\r\n{}", long(65_536), length("0")),
                "",
            ),
            &[400, 431],
        ),
        (
            "a head of a megabyte",
            put(
                "o",
                &(0..128)
                    .map(|n| format!("X-{n}: {}\r\n", long(8000)))
                    .collect::<String>(),
                "",
            ),
            &[400, 431],
        ),
        ("1,000 headers", put("o", &many(1000), ""), &[400, 431]),
        (
            "91 metadata",
            put("o", &(many(91) + &length("0")), ""),
            &[400],
        ),
        (
            "a metadata name of 129 bytes",
            put(
                "o",
                &format!("X-Object-Meta-{}: v\r\n{}", long(129), length("0")),
                "",
            ),
            &[400],
        ),
        (
            "a metadata value of 257 bytes",
            put(
                "o",
                &format!("X-Object-Meta-A: {}\r\n{}", long(257), length("0")),
                "",
            ),
            &[400],
        ),
        ("no length", put("o", "", ""), &[411]),
        ("negative length", put("o", &length("-1"), ""), &[400]),
        (
            "length with a sign",
            put("o", &length("+4"), "body"),
            &[400],
        ),
        (
            "length in hexadecimal",
            put("o", &length("0x4"), "body"),
            &[400],
        ),
        (
            "length beyond 64 bits",
            put("o", &length("99999999999999999999"), "body"),
            &[400, 413],
        ),
        (
            "two lengths",
            put("o", &(length("4") + &length("5")), "bodyx"),
            &[400],
        ),
        (
            "unknown coding",
            put("o", "Transfer-Encoding: gzip\r\n", ""),
            &[400, 411, 501],
        ),
        (
            "chunked and then more",
            put("o", "Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"),
            &[400, 501],
        ),
        (
            "chunk without a size",
            put("o", chunked, "zz\r\nbody\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "chunk of more than 64 bits",
            put("o", chunked, "fffffffffffffffff\r\nbody\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "chunk longer than its size",
            put("o", chunked, "2\r\nbody\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "cut chunk",
            put("o", chunked, "8\r\nbody"),
            &[400, 408, 499],
        ),
        (
            "no last chunk",
            put("o", chunked, "4\r\nbody\r\n"),
            &[400, 408, 499],
        ),
        ("cut body", put("o", &length("8"), "body"), &[400, 408, 499]),
        (
            "wrong ETag",
            put(
                "o",
                &format!("{}ETag: {}\r\n", length("4"), long(32)),
                "body",
            ),
            &[422],
        ),
        (
            "expired already",
            put("o", &(length("4") + "X-Delete-At: 1\r\n"), "body"),
            &[400],
        ),
        (
            "expires never",
            put("o", &(length("4") + "X-Delete-After: soon\r\n"), "body"),
            &[400],
        ),
        (
            "a copy of nothing",
            put("o", &(length("0") + "X-Copy-From: c/none\r\n"), ""),
            &[404],
        ),
        (
            "a copy from nowhere",
            put("o", &(length("0") + "X-Copy-From: none\r\n"), ""),
            &[412],
        ),
        (
            "no container",
            world.head("PUT {}-none/o HTTP/1.1", &length("0")),
            &[404],
        ),
        (
            "no account",
            world.head("PUT /v1 HTTP/1.1", &length("0")),
            &[404, 412],
        ),
        (
            "unknown token",
            b"GET /v1/AUTH_x/c HTTP/1.1\r\nHost: h\r\nX-Auth-Token: AUTH_tk0\r\nConnection: close\r\n\r\n".to_vec(),
            &[401],
        ),
        (
            "unknown path",
            world.head("GET /etc/passwd HTTP/1.1", ""),
            &[400, 404, 412],
        ),
        (
            "a path upwards",
            world.head("GET /v1/../../etc/passwd HTTP/1.1", ""),
            &[400, 401, 403, 404, 412],
        ),
    ];
    let mut complaints = Vec::new();
    for (what, bytes, allowed) in cases {
        // A client that cuts its own request off need not be answered.
        let cut = what.starts_with("cut") || what.starts_with("no last");
        let after = if cut { After::HalfClose } else { After::Wait };
        let reaction = raw::send(world.address(), &bytes, after).expect(what);
        let statuses = reaction.statuses();
        let right = match statuses.first() {
            Some(first) => allowed.contains(first) && statuses.iter().all(|status| *status >= 400),
            None => cut,
        };
        let whole = reaction.answers.iter().all(|answer| {
            let has = |name| answer.header(name).is_some();
            has("x-trans-id") && has("date") && !answer.body.is_empty()
        });
        if !right || !whole || !reaction.closed {
            complaints.push(format!("{what}: {reaction:?}, not {allowed:?}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    world.finish(&before, sockets_before);
}

/// The second of two requests must be read from where the first one ends for every reader, or not at all.
#[test]
fn requests_are_not_smuggled() {
    let mut world = World::new();
    let before = world.traces();
    let sockets_before = open_sockets(&world.server);
    let hidden = String::from_utf8(world.kept("PUT {}/smuggled HTTP/1.1", "Content-Length: 0\r\n"))
        .expect("ASCII");
    let put = |lines: &str, body: &str| {
        let mut bytes = world.kept(
            "PUT {}/none/of/your/business HTTP/1.1",
            &format!("ETag: 0\r\n{lines}"),
        );
        bytes.extend_from_slice(body.as_bytes());
        bytes
    };
    let length = hidden.len() + 5;
    for bytes in [
        put(
            &format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            &format!("0\r\n\r\n{hidden}"),
        ),
        put(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            &format!("0\r\n\r\n{hidden}"),
        ),
        put(
            "Transfer-Encoding : chunked\r\n",
            &format!("0\r\n\r\n{hidden}"),
        ),
        put(
            "Transfer-Encoding: xchunked\r\n",
            &format!("0\r\n\r\n{hidden}"),
        ),
        put("Content-Length: 0\r\nContent-Length: 7\r\n", &hidden),
        put(
            "Transfer-Encoding: chunked\r\n",
            &format!("0;{}\r\n\r\n{hidden}", "x".repeat(100_000)),
        ),
        put(
            "Transfer-Encoding: chunked\r\n",
            &format!("0\n\r\n{hidden}"),
        ),
        put(
            "Transfer-Encoding: chunked\r\n",
            &format!("0\r\nA: b\n\r\n{hidden}"),
        ),
    ] {
        let reaction = raw::send(world.address(), &bytes, After::Wait).expect("a reaction");
        assert!(
            reaction.answers.iter().all(|answer| answer.status >= 400),
            "{reaction:?}"
        );
        assert!(reaction.closed, "{reaction:?}");
    }
    world.finish(&before, sockets_before);
}

#[test]
fn requests_in_one_packet_are_answered_in_turn() {
    let world = World::new();
    let one = world.kept("HEAD {} HTTP/1.1", "");
    let two = world.kept("GET {}/none HTTP/1.1", "Connection: close\r\n");
    let reaction =
        raw::send(world.address(), &[one, two].concat(), After::Wait).expect("a reaction");
    assert_eq!(reaction.statuses(), [204, 404]);
}

/// A byte a pause does not keep a connection, head or body, beyond its deadline.
#[test]
fn dribbling_clients_are_disconnected() {
    let mut world = World::new();
    let before = world.traces();
    let sockets_before = open_sockets(&world.server);
    let pause = Duration::from_millis(100);
    let head = raw::dribble(
        world.address(),
        b"GET /healthcheck HTTP/1.1\r\nX-Slow: ",
        pause,
    );
    let answers = head.expect("the server hangs up");
    assert!(
        answers.iter().all(|answer| answer.status == 408),
        "{answers:?}"
    );

    let mut stalled = world.head("PUT {}/stalled HTTP/1.1", "Content-Length: 1000000\r\n");
    stalled.extend_from_slice(&[b'x'; 100_000]);
    let reaction = raw::send(world.address(), &stalled, After::Wait).expect("a reaction");
    assert!(reaction.closed, "{reaction:?}");
    assert!(
        reaction.statuses().iter().all(|status| *status == 408),
        "{reaction:?}"
    );
    world.finish(&before, sockets_before);
}

/// Many at once that go away in the middle of a body.
#[test]
fn vanished_clients_leave_nothing() {
    let mut world = World::new();
    let before = world.traces();
    let sockets_before = open_sockets(&world.server);
    for number in 0..200 {
        let mut bytes = world.head(
            &format!("PUT {{}}/gone-{number} HTTP/1.1"),
            "Content-Length: 10000000\r\n",
        );
        bytes.extend_from_slice(&vec![b'x'; number * 1000]);
        raw::vanish(world.address(), &bytes).expect("a connection");
    }
    world.finish(&before, sockets_before);
}
