//! Listings as text, JSON and XML, and which of them a client gets.

use std::borrow::Cow;
use std::fmt::Write as _;

use namespace::{ContainerEntry, Entry, ObjectEntry};
use serde::Serialize;

use crate::json;

/// The form of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Json,
    /// `application/xml`, or `text/xml` for those who ask for that.
    Xml(&'static str),
}

impl Format {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
            Self::Xml("text/xml") => "text/xml; charset=utf-8",
            Self::Xml(_) => "application/xml; charset=utf-8",
        }
    }
}

/// Why no format suits the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsuited {
    /// 406
    NotAcceptable,
    /// 400
    Unreadable,
}

const XML: Format = Format::Xml("application/xml");

/// In order of preference among what the client likes equally.
const OFFERS: [(&str, &str, Format); 4] = [
    ("text", "plain", Format::Plain),
    ("application", "json", Format::Json),
    ("application", "xml", XML),
    ("text", "xml", Format::Xml("text/xml")),
];

/// Chooses by the `format` parameter, or else by the `Accept` header.
pub(crate) fn negotiate(format: Option<&[u8]>, accept: Option<&str>) -> Result<Format, Unsuited> {
    if let Some(format) = format {
        return Ok(match format.to_ascii_lowercase().as_slice() {
            b"json" => Format::Json,
            b"xml" => XML,
            _ => Format::Plain,
        });
    }
    let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else {
        return Ok(Format::Plain);
    };
    let ranges: Option<Vec<MediaRange<'_>>> = accept
        .split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty())
        .map(MediaRange::parse)
        .collect();
    let ranges = ranges.ok_or(Unsuited::Unreadable)?;
    let mut best = None;
    for (kind, subtype, format) in OFFERS {
        let liked = quality(&ranges, kind, subtype);
        if liked > best.map_or(0, |(liked, _)| liked) {
            best = Some((liked, format));
        }
    }
    best.map(|(_, format)| format)
        .ok_or(Unsuited::NotAcceptable)
}

/// One of the media ranges of an `Accept` header (RFC 9110, section 12.5.1).
struct MediaRange<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let (kind, subtype) = (kind.trim(), subtype.trim());
        if !is_token(kind) || !is_token(subtype) || (kind == "*" && subtype != "*") {
            return None;
        }
        let mut quality = 1000;
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name.trim().eq_ignore_ascii_case("q") {
                quality = thousandths(value.trim())?;
            }
        }
        Some(Self {
            kind,
            subtype,
            quality,
        })
    }

    /// How closely the range names a type; `None` if it does not.
    fn closeness(&self, kind: &str, subtype: &str) -> Option<u8> {
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (range, "*") if range.eq_ignore_ascii_case(kind) => Some(1),
            (range, sub)
                if range.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) =>
            {
                Some(2)
            }
            _ => None,
        }
    }
}

/// How much a type is liked: what the range that names it most closely says.
fn quality(ranges: &[MediaRange<'_>], kind: &str, subtype: &str) -> u16 {
    let closest = ranges
        .iter()
        .filter_map(|range| Some((range.closeness(kind, subtype)?, range.quality)))
        .max();
    closest.map_or(0, |(_, quality)| quality)
}

fn is_token(text: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(ok)
}

/// A quality from `0` to `1` with at most three decimals.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "1" if decimals == 0 => Some(1000),
        "0" | "" => Some(decimals),
        _ => None,
    }
}

/// A line of a listing that can be rendered.
pub(crate) trait Line {
    /// The name of its XML element.
    const ELEMENT: &'static str;

    fn name(&self) -> &str;
    /// Its JSON object.
    fn json(&self) -> impl Serialize;
    /// What stands in its XML element.
    fn xml(&self, into: &mut String);
}

/// Renders the listing of an account or container of that name.
pub(crate) fn render<T: Line>(format: Format, owner: Owner<'_>, lines: &[Entry<T>]) -> String {
    match format {
        Format::Plain => plain(lines),
        Format::Json => as_json(lines),
        Format::Xml(_) => as_xml(owner, lines),
    }
}

/// Whose listing it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'a> {
    Account(&'a str),
    Container(&'a str),
}

fn plain<T: Line>(lines: &[Entry<T>]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(match line {
            Entry::Row(row) => row.name(),
            Entry::Subdir(name) => name,
        });
        text.push('\n');
    }
    text
}

#[derive(Serialize)]
struct Subdir<'a> {
    subdir: &'a str,
}

fn as_json<T: Line>(lines: &[Entry<T>]) -> String {
    let mut text = String::from("[");
    for line in lines {
        if text.len() > 1 {
            text.push_str(", ");
        }
        text.push_str(&match line {
            Entry::Row(row) => json::ascii(&row.json()),
            Entry::Subdir(subdir) => json::ascii(&Subdir { subdir }),
        });
    }
    text.push(']');
    text
}

fn as_xml<T: Line>(owner: Owner<'_>, lines: &[Entry<T>]) -> String {
    let (element, name, separator) = match owner {
        Owner::Account(name) => ("account", name, "\n"),
        Owner::Container(name) => ("container", name, ""),
    };
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    write!(text, "<{element} name=\"{}\">", escape(name)).expect(FITS);
    text.push_str(separator);
    for line in lines {
        match line {
            Entry::Row(row) => {
                write!(text, "<{}>", T::ELEMENT).expect(FITS);
                row.xml(&mut text);
                write!(text, "</{}>", T::ELEMENT).expect(FITS);
            }
            Entry::Subdir(name) => {
                let name = escape(name);
                write!(text, "<subdir name=\"{name}\"><name>{name}</name></subdir>").expect(FITS);
            }
        }
        text.push_str(separator);
    }
    write!(text, "</{element}>").expect(FITS);
    text
}

const FITS: &str = "a string takes everything";

/// Text as it may stand in XML, in an element or in a quoted attribute. Control characters that
/// XML 1.0 has no form for become U+FFFD: a listing with one such name stays readable.
fn escape(text: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, '&' | '<' | '>' | '"' | '\'') || (c < ' ' && c != '\t');
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            c if special(c) => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

fn element(into: &mut String, name: &str, value: &dyn std::fmt::Display) {
    write!(into, "<{name}>{value}</{name}>").expect(FITS);
}

impl Line for ContainerEntry {
    const ELEMENT: &'static str = "container";

    fn name(&self) -> &str {
        &self.name
    }

    fn json(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Json<'a> {
            name: &'a str,
            count: u64,
            bytes: u64,
            last_modified: String,
            storage_policy: &'static str,
        }
        Json {
            name: &self.name,
            count: self.objects,
            bytes: self.bytes,
            last_modified: gateway::date::iso(self.modified),
            storage_policy: crate::config::POLICY,
        }
    }

    fn xml(&self, into: &mut String) {
        element(into, "name", &escape(&self.name));
        element(into, "count", &self.objects);
        element(into, "bytes", &self.bytes);
        element(into, "last_modified", &gateway::date::iso(self.modified));
    }
}

impl Line for ObjectEntry {
    const ELEMENT: &'static str = "object";

    fn name(&self) -> &str {
        &self.name
    }

    fn json(&self) -> impl Serialize {
        #[derive(Serialize)]
        struct Json<'a> {
            bytes: u64,
            hash: String,
            name: &'a str,
            content_type: Cow<'a, str>,
            last_modified: String,
        }
        Json {
            bytes: self.bytes,
            hash: hex(&self.md5),
            name: &self.name,
            content_type: listed_type(&self.content_type),
            last_modified: gateway::date::iso(self.modified),
        }
    }

    fn xml(&self, into: &mut String) {
        element(into, "name", &escape(&self.name));
        element(into, "hash", &hex(&self.md5));
        element(into, "bytes", &self.bytes);
        element(
            into,
            "content_type",
            &escape(&listed_type(&self.content_type)),
        );
        element(into, "last_modified", &gateway::date::iso(self.modified));
    }
}

/// A content type as listings show it: without white space after a `;`.
fn listed_type(content_type: &str) -> Cow<'_, str> {
    if !content_type.contains("; ") {
        return Cow::Borrowed(content_type);
    }
    let parts: Vec<&str> = content_type.split(';').map(str::trim).collect();
    Cow::Owned(parts.join(";"))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect(FITS);
    }
    text
}

#[cfg(test)]
mod tests {
    use base::Timestamp;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_parameter_beats_the_header() {
        assert_eq!(
            negotiate(Some(b"JSON"), Some("text/plain")),
            Ok(Format::Json)
        );
        assert_eq!(negotiate(Some(b"xml"), None), Ok(XML));
        assert_eq!(
            negotiate(Some(b"tar"), Some("application/json")),
            Ok(Format::Plain)
        );
    }

    #[test]
    fn the_header_is_weighed() {
        use Unsuited::{NotAcceptable, Unreadable};
        for (accept, expected) in [
            ("", Ok(Format::Plain)),
            ("*/*", Ok(Format::Plain)),
            ("application/json", Ok(Format::Json)),
            ("Application/JSON; charset=utf-8", Ok(Format::Json)),
            ("text/xml", Ok(Format::Xml("text/xml"))),
            ("text/*", Ok(Format::Plain)),
            ("application/*", Ok(Format::Json)),
            ("text/plain;q=0.5, application/xml;q=0.9", Ok(XML)),
            ("*/*;q=0.9, application/json;q=1.0", Ok(Format::Json)),
            ("text/html, */*;q=0.1, text/plain;q=0", Ok(Format::Json)),
            ("image/png", Err(NotAcceptable)),
            ("text/plain;q=0", Err(NotAcceptable)),
            ("plain", Err(Unreadable)),
            ("text/plain;q=x", Err(Unreadable)),
            ("*/json", Err(Unreadable)),
        ] {
            assert_eq!(negotiate(None, Some(accept)), expected, "{accept}");
        }
        assert_eq!(negotiate(None, None), Ok(Format::Plain));
    }

    fn objects() -> Vec<Entry<ObjectEntry>> {
        vec![
            Entry::Subdir("a/".to_owned()),
            Entry::Row(ObjectEntry {
                name: "b<é>".to_owned(),
                bytes: 3,
                md5: [0xab; 16],
                content_type: "text/plain; charset=utf-8".to_owned(),
                modified: Timestamp::from_secs(0),
            }),
        ]
    }

    #[test]
    fn containers_in_each_form() {
        let owner = Owner::Container("c&d");
        assert_eq!(render(Format::Plain, owner, &objects()), "a/\nb<é>\n");
        let hash = "ab".repeat(16);
        assert_eq!(
            render(Format::Json, owner, &objects()),
            format!(
                "[{{\"subdir\":\"a/\"}}, {{\"bytes\":3,\"hash\":\"{hash}\",\"name\":\"b<\\u00e9>\",\
                 \"content_type\":\"text/plain;charset=utf-8\",\
                 \"last_modified\":\"1970-01-01T00:00:00.000000\"}}]"
            )
        );
        assert_eq!(
            render(XML, owner, &objects()),
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<container name=\"c&amp;d\">\
                 <subdir name=\"a/\"><name>a/</name></subdir>\
                 <object><name>b&lt;é&gt;</name><hash>{hash}</hash><bytes>3</bytes>\
                 <content_type>text/plain;charset=utf-8</content_type>\
                 <last_modified>1970-01-01T00:00:00.000000</last_modified></object></container>"
            )
        );
    }

    #[test]
    fn accounts_in_each_form() {
        let line = Entry::Row(ContainerEntry {
            name: "c".to_owned(),
            objects: 2,
            bytes: 30,
            modified: Timestamp::from_secs(1),
        });
        let lines = [line];
        let owner = Owner::Account("AUTH_a");
        assert_eq!(
            render(Format::Json, owner, &lines),
            "[{\"name\":\"c\",\"count\":2,\"bytes\":30,\
             \"last_modified\":\"1970-01-01T00:00:01.000000\",\"storage_policy\":\"default\"}]"
        );
        assert_eq!(
            render(XML, owner, &lines),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<account name=\"AUTH_a\">\n\
             <container><name>c</name><count>2</count><bytes>30</bytes>\
             <last_modified>1970-01-01T00:00:01.000000</last_modified></container>\n</account>"
        );
        assert_eq!(render::<ContainerEntry>(Format::Json, owner, &[]), "[]");
        assert_eq!(render::<ContainerEntry>(Format::Plain, owner, &[]), "");
    }

    proptest! {
        #[test]
        fn any_header_is_weighed(accept in ".*") {
            let _ = negotiate(None, Some(&accept));
        }

        #[test]
        fn escaped_text_is_readable(text in ".*") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\0']));
        }
    }
}
