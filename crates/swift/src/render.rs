//! Listings as text, JSON and XML.

use std::fmt::Write as _;

use gateway::date;
use namespace::{ContainerEntry, Entry, ObjectEntry};

use crate::accept::Format;
use crate::json;

/// A row of a listing. The three ways to show it.
pub(crate) trait Row {
    const XML_ROOT: &'static str;
    /// Between the elements of the XML listing.
    const XML_SEPARATOR: &'static str;
    fn name(&self) -> &str;
    fn json(&self, out: &mut String);
    fn xml(&self, out: &mut String);
}

/// The listing of what is called `name`.
pub(crate) fn listing<R: Row>(name: &str, entries: &[Entry<R>], format: Format) -> String {
    let mut out = String::with_capacity(64 + entries.len() * 160);
    match format {
        Format::Text => text(&mut out, entries),
        Format::Json => json_list(&mut out, entries),
        Format::Xml | Format::TextXml => xml(&mut out, name, entries),
    }
    out
}

fn text<R: Row>(out: &mut String, entries: &[Entry<R>]) {
    for entry in entries {
        out.push_str(match entry {
            Entry::Row(row) => row.name(),
            Entry::Subdir(name) => name,
        });
        out.push('\n');
    }
}

fn json_list<R: Row>(out: &mut String, entries: &[Entry<R>]) {
    out.push('[');
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        match entry {
            Entry::Row(row) => row.json(out),
            Entry::Subdir(name) => {
                out.push_str("{\"subdir\": ");
                json::string(out, name);
                out.push('}');
            }
        }
    }
    out.push(']');
}

fn xml<R: Row>(out: &mut String, name: &str, entries: &[Entry<R>]) {
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<");
    out.push_str(R::XML_ROOT);
    out.push_str(" name=");
    attribute(out, name);
    if entries.is_empty() {
        out.push_str(" />");
        return;
    }
    out.push('>');
    out.push_str(R::XML_SEPARATOR);
    for entry in entries {
        match entry {
            Entry::Row(row) => row.xml(out),
            Entry::Subdir(name) => {
                out.push_str("<subdir name=");
                attribute(out, name);
                out.push('>');
                element(out, "name", name);
                out.push_str("</subdir>");
            }
        }
        out.push_str(R::XML_SEPARATOR);
    }
    write(out, format_args!("</{}>", R::XML_ROOT));
}

impl Row for ObjectEntry {
    const XML_ROOT: &'static str = "container";
    const XML_SEPARATOR: &'static str = "";

    fn name(&self) -> &str {
        &self.name
    }

    fn json(&self, out: &mut String) {
        out.push_str("{\"bytes\": ");
        write(out, format_args!("{}", self.bytes));
        out.push_str(", \"content_type\": ");
        json::string(out, &self.content_type.replace("; ", ";"));
        out.push_str(", \"hash\": \"");
        hex(out, &self.md5);
        let modified = date::iso(self.modified);
        write(
            out,
            format_args!("\", \"last_modified\": \"{modified}\", \"name\": "),
        );
        json::string(out, &self.name);
        out.push('}');
    }

    fn xml(&self, out: &mut String) {
        out.push_str("<object>");
        element(out, "name", &self.name);
        out.push_str("<hash>");
        hex(out, &self.md5);
        write(out, format_args!("</hash><bytes>{}</bytes>", self.bytes));
        element(out, "content_type", &self.content_type.replace("; ", ";"));
        element(out, "last_modified", &date::iso(self.modified));
        out.push_str("</object>");
    }
}

/// A container of an account's listing, and the name of its policy.
#[derive(Clone, Debug)]
pub(crate) struct ContainerLine {
    pub(crate) entry: ContainerEntry,
    pub(crate) policy: String,
}

impl Row for ContainerLine {
    const XML_ROOT: &'static str = "account";
    const XML_SEPARATOR: &'static str = "\n";

    fn name(&self) -> &str {
        &self.entry.name
    }

    fn json(&self, out: &mut String) {
        let (count, bytes) = (self.entry.objects, self.entry.bytes);
        let modified = date::iso(self.entry.modified);
        write(
            out,
            format_args!("{{\"bytes\": {bytes}, \"count\": {count}, "),
        );
        write(
            out,
            format_args!("\"last_modified\": \"{modified}\", \"name\": "),
        );
        json::string(out, &self.entry.name);
        out.push_str(", \"storage_policy\": ");
        json::string(out, &self.policy);
        out.push('}');
    }

    fn xml(&self, out: &mut String) {
        out.push_str("<container>");
        element(out, "name", &self.entry.name);
        let (count, bytes) = (self.entry.objects, self.entry.bytes);
        write(
            out,
            format_args!("<count>{count}</count><bytes>{bytes}</bytes>"),
        );
        element(out, "last_modified", &date::iso(self.entry.modified));
        element(out, "storage_policy", &self.policy);
        out.push_str("</container>");
    }
}

fn write(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("a string takes all that is written");
}

/// Appends bytes as hex digits.
pub(crate) fn hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
}

fn element(out: &mut String, name: &str, text: &str) {
    write(out, format_args!("<{name}>"));
    escape(out, text);
    write(out, format_args!("</{name}>"));
}

fn attribute(out: &mut String, text: &str) {
    out.push('"');
    escape(out, text);
    out.push('"');
}

/// What XML cannot hold (control characters in a name) becomes U+FFFD: the document stays one that
/// can be read, and the other two formats tell the name exactly.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => write(out, format_args!("&#{};", u32::from(c))),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Timestamp;

    fn object(name: &str) -> Entry<ObjectEntry> {
        Entry::Row(ObjectEntry {
            name: name.to_owned(),
            bytes: 5,
            md5: [0xd4; 16],
            content_type: "text/plain; charset=utf-8".to_owned(),
            modified: Timestamp::from_ticks(179_518_958_965_132),
        })
    }

    fn container(name: &str) -> Entry<ContainerLine> {
        let entry = ContainerEntry {
            name: name.to_owned(),
            objects: 2,
            bytes: 7,
            modified: Timestamp::from_ticks(179_518_958_965_132),
            policy: 1,
        };
        Entry::Row(ContainerLine {
            entry,
            policy: "default".to_owned(),
        })
    }

    #[test]
    fn objects() {
        let entries = [object("a&é"), Entry::Subdir("b/".to_owned())];
        let hash = "d4".repeat(16);
        assert_eq!(listing("c", &entries, Format::Text), "a&é\nb/\n");
        assert_eq!(
            listing("c", &entries, Format::Json),
            format!(
                "[{{\"bytes\": 5, \"content_type\": \"text/plain;charset=utf-8\", \
                 \"hash\": \"{hash}\", \"last_modified\": \"2026-11-20T15:46:29.651320\", \
                 \"name\": \"a&\\u00e9\"}}, {{\"subdir\": \"b/\"}}]"
            )
        );
        assert_eq!(
            listing("<c>", &entries, Format::Xml),
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<container name=\"&lt;c&gt;\">\
                 <object><name>a&amp;é</name><hash>{hash}</hash><bytes>5</bytes>\
                 <content_type>text/plain;charset=utf-8</content_type>\
                 <last_modified>2026-11-20T15:46:29.651320</last_modified></object>\
                 <subdir name=\"b/\"><name>b/</name></subdir></container>"
            )
        );
        let none: [Entry<ObjectEntry>; 0] = [];
        assert_eq!(listing("c", &none, Format::Json), "[]");
        assert!(listing("c", &none, Format::Xml).ends_with("<container name=\"c\" />"));
    }

    #[test]
    fn containers() {
        let entries = [container("c")];
        assert_eq!(
            listing("a", &entries, Format::Json),
            "[{\"bytes\": 7, \"count\": 2, \"last_modified\": \"2026-11-20T15:46:29.651320\", \
             \"name\": \"c\", \"storage_policy\": \"default\"}]"
        );
        assert_eq!(
            listing("a", &entries, Format::Xml),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<account name=\"a\">\n\
             <container><name>c</name><count>2</count><bytes>7</bytes>\
             <last_modified>2026-11-20T15:46:29.651320</last_modified>\
             <storage_policy>default</storage_policy></container>\n</account>"
        );
    }

    #[test]
    fn xml_stays_readable() {
        let mut out = String::new();
        escape(&mut out, "\u{1}\t\u{ffff}x");
        assert_eq!(out, "\u{fffd}&#9;\u{fffd}x");
    }
}
