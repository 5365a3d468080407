//! Answers: the small ones, and those to errors.

use std::borrow::Cow;

use gateway::{Body, BodyError, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// An answer that ends the handling of a request early.
pub(crate) struct Refusal(Box<Response>);

impl Refusal {
    /// A status with the body that explains it in general.
    pub(crate) fn new(status: StatusCode) -> Self {
        let title = reason(status);
        let text = explanation(status);
        let body = format!("<html><h1>{title}</h1><p>{text}</p></html>");
        Self(Box::new(text_answer(status, Cow::Owned(body))))
    }

    /// A status with a sentence that says what was wrong.
    pub(crate) fn because(status: StatusCode, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(text_answer(status, sentence.into())))
    }

    pub(crate) fn bad(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self::because(StatusCode::BAD_REQUEST, sentence)
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    pub(crate) fn into_response(self) -> Response {
        *self.0
    }
}

impl From<Response> for Refusal {
    fn from(response: Response) -> Self {
        Self(Box::new(response))
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::new(error.status())
    }
}

/// The one place that says what each error of the namespace is in Swift's words.
impl From<namespace::Error> for Refusal {
    fn from(error: namespace::Error) -> Self {
        use namespace::Error;
        match error {
            Error::NotFound(_) => Self::new(StatusCode::NOT_FOUND),
            Error::NotEmpty | Error::OtherPolicy => Self::new(StatusCode::CONFLICT),
            Error::Precondition => Self::new(StatusCode::PRECONDITION_FAILED),
            Error::Limit(text) => Self::bad(text),
            Error::QuotaExceeded => {
                Self::because(StatusCode::PAYLOAD_TOO_LARGE, "Upload exceeds quota.")
            }
            Error::OutOfSpace => Self::new(StatusCode::INSUFFICIENT_STORAGE),
            // The body is gone, so only the client can try again.
            Error::Changed => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE).with(header::RETRY_AFTER, 0_u64.into())
            }
            Error::Unavailable { retry_in } => {
                let secs = retry_in.as_secs().max(1);
                Self::new(StatusCode::SERVICE_UNAVAILABLE).with(header::RETRY_AFTER, secs.into())
            }
            Error::Unknown => Self::because(StatusCode::SERVICE_UNAVAILABLE, UNKNOWN)
                .with(header::RETRY_AFTER, 1_u64.into()),
            Error::Damaged(what) => {
                tracing::error!(what, "stored data is damaged");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

/// What tells this 503 from those after which nothing has happened.
const UNKNOWN: &str = "It is not known whether this was done: look, or do it again.";

static HTML: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");

fn text_answer(status: StatusCode, body: Cow<'static, str>) -> Response {
    let mut response = Response::new(match body {
        Cow::Borrowed(text) => Body::from(text),
        Cow::Owned(text) => Body::from(text),
    });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HTML.clone());
    response
}

/// A success without a body.
pub(crate) fn done(status: StatusCode) -> Response {
    let mut response = Response::new(Body::Zero);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HTML.clone());
    response
}

/// A success whose body says no more than its status.
pub(crate) fn explained(status: StatusCode) -> Response {
    Refusal::new(status).into_response()
}

/// The reason phrases that Swift's clients know, some of them older than HTTP's present ones.
fn reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        413 => "Request Entity Too Large",
        416 => "Requested Range Not Satisfiable",
        499 => "Client Disconnect",
        500 => "Internal Error",
        _ => status.canonical_reason().unwrap_or("Error"),
    }
}

fn explanation(status: StatusCode) -> &'static str {
    match status.as_u16() {
        202 => "The request will be carried out.",
        400 => "The server could not make sense of the request.",
        401 => "The server could not tell that you may do this: a valid token is needed.",
        403 => "You may not do this here.",
        404 => "There is nothing of this name.",
        405 => "This method does not work here.",
        406 => "The listing cannot be shown in any of the accepted formats.",
        408 => "The rest of the request did not come in time.",
        409 => "The request does not fit the present state.",
        411 => "A Content-Length is needed.",
        412 => "A condition of the request does not hold.",
        413 => "The request's body is too large.",
        416 => "The body has no such range.",
        422 => "The body that came is not the one that was announced.",
        499 => "The client closed the connection too early.",
        503 => "The server cannot do this at the moment; please try again.",
        507 => "There is no space left to store this.",
        500..=599 => "The server failed to answer the request.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_is_said_to_be_one() {
        let answer = Refusal::from(namespace::Error::Unknown).into_response();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn every_refusal_explains_itself() {
        for status in [
            400, 401, 403, 404, 405, 406, 408, 409, 411, 412, 413, 416, 422, 499, 500, 503, 507,
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_ne!(explanation(status), "", "{status}");
            assert_ne!(reason(status), "Error", "{status}");
        }
    }
}
