//! The TCP door: the gateway's listener, with its deadlines and bounds.

use bytes::{Bytes, BytesMut};
use gateway::{Body, BodyError, Service};
use http::{Response, StatusCode};

use crate::admin::{Admin, BODY_BYTES_MAX, System, fault};
use crate::authority::Door;

impl<S: System> Service for Admin<S> {
    async fn answer(&self, request: &mut gateway::Request) -> gateway::Response {
        let answer = match read(request).await {
            Ok(Some(body)) => {
                let mut asked = http::Request::new(body);
                *asked.method_mut() = request.method.clone();
                *asked.uri_mut() = request.uri.clone();
                *asked.headers_mut() = request.headers.clone();
                Admin::answer(self, Door::Tcp, asked).await
            }
            Ok(None) => too_long(),
            Err(error) => fault(error.status(), error.to_string()),
        };
        answer.map(Body::from)
    }
}

/// The body; `None` if it is too long.
async fn read(request: &mut gateway::Request) -> Result<Option<Bytes>, BodyError> {
    let mut body = BytesMut::new();
    while let Some(piece) = request.body.next().await {
        let piece = piece?;
        if body.len() + piece.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Some(body.freeze()))
}

pub(crate) fn too_long() -> Response<String> {
    let text = format!("the body is longer than {BODY_BYTES_MAX} bytes");
    fault(StatusCode::PAYLOAD_TOO_LARGE, text)
}
