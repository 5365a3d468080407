//! What the API answers, word for word: `tests/golden/*.txt`.
//!
//! A file is one story, told to a fresh world: requests, each followed by dashes and the answer, with
//! lines of `====` between them. The first line of a request is `METHOD TARGET [WHO]`, where WHO is one of
//! the world's users; `WAIT SECONDS` lets time pass instead. A second passes before each request. A
//! body that is to be sent in chunks has one on each line.
//! `BLESS=1` writes the answers down; then people look at the difference.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::world::World;

macro_rules! stories {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $name() {
            check(stringify!($name)).await;
        }
    )*};
}

stories! {
    account, auth, container, container_acl, account_acl, conditions, copy, cors, dlo, errors,
    expiry, info, listing_account, listing_objects, metadata, object, quota, ranges, service,
}

async fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    let expected = std::fs::read_to_string(&path).unwrap();
    let world = World::new().await;
    let mut told = Vec::new();
    for exchange in expected.split("\n====\n") {
        told.push(tell(&world, exchange.trim_end_matches('\n')).await);
    }
    let seen = told.join("\n====\n") + "\n";
    if std::env::var_os("BLESS").is_some() {
        #[expect(clippy::disallowed_methods, reason = "a person asked for it")]
        std::fs::write(&path, seen).unwrap();
    } else {
        assert!(
            seen == expected,
            "{name}:\n{}",
            difference(&expected, &seen)
        );
    }
}

/// One request with the answer that came.
async fn tell(world: &World, exchange: &str) -> String {
    let request = exchange.split("\n----\n").next().unwrap();
    let comment_end = request
        .lines()
        .take_while(|line| line.starts_with('#'))
        .count();
    let lines: Vec<_> = request.lines().skip(comment_end).collect();
    let mut first = lines[0].split(' ');
    let (method, target, who) = (first.next().unwrap(), first.next(), first.next());
    if method == "WAIT" {
        world.pass(Duration::from_secs(target.unwrap().parse().unwrap()));
        return request.to_owned();
    }
    world.pass(Duration::from_secs(1));
    let head_end = lines.iter().position(|line| line.is_empty());
    let (head, body) = lines.split_at(head_end.unwrap_or(lines.len()));
    let mut body = body.get(1..).unwrap_or_default().join("\n");
    let mut text = format!("{method} {} HTTP/1.1\r\n", target.unwrap());
    write!(text, "Host: storage.example\r\nConnection: close\r\n").unwrap();
    if let Some(who) = who {
        write!(text, "X-Auth-Token: {}\r\n", world.token(who).await).unwrap();
    }
    for line in &head[1..] {
        let mut line = (*line).to_owned();
        if line.contains("{service}") {
            line = line.replace("{service}", &world.token("service").await);
        }
        write!(text, "{line}\r\n").unwrap();
    }
    if text.contains("Transfer-Encoding") {
        let chunks = body
            .lines()
            .map(|line| format!("{:x}\r\n{line}\r\n", line.len()));
        body = chunks.collect::<String>() + "0\r\n\r\n";
    } else if !body.is_empty() || method == "PUT" {
        write!(text, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    write!(text, "\r\n{body}").unwrap();
    let answer = world.exchange(text.as_bytes()).await;
    format!("{request}\n----\n{}", tidy(&answer))
}

/// An answer without what changes from run to run.
fn tidy(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    let mut headers: Vec<_> = lines.collect();
    let id = |name: &str| {
        let mut found = headers.iter().filter_map(|line| line.strip_prefix(name));
        found
            .next()
            .unwrap_or_else(|| panic!("no {name} in {head}"))
    };
    assert_eq!(id("X-Trans-Id: "), id("X-Openstack-Request-Id: "));
    headers.retain(|line| {
        let name = line.split(':').next().unwrap();
        !["Date", "Connection", "X-Trans-Id", "X-Openstack-Request-Id"].contains(&name)
    });
    headers.sort_unstable();
    let boundary = headers
        .iter()
        .find_map(|line| line.split("boundary=").nth(1));
    let mut text = format!("{status}\n{}\n", headers.join("\n"));
    if !body.is_empty() {
        write!(text, "\n{}\n", body.replace('\r', "")).unwrap();
    }
    if let Some(boundary) = boundary {
        text = text.replace(boundary, "BOUNDARY");
    }
    let token = text.find("AUTH_tk").map(|at| {
        let rest = &text[at..];
        rest[..rest.find(|c: char| c.is_whitespace()).unwrap()].to_owned()
    });
    if let Some(token) = token {
        text = text.replace(&token, "TOKEN");
    }
    text.trim_end().to_owned()
}

fn difference(expected: &str, seen: &str) -> String {
    let (expected, seen): (Vec<_>, Vec<_>) = (expected.lines().collect(), seen.lines().collect());
    let same = expected
        .iter()
        .zip(&seen)
        .take_while(|(one, other)| one == other)
        .count();
    let around = |lines: &[&str]| {
        let from = same.saturating_sub(12);
        lines[from.min(lines.len())..(same + 8).min(lines.len())].join("\n")
    };
    format!(
        "expected:\n{}\n\nseen:\n{}",
        around(&expected),
        around(&seen)
    )
}
