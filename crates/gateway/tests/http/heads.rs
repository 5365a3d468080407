//! Heads: what is refused and how, and that every answer is a whole one.

use super::*;

#[tokio::test(start_paused = true)]
async fn every_answer_names_its_transaction() {
    let world = World::start().await;
    let request = "GET / HTTP/1.1\r\nX-Trans-Id-Extra: a b\r\nConnection: close\r\n\r\n";
    let answer = world.exchange(request).await;
    check_status(&answer, 200);
    let of = |name: &str| {
        let mut lines = answer.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        line.to_owned()
    };
    assert!(of("X-Trans-Id: ").ends_with("-a%20b"));
    assert_eq!(of("X-Trans-Id: "), of("X-Openstack-Request-Id: "));
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn malformed_heads_are_refused() {
    let world = World::start().await;
    let long = "x".repeat(9000);
    let many = "A: b\r\n".repeat(300);
    for (request, expected) in [
        ("GARBAGE\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nA\u{0}: b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nA : b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n".to_owned(), 400),
        (
            "PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(),
            400,
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n".to_owned(),
            400,
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            400,
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
            400,
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
            501,
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            400,
        ),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nA: {}", long.repeat(10)), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n", long.repeat(10)), 431),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/0.9\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.2\r\nA: b\r\n\r\n".to_owned(), 505),
        ("GET / HTP/1.1\r\n\r\n".to_owned(), 400),
    ] {
        let shown = &request[..request.len().min(60)];
        let mut client = world.connect().await;
        // The server may have closed before it has read all.
        let _ = client.write_all(request.as_bytes()).await;
        client.shutdown().await.unwrap_or_default();
        let answer = rest(&mut client).await;
        let head = format!("HTTP/1.1 {expected} ");
        assert!(answer.starts_with(&head), "{shown:?}: {answer}");
        check_whole(&answer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_head_behind_a_good_request_is_refused_as_well() {
    let world = World::start().await;
    let good = "GET / HTTP/1.1\r\n\r\n";
    for bad in ["GARBAGE\r\n\r\n", "GET / HTTP/1.1\r\nA : b\r\n\r\n"] {
        let answers = world.exchange(&format!("{good}{good}{bad}")).await;
        let (before, refusal) = answers.split_at(answers.rfind("HTTP/1.1 ").unwrap());
        assert_eq!(before.matches("\r\n\r\nhello").count(), 2, "{answers}");
        check_status(refusal, 400);
        check_whole(refusal);
    }

    let mut client = world.connect().await;
    for _ in 0..2 {
        client.write_all(good.as_bytes()).await.unwrap();
        until(&mut client, "hello").await;
    }
    client.write_all(b"GET / HTTP/2.0\r\n\r\n").await.unwrap();
    let refusal = rest(&mut client).await;
    check_status(&refusal, 505);
    check_whole(&refusal);
}

/// In real time: the answer is far longer than what sockets hold.
#[tokio::test]
async fn a_refusal_comes_behind_the_answer_before_it() {
    let world = World::start().await;
    let mut client = world.connect().await;
    let both = b"GET /big HTTP/1.1\r\n\r\nGARBAGE\r\n\r\n";
    client.write_all(both).await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    let rest = rest(&mut client).await;
    let (body, refusal) = rest.split_at(64 << 20);
    assert!(body.bytes().all(|byte| byte == b'x'));
    check_status(refusal, 400);
    check_whole(refusal);
}

#[tokio::test(start_paused = true)]
async fn refused_heads_are_counted() {
    struct Lines(Vec<String>);
    impl base::metrics::Report for Lines {
        fn counter(&mut self, name: &str, _: &str, labels: base::metrics::Labels<'_>, value: u64) {
            self.0.push(format!("{name} {labels:?} {value}"));
        }
        fn gauge(&mut self, name: &str, _: &str, _: base::metrics::Labels<'_>, value: i64) {
            self.0.push(format!("{name} {value}"));
        }
        fn histogram(
            &mut self,
            _: &str,
            _: &str,
            _: base::metrics::Labels<'_>,
            _: &base::metrics::Histogram,
        ) {
        }
    }
    let world = World::start().await;
    world.exchange("GARBAGE\r\n\r\n").await;
    let mut lines = Lines(Vec::new());
    world.server.report(&mut lines);
    for expected in [
        r#"martlet_requests_total [("method", "OTHER"), ("status", "400")] 1"#,
        "martlet_requests_in_flight 0",
    ] {
        assert!(lines.0.iter().any(|line| line == expected), "{:?}", lines.0);
    }
}

/// RFC 9112 lets a recipient take a bare line feed for the end of a line, and so does nearly all that
/// stands in front of us. In the framing of a body it ends nothing.
#[tokio::test(start_paused = true)]
async fn a_bare_line_feed_ends_a_line_of_a_head_and_nothing_else() {
    let world = World::start().await;
    let answer = world
        .exchange("GET / HTTP/1.1\nConnection: close\n\n")
        .await;
    check_status(&answer, 200);

    for body in [
        "4\nbody\r\n0\r\n\r\n",
        "4;a=b\nbody\r\n0\r\n\r\n",
        "4\r\nbody\n0\r\n\r\n",
        "0\n\r\n",
        "0\r\n\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA: b\r\n\n\r\n\r\n",
        "0\r\nA: b\r\n\r\n",
    ] {
        let head = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let hidden = "GET /smuggled HTTP/1.1\r\n\r\n";
        let answers = world.exchange(&format!("{head}{body}{hidden}")).await;
        assert_eq!(
            answers.matches("HTTP/1.1 ").count(),
            1,
            "{body:?}: {answers}"
        );
        assert!(
            answers.contains("Connection: close\r\n"),
            "{body:?}: {answers}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_a_handler_costs_one_answer() {
    #[derive(Clone, Default)]
    struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            std::io::Write::write(&mut *self.0.lock().unwrap(), bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(lines.with_ansi(false).finish());

    let world = World::start().await;
    let request = "PUT /panic HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let answer = world.exchange(request).await;
    check_status(&answer, 500);
    check_whole(&answer);
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
    assert!(world.server.requests().is_empty());
    let again = world.exchange("GET / HTTP/1.1\r\nConnection: close\r\n\r\n");
    check_status(&again.await, 200);

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let (_, id) = answer.split_once("X-Trans-Id: ").unwrap();
    let id = id.lines().next().unwrap();
    let line = log
        .lines()
        .find(|line| line.contains("a bug broke a request off"));
    assert!(line.is_some_and(|line| line.contains(id)), "{id}: {log}");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_no_utf8_reaches_the_front_door() {
    let world = World::start().await;
    let mut client = world.connect().await;
    let request = b"GET /\xff\xfe HTTP/1.1\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let answer = rest(&mut client).await;
    check_status(&answer, 200);
    assert!(answer.ends_with("hello"), "{answer}");
}
