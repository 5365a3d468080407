//! Comparing all that a server holds with the ledger.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde_json::Value as Json;

use crate::http::Response;
use crate::ledger::{Content, Ledger, Moment, Value, etag};
use crate::promised;
use crate::session::{Session, encode};

/// The metadata that names an object's body, and the one that a POST may change.
pub const CONTENT: &str = "X-Object-Meta-Content";
pub const NOTE: &str = "X-Object-Meta-Note";

/// Reads everything, while no other client writes: each path holds what its history allows, byte for
/// byte; listings show what reads give; counters are the sums of the listings. What was found becomes the
/// ledger's new truth. Gives the number of objects and containers.
pub fn everything(
    session: &mut Session,
    ledger: &Ledger,
    random: &mut fastrand::Rng,
) -> Result<usize> {
    let mut found = BTreeMap::new();
    for path in ledger.paths() {
        let value = if path.contains('/') {
            let answer = session.call("GET", &path, "")?;
            object(&path, &answer)?
        } else {
            let answer = session.call("HEAD", &path, "")?;
            promised!(
                matches!(answer.status, 204 | 404),
                "HEAD of {path} gives {answer:?}"
            );
            if answer.status == 204 {
                Value::Container
            } else {
                Value::Absent
            }
        };
        ledger.saw(&path, value, Moment::END, Moment::END)?;
        found.insert(path, value);
    }

    let mut totals = Totals::default();
    let listed = listing(session, "", random)?;
    for (container, entry) in &listed {
        let held = found.get(container).copied().unwrap_or_default();
        promised!(
            held == Value::Container,
            "{container} is listed, a HEAD gives {held:?}"
        );
        let counted = container_matches(session, container, &found, random)?;
        let told = Totals {
            containers: 0,
            objects: number(entry, "count")?,
            bytes: number(entry, "bytes")?,
        };
        promised!(
            told == counted,
            "{container} is listed as {told:?}, has {counted:?}"
        );
        totals.containers += 1;
        totals.objects += counted.objects;
        totals.bytes += counted.bytes;
    }
    let containers = found
        .iter()
        .filter(|(_, value)| **value == Value::Container);
    for (container, _) in containers {
        promised!(
            listed.contains_key(container),
            "{container} is there and not listed"
        );
    }
    let answer = session.call("HEAD", "", "")?;
    let told = Totals::of(&answer, "X-Account")?;
    promised!(
        told == totals,
        "the account says {told:?}, its containers have {totals:?}"
    );

    let present = found
        .values()
        .filter(|value| **value != Value::Absent)
        .count();
    ledger.settle(&found);
    Ok(present)
}

/// What an answer to a GET says about an object. Its body, size, type and ETag must be those of the
/// content that its metadata names.
pub fn object(path: &str, answer: &Response) -> Result<Value> {
    if answer.status == 404 {
        return Ok(Value::Absent);
    }
    promised!(answer.status == 200, "GET of {path} gives {answer:?}");
    let header = |name: &str| answer.header(name).unwrap_or_default();
    let content = Content::from_str(header(CONTENT));
    promised!(
        content.is_ok(),
        "{path}: metadata is not what was sent: {answer:?}"
    );
    let content = content.expect("just looked");
    let body = content.body();
    promised!(
        answer.body == body,
        "{path}: body is not {content}: {answer:?}"
    );
    let tag = header("Etag").trim_matches('"');
    promised!(tag == etag(&body), "{path}: ETag {tag} of {content}");
    let media_type = header("Content-Type");
    promised!(
        media_type == content.media_type(),
        "{path}: type {media_type} of {content}"
    );
    let note = header(NOTE).parse();
    promised!(
        note.is_ok(),
        "{path}: metadata is not what was sent: {answer:?}"
    );
    Ok(Value::Object {
        content,
        note: note.expect("just looked"),
    })
}

/// Compares a container's listing and its counters with what was read.
fn container_matches(
    session: &mut Session,
    container: &str,
    found: &BTreeMap<String, Value>,
    random: &mut fastrand::Rng,
) -> Result<Totals> {
    let mut totals = Totals::default();
    let listed = listing(session, container, random)?;
    for (name, entry) in &listed {
        let path = format!("{container}/{name}");
        let held = found.get(&path).copied().unwrap_or_default();
        let Value::Object { content, .. } = held else {
            promised!(false, "{path} is listed, a GET gives {held:?}");
            unreachable!("just failed");
        };
        let body_tag = etag(&content.body());
        let shown = |key: &str| entry[key].as_str().unwrap_or_default();
        promised!(
            shown("hash") == body_tag
                && shown("content_type") == content.media_type()
                && number(entry, "bytes")? == content.bytes as u64,
            "{path} is listed as {entry}, a GET gives {content} with {body_tag}"
        );
        totals.objects += 1;
        totals.bytes += content.bytes as u64;
    }
    let held = found.iter().filter(|(path, value)| {
        let of = path.split_once('/').is_some_and(|(of, _)| of == container);
        of && **value != Value::Absent
    });
    for (path, _) in held {
        let name = &path[container.len() + 1..];
        promised!(
            listed.contains_key(name),
            "{path} can be read and is not listed"
        );
    }
    let answer = session.call("HEAD", container, "")?;
    let told = Totals::of(&answer, "X-Container")?;
    promised!(
        told == totals,
        "{container} says {told:?}, its listing has {totals:?}"
    );
    Ok(totals)
}

/// All entries of a listing by name, asked for in pages of a random length.
pub fn listing(
    session: &mut Session,
    container: &str,
    random: &mut fastrand::Rng,
) -> Result<BTreeMap<String, Json>> {
    let mut entries = BTreeMap::new();
    let mut marker = String::new();
    loop {
        let limit = random.usize(1..200);
        let query = format!("format=json&limit={limit}&marker={}", encode(&marker));
        let answer = session.call("GET", container, &query)?;
        promised!(
            answer.status == 200,
            "listing of `{container}` gives {answer:?}"
        );
        let page: Vec<Json> = serde_json::from_slice(&answer.body)?;
        promised!(
            page.len() <= limit,
            "{} entries of {limit} asked for",
            page.len()
        );
        if page.is_empty() {
            return Ok(entries);
        }
        for entry in page {
            let name = entry["name"]
                .as_str()
                .context("an entry without name")?
                .to_owned();
            promised!(name > marker, "`{container}` lists {name} after {marker}");
            marker.clone_from(&name);
            entries.insert(name, entry);
        }
    }
}

fn number(entry: &Json, key: &str) -> Result<u64> {
    entry[key]
        .as_u64()
        .with_context(|| format!("no {key} in {entry}"))
}

/// Counters of a container or an account.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    /// Of an account alone.
    containers: u64,
    objects: u64,
    bytes: u64,
}

impl Totals {
    fn of(answer: &Response, prefix: &str) -> Result<Self> {
        promised!(answer.is_success(), "HEAD gives {answer:?}");
        let count = |what: &str| {
            let value = answer.header(&format!("{prefix}-{what}")).map(str::parse);
            value.transpose().ok().flatten().unwrap_or_default()
        };
        Ok(Self {
            containers: count("Container-Count"),
            objects: count("Object-Count"),
            bytes: count("Bytes-Used"),
        })
    }
}
