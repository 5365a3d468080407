//! In which format a listing is shown.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::respond::Refusal;

/// A listing's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
    Xml,
    /// XML under its other name.
    TextXml,
}

/// A format, and whether `Accept` was asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) format: Format,
    pub(crate) by_accept: bool,
}

/// What can be shown; the first wins where a client likes several as much.
const OFFERS: [(&str, Format); 4] = [
    ("text/plain", Format::Text),
    ("application/json", Format::Json),
    ("application/xml", Format::Xml),
    ("text/xml", Format::TextXml),
];

impl Format {
    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
            Self::Xml => "application/xml; charset=utf-8",
            Self::TextXml => "text/xml; charset=utf-8",
        })
    }
}

/// The query's `format` decides; without it, `Accept`.
pub(crate) fn choose(format: Option<&[u8]>, headers: &HeaderMap) -> Result<Chosen, Refusal> {
    if let Some(format) = format {
        let format = match format.to_ascii_lowercase().as_slice() {
            b"json" => Format::Json,
            b"xml" => Format::Xml,
            _ => Format::Text,
        };
        return Ok(Chosen {
            format,
            by_accept: false,
        });
    }
    let format = match headers.get(header::ACCEPT) {
        None => Format::Text,
        Some(accept) => {
            let text = accept.to_str().unwrap_or("?");
            let ranges = parse(text).ok_or_else(|| Refusal::bad("Invalid Accept header"))?;
            best(&ranges).ok_or_else(|| Refusal::new(StatusCode::NOT_ACCEPTABLE))?
        }
    };
    Ok(Chosen {
        format,
        by_accept: true,
    })
}

/// One of the ranges of an `Accept` header.
#[derive(Clone, Copy, Debug, PartialEq)]
struct MediaRange<'a> {
    kind: &'a str,
    subkind: &'a str,
    quality: f32,
}

/// `None` if it is no `Accept` header.
fn parse(text: &str) -> Option<Vec<MediaRange<'_>>> {
    let ranges = text.split(',').map(str::trim).filter(|r| !r.is_empty());
    ranges.map(media_range).collect()
}

fn media_range(text: &str) -> Option<MediaRange<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, subkind) = parts.next()?.split_once('/')?;
    let mut quality = 1.0;
    for parameter in parts.filter(|p| !p.is_empty()) {
        let (name, value) = parameter.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("q") {
            quality = value.trim().parse().ok()?;
        }
    }
    let valid = is_token(kind) && is_token(subkind) && (0.0..=1.0).contains(&quality);
    valid.then_some(MediaRange {
        kind,
        subkind,
        quality,
    })
}

fn is_token(text: &str) -> bool {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_token)
}

/// The offer that the client likes best: each is as good as the most exact range that it fits.
fn best(ranges: &[MediaRange<'_>]) -> Option<Format> {
    if ranges.is_empty() {
        return Some(Format::Text);
    }
    let mut best: Option<(f32, Format)> = None;
    for (name, format) in OFFERS {
        let quality = quality(name, ranges);
        if quality > best.map_or(0.0, |(best, _)| best) {
            best = Some((quality, format));
        }
    }
    best.map(|(_, format)| format)
}

fn quality(offer: &str, ranges: &[MediaRange<'_>]) -> f32 {
    let (kind, subkind) = offer.split_once('/').unwrap_or((offer, ""));
    let exactness = |range: &MediaRange<'_>| {
        let same = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
        match (range.kind, range.subkind) {
            ("*", "*") => Some(0),
            (given, "*") if same(given, kind) => Some(1),
            (given, other) if same(given, kind) && same(other, subkind) => Some(2),
            _ => None,
        }
    };
    let fitting = ranges
        .iter()
        .filter_map(|range| Some((exactness(range)?, range.quality)));
    fitting
        .max_by_key(|(exact, _)| *exact)
        .map_or(0.0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepted(accept: &str) -> Option<Option<Format>> {
        parse(accept).map(|ranges| best(&ranges))
    }

    #[test]
    fn accept_chooses() {
        for (accept, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/*", Format::Text),
            ("application/json", Format::Json),
            ("application/*", Format::Json),
            ("text/xml", Format::TextXml),
            ("Application/XML; q=0.5, text/plain;q=0.1", Format::Xml),
            ("application/xml, application/json", Format::Json),
            (
                "text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8",
                Format::Xml,
            ),
            ("*/*, text/plain;q=0.1", Format::Json),
        ] {
            assert_eq!(accepted(accept), Some(Some(expected)), "{accept}");
        }
        for none in ["text/html", "application/json;q=0", "image/*"] {
            assert_eq!(accepted(none), Some(None), "{none}");
        }
        for bad in ["text", "text/", "/", "a/b;q=x", "a/b;c", "a b/c", "a/b;q=2"] {
            assert_eq!(accepted(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_query_beats_accept() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/xml"));
        let chosen = |format| choose(format, &headers).ok().unwrap();
        assert_eq!(chosen(Some(b"JSON")).format, Format::Json);
        assert_eq!(chosen(Some(b"")).format, Format::Text);
        assert!(!chosen(Some(b"xml")).by_accept);
        assert_eq!(chosen(None).format, Format::Xml);
        assert!(chosen(None).by_accept);
    }

    proptest! {
        #[test]
        fn anything_parses_or_not(accept in ".*") {
            accepted(&accept);
        }
    }
}
