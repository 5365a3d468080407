//! Answers to what never becomes a request: heads that cannot be read or do not come, and connections
//! beyond the bound.
//!
//! No front door sees these, so they are the same for all: plain text, and all that every answer has.

use http::StatusCode;

use crate::server::Core;
use crate::{TransactionId, date};

/// An answer as it is on the wire. The connection ends with it.
pub(crate) struct Refusal {
    pub(crate) transaction: TransactionId,
    pub(crate) bytes: Vec<u8>,
}

impl Refusal {
    pub(crate) fn new(core: &Core, status: StatusCode) -> Self {
        let now = core.env.clock.now();
        let transaction = core.transactions.next(now, None);
        let body = explanation(status);
        let retry = match status {
            StatusCode::SERVICE_UNAVAILABLE => "Retry-After: 1\r\n",
            _ => "",
        };
        let bytes = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=UTF-8\r\n\
             Content-Length: {length}\r\nX-Trans-Id: {transaction}\r\n\
             X-Openstack-Request-Id: {transaction}\r\nDate: {date}\r\n{retry}\
             Connection: close\r\n\r\n{body}",
            length = body.len(),
            date = date::format(now.secs()),
        );
        Self {
            transaction,
            bytes: bytes.into(),
        }
    }
}

fn explanation(status: StatusCode) -> &'static str {
    match status {
        StatusCode::REQUEST_TIMEOUT => "The head of the request did not come in time.\n",
        StatusCode::URI_TOO_LONG => "The target of the request is too long.\n",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "The head of the request is too large.\n",
        StatusCode::SERVICE_UNAVAILABLE => "There are too many connections; please try again.\n",
        StatusCode::HTTP_VERSION_NOT_SUPPORTED => "This server speaks HTTP/1.1.\n",
        _ => "The head of the request is not HTTP.\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::env::Env;

    #[test]
    fn a_refusal_is_whole() {
        let core = Core::new(Default::default(), Env::real());
        for status in [400, 408, 414, 431, 503, 505] {
            let status = StatusCode::from_u16(status).unwrap();
            let refusal = Refusal::new(&core, status);
            let text = String::from_utf8(refusal.bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{head}"
            );
            for line in [
                format!("Content-Length: {}", body.len()),
                format!("X-Trans-Id: {}", refusal.transaction),
                format!("X-Openstack-Request-Id: {}", refusal.transaction),
                "Connection: close".to_owned(),
            ] {
                assert!(head.lines().any(|found| found == line), "{line}: {head}");
            }
            let date = head.lines().find_map(|line| line.strip_prefix("Date: "));
            assert!(date::parse(date.unwrap()).is_some(), "{head}");
            let retries = head.contains("Retry-After: ");
            assert_eq!(retries, status == StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}
