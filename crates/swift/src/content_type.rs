//! The type of an object whose client gave none.

use http::{HeaderMap, header};

use crate::headers::{X_DETECT_CONTENT_TYPE, is_true};
use crate::respond::Refusal;

const UNKNOWN: &str = "application/octet-stream";

/// The type that a PUT gives an object: the client's own words, or a guess by the name.
pub(crate) fn of_put(headers: &HeaderMap, name: &str) -> Result<String, Refusal> {
    match given(headers)? {
        Some(given) if !is_true(headers, &X_DETECT_CONTENT_TYPE) => Ok(given),
        _ => Ok(guess(name).to_owned()),
    }
}

/// The type that a request gives, if it does.
pub(crate) fn given(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers
        .get(header::CONTENT_TYPE)
        .filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    let Ok(text) = std::str::from_utf8(value.as_bytes()) else {
        return Err(Refusal::bad("Content-Type must be valid UTF-8"));
    };
    // Such parameters are the server's own, in Swift's listings.
    let mut parameters = text.split(';').skip(1);
    if parameters.any(|parameter| parameter.trim_start().starts_with("swift_")) {
        return Err(Refusal::bad(
            "Content-Type must have no parameter that starts with swift_",
        ));
    }
    Ok(Some(text.to_owned()))
}

/// The type of an object by the last extension of its name, in any case.
pub fn guess(name: &str) -> &'static str {
    let file = name.rsplit('/').next().unwrap_or(name);
    let extension = match file.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => extension.to_ascii_lowercase(),
        _ => return UNKNOWN,
    };
    let found = TYPES.binary_search_by_key(&extension.as_str(), |(extension, _)| extension);
    found.map_or(UNKNOWN, |at| TYPES[at].1)
}

/// Sorted by extension.
const TYPES: [(&str, &str); 77] = [
    ("7z", "application/x-7z-compressed"),
    ("aac", "audio/aac"),
    ("aif", "audio/x-aiff"),
    ("aiff", "audio/x-aiff"),
    ("au", "audio/basic"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("bin", "application/octet-stream"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("c", "text/plain"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("doc", "application/msword"),
    ("eml", "message/rfc822"),
    ("eps", "application/postscript"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("h", "text/plain"),
    ("hdf", "application/x-hdf"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar"),
    ("jpe", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "application/javascript"),
    ("json", "application/json"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("m4a", "audio/mp4"),
    ("md", "text/markdown"),
    ("mjs", "application/javascript"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("mpg", "video/mpeg"),
    ("nc", "application/x-netcdf"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/opus"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("ps", "application/postscript"),
    ("py", "text/x-python"),
    ("qt", "video/quicktime"),
    ("rtf", "application/rtf"),
    ("sh", "application/x-sh"),
    ("snd", "audio/basic"),
    ("srt", "text/plain"),
    ("svg", "image/svg+xml"),
    ("swf", "application/x-shockwave-flash"),
    ("tar", "application/x-tar"),
    ("tex", "application/x-tex"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("tsv", "text/tab-separated-values"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain"),
    ("vtt", "text/vtt"),
    ("wasm", "application/wasm"),
    ("wav", "audio/x-wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xls", "application/vnd.ms-excel"),
    ("xml", "text/xml"),
    ("zip", "application/zip"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TYPES.is_sorted_by(|one, other| one.0 < other.0));
    }

    #[test]
    fn guesses() {
        for (name, expected) in [
            ("a.wav", "audio/x-wav"),
            ("a/b.TXT", "text/plain"),
            ("a.tar.zip", "application/zip"),
            ("zip", UNKNOWN),
            (".zip", UNKNOWN),
            ("a.zip/b", UNKNOWN),
            ("a.", UNKNOWN),
            ("", UNKNOWN),
        ] {
            assert_eq!(guess(name), expected, "{name}");
        }
    }

    #[test]
    fn a_given_type_is_kept() {
        let put = |headers: &[(&str, &str)]| {
            let pairs = headers.iter().map(|(name, value)| {
                let name: http::HeaderName = name.parse().unwrap();
                (name, value.parse().unwrap())
            });
            of_put(&pairs.collect(), "a.png").ok()
        };
        let text = ("content-type", "Text/Plain;  charset=X");
        assert_eq!(put(&[text]).as_deref(), Some("Text/Plain;  charset=X"));
        assert_eq!(put(&[]).as_deref(), Some("image/png"));
        assert_eq!(put(&[("content-type", "")]).as_deref(), Some("image/png"));
        let detect = ("x-detect-content-type", "true");
        assert_eq!(put(&[text, detect]).as_deref(), Some("image/png"));
        assert_eq!(put(&[("content-type", "a/b; swift_bytes=1")]), None);
    }
}
